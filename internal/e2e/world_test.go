package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// world is a database for both programs.
type world struct {
	*testing.T
	*pgtest.DB
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return &world{t, pgtest.New(t)}
}

// exec runs a statement as somebody at psql would.
func (w *world) exec(query string, args ...any) {
	w.Helper()
	_, err := w.Exec(query, args...)
	require.NoError(w, err)
}

// env is the environment of a program: DB_USER and so on.
func (w *world) env(more ...string) []string { return append(databaseEnv(w.T, w.URL), more...) }

func databaseEnv(t *testing.T, address string) []string {
	t.Helper()
	return commandtest.Environment(t, address)
}

// watcher starts a watcher that polls so seldom that whatever is noticed sooner was
// noticed by itself; further settings may change that.
func (w *world) watcher(args ...string) *process {
	w.Helper()
	p := run(w.T, "watcher", w.env(), append([]string{"-poll-interval", "30s"}, args...)...)
	p.Await("watching task...")
	return p
}

// server is a register that runs.
type server struct {
	*process
	url string
}

func (w *world) register(args ...string) *server {
	w.Helper()
	return serve(w.T, w.env(), args...)
}

func serve(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	return serving(run(t, "register", env, append([]string{"-webport", "0"}, args...)...))
}

// serving waits until a register serves.
func serving(p *process) *server {
	p.t.Helper()
	return &server{process: p, url: p.AwaitURL()}
}

// answer is what a request came to.
type answer struct {
	status int
	header http.Header
	text   string
}

func (s *server) send(method, path, contentType, body string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	require.NoError(s.t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return answer{resp.StatusCode, resp.Header, strings.TrimSpace(string(text))}
}

// post registers a workflow as the original's README does, and returns the flow's id.
func (s *server) post(workflow string) string {
	s.t.Helper()
	a := s.send(http.MethodPost, "/register", "application/json", `{"taskId": "`+workflow+`"}`)
	return s.flowOf(a, workflow)
}

func (s *server) flowOf(a answer, workflow string) string {
	s.t.Helper()
	require.Equal(s.t, http.StatusCreated, a.status, a.text)
	var got struct{ Status, TaskID, TaskFlowID string }
	require.NoError(s.t, json.Unmarshal([]byte(a.text), &got))
	require.Equal(s.t, "succeeded", got.Status)
	require.Equal(s.t, workflow, got.TaskID)
	require.NotEmpty(s.t, got.TaskFlowID)
	return got.TaskFlowID
}

// define makes a workflow: rows of task_seq, program, parameters, and what else is set.
func (w *world) define(id string, rows ...task) {
	w.Helper()
	for i, r := range rows {
		if r.seq == 0 {
			r.seq = i + 1
		}
		if r.parameters == "" {
			r.parameters = "{}"
		}
		w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, parameters, depends_task_seqs, max_attempts, retry_delay, timeout, on_lost)
			VALUES ($1, $2, $3, $4, $5, $6, $7, '0 s', $8::interval, $9)`,
			id, r.seq, r.program, r.priority, r.parameters, r.depends, max(r.attempts, 1), nilIfEmpty(r.timeout), orElse(r.onLost, "rerun"))
	}
}

// task is a task definition; what is zero is the default.
type task struct {
	seq, priority, attempts int
	program, parameters     string
	depends                 []int32
	timeout, onLost         string
}

func nilIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orElse(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// row is a row of kr_task_stat.
type row struct {
	Flow      string     `db:"task_flow_id"`
	Seq       int        `db:"task_exec_seq"`
	Depends   int        `db:"depends_task_exec_seq"`
	Task      string     `db:"task_id"`
	TaskSeq   int        `db:"task_seq"`
	Status    int        `db:"exec_status"`
	Priority  int        `db:"task_priority"`
	Program   string     `db:"program"`
	Attempt   int        `db:"attempt"`
	Reason    string     `db:"reason"`
	Error     string     `db:"error"`
	Started   *time.Time `db:"started_ts"`
	Finished  *time.Time `db:"finished_ts"`
	Suspended *time.Time `db:"suspended_ts"`
}

// rows returns a flow's tasks, in order.
func (w *world) rows(flow string) []row {
	w.Helper()
	var rows []row
	require.NoError(w, w.Select(&rows, `SELECT task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, task_priority,
		coalesce(program, '') AS program, attempt, coalesce(reason, '') AS reason, coalesce(error, '') AS error, started_ts, finished_ts, suspended_ts
		FROM kr_task_stat WHERE task_flow_id = $1 ORDER BY task_exec_seq`, flow))
	return rows
}

// statuses returns a flow's statuses as "3 3 0".
func (w *world) statuses(flow string) string {
	w.Helper()
	var s string
	require.NoError(w, w.Get(&s, `SELECT coalesce(string_agg(exec_status::text, ' ' ORDER BY task_exec_seq), '') FROM kr_task_stat WHERE task_flow_id = $1`, flow))
	return s
}

// await waits until a flow's statuses are these.
func (w *world) await(flow, want string) {
	w.Helper()
	w.awaitFor(soon, flow, want)
}

func (w *world) awaitFor(within time.Duration, flow, want string) {
	w.Helper()
	var got string
	defer func() {
		w.Helper()
		if got != want {
			w.Logf("flow %s: %s", flow, got)
		}
	}()
	pgtest.Eventually(w.T, within, "flow "+flow+" is at "+want, func() bool {
		got = w.statuses(flow)
		return got == want
	})
}

// sound fails the test if what must never be is.
func (w *world) sound() {
	w.Helper()
	var broken []string
	require.NoError(w, w.Select(&broken, `SELECT rule || ': ' || task_flow_id || '/' || task_exec_seq || ' ' || detail FROM v_invariant`))
	require.Empty(w, broken)
}

// peer is an HTTP server that tasks of the program HTTPPostRequest call: what it gets can
// be counted, and how it answers is a test's to say.
type peer struct {
	*httptest.Server
	mu    sync.Mutex
	calls []call // guarded by mu
}

type call struct {
	path, body, key string
	at              time.Time
	gone            bool // the one who asked did not wait
}

// newPeer makes a server that answers by a function, in any number at a time.
func newPeer(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *peer {
	t.Helper()
	p := &peer{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		n := len(p.calls)
		p.calls = append(p.calls, call{path: r.URL.Path, body: string(body), key: r.Header.Get("Idempotency-Key"), at: time.Now()})
		p.mu.Unlock()
		answer(w, r)
		p.mu.Lock()
		p.calls[n].gone = r.Context().Err() != nil
		p.mu.Unlock()
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *peer) seen() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]call{}, p.calls...)
}

// of counts the calls of a flow's tasks.
func (p *peer) of(flow string) int {
	n := 0
	for _, c := range p.seen() {
		if strings.HasPrefix(c.key, flow+":") {
			n++
		}
	}
	return n
}

// at counts the calls to a path.
func (p *peer) at(path string) int {
	n := 0
	for _, c := range p.seen() {
		if c.path == path {
			n++
		}
	}
	return n
}

// calling makes a task that calls a path of a peer.
func (p *peer) calling(path string) task {
	return task{program: "HTTPPostRequest", parameters: `{"URL": "` + p.URL + path + `"}`}
}

// gate keeps requests waiting until it is closed, or whoever asked has gone.
type gate chan struct{}

func (g gate) wait(w http.ResponseWriter, r *http.Request) {
	select {
	case <-g:
		w.WriteHeader(http.StatusOK)
	case <-r.Context().Done():
	}
}
