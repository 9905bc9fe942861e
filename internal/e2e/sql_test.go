package e2e

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// sqlWatcher starts a watcher that may run SQL in Flower's own database.
func (w *world) sqlWatcher(args ...string) *process {
	w.Helper()
	return w.watcher(append([]string{"-sql-connections", "flower"}, args...)...)
}

// sqlTask makes a task that runs a statement; the rest is JSON to follow it.
func sqlTask(statement, rest string) task {
	return task{program: "SQL", parameters: `{"statement": "` + statement + `"` + rest + `}`}
}

// statements counts the sessions in which statements of tasks run.
func (w *world) statements() int {
	w.Helper()
	var n int
	require.NoError(w, w.Get(&n, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'flower %/%'`))
	return n
}

func (w *world) awaitStatements(n int) {
	w.Helper()
	pgtest.Eventually(w.T, soon, "statements run, or not any more", func() bool { return w.statements() == n })
}

// awaitLocks waits until so many sessions wait for a lock.
func (w *world) awaitLocks(n int) {
	w.Helper()
	pgtest.Eventually(w.T, soon, "sessions wait for a lock", func() bool {
		var waiting int
		require.NoError(w, w.Get(&waiting, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`))
		return waiting == n
	})
}

func (w *world) effects() int {
	w.Helper()
	var n int
	require.NoError(w, w.Get(&n, `SELECT count(*) FROM effect`))
	return n
}

func TestSQL_OnItsOwnDatabaseAndOnAnother(t *testing.T) {
	w := newWorld(t)
	warehouse := pgtest.Empty(t)
	warehouse.MustExec(`CREATE TABLE sales (customer text, amount numeric(12,2))`)
	w.exec(`CREATE TABLE report (customer text PRIMARY KEY, total numeric)`)
	w.define("sales",
		sqlTask("INSERT INTO sales VALUES ($1, $2), ($1, 0.10) RETURNING amount", `, "connection": "warehouse", "args": ["nobody", 1]`),
		sqlTask("INSERT INTO report VALUES ('a', 1.10)", `, "transactional": true`),
		task{program: "NoOp"})
	s := w.register()
	url := strings.Replace(warehouse.URL, "flower@", "flower:s3cret@", 1)
	require.Contains(t, url, "s3cret")
	env := w.env("FLOWER_SQL_CONNECTIONS=flower,warehouse", "FLOWER_SQL_CONNECTION_WAREHOUSE="+url)
	watcher := run(t, "watcher", env, "-poll-interval", "30s")
	flow := s.flowOf(s.send(http.MethodPost, "/register/sales", "", `{"parameters": {"args": ["O'Neill", "123456789.50"]}}`), "sales")
	// The request's args go to both statements, and one takes none.
	w.await(flow, "3 2 0")
	require.Contains(t, w.rows(flow)[1].Error, `parameter "args": the statement takes 0, and there are 2`)
	w.exec(`UPDATE kr_task_stat SET exec_status = 0, parameters = parameters - 'args' WHERE task_flow_id = $1 AND exec_status = 2`, flow)
	w.await(flow, "3 3 3")

	var outputs []string
	require.NoError(t, w.Select(&outputs, `SELECT output::text FROM kr_task_stat WHERE task_flow_id = $1 AND output IS NOT NULL ORDER BY task_exec_seq`, flow))
	require.Len(t, outputs, 2)
	require.JSONEq(t, `{"row_count": 2, "rows": [{"amount": 123456789.50}, {"amount": 0.10}]}`, outputs[0])
	require.Contains(t, outputs[0], "123456789.50", "with every digit")
	require.JSONEq(t, `{"row_count": 1, "rows": []}`, outputs[1])
	var customer string
	require.NoError(t, warehouse.Get(&customer, `SELECT DISTINCT customer FROM sales`))
	require.Equal(t, "O'Neill", customer)
	watcher.Await("task finished", "seq=2") // after the commit
	require.Len(t, watcher.Log.With("task finished", "seq=2"), 1)
	require.Empty(t, watcher.Log.With("late result refused"))
	require.NotContains(t, watcher.Log.String(), "s3cret")

	a := s.send(http.MethodPost, "/register/sales", "", `{"parameters": {"statement": "DROP TABLE report"}}`)
	require.Equal(t, http.StatusUnprocessableEntity, a.status)
	require.Contains(t, a.text, "only the definition can set it")
	w.sound()
}

// A watcher without a database for it leaves SQL tasks to others.
func TestSQL_IsOffUnlessAWatcherIsToldOtherwise(t *testing.T) {
	w := newWorld(t)
	w.define("sql", sqlTask("SELECT 1", ""))
	s := w.register()
	w.watcher()
	flow := s.post("sql")
	pgtest.Eventually(t, soon, "nobody can run it", func() bool {
		var why string
		require.NoError(t, w.Get(&why, `SELECT coalesce((SELECT why FROM v_why_waiting WHERE task_flow_id = $1), '')`, flow))
		return strings.Contains(why, "no watcher has the program 'SQL'")
	})
	w.sqlWatcher()
	w.await(flow, "3")
	w.define("elsewhere", sqlTask("SELECT 1", `, "connection": "elsewhere"`))
	elsewhere := s.post("elsewhere")
	w.await(elsewhere, "2")
	require.Equal(t, "invalid", w.rows(elsewhere)[0].Reason)
}

// Whatever stops a task stops its statement, in the server.
func TestSQL_StoppedStatementsLeaveNothingBehind(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE effect (v int)`)
	slow := sqlTask("INSERT INTO effect SELECT 1 FROM pg_sleep(3600)", `, "transactional": true`)
	late := slow
	late.timeout = "300 ms"
	w.define("slow", slow)
	w.define("late", late)
	s := w.register()
	watcher := w.sqlWatcher("-shutdown-timeout", "200ms")

	flow := s.post("late")
	w.await(flow, "2")
	require.Equal(t, "timeout", w.rows(flow)[0].Reason)
	w.awaitStatements(0)

	flow = s.post("slow")
	w.awaitStatements(1)
	w.exec(`SELECT flower_cancel($1, 'too long')`, flow)
	w.await(flow, "2")
	w.awaitStatements(0)

	flow = s.post("slow")
	w.awaitStatements(1)
	watcher.Signal(syscall.SIGTERM)
	require.Equal(t, 0, watcher.Exit())
	require.Equal(t, "0", w.statuses(flow), "handed back")
	w.awaitStatements(0)
	require.Zero(t, w.effects())
	w.sound()
}

// A watcher that is killed takes its statement with it, before another one repeats it.
func TestSQL_KilledInAStatement(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE effect (v int)`)
	w.define("slow", sqlTask("INSERT INTO effect SELECT 1 FROM pg_sleep(3600)", ""))
	s := w.register()
	victim := w.sqlWatcher()
	flow := s.post("slow")
	pgtest.Eventually(t, soon, "it is well under way", func() bool {
		var sleeps bool
		require.NoError(t, w.Get(&sleeps, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')`))
		return sleeps
	})
	victim.Signal(syscall.SIGKILL)
	killed := time.Now()
	w.awaitStatements(0)
	took := time.Since(killed)
	t.Logf("the server ended the statement after %s", took)
	require.Less(t, took, 8*time.Second, "before the lease of its watcher is over")
	require.Equal(t, "1", w.statuses(flow))
	require.Zero(t, w.effects())
}

// Killed when the statement has run and its commit has not come: it is as if nothing had
// happened, and the next watcher makes it happen, once.
func TestSQL_KilledBetweenAStatementAndItsCommit(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE effect (v text)`)
	w.define("once", sqlTask("INSERT INTO effect VALUES ('once')", `, "transactional": true`), sqlTask("INSERT INTO effect VALUES ('twice')", `, "transactional": true`))
	s := w.register()
	victim := w.sqlWatcher()
	survivor := w.sqlWatcher("-workers", "1")
	stable(w)
	flow := ""
	// The one to be killed is the one that has it.
	hold := w.MustBegin()
	_, err := hold.Exec(`LOCK TABLE effect IN SHARE MODE`)
	require.NoError(t, err)
	flow = s.post("once")
	w.awaitLocks(1)
	// Now it waits in its statement. Whoever holds its row lets it wait in its end.
	row := w.MustBegin()
	_, err = row.Exec(`SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1 FOR UPDATE`, flow)
	require.NoError(t, err)
	require.NoError(t, hold.Rollback())
	pgtest.Eventually(t, soon, "its end waits", func() bool {
		var waits bool
		require.NoError(t, w.Get(&waits, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
			AND application_name LIKE 'flower %/%' AND wait_event_type = 'Lock' AND query LIKE '%flower: Advance%')`))
		return waits
	})
	if len(victim.Log.With("task started", "seq=1")) == 0 {
		victim, survivor = survivor, victim
	}
	require.Len(t, victim.Log.With("task started", "seq=1"), 1)
	victim.Signal(syscall.SIGKILL)
	victim.Exit()
	w.awaitStatements(0) // rolled back
	require.NoError(t, row.Rollback())
	require.Zero(t, w.effects())
	require.Equal(t, "1 0", w.statuses(flow))

	w.await(flow, "3 3")
	require.Len(t, survivor.Log.With("task rescued", "seq=1"), 1)
	require.Equal(t, 2, w.rows(flow)[0].Attempt)
	require.Equal(t, 2, w.effects(), "each once")
	w.sound()
}
