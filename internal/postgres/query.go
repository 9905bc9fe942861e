package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

const flowStateSQL = `
-- flower: flow state
SELECT v.task_flow_id, v.task_id, v.status, coalesce(v.registered_by, '') AS registered_by, v.registered_ts, v.started_ts, v.ended_ts,
       coalesce(k.workflow_version, 0) AS workflow_version, coalesce(k.note, '') AS note, k.parameters::text AS parameters,
       coalesce(k.parent_flow_id, '') AS parent_flow_id, coalesce(k.parent_exec_seq, 0) AS parent_exec_seq, clock_timestamp() AS as_of,
       CASE WHEN v.failed_task IS NULL THEN ''
            ELSE format('UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = %L AND exec_status = 2', v.task_flow_id)
                 || CASE WHEN EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = v.task_flow_id AND t.exec_status = 2 AND t.reason = 'held')
                         THEN ' AND reason IS DISTINCT FROM ''held''' ELSE '' END  -- which would answer what one of them asks
       END AS recover,
       NOT EXISTS (SELECT FROM ms_task_definition d WHERE d.task_id = v.task_id) AS undefined
FROM   v_flow v
JOIN   kr_flow k ON k.task_flow_id = v.task_flow_id
WHERE  v.task_flow_id = $1`

type flowStateRow struct {
	FlowID       string     `db:"task_flow_id"`
	WorkflowID   string     `db:"task_id"`
	Status       string     `db:"status"`
	RegisteredBy string     `db:"registered_by"`
	RegisteredTS time.Time  `db:"registered_ts"`
	StartedTS    *time.Time `db:"started_ts"`
	EndedTS      *time.Time `db:"ended_ts"`
	Version      int        `db:"workflow_version"`
	Note         string     `db:"note"`
	Parameters   *string    `db:"parameters"`
	ParentFlowID string     `db:"parent_flow_id"`
	ParentSeq    int        `db:"parent_exec_seq"`
	AsOf         time.Time  `db:"as_of"`
	Recover      string     `db:"recover"`
	Undefined    bool       `db:"undefined"`
}

const taskStatesSQL = `
-- flower: task states
SELECT task_flow_id, task_exec_seq, task_id, task_seq,
       flower_parents(depends_task_exec_seq, depends_task_exec_seqs) AS parents,
       coalesce(program, '') AS program, coalesce(description, '') AS description, task_priority, parameters::text AS parameters,
       exec_status, coalesce(reason, '') AS reason, coalesce(error, '') AS error, output::text AS output,
       CASE WHEN exec_status = 2 AND error IS NOT NULL THEN flower_fingerprint(error) ELSE '' END AS fingerprint,
       attempt, max_attempts, coalesce(watcher_id::text, '') AS watcher_id,
       registered_ts, CASE WHEN exec_status = 1 THEN started_ts ELSE coalesce(began_ts, started_ts) END AS started_ts, finished_ts, suspended_ts, run_after,
       exec_status = 0 AND run_after IS NOT NULL AND pause IS NOT NULL AND error IS NULL AS paused, coalesce(pause->>'why', '') AS why,
       (exec_status = 2 AND reason = 'held' AND pause ? 'ask') IS TRUE AS asks
FROM   kr_task_stat
WHERE  task_flow_id = $1 AND ($2 = 0 OR task_exec_seq = $2)
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
	Fingerprint  string        `db:"fingerprint"`
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
	Asks         bool          `db:"asks"`
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
		Output:       rawJSON(r.Output),
		Fingerprint:  r.Fingerprint,
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
		Asks:         r.Asks,
	}
	for i, p := range r.Parents {
		t.Parents[i] = int(p)
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

// waitsSQL says why tasks of a flow wait.
const waitsSQL = `
-- flower: why tasks wait
SELECT task_exec_seq, wait_reason, coalesce(why, '') AS why, waits_for FROM v_why_waiting
WHERE  task_flow_id = $1 AND ($2 = 0 OR task_exec_seq = $2)`

// childrenSQL finds the flows that tasks of a flow have registered, of each the last one.
const childrenSQL = `
-- flower: flows of tasks
SELECT DISTINCT ON (parent_exec_seq) parent_exec_seq AS task_exec_seq, task_flow_id FROM kr_flow
WHERE  parent_flow_id = $1 AND ($2 = 0 OR parent_exec_seq = $2)
ORDER  BY parent_exec_seq, registered_ts DESC, task_flow_id DESC`

// positionsSQL finds tasks of a flow among the next of the queue; the whole may be long.
const positionsSQL = `
-- flower: places in the queue
SELECT task_exec_seq, position
FROM   (SELECT task_flow_id, task_exec_seq, row_number() OVER (ORDER BY ` + order + `) AS position
        FROM (SELECT ` + order + ` FROM kr_ready ORDER BY ` + order + ` LIMIT $2) r) p
WHERE  task_flow_id = $1`

const failedAttemptsSQL = `
-- flower: failed attempts
SELECT task_exec_seq, count(*) AS failed FROM kr_task_attempt
WHERE  task_flow_id = $1 AND ($2 = 0 OR task_exec_seq = $2)
       AND exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')
GROUP  BY task_exec_seq`

// Flow returns a flow with its tasks, all as of one moment; flow.ErrNotFound if there is
// none.
func (d *DB) Flow(ctx context.Context, id flow.ID) (flow.State, error) {
	s, err := d.flowState(ctx, id, 0)
	if err == nil {
		s.CountBlocked()
	}
	return s, err
}

// Task returns a task, and its flow without the others. flow.ErrNotFound: there is no such
// flow; flow.ErrNoTask: the flow has no such task.
func (d *DB) Task(ctx context.Context, key flow.TaskKey) (flow.State, error) {
	s, err := d.flowState(ctx, key.Flow, key.Seq)
	if err == nil && len(s.Tasks) == 0 {
		err = fmt.Errorf("task %s: %w", key, flow.ErrNoTask)
	}
	return s, err
}

// blocksSQL counts the tasks that wait for one, as v_failed does.
const blocksSQL = `
-- flower: how many tasks it blocks
WITH RECURSIVE behind AS (
    SELECT unnest(dependents) AS seq FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2
    UNION
    SELECT unnest(t.dependents) FROM behind b
    JOIN   kr_task_stat t ON t.task_flow_id = $1 AND t.task_exec_seq = b.seq
)
SELECT count(*) FROM behind b JOIN kr_task_stat t ON t.task_flow_id = $1 AND t.task_exec_seq = b.seq
WHERE  t.exec_status = 0`

// flowState reads a flow with one of its tasks, or with all.
func (d *DB) flowState(ctx context.Context, id flow.ID, seq int) (flow.State, error) {
	var head []flowStateRow
	var s flow.State
	err := d.reading(ctx, func(tx *sqlx.Tx) (err error) {
		if err = tx.SelectContext(ctx, &head, flowStateSQL, string(id)); err != nil || len(head) == 0 {
			return err
		}
		s = head[0].state()
		s.Tasks, err = taskStates(ctx, tx, flow.TaskKey{Flow: id, Seq: seq})
		if err == nil && seq > 0 && len(s.Tasks) > 0 && s.Tasks[0].Status == flow.Suspended {
			err = tx.GetContext(ctx, &s.Tasks[0].Blocks, blocksSQL, string(id), seq)
		}
		return err
	})
	switch {
	case err != nil:
		return flow.State{}, translate(fmt.Sprintf("read flow %q", id), err)
	case len(head) == 0:
		return flow.State{}, fmt.Errorf("flow %q: %w", id, flow.ErrNotFound)
	}
	return s, nil
}

func (h flowStateRow) state() flow.State {
	return flow.State{
		Flow: flow.Flow{
			ID: flow.ID(h.FlowID), WorkflowID: flow.WorkflowID(h.WorkflowID), Version: h.Version, RegisteredAt: h.RegisteredTS, Parameters: rawJSON(h.Parameters),
		},
		Status:       h.Status,
		StartedAt:    deref(h.StartedTS),
		EndedAt:      deref(h.EndedTS),
		RegisteredBy: h.RegisteredBy,
		Note:         h.Note,
		Parent:       flow.TaskKey{Flow: flow.ID(h.ParentFlowID), Seq: h.ParentSeq},
		AsOf:         h.AsOf,
		Recover:      h.Recover,
		Undefined:    h.Undefined,
	}
}

// taskStates reads the tasks of a flow; of one where the key names one.
func taskStates(ctx context.Context, tx *sqlx.Tx, key flow.TaskKey) ([]flow.TaskState, error) {
	var rows []taskStateRow
	if err := tx.SelectContext(ctx, &rows, taskStatesSQL, string(key.Flow), key.Seq); err != nil {
		return nil, err
	}
	tasks := make([]flow.TaskState, len(rows))
	bySeq := make(map[int]*flow.TaskState, len(rows))
	waiting, attempted := false, false
	for i, r := range rows {
		tasks[i] = r.state()
		bySeq[r.Seq] = &tasks[i]
		waiting = waiting || tasks[i].Status == flow.Waiting
		attempted = attempted || tasks[i].Attempt > 0
	}
	if waiting {
		if err := addWaits(ctx, tx, key, bySeq); err != nil {
			return nil, err
		}
	}
	if attempted {
		if err := addChildren(ctx, tx, key, bySeq); err != nil {
			return nil, err
		}
		var failed []struct {
			Seq    int `db:"task_exec_seq"`
			Failed int `db:"failed"`
		}
		if err := tx.SelectContext(ctx, &failed, failedAttemptsSQL, string(key.Flow), key.Seq); err != nil {
			return nil, err
		}
		for _, f := range failed {
			if t := bySeq[f.Seq]; t != nil {
				t.Failed = f.Failed
			}
		}
	}
	return tasks, nil
}

// addChildren says which flows tasks have registered.
func addChildren(ctx context.Context, tx *sqlx.Tx, key flow.TaskKey, bySeq map[int]*flow.TaskState) error {
	var children []keyRow
	if err := tx.SelectContext(ctx, &children, childrenSQL, string(key.Flow), key.Seq); err != nil {
		return err
	}
	for _, c := range children {
		if t := bySeq[c.Seq]; t != nil {
			t.Child = flow.ID(c.FlowID)
		}
	}
	return nil
}

// addWaits says of the tasks that wait why they do.
func addWaits(ctx context.Context, tx *sqlx.Tx, key flow.TaskKey, bySeq map[int]*flow.TaskState) error {
	var waits []struct {
		Seq    int           `db:"task_exec_seq"`
		Reason string        `db:"wait_reason"`
		Why    string        `db:"why"`
		For    pq.Int64Array `db:"waits_for"`
	}
	if err := tx.SelectContext(ctx, &waits, waitsSQL, string(key.Flow), key.Seq); err != nil {
		return err
	}
	queued := false
	for _, w := range waits {
		t := bySeq[w.Seq]
		t.Wait = flow.Wait{Reason: w.Reason, Why: w.Why}
		for _, seq := range w.For {
			t.Wait.For = append(t.Wait.For, int(seq))
		}
		queued = queued || len(w.For) == 0
	}
	if !queued {
		return nil
	}
	var places []struct {
		Seq      int `db:"task_exec_seq"`
		Position int `db:"position"`
	}
	if err := tx.SelectContext(ctx, &places, positionsSQL, string(key.Flow), flow.MaxCount); err != nil {
		return err
	}
	for _, p := range places {
		if t := bySeq[p.Seq]; t != nil {
			t.Wait.Position = p.Position
		}
	}
	return nil
}
