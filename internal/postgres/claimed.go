package postgres

import (
	"database/sql"
	"encoding/json"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// taskColumns is what a watcher must know of a task that it claimed. Each column costs a
// tenth of a microsecond on its way through the statement and to the watcher, so that what
// most tasks have not is one column, rare. date_part, whose floating point keeps
// microseconds until the year 2255: extract is numeric, and takes a microsecond itself.
const taskColumns = `t.task_flow_id, t.task_exec_seq, t.task_id, t.program, t.parameters::text AS parameters,
       t.attempt, t.attempt_base, (date_part('epoch', t.started_ts) * 1000000)::bigint AS started_us,
       CASE WHEN t.on_lost <> 'rerun' OR t.run_if IS NOT NULL OR t.gate > 0 OR t.pause IS NOT NULL OR t.timeout IS NOT NULL
            THEN jsonb_build_object('on_lost', t.on_lost, 'run_if', t.run_if, 'limited', t.gate > 0, 'pause', t.pause::text,
                                    'timeout_ms', (date_part('epoch', t.timeout) * 1000)::bigint)::text END AS rare`

type taskRow struct {
	FlowID      string  `db:"task_flow_id"`
	Seq         int64   `db:"task_exec_seq"` // database/sql hands on what is int64, and goes by way of a text to int
	WorkflowID  string  `db:"task_id"`
	Program     string  `db:"program"`
	Parameters  string  `db:"parameters"`
	Attempt     int64   `db:"attempt"`
	AttemptBase int64   `db:"attempt_base"`
	ClaimID     string  `db:"claim_id"` // not in the answer of a claim: whoever claimed knows it
	StartedUS   int64   `db:"started_us"`
	Rare        *string `db:"rare"`
}

// rare is what most tasks have not. The zero values are what tasks without it have, but for
// OnLost.
type rare struct {
	OnLost    flow.OnLost `json:"on_lost"`
	RunIf     string      `json:"run_if"`
	Limited   bool        `json:"limited"`
	Pause     *string     `json:"pause"` // a text: whatever somebody has made of it, the rest can be read
	TimeoutMS int64       `json:"timeout_ms"`
}

func (r taskRow) key() flow.TaskKey { return flow.TaskKey{Flow: flow.ID(r.FlowID), Seq: int(r.Seq)} }

func (r taskRow) task() (flow.Task, error) {
	t := flow.Task{
		TaskKey:     r.key(),
		WorkflowID:  flow.WorkflowID(r.WorkflowID),
		Program:     r.Program,
		Parameters:  json.RawMessage(r.Parameters),
		Attempt:     int(r.Attempt),
		AttemptBase: int(r.AttemptBase),
		ClaimID:     r.ClaimID,
		OnLost:      flow.OnLostRerun,
		StartedAt:   time.UnixMicro(r.StartedUS).UTC(),
	}
	if r.Rare == nil {
		return t, nil
	}
	var more rare
	if err := json.Unmarshal([]byte(*r.Rare), &more); err != nil {
		return t, err
	}
	t.OnLost, t.RunIf, t.Limited, t.Pause = more.OnLost, more.RunIf, more.Limited, readPause(more.Pause)
	t.Timeout = time.Duration(more.TimeoutMS) * time.Millisecond
	return t, nil
}

// advanceAnswer is what advanceText answers, read by the order of its columns.
type advanceAnswer struct {
	claim   string
	claimed []flow.Task
	others  []advanceRow
}

// advanceRow is one row of it that is no task; kind says which columns count.
type advanceRow struct {
	kind string
	taskRow
}

// place is that of a row which is a place in the queue.
func (r advanceRow) place() place {
	return readPlace(int(r.Attempt), r.Parameters, r.FlowID, int(r.Seq))
}

func (a *advanceAnswer) scan(rows *sql.Rows) error {
	r := advanceRow{taskRow: taskRow{ClaimID: a.claim}}
	err := rows.Scan(&r.kind, &r.FlowID, &r.Seq, &r.WorkflowID, &r.Program, &r.Parameters, &r.Attempt, &r.AttemptBase, &r.StartedUS, &r.Rare)
	if err != nil || r.kind != "claimed" {
		a.others = append(a.others, r)
		return err
	}
	t, err := r.task()
	a.claimed = append(a.claimed, t)
	return err
}
