package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

const workflowSQL = `
-- flower: workflow
SELECT task_seq, program, task_priority, parameters::text AS parameters, depends_task_seqs, max_attempts,
       (extract(epoch FROM retry_delay) * 1000)::bigint AS retry_delay_ms,
       (extract(epoch FROM timeout) * 1000)::bigint AS timeout_ms,
       on_lost, coalesce(description, '') AS description
FROM   ms_task_definition
WHERE  task_id = $1
ORDER  BY task_seq`

type taskDefinitionRow struct {
	Seq          int           `db:"task_seq"`
	Program      string        `db:"program"`
	Priority     int           `db:"task_priority"`
	Parameters   string        `db:"parameters"`
	DependsOn    pq.Int64Array `db:"depends_task_seqs"` // nil where the column is NULL
	MaxAttempts  int           `db:"max_attempts"`
	RetryDelayMS int64         `db:"retry_delay_ms"`
	TimeoutMS    *int64        `db:"timeout_ms"`
	OnLost       string        `db:"on_lost"`
	Description  string        `db:"description"`
}

func (r taskDefinitionRow) definition() flow.TaskDefinition {
	t := flow.TaskDefinition{
		Seq:         r.Seq,
		Program:     r.Program,
		Priority:    r.Priority,
		Parameters:  json.RawMessage(r.Parameters),
		Description: r.Description,
		MaxAttempts: r.MaxAttempts,
		RetryDelay:  time.Duration(r.RetryDelayMS) * time.Millisecond,
		OnLost:      flow.OnLost(r.OnLost),
	}
	if r.DependsOn != nil {
		t.DependsOn = make([]int, len(r.DependsOn))
		for i, seq := range r.DependsOn {
			t.DependsOn[i] = int(seq)
		}
	}
	if r.TimeoutMS != nil {
		t.Timeout = time.Duration(*r.TimeoutMS) * time.Millisecond
	}
	return t
}

// Workflow reads a definition as it is now; flow.ErrNotFound if there is none.
func (d *DB) Workflow(ctx context.Context, id flow.WorkflowID) (flow.Workflow, error) {
	var rows []taskDefinitionRow
	if err := d.writer.selectAll(ctx, &rows, workflowSQL, string(id)); err != nil {
		return flow.Workflow{}, translate(fmt.Sprintf("read workflow %q", id), err)
	}
	if len(rows) == 0 {
		return flow.Workflow{}, fmt.Errorf("workflow %q: %w", id, flow.ErrNotFound)
	}
	w := flow.Workflow{ID: id, Tasks: make([]flow.TaskDefinition, len(rows))}
	for i, r := range rows {
		w.Tasks[i] = r.definition()
	}
	return w, nil
}
