package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// task is a task definition of a test; what is zero is the default.
type task struct {
	title, program, parameters string
	after                      []int32 // none is nothing, unless it is a chain
	attempts                   int
}

// define makes a workflow. Its tasks have numbers from 1.
func (w *world) define(id string, tasks ...task) {
	w.Helper()
	for i, t := range tasks {
		if t.program == "" {
			t.program = "NoOp"
		}
		if t.parameters == "" {
			t.parameters = "{}"
		}
		if t.after == nil {
			t.after = []int32{}
		}
		w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, parameters, depends_task_seqs, max_attempts, retry_delay, description)
			VALUES ($1, $2, $3, $4, $5, $6, '100 ms', $7)`, id, i+1, t.program, t.parameters, ints(t.after), max(t.attempts, 1), t.title)
	}
}

// ints writes an array as PostgreSQL does.
func ints(list []int32) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(int(n))
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// peer is an HTTP server that tasks call: a path answers 200 but where a test says
// otherwise.
type peer struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]func(w http.ResponseWriter, r *http.Request) // guarded by mu
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	p := &peer{answers: map[string]func(http.ResponseWriter, *http.Request){}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		answer := p.answers[r.URL.Path]
		p.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(func() {
		p.CloseClientConnections() // a watcher that still runs may wait for an answer
		p.Close()
	})
	return p
}

// on says how a path answers; nil is 200.
func (p *peer) on(path string, answer func(w http.ResponseWriter, r *http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[path] = answer
}

// refuses makes a path answer with a status.
func (p *peer) refuses(path string, status int, body string) {
	p.on(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// stalls makes a path answer when the test says so, or when whoever asked has gone.
func (p *peer) stalls(path string) (goOn func()) {
	free := make(chan struct{})
	p.on(path, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-free:
		case <-r.Context().Done():
		}
	})
	return func() { close(free) }
}

// calling makes a task that calls a path.
func (p *peer) calling(title, path string, after ...int32) task {
	return task{title: title, program: "HTTPPostRequest", parameters: `{"URL": ` + quote(p.URL+path) + `}`, after: after}
}

// nightly registers a flow whose third task has failed twice, with two tasks behind it,
// and waits until it stands still.
func (w *world) nightly(p *peer) string {
	w.Helper()
	p.refuses("/orders", http.StatusServiceUnavailable, "the service is away\nfor two minutes")
	load := p.calling("load_orders", "/orders", 1, 2)
	load.attempts = 2
	w.define("nightly",
		task{title: "extract_orders", program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 0.4}`},
		task{title: "extract_users", program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 0.2}`},
		load,
		task{title: "build_mart", after: []int32{3}},
		task{title: "notify", after: []int32{4}},
	)
	flow := w.registered("nightly")
	w.until(flow, "3 3 2 0 0")
	return flow
}

// flowPath is the path of a flow's page.
func flowPath(id string) string { return "/flows/" + url.PathEscape(id) }
