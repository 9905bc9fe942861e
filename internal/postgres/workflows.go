package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// workflowIDsSQL leaps from name to name, since each may have ten thousand rows.
const workflowIDsSQL = `
-- flower: workflow ids
WITH RECURSIVE name AS (
    SELECT min(task_id)::text COLLATE "C" AS task_id FROM ms_task_definition WHERE task_id > $1
    UNION ALL
    SELECT (SELECT min(task_id)::text FROM ms_task_definition WHERE task_id > name.task_id)
    FROM name WHERE name.task_id IS NOT NULL
)
SELECT task_id FROM name WHERE task_id IS NOT NULL AND ($2 = '' OR task_id COLLATE "default" ILIKE $2) LIMIT $3`

const workflowRowsSQL = `
-- flower: ms_workflow
SELECT task_id, coalesce(description, '') AS description, coalesce(max_running_flows, 0) AS max_running_flows,
       coalesce(max_running_tasks, 0) AS max_running_tasks
FROM   ms_workflow WHERE task_id = ANY ($1::text[])`

type workflowRow struct {
	ID              string `db:"task_id"`
	Description     string `db:"description"`
	MaxRunningFlows int    `db:"max_running_flows"`
	MaxRunningTasks int    `db:"max_running_tasks"`
}

// Workflows returns definitions in the order of their names, those after one, and says
// whether there are more. text is a part of their names; last is how many of its flows
// come with each.
func (d *DB) Workflows(ctx context.Context, after flow.WorkflowID, text string, limit, last int) (states []flow.WorkflowState, more bool, err error) {
	err = d.reading(ctx, func(tx *sqlx.Tx) error {
		pattern := ""
		if text != "" {
			pattern = likeAnywhere(text)
		}
		var ids []string
		if err := tx.SelectContext(ctx, &ids, workflowIDsSQL, string(after), pattern, limit+1); err != nil {
			return err
		}
		more = len(ids) > limit
		states, err = d.workflowStates(ctx, tx, ids[:min(len(ids), limit)], last)
		return err
	})
	return states, more, translate("read workflows", err)
}

// WorkflowIDs returns names of workflows in their order, at most so many.
func (d *DB) WorkflowIDs(ctx context.Context, limit int) ([]flow.WorkflowID, error) {
	var ids []flow.WorkflowID
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &ids, workflowIDsSQL, "", "", limit)
	})
	return ids, translate("read the names of workflows", err)
}

// Workflow returns a definition with its last flows. flow.ErrNotFound: there is none.
func (d *DB) Workflow(ctx context.Context, id flow.WorkflowID, last int) (flow.WorkflowState, error) {
	var states []flow.WorkflowState
	err := d.reading(ctx, func(tx *sqlx.Tx) (err error) {
		states, err = d.workflowStates(ctx, tx, []string{string(id)}, last)
		return err
	})
	switch {
	case err != nil:
		return flow.WorkflowState{}, translate(fmt.Sprintf("read workflow %q", id), err)
	case len(states) == 0:
		return flow.WorkflowState{}, notFound(id)
	}
	return states[0], nil
}

// workflowStates reads definitions; those that do not exist are missing.
func (d *DB) workflowStates(ctx context.Context, tx *sqlx.Tx, ids []string, last int) ([]flow.WorkflowState, error) {
	var defs []taskDefinitionRow
	if err := tx.SelectContext(ctx, &defs, workflowsSQL, ids); err != nil {
		return nil, err
	}
	var rows []workflowRow
	if err := tx.SelectContext(ctx, &rows, workflowRowsSQL, ids); err != nil {
		return nil, err
	}
	found := workflowsOf(defs)
	var states []flow.WorkflowState
	for _, id := range ids {
		w, known := found[flow.WorkflowID(id)]
		if !known {
			continue
		}
		s := flow.WorkflowState{Workflow: w, Problems: d.problems(w)}
		for _, r := range rows {
			if r.ID == id {
				s.Description, s.MaxRunningFlows, s.MaxRunningTasks = r.Description, r.MaxRunningFlows, r.MaxRunningTasks
			}
		}
		states = append(states, s)
	}
	return states, addLast(ctx, tx, states, last)
}

// addLast adds to workflows their last flows, so many of each, all in one statement.
func addLast(ctx context.Context, tx *sqlx.Tx, states []flow.WorkflowState, most int) error {
	if most == 0 || len(states) == 0 {
		return nil
	}
	ids := make([]string, len(states))
	for i, s := range states {
		ids[i] = string(s.ID)
	}
	flows, err := along(lastRoute(ids), flow.Filter{}).first(ctx, tx, most)
	if err != nil {
		return err
	}
	last := map[flow.WorkflowID][]flow.Summary{}
	for _, f := range flows {
		last[f.WorkflowID] = append(last[f.WorkflowID], f)
	}
	for i := range states {
		states[i].Last = last[states[i].ID]
	}
	return nil
}

// problems says why a workflow cannot be registered.
func (d *DB) problems(w flow.Workflow) []string {
	_, err := w.Plan()
	if err == nil {
		err = d.check(w, nil)
	}
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[*flow.InvalidError](err); ok {
		return []string{invalid.Problem}
	}
	return []string{err.Error()}
}

// maxStatTasks is how many tasks of flows are read for statistics, and maxStatFlows how many
// flows at most.
const (
	maxStatTasks = 20_000
	maxStatFlows = 1000
)

const statSizeSQL = `
-- flower: size of a workflow
SELECT greatest((SELECT count(*) FROM ms_task_definition WHERE task_id = $1),
                (SELECT count(*) FROM kr_task_stat WHERE task_flow_id =
                     (SELECT task_flow_id FROM kr_flow WHERE task_id = $1 ORDER BY registered_ts DESC, task_flow_id DESC LIMIT 1)))`

const statFlowsSQL = `
-- flower: statistics of flows
SELECT v.status, count(*) AS flows,
       (extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY v.took)) * 1000000)::bigint AS p50_us,
       (extract(epoch FROM percentile_cont(0.95) WITHIN GROUP (ORDER BY v.took)) * 1000000)::bigint AS p95_us,
       (extract(epoch FROM max(v.took)) * 1000000)::bigint AS max_us
FROM   (SELECT task_flow_id FROM kr_flow WHERE task_id = $1 AND registered_ts >= $2
        ORDER BY registered_ts DESC, task_flow_id DESC LIMIT $3) f
CROSS  JOIN LATERAL (SELECT * FROM v_flow o WHERE o.task_flow_id = f.task_flow_id OFFSET 0) v
GROUP  BY v.status`

const statTasksSQL = `
-- flower: statistics of tasks
SELECT t.task_seq, (array_agg(coalesce(flower_title(t.description, t.program), '') ORDER BY f.n))[1] AS title,
       (array_agg(coalesce(t.program, '') ORDER BY f.n))[1] AS program,
       count(*) FILTER (WHERE t.exec_status = 3 OR t.failed) AS runs, count(*) FILTER (WHERE t.failed) AS failed,
       coalesce(sum(a.failed), 0) AS attempts,
       (extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY t.took)) * 1000000)::bigint AS p50_us,
       (extract(epoch FROM percentile_cont(0.95) WITHIN GROUP (ORDER BY t.took)) * 1000000)::bigint AS p95_us,
       (extract(epoch FROM max(t.took)) * 1000000)::bigint AS max_us
FROM   (SELECT task_flow_id, row_number() OVER (ORDER BY registered_ts DESC, task_flow_id DESC) AS n
        FROM kr_flow WHERE task_id = $1 AND registered_ts >= $2
        ORDER BY registered_ts DESC, task_flow_id DESC LIMIT $3) f
CROSS  JOIN LATERAL (
    SELECT task_exec_seq, task_seq, description, program, exec_status,
           exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled') AS failed,
           CASE WHEN exec_status = 3 THEN finished_ts - started_ts END AS took
    FROM   kr_task_stat s WHERE s.task_flow_id = f.task_flow_id OFFSET 0) t
LEFT   JOIN LATERAL (
    SELECT task_exec_seq, count(*) AS failed FROM kr_task_attempt
    WHERE  task_flow_id = f.task_flow_id AND exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')
    GROUP  BY task_exec_seq OFFSET 0) a ON a.task_exec_seq = t.task_exec_seq
GROUP  BY t.task_seq
ORDER  BY t.task_seq`

type quantileRow struct {
	P50US *int64 `db:"p50_us"`
	P95US *int64 `db:"p95_us"`
	MaxUS *int64 `db:"max_us"`
}

func (r quantileRow) quantiles() flow.Quantiles {
	return flow.Quantiles{P50: microseconds(r.P50US), P95: microseconds(r.P95US), Max: microseconds(r.MaxUS)}
}

// WorkflowStats returns how the newest flows of a workflow went that were registered within
// a window: up to a thousand, fewer of a large workflow. It need not exist any more.
func (d *DB) WorkflowStats(ctx context.Context, id flow.WorkflowID, window time.Duration) (flow.WorkflowStats, error) {
	stats := flow.WorkflowStats{WorkflowID: id, ByStatus: map[string]int{}}
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		if err := tx.GetContext(ctx, &stats.AsOf, nowSQL); err != nil {
			return err
		}
		stats.Since = stats.AsOf.Add(-window)
		var size int
		if err := tx.GetContext(ctx, &size, statSizeSQL, string(id)); err != nil {
			return err
		}
		most := min(max(maxStatTasks/max(size, 1), 10), maxStatFlows)
		if err := flowStats(ctx, tx, &stats, most); err != nil {
			return err
		}
		return taskStats(ctx, tx, &stats, most)
	})
	return stats, translate(fmt.Sprintf("read the statistics of workflow %q", id), err)
}

// flowStats reads the part of the flows.
func flowStats(ctx context.Context, tx *sqlx.Tx, stats *flow.WorkflowStats, most int) error {
	var rows []struct {
		Status string `db:"status"`
		Flows  int    `db:"flows"`
		quantileRow
	}
	if err := tx.SelectContext(ctx, &rows, statFlowsSQL, string(stats.WorkflowID), stats.Since, most); err != nil {
		return err
	}
	for _, r := range rows {
		stats.Flows.N += r.Flows
		stats.ByStatus[r.Status] = r.Flows
		if r.Status == flow.FlowFinished {
			stats.Took = r.quantiles()
		}
	}
	stats.Flows.More = stats.Flows.N >= most
	return nil
}

// taskStats reads the part of the tasks.
func taskStats(ctx context.Context, tx *sqlx.Tx, stats *flow.WorkflowStats, most int) error {
	var rows []struct {
		Seq      int    `db:"task_seq"`
		Title    string `db:"title"`
		Program  string `db:"program"`
		Runs     int    `db:"runs"`
		Failed   int    `db:"failed"`
		Attempts int    `db:"attempts"`
		quantileRow
	}
	if err := tx.SelectContext(ctx, &rows, statTasksSQL, string(stats.WorkflowID), stats.Since, most); err != nil {
		return err
	}
	for _, r := range rows {
		stats.Tasks = append(stats.Tasks, flow.TaskStats{
			TaskSeq: r.Seq, Title: r.Title, Program: r.Program, Runs: r.Runs, Failed: r.Failed, Attempts: r.Attempts, Took: r.quantiles(),
		})
	}
	return nil
}
