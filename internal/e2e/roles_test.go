package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// loginAs makes a login of this test alone that has a role, and returns the database's
// address for it.
func (w *world) loginAs(role string) string {
	w.Helper()
	login := strings.ToLower(w.Name) + strings.TrimPrefix(role, "flower")
	w.exec(fmt.Sprintf("CREATE ROLE %s LOGIN IN ROLE %s", login, role))
	w.Cleanup(func() {
		_, err := w.ExecContext(context.WithoutCancel(w.Context()), "DROP ROLE "+login)
		require.NoError(w, err)
	})
	u, err := url.Parse(w.URL)
	require.NoError(w, err)
	u.User = url.User(login)
	return u.String()
}

// Both programs do everything they do with the rights that they need and no others, and so
// do people.
func TestRoles_SecI1_EverybodyHasWhatTheyNeed(t *testing.T) {
	w := newWorld(t)
	made := run(w.T, "register", w.env(), "-migrate", "roles")
	require.Equal(t, 0, made.Exit())

	asRegister := databaseEnv(t, w.loginAs("flower_register"))
	asWatcher := databaseEnv(t, w.loginAs("flower_watcher"))
	people := func(role string) *sqlx.DB {
		db, err := sqlx.Open("postgres", w.loginAs(role))
		require.NoError(t, err)
		w.Cleanup(func() { _ = db.Close() })
		return db
	}
	admin, operator := people("flower_admin"), people("flower_operator")

	closed := make(gate)
	var calls asked
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jobs" {
			closed.wait(rw, r)
			return
		}
		calls.add(r)
		rw.WriteHeader(http.StatusAccepted)
	})
	w.define("slow", p.calling("/slow"))
	w.define("later", task{program: "HTTPRequest", parameters: `{"url": "` + p.URL + `/jobs", "callback": true}`})
	w.define("whole", task{program: "Flow", parameters: `{"workflow": "wrong"}`})
	w.define("wrong", task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 5}`, timeout: "100 ms", attempts: 2}, task{program: "NoOp"})
	_, err := admin.ExecContext(t.Context(), `INSERT INTO ms_workflow (task_id, max_running_flows, max_running_tasks) VALUES ('sample', 1, 1)`)
	require.NoError(t, err)

	s := serve(w.T, asRegister)
	first := run(w.T, "watcher", asWatcher, "-poll-interval", "1s")
	first.Await("watching task...")
	samples := []string{s.post("sample"), s.post("sample")}
	slow, wrong := s.post("slow"), s.post("wrong")
	a := s.send("POST", "/register/sample", "", `{"parameters": {"A": 1}}`)
	samples = append(samples, s.flowOf(a, "sample"))
	w.await(wrong, "2 0")
	w.await(slow, "1")

	// An operator's changes by hand, while its watcher dies.
	for _, statement := range []string{
		fmt.Sprintf(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = '%s' AND exec_status = 2`, wrong),
		fmt.Sprintf(`SELECT flower_hold('%s')`, samples[2]),
		fmt.Sprintf(`SELECT flower_resume('%s')`, samples[2]),
		`SELECT * FROM v_flow`,
		`SELECT * FROM v_why_waiting`,
	} {
		_, err = operator.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	w.await(wrong, "9 3")
	first.Signal(syscall.SIGKILL)
	second := run(w.T, "watcher", asWatcher, "-poll-interval", "1s", "-callback-url", s.url)
	second.Await("watching task...")
	close(closed)
	w.awaitFor(time.Minute, slow, "3")
	for _, flow := range samples {
		w.awaitFor(time.Minute, flow, "3 3 3")
	}

	// A result that comes later; and a task that has a flow, which runs again with it.
	later, whole := s.post("later"), s.post("whole")
	w.pausedUntil(later, 1)
	requireAnswer(t, calls.all()[0], `7`, http.StatusAccepted, "")
	w.await(later, "3")
	w.await(whole, "2")
	_, err = operator.ExecContext(t.Context(), `SELECT flower_rerun($1)`, whole)
	require.NoError(t, err)
	pgtest.Eventually(w.T, soon, "the flow has run again, and failed again", func() bool {
		r := w.rows(whole)[0]
		return r.Status == 2 && r.Attempt == 4
	})
	w.sound()

	for _, p := range []*process{s.process, first, second} {
		for _, line := range p.Log.All() {
			require.NotContains(t, fmt.Sprint(line), "permission denied")
		}
	}
	var actor string
	require.NoError(t, w.GetContext(t.Context(), &actor, `SELECT actor FROM kr_event WHERE task_flow_id = $1 AND new_status = 9`, wrong))
	require.Contains(t, actor, "_operator")
}
