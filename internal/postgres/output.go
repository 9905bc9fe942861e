package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// outputsSQL reads what tasks that $1, $2 comes after have returned. A task that runs
// beside it is none of those, or what a program sees would depend on who was faster. They
// are asked for by task_seq, the number that whoever wrote the workflow knows.
const outputsSQL = `
-- flower: outputs
WITH RECURSIVE before AS (
    SELECT unnest(flower_parents(depends_task_exec_seq, depends_task_exec_seqs)) AS seq
    FROM   kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2
    UNION
    SELECT unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))
    FROM   before b JOIN kr_task_stat t ON t.task_flow_id = $1 AND t.task_exec_seq = b.seq
)
SELECT t.task_seq, t.output::text AS output
FROM   before b
JOIN   kr_task_stat t    ON t.task_flow_id = $1 AND t.task_exec_seq = b.seq
JOIN   kr_task_stat self ON self.task_flow_id = $1 AND self.task_exec_seq = $2 AND self.task_id = t.task_id
WHERE  t.task_seq = ANY ($3::int[]) AND t.exec_status = 3 AND t.output IS NOT NULL
ORDER  BY t.task_exec_seq`

// registeredSQL tells how a task's flow was registered; of rows put in by hand what is known.
const registeredSQL = `
-- flower: registered
SELECT t.task_flow_id, t.task_id, coalesce(k.registered_ts, t.registered_ts) AS registered_ts, k.parameters::text AS parameters
FROM   kr_task_stat t LEFT JOIN kr_flow k ON k.task_flow_id = t.task_flow_id
WHERE  t.task_flow_id = $1 AND t.task_exec_seq = $2`

// Registered returns how a task's flow was registered: when, and with which parameters.
// flow.ErrNotFound: there is no such task any more.
func (d *DB) Registered(ctx context.Context, of flow.TaskKey) (flow.Flow, error) {
	var rows []struct {
		FlowID       string    `db:"task_flow_id"`
		WorkflowID   string    `db:"task_id"`
		RegisteredTS time.Time `db:"registered_ts"`
		Parameters   *string   `db:"parameters"`
	}
	err := d.pool.SelectContext(ctx, &rows, registeredSQL, string(of.Flow), of.Seq)
	switch {
	case err != nil:
		return flow.Flow{}, translate(fmt.Sprintf("read how the flow of task %s was registered", of), err)
	case len(rows) == 0:
		return flow.Flow{}, fmt.Errorf("task %s: %w", of, flow.ErrNotFound)
	}
	r := rows[0]
	return flow.Flow{
		ID: flow.ID(r.FlowID), WorkflowID: flow.WorkflowID(r.WorkflowID), RegisteredAt: r.RegisteredTS, Parameters: rawJSON(r.Parameters),
	}, nil
}

// Outputs returns what tasks that a task comes after, directly or not, have returned, by
// the task_seq of their definition. Those that have no output are missing.
func (d *DB) Outputs(ctx context.Context, of flow.TaskKey, seqs []int) (map[int]json.RawMessage, error) {
	wanted := make([]int32, len(seqs))
	for i, s := range seqs {
		wanted[i] = int32(s)
	}
	var rows []struct {
		Seq    int    `db:"task_seq"`
		Output string `db:"output"`
	}
	err := d.pool.SelectContext(ctx, &rows, outputsSQL, string(of.Flow), of.Seq, wanted)
	if err != nil {
		return nil, translate(fmt.Sprintf("read outputs for task %s", of), err)
	}
	outputs := make(map[int]json.RawMessage, len(rows))
	for _, r := range rows {
		outputs[r.Seq] = json.RawMessage(r.Output)
	}
	return outputs, nil
}
