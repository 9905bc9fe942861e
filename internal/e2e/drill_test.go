package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// The drill, at psql: from "flows have failed" to "flows have finished" in three commands,
// for one flow and for ten thousand. It should take less than half a minute, which is
// logged and not required: other tests are at work.
func TestDrill(t *testing.T) {
	w := newWorld(t)
	const flows = 10_000
	w.exec(`BEGIN; SET LOCAL session_replication_role = replica;
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, started_ts, finished_ts,
			suspended_ts, reason, error, attempt, unmet, claim_id, dependents, program)
		SELECT 'night ' || f, s, s - 1, 'night', s, (ARRAY[3, 2, 0])[s], (ARRAY[now(), now()])[s], (ARRAY[now()])[s], (ARRAY[NULL, now()])[s],
			(ARRAY[NULL, 'failed'])[s], (ARRAY[NULL, 'no answer after ' || f || ' ms'])[s], (ARRAY[1, 1, 0])[s], (ARRAY[0, 0, 1])[s],
			CASE WHEN s < 3 THEN gen_random_uuid() END, CASE WHEN s < 3 THEN ARRAY[s + 1] ELSE '{}' END, 'NoOp'
		FROM generate_series(1, 10000) f, generate_series(1, 3) s;
		INSERT INTO kr_flow (task_flow_id, task_id) SELECT 'night ' || f, 'night' FROM generate_series(1, 10000) f;
		COMMIT; ANALYZE`)
	w.sound()
	w.watcher("-workers", "50")

	w.drill("one flow", `SELECT count(*) FROM v_failed WHERE task_flow_id = 'night 7'`, 1, func() {
		w.exec(`SELECT flower_rerun('night 7', 'it is back')`)
	}, `task_flow_id = 'night 7'`, 1)
	w.drill("the others", `SELECT tasks FROM v_failure_group WHERE task_id = 'night' ORDER BY tasks DESC LIMIT 1`, flows-1, func() {
		var update string // as \gexec does
		require.NoError(t, w.Get(&update, `SELECT rerun FROM v_failure_group WHERE task_id = 'night' ORDER BY tasks DESC LIMIT 1`))
		w.exec(update)
	}, `task_id = 'night'`, flows)
	w.sound()
}

// drill finds what has failed, runs it again, and looks until so many flows have finished.
func (w *world) drill(name, find string, failed int, rerun func(), which string, flows int) {
	w.Helper()
	begin := time.Now()
	var found int
	require.NoError(w, w.Get(&found, find))
	require.Equal(w, failed, found)
	rerun()
	again := time.Since(begin)
	pgtest.Eventually(w.T, 4*time.Minute, name+" has finished", func() bool {
		var finished int
		require.NoError(w, w.Get(&finished, `SELECT count(*) FROM v_flow WHERE status = 'finished' AND `+which))
		return finished == flows
	})
	w.Logf("%s: found and set to run again in %s, finished after %s", name, again.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}
