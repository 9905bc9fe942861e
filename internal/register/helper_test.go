package register

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// prepared is for a server that has nothing to wait for.
func prepared(context.Context) error { return nil }

// fakeStore is a Store of functions. Without one it knows the workflow "sample" and
// every other but "nope".
type fakeStore struct {
	register func(context.Context, flow.Registration) (flow.Flow, error)
	ready    func(context.Context) error
	checked  func() (flow.Check, error)
	answer   func(key flow.TaskKey, hash, body string) (flow.Answered, error)
}

func (f fakeStore) Register(ctx context.Context, r flow.Registration) (flow.Flow, error) {
	if f.register != nil {
		return f.register(ctx, r)
	}
	if r.WorkflowID == "nope" {
		return flow.Flow{}, flow.ErrNotFound
	}
	return flow.Flow{ID: r.FlowID, WorkflowID: r.WorkflowID}, nil
}

func (f fakeStore) Answer(_ context.Context, key flow.TaskKey, hash, body string) (flow.Answered, error) {
	if f.answer != nil {
		return f.answer(key, hash, body)
	}
	return "", flow.ErrNotFound
}

func (f fakeStore) Ready(ctx context.Context) error {
	if f.ready != nil {
		return f.ready(ctx)
	}
	return nil
}

func (f fakeStore) Checked(context.Context) (flow.Check, error) {
	if f.checked != nil {
		return f.checked()
	}
	return flow.Check{}, nil
}

// failing is a store whose Register returns an error.
func failing(err error) fakeStore {
	return fakeStore{register: func(context.Context, flow.Registration) (flow.Flow, error) { return flow.Flow{}, err }}
}

// recording is a store that keeps what it was asked to register.
func recording(got *flow.Registration) fakeStore {
	return fakeStore{register: func(_ context.Context, r flow.Registration) (flow.Flow, error) {
		*got = r
		return flow.Flow{ID: r.FlowID, WorkflowID: r.WorkflowID}, nil
	}}
}

// logBuffer is a log that tests can read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serving returns the handler of a server on localhost.
func serving(store Store) http.Handler {
	return New(Config{Host: "localhost", Port: 8000}, store, slog.New(slog.DiscardHandler)).Handler()
}

// newRequest makes one with the headers of curl; further headers come as name, value, ….
func newRequest(t *testing.T, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, path, reader)
	r.Host = "localhost:8000"
	r.Header.Set("User-Agent", "curl/8.5.0")
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func send(t *testing.T, h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return do(h, newRequest(t, method, path, body, headers...))
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// answerOf decodes an answer of /register, which must have nothing unknown in it.
func answerOf(t *testing.T, w *httptest.ResponseRecorder) registerAnswer {
	t.Helper()
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var a registerAnswer
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&a))
	return a
}

func problemOf(t *testing.T, w *httptest.ResponseRecorder) problem.Document {
	t.Helper()
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"), w.Body.String())
	var p problem.Document
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
	require.Equal(t, w.Code, p.Status)
	require.NotEmpty(t, p.Code)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
	require.Equal(t, w.Header().Get("X-Request-Id"), p.RequestID)
	return p
}
