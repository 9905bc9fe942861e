package postgres

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// workflowsSQL reads the version in the same snapshot, where it is that of these rows.
const workflowsSQL = `
-- flower: workflows
SELECT d.task_id, coalesce(v.version, 0) AS version, coalesce(v.digest, '') AS digest, task_seq, program, task_priority, parameters::text AS parameters, depends_task_seqs, max_attempts,
       (extract(epoch FROM retry_delay) * 1000)::bigint AS retry_delay_ms,
       (extract(epoch FROM timeout) * 1000)::bigint AS timeout_ms,
       on_lost, coalesce(run_if, '') AS run_if, coalesce(description, '') AS description
FROM   unnest($1::text[]) AS given(id)
LEFT   JOIN LATERAL (SELECT version, digest FROM ms_workflow_version WHERE task_id = given.id ORDER BY version DESC LIMIT 1) v ON true
JOIN   ms_task_definition d ON d.task_id = given.id
ORDER  BY d.task_id, task_seq`

type taskDefinitionRow struct {
	WorkflowID   string        `db:"task_id"`
	Version      int           `db:"version"`
	Digest       string        `db:"digest"`
	Seq          int           `db:"task_seq"`
	Program      string        `db:"program"`
	Priority     int           `db:"task_priority"`
	Parameters   string        `db:"parameters"`
	DependsOn    pq.Int64Array `db:"depends_task_seqs"` // nil where the column is NULL
	MaxAttempts  int           `db:"max_attempts"`
	RetryDelayMS int64         `db:"retry_delay_ms"`
	TimeoutMS    *int64        `db:"timeout_ms"`
	OnLost       string        `db:"on_lost"`
	RunIf        string        `db:"run_if"`
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
		RunIf:       r.RunIf,
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

func workflowsOf(rows []taskDefinitionRow) map[flow.WorkflowID]flow.Workflow {
	found := make(map[flow.WorkflowID]flow.Workflow)
	for _, r := range rows {
		w := found[flow.WorkflowID(r.WorkflowID)]
		w.ID, w.Version = flow.WorkflowID(r.WorkflowID), r.Version
		w.Tasks = append(w.Tasks, r.definition())
		found[w.ID] = w
	}
	return found
}

func notFound(id flow.WorkflowID) error { return fmt.Errorf("workflow %q: %w", id, flow.ErrNotFound) }
