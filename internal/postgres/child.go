package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxDepth bounds flows that were registered by a task of a flow that was registered by a
// task: a workflow that registers itself must come to an end.
const maxDepth = 10

// childSQL finds the flow that a task has registered already, for the same workflow and
// with the same parameters: whatever became of it. Not one with which the task had
// finished before somebody set it back: that is to be done once more.
const childSQL = `
-- flower: child of a task
WITH RECURSIVE above AS (
    SELECT task_id, parent_flow_id, 1 AS depth FROM kr_flow WHERE task_flow_id = $1
    UNION ALL
    SELECT k.task_id, k.parent_flow_id, a.depth + 1
    FROM   above a JOIN kr_flow k ON k.task_flow_id = a.parent_flow_id
    WHERE  a.depth < 100
)
SELECT coalesce((SELECT max(depth) FROM above), 1) AS depth,
       coalesce((SELECT string_agg(task_id, ', ' ORDER BY depth DESC) FROM above), '') AS path,
       coalesce((SELECT c.task_flow_id FROM kr_flow c
                 WHERE  c.parent_flow_id = $1 AND c.parent_exec_seq = $2 AND c.task_id = $3 AND c.parameters IS NOT DISTINCT FROM $4::jsonb
                        AND NOT EXISTS (SELECT FROM kr_task_attempt a WHERE a.task_flow_id = $1 AND a.task_exec_seq = $2
                                        AND a.exec_status = 3 AND a.output->>'flow' = c.task_flow_id)
                 ORDER  BY c.registered_ts DESC, c.task_flow_id DESC
                 LIMIT  1), '') AS child`

type childRow struct {
	Depth int    `db:"depth"`
	Path  string `db:"path"` // the workflows, the outermost first
	Child string `db:"child"`
}

// rerunSQL reruns a flow on behalf of a task that runs. As in registerSQL, whoever cancels the
// task has done so before, or waits, and cancels the flow as well.
const rerunSQL = `
-- flower: rerun a child
WITH parent AS MATERIALIZED (
    SELECT FROM kr_task_stat WHERE task_flow_id = $3 AND task_exec_seq = $4 AND exec_status = 1 AND claim_id = $5::uuid FOR SHARE
)
SELECT flower_rerun($1, $2) FROM parent`

// StartChild registers a flow on behalf of a task and returns its id; the task's attempts
// after a crash, a rescue or a failure find the same one. So does the first attempt after
// a person has reset the task, and runs again what failed in it: the whole goes on from
// the failure. It does neither for a task that was stopped or taken over. Errors are those of
// Register.
func (d *DB) StartChild(ctx context.Context, of flow.Task, id flow.WorkflowID, parameters json.RawMessage) (flow.ID, error) {
	var rows []childRow
	if err := d.pool.SelectContext(ctx, &rows, childSQL, string(of.Flow), of.Seq, string(id), jsonText(parameters)); err != nil {
		return "", translate(fmt.Sprintf("look for a flow that task %s has registered", of.TaskKey), err)
	}
	r := rows[0]
	if r.Child != "" {
		return flow.ID(r.Child), d.rerunChild(ctx, of, r.Child)
	}
	if r.Depth >= maxDepth {
		return "", &flow.InvalidError{
			Subject: fmt.Sprintf("workflow %q", id),
			Problem: fmt.Sprintf("it would run in %d others, one in the other, and %d are allowed: %s", r.Depth, maxDepth-1, r.Path),
		}
	}
	made, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make the id of a flow: %w", err)
	}
	f, err := d.Register(ctx, flow.Registration{
		FlowID: flow.ID(made.String()), WorkflowID: id, Parameters: parameters, Parent: of.TaskKey, ParentClaim: of.ClaimID,
		RegisteredBy:   fmt.Sprintf("task %d of flow %s", of.Seq, of.Flow),
		IdempotencyKey: childKey(of, id, parameters),
	})
	return f.ID, err
}

// childKey makes one flow of what overlapping attempts ask for.
func childKey(of flow.Task, id flow.WorkflowID, parameters json.RawMessage) string {
	hash := sha256.Sum256(append([]byte(id+"\n"), parameters...))
	return fmt.Sprintf("task %s %x", of.IdempotencyKey(), hash[:8])
}

// rerunChild runs again what failed in a flow, in the first attempt after a reset.
func (d *DB) rerunChild(ctx context.Context, of flow.Task, child string) error {
	if of.Attempt != of.AttemptBase+1 {
		return nil
	}
	var changed []int64
	err := d.writer.selectAll(ctx, &changed, rerunSQL, child, fmt.Sprintf("task %d of flow %s runs again", of.Seq, of.Flow),
		string(of.Flow), of.Seq, of.ClaimID)
	if err == nil && len(changed) == 0 {
		err = fmt.Errorf("task %s was stopped or taken over", of.TaskKey)
	}
	return translate(fmt.Sprintf("rerun flow %s", child), err)
}

const endSQL = `
-- flower: end of a flow
SELECT coalesce(flower_ended($1), '') AS status, coalesce(f.seq, 0) AS seq, coalesce(f.title, '') AS title,
       coalesce(f.error, '') AS error, o.outputs
FROM   (SELECT jsonb_object_agg(task_seq, output)::text AS outputs FROM kr_task_stat
        WHERE task_flow_id = $1 AND exec_status = 3 AND dependents = '{}' AND output IS NOT NULL) o
LEFT   JOIN (SELECT task_exec_seq AS seq, flower_title(description, program) AS title, coalesce(error, reason) AS error
             FROM   kr_task_stat
             WHERE  task_flow_id = $1 AND exec_status = 2 AND reason IS DISTINCT FROM 'held'
             ORDER  BY coalesce(reason, 'failed') = 'cancelled', suspended_ts, task_exec_seq
             LIMIT  1) f ON true`

type endRow struct {
	Status  string  `db:"status"`
	Seq     int     `db:"seq"`
	Title   string  `db:"title"`
	Error   string  `db:"error"`
	Outputs *string `db:"outputs"`
}

// FlowEnd says how a flow ended, if it has.
func (d *DB) FlowEnd(ctx context.Context, id flow.ID) (flow.End, error) {
	var rows []endRow
	if err := d.pool.SelectContext(ctx, &rows, endSQL, string(id)); err != nil {
		return flow.End{}, translate(fmt.Sprintf("look how flow %q ended", id), err)
	}
	r := rows[0]
	e := flow.End{Status: r.Status, Seq: r.Seq, Title: r.Title, Error: r.Error}
	if r.Status == flow.FlowFinished {
		e.Outputs = rawJSON(r.Outputs)
	}
	return e, nil
}
