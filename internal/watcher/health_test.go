package watcher

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// newHealthy returns a watcher that answers health checks, and where.
func newHealthy(t *testing.T, store *fakeStore) (w *Watcher, address string) {
	t.Helper()
	logs := &logs{}
	w, err := New(Config{Workers: 1, PollInterval: time.Second}, store, taking(0), slog.New(logs))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	serve, err := w.Health(ctx, "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- serve() }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	return w, logs.only(t, "health checks are answered").attrs["address"].(string)
}

func ask(t *testing.T, url string) (status int, text string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	answer, err := client.Do(r)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w, address := newHealthy(t, &fakeStore{})
	for _, test := range []struct {
		renewed time.Time
		status  int
		text    string
	}{
		{time.Time{}, http.StatusServiceUnavailable, "waiting for the database\n"},
		{time.Now(), http.StatusOK, "ready\nv_invariant: not checked yet: a watcher does so within half a minute of its start\n"},
		{time.Now().Add(-fenceAfter - time.Second), http.StatusServiceUnavailable, "no heartbeat goes through to the database; the log says why\n"},
	} {
		if !test.renewed.IsZero() {
			w.lease.renewed.Store(&test.renewed)
		}
		status, text := ask(t, "http://"+address+"/readyz")
		require.Equal(t, test.status, status)
		require.Equal(t, test.text, text)

		status, text = ask(t, "http://"+address+"/healthz")
		require.Equal(t, http.StatusOK, status, "the process lives")
		require.Equal(t, "ok\n", text)
	}
	status, _ := ask(t, "http://"+address+"/")
	require.Equal(t, http.StatusNotFound, status)
}

// A rule of the database that does not hold is said; only who asks for it gets 503.
func TestHealthOfTheDatabasesRules(t *testing.T) {
	t.Parallel()
	var now value[flow.Check]
	var fails value[error]
	w, address := newHealthy(t, &fakeStore{checked: func() (flow.Check, error) { return now.get(), fails.get() }})
	w.lease.renewed.Store(new(time.Now()))
	expect := func(c flow.Check, strictly int) {
		t.Helper()
		now.set(c)
		for path, want := range map[string]int{"/readyz": http.StatusOK, "/readyz?strict": strictly} {
			status, text := ask(t, "http://"+address+path)
			require.Equal(t, want, status)
			require.Equal(t, "ready\n"+c.Text(true), text)
		}
	}
	rules := []flow.BrokenRule{{Rule: "owned means running", Rows: 1, Key: flow.TaskKey{Flow: "f", Seq: 2}, Detail: "exec_status is 3"}}
	expect(flow.Check{Done: true}, http.StatusOK)
	expect(flow.Check{Done: true, Broken: rules}, http.StatusServiceUnavailable)
	expect(flow.Check{Done: true, Repaired: rules}, http.StatusOK)

	fails.set(errAway)
	status, text := ask(t, "http://"+address+"/readyz?strict")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ready\nv_invariant: not known: what the last check found cannot be read\n", text)
}

func TestHealthPortInUse(t *testing.T) {
	t.Parallel()
	w, address := newHealthy(t, &fakeStore{})
	_, err := w.Health(t.Context(), address)
	require.ErrorContains(t, err, "-health-addr")
}
