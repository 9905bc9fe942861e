package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// A rerun with other parameters is a request like that for a new flow: what is not for a
// request to say is refused, and what a program could not use. (Whoever may write the
// table may say anything.)

const ownSQL = `
-- flower: parameters of a flow
SELECT task_exec_seq, task_id, task_seq, coalesce(program, '') AS program, parameters::text AS parameters, coalesce(run_if, '') AS run_if,
       flower_parents(depends_task_exec_seq, depends_task_exec_seqs) AS parents
FROM   kr_task_stat WHERE task_flow_id = $1
ORDER  BY task_exec_seq`

type ownRow struct {
	Seq        int           `db:"task_exec_seq"`
	WorkflowID string        `db:"task_id"`
	TaskSeq    int           `db:"task_seq"`
	Program    string        `db:"program"`
	Parameters string        `db:"parameters"`
	RunIf      string        `db:"run_if"`
	Parents    pq.Int64Array `db:"parents"`
}

// noProgram is that of tasks that are not meant: no set of programs has it, and nothing of
// them is judged but their place in the graph.
const noProgram = "\x00"

// checkGiven refuses parameters that tasks of a flow cannot be given.
func (d *DB) checkGiven(ctx context.Context, q sqlx.QueryerContext, a flow.Action, o orders) error {
	given := map[string]json.RawMessage{}
	if err := json.Unmarshal(a.Parameters, &given); err != nil {
		return &flow.InvalidError{Subject: "parameters", Problem: "they must be a JSON object"}
	}
	rows, err := o.plan(ctx, q, false)
	if err != nil {
		return err
	}
	meant := make(map[int]bool)
	for _, r := range rows {
		meant[r.Seq] = r.Effect == "change"
	}
	var own []ownRow
	if err := sqlx.SelectContext(ctx, q, &own, ownSQL, string(a.Flow)); err != nil {
		return err
	}
	w, err := asWorkflow(own, meant, given)
	if err != nil {
		return err
	}
	return d.check(w, a.Parameters)
}

// asWorkflow makes a definition of the tasks of a flow. Values that are about to be
// replaced are left out: they may be what was wrong.
func asWorkflow(rows []ownRow, meant map[int]bool, given map[string]json.RawMessage) (flow.Workflow, error) {
	w := flow.Workflow{Merged: true}
	taskSeq := make(map[int]int, len(rows))
	for _, r := range rows {
		taskSeq[r.Seq] = r.TaskSeq
	}
	for _, r := range rows {
		w.ID = flow.WorkflowID(r.WorkflowID)
		t := flow.TaskDefinition{Seq: r.TaskSeq, Program: noProgram, DependsOn: []int{}}
		for _, p := range r.Parents {
			if seq, there := taskSeq[int(p)]; there {
				t.DependsOn = append(t.DependsOn, seq)
			}
		}
		if meant[r.Seq] && r.Program != "" {
			own := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(r.Parameters), &own); err != nil {
				return w, fmt.Errorf("read the parameters of task %d: %w", r.Seq, err)
			}
			for name := range given {
				delete(own, name)
			}
			left, err := json.Marshal(own)
			if err != nil {
				return w, fmt.Errorf("write the parameters of task %d: %w", r.Seq, err)
			}
			t.Program, t.Parameters, t.RunIf = r.Program, left, r.RunIf
		}
		w.Tasks = append(w.Tasks, t)
	}
	return w, nil
}
