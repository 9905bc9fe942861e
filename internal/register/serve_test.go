package register

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// start serves on a free port until the test calls stop, which returns Serve's error.
func start(t *testing.T, cfg Config, store Store, log *slog.Logger) (address string, stop func() error) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- New(cfg, store, log).Serve(ctx, l, prepared) }()
	stop = func() error { cancel(); return <-ended }
	t.Cleanup(func() { cancel() })
	return l.Addr().String(), stop
}

// newClient makes one that leaves no goroutine behind.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t *testing.T, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	answer, err := c.Do(r)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

func TestServe_ListensAnswersAndStops(t *testing.T) {
	t.Parallel()
	var log logBuffer
	address, stop := start(t, Config{Host: "127.0.0.1"}, fakeStore{}, log.logger())
	c := newClient(t)
	code, body := get(t, c, "POST", "http://"+address+"/register", `{"taskId":"sample"}`)
	require.Equal(t, http.StatusCreated, code, body)
	code, _ = get(t, c, "GET", "http://"+address+"/", "")
	require.Equal(t, http.StatusOK, code)
	require.NoError(t, stop())
	require.Contains(t, log.String(), `msg="starting server on address: `+address+`" component=register address=`+address)
	require.Contains(t, log.String(), "msg=stopped")
	require.NotContains(t, log.String(), "level=WARN")
}

// Until it is prepared the server answers, and does not say that it has started.
func TestServe_WhileItPrepares(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]error{
		"and can":    nil,
		"and cannot": errors.New("no such role"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var log logBuffer
			release, ended := make(chan struct{}), make(chan error, 1)
			go func() {
				ended <- New(Config{}, fakeStore{ready: func(context.Context) error { return flow.ErrUnavailable }}, log.logger()).
					Serve(ctx, l, func(context.Context) error { <-release; return outcome })
			}()
			site, client := "http://"+l.Addr().String(), newClient(t)
			code, body := get(t, client, http.MethodGet, site+"/healthz", "")
			require.Equal(t, http.StatusOK, code, body)
			code, body = get(t, client, http.MethodGet, site+"/readyz", "")
			require.Equal(t, http.StatusServiceUnavailable, code, body)
			require.NotContains(t, log.String(), "starting server")
			close(release)
			if outcome == nil {
				require.Eventually(t, func() bool { return strings.Contains(log.String(), "starting server on address") }, 10*time.Second, time.Millisecond)
				stop()
				require.NoError(t, <-ended)
				return
			}
			require.ErrorIs(t, <-ended, outcome)
			require.NotContains(t, log.String(), "starting server")
		})
	}
}

func TestServe_StoppedWhileItPrepares(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	prepare := func(ctx context.Context) error {
		stop()
		<-ctx.Done()
		return ctx.Err()
	}
	require.NoError(t, New(Config{}, fakeStore{}, slog.New(slog.DiscardHandler)).Serve(ctx, l, prepare))
}

func TestServe_LetsRequestsInFlightEnd(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	store := fakeStore{register: func(ctx context.Context, r flow.Registration) (flow.Flow, error) {
		close(entered)
		<-release
		return flow.Flow{ID: r.FlowID, WorkflowID: r.WorkflowID}, ctx.Err()
	}}
	var log logBuffer
	address, stop := start(t, Config{}, store, log.logger())
	c := newClient(t)
	type answer struct {
		code int
		body string
	}
	answers := make(chan answer, 1)
	go func() {
		code, body := get(t, c, "POST", "http://"+address+"/register/sample", "")
		answers <- answer{code, body}
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "msg=stopping") }, 10*time.Second, time.Millisecond)
	close(release)
	a := <-answers
	require.Equal(t, http.StatusCreated, a.code, a.body)
	require.NoError(t, <-stopped)
}

func TestServe_CutsOffWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	store := fakeStore{register: func(ctx context.Context, _ flow.Registration) (flow.Flow, error) {
		close(entered)
		<-ctx.Done() // ends when the connection is closed
		return flow.Flow{}, ctx.Err()
	}}
	address, stop := start(t, Config{ShutdownTimeout: time.Millisecond}, store, slog.New(slog.DiscardHandler))
	c := newClient(t)
	failed := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+address+"/register/sample", http.NoBody)
		answer, err := c.Do(r)
		if err == nil {
			_ = answer.Body.Close()
		}
		failed <- err
	}()
	<-entered
	require.ErrorContains(t, stop(), "-shutdown-timeout")
	require.Error(t, <-failed)
}

func TestServe_WarnsWhereOthersCanReachIt(t *testing.T) {
	t.Parallel()
	for _, insecure := range []bool{false, true} {
		var log logBuffer
		s := New(Config{Host: "0.0.0.0", Insecure: insecure}, fakeStore{}, log.logger())
		s.announce()
		require.Contains(t, log.String(), `starting server on address: 0.0.0.0:0`)
		require.Equal(t, 1, strings.Count(log.String(), "level=WARN"))
		require.Contains(t, log.String(), "insecure")
	}
}

func TestRun_NamesTheSettingsWhenThePortIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	addr, ok := taken.Addr().(*net.TCPAddr)
	require.True(t, ok)
	err = New(Config{Host: "127.0.0.1", Port: addr.Port}, fakeStore{}, slog.New(slog.DiscardHandler)).Run(t.Context(), prepared)
	require.ErrorContains(t, err, "-webport")
	require.ErrorContains(t, err, "address already in use")
}

func TestServe_RefusesLongHeaders(t *testing.T) {
	t.Parallel()
	address, stop := start(t, Config{}, fakeStore{}, slog.New(slog.DiscardHandler))
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: "+strings.Repeat("x", 32<<10)+"\r\n\r\n")
	require.NoError(t, err)
	status := make([]byte, len("HTTP/1.1 431"))
	_, err = io.ReadFull(conn, status)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 431", string(status))
	_ = conn.Close()
	require.NoError(t, stop())
}

// Who does not get on with a request is cut off, and holds up nobody.
func TestServe_SecG2_SlowHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	address, stop := start(t, Config{}, fakeStore{}, slog.New(slog.DiscardHandler))
	begun := time.Now()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: local")
	require.NoError(t, err)
	c := newClient(t)
	code, _ := get(t, c, "GET", "http://"+address+"/", "")
	require.Equal(t, http.StatusOK, code)
	_, err = io.Copy(io.Discard, conn)
	require.NoError(t, err, "the server has closed it")
	require.Less(t, time.Since(begun), 2*headerTimeout)
	require.NoError(t, stop())
}
