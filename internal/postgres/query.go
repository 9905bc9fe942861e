package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

const flowStateSQL = `
-- flower: flow state
SELECT v.task_flow_id, v.task_id, v.status, coalesce(v.registered_by, '') AS registered_by, v.registered_ts,
       coalesce(k.note, '') AS note, k.parameters::text AS parameters, clock_timestamp() AS as_of,
       CASE WHEN v.failed_task IS NULL THEN ''
            ELSE format('UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = %L AND exec_status = 2', v.task_flow_id)
                 || CASE WHEN EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = v.task_flow_id AND t.exec_status = 2 AND t.reason = 'held')
                         THEN ' AND reason IS DISTINCT FROM ''held''' ELSE '' END  -- which would answer what one of them asks
       END AS recover
FROM   v_flow v
JOIN   kr_flow k ON k.task_flow_id = v.task_flow_id
WHERE  v.task_flow_id = $1`

type flowStateRow struct {
	FlowID       string    `db:"task_flow_id"`
	WorkflowID   string    `db:"task_id"`
	Status       string    `db:"status"`
	RegisteredBy string    `db:"registered_by"`
	RegisteredTS time.Time `db:"registered_ts"`
	Note         string    `db:"note"`
	Parameters   *string   `db:"parameters"`
	AsOf         time.Time `db:"as_of"`
	Recover      string    `db:"recover"`
}

const taskStatesSQL = `
-- flower: task states
SELECT task_flow_id, task_exec_seq, task_id, task_seq,
       flower_parents(depends_task_exec_seq, depends_task_exec_seqs) AS parents,
       coalesce(program, '') AS program, coalesce(description, '') AS description, task_priority, parameters::text AS parameters,
       exec_status, coalesce(reason, '') AS reason, coalesce(error, '') AS error, output::text AS output,
       attempt, max_attempts, coalesce(watcher_id::text, '') AS watcher_id,
       registered_ts, started_ts, finished_ts, suspended_ts, run_after,
       exec_status = 0 AND run_after IS NOT NULL AND pause IS NOT NULL AND error IS NULL AS paused, coalesce(pause->>'why', '') AS why
FROM   kr_task_stat
WHERE  task_flow_id = $1
ORDER  BY task_exec_seq`

type taskStateRow struct {
	FlowID       string        `db:"task_flow_id"`
	Seq          int           `db:"task_exec_seq"`
	WorkflowID   string        `db:"task_id"`
	TaskSeq      int           `db:"task_seq"`
	Parents      pq.Int64Array `db:"parents"`
	Program      string        `db:"program"`
	Description  string        `db:"description"`
	Priority     int           `db:"task_priority"`
	Parameters   string        `db:"parameters"`
	Status       int16         `db:"exec_status"`
	Reason       string        `db:"reason"`
	Error        string        `db:"error"`
	Output       *string       `db:"output"`
	Attempt      int           `db:"attempt"`
	MaxAttempts  int           `db:"max_attempts"`
	WatcherID    string        `db:"watcher_id"`
	RegisteredTS time.Time     `db:"registered_ts"`
	StartedTS    *time.Time    `db:"started_ts"`
	FinishedTS   *time.Time    `db:"finished_ts"`
	SuspendedTS  *time.Time    `db:"suspended_ts"`
	RunAfter     *time.Time    `db:"run_after"`
	Paused       bool          `db:"paused"`
	Why          string        `db:"why"`
}

func (r taskStateRow) state() flow.TaskState {
	t := flow.TaskState{
		TaskKey:      flow.TaskKey{Flow: flow.ID(r.FlowID), Seq: r.Seq},
		WorkflowID:   flow.WorkflowID(r.WorkflowID),
		TaskSeq:      r.TaskSeq,
		Parents:      make([]int, len(r.Parents)),
		Program:      r.Program,
		Description:  r.Description,
		Priority:     r.Priority,
		Parameters:   json.RawMessage(r.Parameters),
		Status:       flow.Status(r.Status),
		Reason:       flow.Reason(r.Reason),
		Error:        r.Error,
		Attempt:      r.Attempt,
		MaxAttempts:  r.MaxAttempts,
		WatcherID:    r.WatcherID,
		RegisteredAt: r.RegisteredTS,
		StartedAt:    deref(r.StartedTS),
		FinishedAt:   deref(r.FinishedTS),
		SuspendedAt:  deref(r.SuspendedTS),
		RunAfter:     deref(r.RunAfter),
		Paused:       r.Paused,
		Why:          r.Why,
	}
	for i, p := range r.Parents {
		t.Parents[i] = int(p)
	}
	if r.Output != nil {
		t.Output = json.RawMessage(*r.Output)
	}
	return t
}

// deref returns the zero value for nil.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Flow returns a flow with its tasks, all as of one moment; flow.ErrNotFound if there is
// none.
func (d *DB) Flow(ctx context.Context, id flow.ID) (flow.State, error) {
	var head []flowStateRow
	var rows []taskStateRow
	oneMoment := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	err := runTx(ctx, d.pool, oneMoment, func(tx *sqlx.Tx) error {
		if err := tx.SelectContext(ctx, &head, flowStateSQL, string(id)); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &rows, taskStatesSQL, string(id))
	})
	switch {
	case err != nil:
		return flow.State{}, translate(fmt.Sprintf("read flow %q", id), err)
	case len(head) == 0:
		return flow.State{}, fmt.Errorf("flow %q: %w", id, flow.ErrNotFound)
	}
	h := head[0]
	s := flow.State{
		Flow:         flow.Flow{ID: flow.ID(h.FlowID), WorkflowID: flow.WorkflowID(h.WorkflowID), RegisteredAt: h.RegisteredTS},
		Status:       h.Status,
		RegisteredBy: h.RegisteredBy,
		Note:         h.Note,
		AsOf:         h.AsOf,
		Recover:      h.Recover,
		Tasks:        make([]flow.TaskState, len(rows)),
	}
	if h.Parameters != nil {
		s.Parameters = json.RawMessage(*h.Parameters)
	}
	for i, r := range rows {
		s.Tasks[i] = r.state()
	}
	return s, nil
}
