package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// variety makes flows of every kind, several of each, some of whose rows are odd. Flow i was
// registered i hours after the first.
func variety(t *testing.T, w *world) {
	t.Helper()
	behind(t, w, `
		CREATE TABLE given AS
		SELECT f, format('%s-%s', left(md5(f::text), 8), f) AS id, now() - (500 - f) * interval '1 h' AS ts, 'w' || f % 7 AS workflow,
		       CASE f % 5 WHEN 0 THEN NULL WHEN 1 THEN 'alice' ELSE 'cron' END AS by,
		       (ARRAY['3 3 3', '3 2failed 0', '2timeout 0 0', '3 1 0', '1 2lost 0', '0 0 0', '3 0r 0', '0r 0 0', '2held 2held 2held', '3 2held 0',
		              '3 2cancelled 2cancelled', '9 3 3', '2 0 0', '3 2invalid 2held', '2cancelled 2failed 0', '3 0 0', '9 9 9', '3 2failed 2cancelled'])[1 + f % 18] AS tasks
		FROM   generate_series(1, 400) f`)
	behind(t, w, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason, error, registered_ts,
		                          started_ts, finished_ts, suspended_ts, run_after, attempt, unmet, dependents, program, watcher_id, claim_id)
		SELECT id, s, s - 1, workflow, s, st, reason, CASE WHEN st = 2 AND reason IS DISTINCT FROM 'held' THEN format('no answer from 10.0.0.%s%s', f, CASE f % 4 WHEN 0 THEN ' in time' END) END,
		       ts, CASE WHEN st IN (1, 2, 3) THEN ts + interval '1 s' END, CASE WHEN st = 3 THEN ts + f * interval '1 s' END,
		       CASE WHEN st = 2 THEN ts + s * interval '1 s' END, CASE WHEN task LIKE '0r' THEN now() + interval '1 h' END, (st <> 0)::int,
		       (SELECT count(*) FROM unnest(all_tasks[s-1:s-1]) p WHERE left(p, 1) NOT IN ('3', '9')),
		       CASE WHEN s < 3 THEN ARRAY[s + 1] ELSE '{}' END, CASE f % 11 WHEN 0 THEN 'Rare' ELSE 'NoOp' END,
		       CASE WHEN st = 1 THEN gen_random_uuid() END, CASE WHEN st = 1 THEN gen_random_uuid() END
		FROM   given, LATERAL (SELECT string_to_array(tasks, ' ') AS all_tasks) a, unnest(all_tasks) WITH ORDINALITY x(task, n),
		       LATERAL (SELECT n::int AS s, left(task, 1)::smallint AS st, nullif(nullif(substr(task, 2), 'r'), '') AS reason) y`)
	behind(t, w, `INSERT INTO kr_flow (task_flow_id, task_id, registered_ts, registered_by, note) SELECT id, workflow, ts, by, 'n' || f FROM given`)
	behind(t, w, `INSERT INTO kr_ready SELECT f % 3, t.registered_ts, t.task_flow_id, t.task_exec_seq FROM kr_task_stat t JOIN given g ON id = task_flow_id
	              WHERE exec_status = 0 AND unmet = 0 AND run_after IS NULL`)
	behind(t, w, `UPDATE kr_task_stat t SET task_priority = f % 3 FROM given WHERE id = task_flow_id`)
	mustExec(t, w.psql, `DROP TABLE given`)
	mustExec(t, w.psql, `ANALYZE`)
}

// expected asks v_flow itself for what a filter chooses, with none of the ways of lists.
func expected(t *testing.T, w *world, f flow.Filter) []string {
	t.Helper()
	q := &query{}
	text := `SELECT v.task_flow_id FROM v_flow v JOIN kr_flow k USING (task_flow_id) WHERE true` + source{filter: f}.conditions(q) +
		` ORDER BY v.registered_ts DESC, v.task_flow_id DESC`
	return all[string](t, w, text, q.args...)
}

// paged reads a whole list in pages.
func paged(t *testing.T, w *world, f flow.Filter, limit int) (ids []string) {
	t.Helper()
	for _, s := range pagedFlows(t, w, f, limit) {
		ids = append(ids, string(s.ID))
	}
	return ids
}

func pagedFlows(t *testing.T, w *world, f flow.Filter, limit int) (flows []flow.Summary) {
	t.Helper()
	var after flow.Position
	for range 1000 {
		page, err := w.Flows(t.Context(), f, after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Flows), limit)
		flows = append(flows, page.Flows...)
		if page.Next.IsZero() {
			return flows
		}
		after = page.Next
	}
	t.Fatal("the list does not end")
	return nil
}

// Whatever way a list goes, it finds the flows that v_flow has, in its order, page by page.
func TestFlows_EveryFilter(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	variety(t, w)
	behind(t, w, `UPDATE kr_task_stat SET description = 'Load The Orders' || E'\nof the day' WHERE reason = 'lost'`)
	filters := map[string]flow.Filter{
		"everything":  {},
		"workflow":    {WorkflowID: "w3"},
		"registrar":   {RegisteredBy: "alice"},
		"program":     {Program: "Rare"},
		"reason":      {Reason: flow.ReasonLost},
		"held":        {Reason: flow.ReasonHeld},
		"since":       {Since: flow.Moment{Before: 200*time.Hour + 30*time.Minute}},
		"until":       {Until: flow.Moment{Before: 200*time.Hour + 30*time.Minute}},
		"long":        {Since: flow.Moment{Before: 499*time.Hour + 30*time.Minute}, MinDuration: 300 * time.Second},
		"prefix":      {Text: "c4"},
		"name":        {Text: "W3"},
		"error":       {Text: "IN TIME"},
		"a task":      {Text: "the orders"},
		"its program": {Text: "rare"},
		"nothing":     {Text: "%"},
		"fingerprint": {Fingerprint: value[string](t, w, `SELECT flower_fingerprint('no answer from 10.0.0.1')`)},
	}
	for _, status := range flow.FlowStatuses {
		filters[status] = flow.Filter{Status: []string{status}}
		filters[status+" of a workflow"] = flow.Filter{Status: []string{status}, WorkflowID: "w5"}
		filters[status+" of a program"] = flow.Filter{Status: []string{status}, Program: "Rare"}
		filters[status+" with a text"] = flow.Filter{Status: []string{status}, Text: "no answer"}
		filters[status+" and failed"] = flow.Filter{Status: []string{status, flow.FlowFailed}}
		filters[status+" and since"] = flow.Filter{Status: []string{status, flow.FlowHeld}, Since: flow.Moment{Before: 200*time.Hour + 30*time.Minute}}
	}
	for name, f := range filters {
		want := expected(t, w, f)
		require.Equal(t, want, paged(t, w, f, 1000), name)
		if len(want) > 0 {
			require.Equal(t, want, paged(t, w, f, max(7, len(want)/30)), name)
		}
		n, err := w.Count(t.Context(), f)
		require.NoError(t, err)
		require.Equal(t, flow.Count{N: len(want)}, n, name)
	}
	require.NotEmpty(t, expected(t, w, filters["reason"]))
	require.NotEmpty(t, expected(t, w, filters["error"]))
	require.NotEmpty(t, expected(t, w, filters["fingerprint"]))
	require.Equal(t, all[string](t, w, `SELECT task_flow_id FROM kr_task_stat WHERE description LIKE 'Load The%' GROUP BY 1 ORDER BY max(registered_ts) DESC`),
		expected(t, w, filters["a task"]), "a text is also looked for in names of tasks that are suspended")
	require.Equal(t, all[string](t, w, `SELECT task_flow_id FROM kr_task_stat WHERE program = 'Rare' AND exec_status = 2 GROUP BY 1 ORDER BY max(registered_ts) DESC`),
		expected(t, w, filters["its program"]))
	require.NotEmpty(t, expected(t, w, filters["long"]))

	counts, err := w.FlowCounts(t.Context(), flow.Filter{Status: []string{flow.FlowHeld}})
	require.NoError(t, err)
	require.Equal(t, 400, counts.All.N)
	for _, status := range flow.FlowStatuses {
		require.Equal(t, len(expected(t, w, filters[status])), counts.ByStatus[status].N, status)
	}
}
