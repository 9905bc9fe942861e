package postgres

import (
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A repair can be looked at before it is made: BEGIN, UPDATE, SELECT, ROLLBACK. The views
// show what it would do, nobody acts on it, and afterwards nothing has happened.
func TestPreview(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		update             string
		status             string // of the flow
		tasks              string // with what they wait for
		failed, queue, can int    // rows of v_failed, of v_queue, and what can be claimed after a COMMIT
	}{
		"2 to 0, rerun": {
			`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status = 2`, "running",
			`1 finished, 2 waiting (can go: waits for a free worker), 3 waiting (waits for task 2), 4 waiting (waits for task 2, 3), 5 waiting (waits for task 4)`, 0, 1, 1,
		},
		"2 to 9, skip": {
			`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND exec_status = 2`, "running",
			`1 finished, 2 ignored, 3 waiting (can go: waits for a free worker), 4 waiting (waits for task 3), 5 waiting (waits for task 4)`, 0, 1, 1,
		},
		"0 to 2, hold": {
			`UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 4 AND exec_status = 0`, "failed",
			`1 finished, 2 failed, 3 waiting (blocked by task 2 (failed)), 4 held, 5 waiting (blocked by task 4 (held))`, 1, 0, 0,
		},
		"a whole flow from the start": {
			`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, "queued",
			`1 waiting (can go: waits for a free worker), 2 waiting (waits for task 1), 3 waiting (waits for task 2), 4 waiting (waits for task 2, 3), 5 waiting (waits for task 4)`, 0, 1, 1,
		},
		"a whole flow skipped": {
			`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND exec_status <> 3`, "finished",
			`1 finished, 2 ignored, 3 ignored, 4 ignored, 5 ignored`, 0, 0, 0,
		},
		"a whole flow held": {
			`SELECT flower_hold($1)`, "failed", // what failed stays so
			`1 finished, 2 failed, 3 held, 4 held, 5 held`, 1, 0, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			id := register(t, w, def(), def(1), def(2), def(2, 3), def(4))
			finish(t, w, claimOne(t, w))
			verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
			before := seen(t, w.psql, id)
			require.Equal(t, `failed 1/5: 1 finished, 2 failed, 3 waiting (blocked by task 2 (failed)), 4 waiting (blocked by task 2 (failed)), 5 waiting (waits for task 4)
1 failed, 0 queued, 0 events`, before)

			tx := begin(t, w)
			mustExec(t, tx, c.update, string(id))
			preview := seen(t, tx, id)
			require.True(t, strings.HasPrefix(preview, c.status+" "), preview)
			require.Contains(t, preview, "/5: "+c.tasks+"\n")
			var failed, queue int
			require.NoError(t, tx.QueryRow(`SELECT (SELECT count(*) FROM v_failed), (SELECT count(*) FROM v_queue)`).Scan(&failed, &queue))
			require.Equal(t, c.failed, failed)
			require.Equal(t, c.queue, queue)
			require.Equal(t, before, seen(t, w.psql, id), "nobody else sees it")
			require.Empty(t, claim(t, w, 5), "nor does anything run")
			require.NoError(t, tx.Rollback())
			require.Equal(t, before, seen(t, w.psql, id), "nothing has happened")
			require.Empty(t, claim(t, w, 5))
			sound(t, w)

			// For good it is just that.
			byHand(t, w, c.update, string(id))
			require.Equal(t, preview, seen(t, w.psql, id))
			require.Len(t, claim(t, w, 5), c.can)
		})
	}
}

// seen is what the views show of a flow.
func seen(t *testing.T, db sqlx.Queryer, id flow.ID) string {
	t.Helper()
	var s string
	require.NoError(t, db.QueryRowx(`
		SELECT f.status || ' ' || f.progress || ': '
		       || (SELECT string_agg(task_exec_seq || ' ' || status || coalesce(' (' || why || ')', ''), ', ' ORDER BY task_exec_seq)
		           FROM v_task WHERE task_flow_id = $1)
		       || format(E'\n%s failed, %s queued, %s events', (SELECT count(*) FROM v_failed), (SELECT count(*) FROM v_queue),
		                 (SELECT count(*) FROM kr_event))
		FROM v_flow f WHERE f.task_flow_id = $1`, string(id)).Scan(&s))
	return s
}
