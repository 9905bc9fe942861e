package register

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/flow"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	var log logBuffer
	var down atomic.Pointer[error]
	store := fakeStore{ready: func(context.Context) error {
		if err := down.Load(); err != nil {
			return *err
		}
		return nil
	}}
	s := New(Config{Host: "localhost"}, store, log.logger())
	h := s.Handler()
	ask := func(path string) (int, string) {
		w := send(t, h, "GET", path, "")
		require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
		return w.Code, w.Body.String()
	}
	expect := func(code int, text string) {
		t.Helper()
		gotCode, gotText := ask("/readyz")
		require.Equal(t, code, gotCode)
		require.Equal(t, text, gotText)
		require.Equal(t, code, send(t, h, "HEAD", "/readyz", "").Code)
		gotCode, gotText = ask("/healthz")
		require.Equal(t, 200, gotCode)
		require.Equal(t, "ok\n", gotText)
	}
	const ready = "ready\nv_invariant: not checked yet: a watcher does so within half a minute of its start\n"
	expect(200, ready)

	away := errors.Join(errors.New("dial 10.1.2.3"), flow.ErrUnavailable)
	down.Store(&away)
	expect(503, "the database is not available\n")
	expect(503, "the database is not available\n")
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), "one line per change")

	old := errors.New("schema of 10.1.2.3 is too old")
	down.Store(&old)
	expect(503, "the database cannot be used; the log says why\n")
	down.Store(nil)
	expect(200, ready)
	require.Equal(t, 1, strings.Count(log.String(), `msg="ready again"`))

	s.stopping.Store(true)
	expect(503, "shutting down\n")
}

// A rule of the database that does not hold is said, and takes no register out of
// service; only who asks for it gets 503. Strangers learn no names.
func TestHealth_OfTheDatabasesRules(t *testing.T) {
	t.Parallel()
	broken := flow.Check{Done: true, Broken: []flow.BrokenRule{
		{Rule: "owned means running", Rows: 1, Key: flow.TaskKey{Flow: "secret", Seq: 2}, Detail: "exec_status is 3"},
	}}
	for _, c := range []struct {
		cfg      Config
		check    flow.Check
		strictly int
		names    bool
	}{
		{Config{Host: "localhost"}, flow.Check{Done: true}, 200, true},
		{Config{Host: "localhost"}, broken, 503, true},
		{Config{Host: "0.0.0.0", Insecure: true}, broken, 503, true},
		{Config{Host: "0.0.0.0"}, broken, 503, false},
	} {
		h := New(c.cfg, fakeStore{checked: func() (flow.Check, error) { return c.check, nil }}, slog.New(slog.DiscardHandler)).Handler()
		for path, want := range map[string]int{"/readyz": 200, "/readyz?strict": c.strictly} {
			w := send(t, h, "GET", path, "")
			require.Equal(t, want, w.Code)
			require.Equal(t, "ready\n"+c.check.Text(c.names), w.Body.String())
			require.Equal(t, c.names && len(c.check.Broken) > 0, strings.Contains(w.Body.String(), "secret"))
		}
	}

	for err, told := range map[error]bool{errors.New("it is broken"): true, flow.ErrUnavailable: false} {
		var log logBuffer
		s := New(Config{Host: "localhost"}, fakeStore{checked: func() (flow.Check, error) { return flow.Check{}, err }}, log.logger())
		w := send(t, s.Handler(), "GET", "/readyz?strict", "")
		require.Equal(t, 200, w.Code)
		require.Equal(t, "ready\nv_invariant: not known: what the last check found cannot be read\n", w.Body.String())
		require.Equal(t, told, strings.Contains(log.String(), "what the last check of v_invariant found cannot be read"))
	}
}

func TestHealthcheck_AsksTheServerThatRuns(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	store := fakeStore{ready: func(context.Context) error {
		if down.Load() {
			return flow.ErrUnavailable
		}
		return nil
	}}
	address, stop := start(t, Config{}, store, slog.New(slog.DiscardHandler))
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	for _, host := range []string{"localhost", "127.0.0.1", "0.0.0.0", ""} {
		n, err := strconv.Atoi(port)
		require.NoError(t, err)
		require.NoError(t, cli.Healthcheck(t.Context(), Config{Host: host, Port: n}.URL()), host)
		down.Store(true)
		require.ErrorContains(t, cli.Healthcheck(t.Context(), Config{Host: host, Port: n}.URL()), "503 Service Unavailable: the database is not available")
		down.Store(false)
	}
	require.NoError(t, stop())
	n, _ := strconv.Atoi(port)
	require.ErrorContains(t, cli.Healthcheck(t.Context(), Config{Host: "127.0.0.1", Port: n}.URL()), "connection refused")
}

func TestWelcome(t *testing.T) {
	t.Parallel()
	w := send(t, serving(fakeStore{}), "GET", "/", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `curl -X POST http://localhost:8000/register -d '{"taskId": "sample"}'`)
	require.NotContains(t, w.Body.String(), "HOST/")
	w = send(t, New(Config{Host: "localhost", BasePath: "/flower"}, fakeStore{}, slog.New(slog.DiscardHandler)).Handler(), "GET", "/", "")
	require.Contains(t, w.Body.String(), `curl -X POST http://localhost:8000/flower/register -d`)
}
