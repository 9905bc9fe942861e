package postgres

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// fill makes a database in which much has happened: 100,000 finished tasks, 10,000 blocked
// by some 300 that failed, 5,000 that are held, and 3,000 that can go.
func fill(t *testing.T, w *world) {
	t.Helper()
	for _, sql := range []string{
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, registered_ts,
		                           started_ts, finished_ts, attempt, unmet, claim_id, dependents, program)
		 SELECT format('finished-%s-%s', f, md5(f::text)), s, s - 1, 'w' || f % 50, s, 3, ts, ts, ts, 1, 0, gen_random_uuid(),
		        CASE s WHEN 3 THEN '{}' ELSE ARRAY[s + 1] END, 'NoOp'
		 FROM generate_series(1, 33334) f, generate_series(1, 3) s, LATERAL (SELECT now() - (40000 - f) * interval '1 s' AS ts) x`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, registered_ts,
		                           started_ts, suspended_ts, reason, error, attempt, unmet, dependents, program)
		 SELECT format('failed-%s-%s', f, md5(f::text)), s, s - 1, 'w' || f % 50, s, CASE s WHEN 1 THEN 2 ELSE 0 END, ts,
		        CASE s WHEN 1 THEN ts END, CASE s WHEN 1 THEN ts END, CASE s WHEN 1 THEN 'failed' END, CASE s WHEN 1 THEN 'no answer: ' || f END,
		        (s = 1)::int, (s > 1)::int, CASE s WHEN 31 THEN '{}' ELSE ARRAY[s + 1] END, 'NoOp'
		 FROM generate_series(1, 333) f, generate_series(1, 31) s, LATERAL (SELECT now() - (400 - f) * interval '100 s' AS ts) x`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, reason, registered_ts, suspended_ts, unmet, program)
		 SELECT 'held-' || f, 1, 'w' || f % 50, 1, 2, 'held', now() - interval '30 s', now(), 0, 'NoOp' FROM generate_series(1, 5000) f`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, registered_ts, unmet, program)
		 SELECT 'ready-' || f, 1, 'w' || f % 50, 1, now() - (4000 - f) * interval '1 ms', 0, 'NoOp' FROM generate_series(1, 3000) f`,
		`INSERT INTO kr_ready SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM kr_task_stat WHERE exec_status = 0 AND unmet = 0 ON CONFLICT DO NOTHING`,
		`INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
		 SELECT task_flow_id, task_id, registered_ts FROM kr_task_stat WHERE task_exec_seq = 1 ORDER BY registered_ts ON CONFLICT DO NOTHING`,
	} {
		behind(t, w, sql)
	}
	mustExec(t, w.psql, `VACUUM ANALYZE kr_task_stat, kr_flow, kr_ready, kr_watcher`)
}

// blocks returns how many pages of 8 KiB a query looks at.
func blocks(t *testing.T, w *world, query string, args ...any) int {
	t.Helper()
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	text := value[string](t, w, `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+query, args...)
	require.NoError(t, json.Unmarshal([]byte(text), &plans))
	return plans[0].Plan.Hit + plans[0].Plan.Read
}

// The views answer the questions that they are made for without reading what has nothing
// to do with the answer.
func TestViews_OfManyRows(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // v_invariant is asked where it does not take long
	insert(t, w, "elsewhere", 1, [2]int{1, 0})
	urgent := def()
	urgent.Priority = -20
	old := register(t, w, urgent)
	fill(t, w)
	failed := value[string](t, w, `SELECT min(task_flow_id) FROM kr_flow WHERE task_flow_id LIKE 'failed-%'`)
	table := value[int](t, w, `SELECT pg_relation_size('kr_task_stat') / 8192`)
	require.Greater(t, table, 4_000, "it could be read whole")
	for _, c := range []struct {
		query string
		most  int
	}{
		{`SELECT * FROM v_flow ORDER BY registered_ts DESC LIMIT 20`, 400},
		{`SELECT * FROM v_flow WHERE task_id = 'w7' ORDER BY registered_ts DESC LIMIT 20`, 600},
		{`SELECT * FROM v_flow WHERE task_flow_id = '` + failed + `'`, 100},
		{`SELECT * FROM v_task WHERE task_flow_id = '` + failed + `' ORDER BY task_exec_seq`, 400},
		{`SELECT * FROM v_why_waiting WHERE task_flow_id = '` + failed + `'`, 400},
		{`SELECT * FROM v_failed ORDER BY suspended_ts DESC LIMIT 20`, 2_000},
		{`SELECT * FROM v_failed WHERE task_flow_id = '` + failed + `'`, 200},
		{`SELECT * FROM v_failure_group ORDER BY tasks DESC`, 1_000},
		{`SELECT * FROM v_running ORDER BY started_ts`, 2_300}, // 2,048 are the newest of the table
		{`SELECT * FROM v_queue LIMIT 20`, 600},
		{`SELECT position, task_id, title FROM v_queue LIMIT 20`, 250},
		{`SELECT * FROM v_queue WHERE task_flow_id = 'ready-17'`, 150},
		{`SELECT * FROM v_watcher`, 10},
	} {
		n := blocks(t, w, c.query)
		t.Logf("%5d of %d pages: %s", n, table, c.query)
		require.LessOrEqual(t, n, c.most, c.query)
	}

	// Of so large a table, what runs is known when its watcher has said so, unless its
	// row is one of the newest.
	running := func() []string {
		t.Helper()
		return all[string](t, w, `SELECT task_flow_id FROM v_running`)
	}
	_, err := w.Beat(t.Context(), w.watcher, nil) // on a busy machine its lease has ended meanwhile
	require.NoError(t, err)
	tasks := claim(t, w, 1)
	require.Equal(t, old, tasks[0].Flow)
	require.ElementsMatch(t, []string{"elsewhere"}, running())
	_, err = w.Beat(t.Context(), w.watcher, tasks)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"elsewhere", string(old)}, running())
	young := register(t, w, urgent)
	require.Equal(t, young, claim(t, w, 1)[0].Flow)
	require.ElementsMatch(t, []string{"elsewhere", string(old), string(young)}, running())
	finish(t, w, tasks...)
	mustExec(t, w.psql, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = 'elsewhere'`)
	require.ElementsMatch(t, []string{string(young)}, running(), "what was said may have ended")
}
