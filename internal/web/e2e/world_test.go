package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// world is a database with a register, and with watchers where a test starts some.
type world struct {
	*testing.T
	db       *pgtest.DB
	register *commandtest.Process
	url      string // of register

	pictured int
}

func newWorld(t *testing.T, args ...string) *world {
	t.Helper()
	t.Parallel()
	startBrowser(t) // or skip, before anything is started in vain
	w := &world{T: t, db: pgtest.New(t)}
	w.serve(append([]string{"-webport", "0"}, args...)...)
	return w
}

// serve starts a register, in place of the one before.
func (w *world) serve(args ...string) {
	w.Helper()
	w.register = commandtest.Start(w.T, filepath.Join(bin, "register"), w.env(), args...)
	w.url = w.register.AwaitURL()
}

// site is where the pages are.
func (w *world) site() string { return w.url }

func (w *world) env() []string { return commandtest.Environment(w.T, w.db.URL) }

// watcher starts a watcher with settings beside those that make a test quick.
func (w *world) watcher(args ...string) *commandtest.Process {
	w.Helper()
	p := commandtest.Start(w.T, filepath.Join(bin, "watcher"), w.env(), append([]string{"-poll-interval", "1s"}, args...)...)
	p.Await("watching task...")
	return p
}

// exec runs a statement as somebody at psql would.
func (w *world) exec(query string, args ...any) {
	w.Helper()
	_, err := w.db.Exec(query, args...)
	require.NoError(w, err)
}

// value returns the one value that a query finds, as text.
func (w *world) value(query string, args ...any) string {
	w.Helper()
	var s string
	require.NoError(w, w.db.Get(&s, query, args...))
	return s
}

// registered registers a flow of a workflow and returns its id.
func (w *world) registered(workflow string) string {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.url+"/register", strings.NewReader(`{"taskId": `+quote(workflow)+`}`))
	require.NoError(w, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(w, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(w, err)
	require.Equal(w, http.StatusCreated, resp.StatusCode, "%s", text)
	var got struct{ TaskFlowID string }
	require.NoError(w, json.Unmarshal(text, &got))
	return got.TaskFlowID
}

// statuses returns a flow's statuses as "3 3 0".
func (w *world) statuses(flow string) string {
	w.Helper()
	return w.value(`SELECT coalesce(string_agg(exec_status::text, ' ' ORDER BY task_exec_seq), '') FROM kr_task_stat WHERE task_flow_id = $1`, flow)
}

// until waits until a flow's statuses are these.
func (w *world) until(flow, want string) {
	w.Helper()
	var got string
	pgtest.Eventually(w.T, commandtest.Soon, "flow "+flow+" is at "+want, func() bool {
		got = w.statuses(flow)
		return got == want
	})
}

// within fails if something took longer than it may. Under the race detector, which is
// many times slower, nothing is said; where others keep the machine busy, it may take as
// much longer as it waits for its turn.
func (w *world) within(limit time.Duration, since time.Time, what string) {
	w.Helper()
	w.atMost(limit, time.Since(since), what)
}

// atMost is within of what was measured before.
func (w *world) atMost(limit, took time.Duration, what string) {
	w.Helper()
	if commandtest.RaceFlag == "-race" {
		return
	}
	var load float64
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &load)
	}
	if took > time.Duration(float64(limit)*max(1, load/float64(runtime.NumCPU()))) {
		w.Errorf("%s took %s, and may take %s", what, took.Round(time.Millisecond), limit)
	}
}
