package register

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

var allRoutes = []struct{ method, path string }{
	{"POST", "/register"}, {"POST", "/register/sample"}, {"GET", "/"}, {"GET", "/healthz"}, {"GET", "/readyz"},
	{"GET", "/api/v1/flows/x"}, {"GET", "/nothing/here"}, {"DELETE", "/"}, {"OPTIONS", "/register"},
}

func TestServer_UnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	h := serving(fakeStore{})
	for _, path := range []string{"/registerx", "/regist", "/healthz/", "/api/v1", "/api/v1/flows/", "/api/v1/flows/a/b", "//", "/index.html"} {
		for _, method := range []string{"GET", "POST"} {
			w := send(t, h, method, path, "")
			require.Equal(t, http.StatusNotFound, w.Code, "%s %s", method, path)
			require.Equal(t, "no-such-path", problemOf(t, w).Code)
		}
	}
	for _, path := range []string{"/", "/healthz", "/readyz", "/api/v1/flows/a"} {
		w := send(t, h, "POST", path, "")
		require.Equal(t, http.StatusMethodNotAllowed, w.Code)
		require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
		require.Equal(t, "method-not-allowed", problemOf(t, w).Code)
	}
	w := send(t, h, "POST", "/register/"+strings.Repeat("a", maxPath), "")
	require.Equal(t, http.StatusRequestURITooLong, w.Code)
}

func TestServer_EveryAnswerHasItsHeaders(t *testing.T) {
	t.Parallel()
	ids := map[string]bool{}
	for _, route := range allRoutes {
		h := send(t, serving(fakeStore{}), route.method, route.path, "", "X-Request-Id", "mine").Header()
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Contains(t, h.Get("Content-Security-Policy"), "default-src 'none'")
		require.Contains(t, h.Get("Content-Security-Policy"), "frame-ancestors 'none'")
		require.Equal(t, "same-origin", h.Get("Referrer-Policy"))
		require.Empty(t, h.Get("Access-Control-Allow-Origin"))
		ids[h.Get("X-Request-Id")] = true
	}
	require.Len(t, ids, len(allRoutes), "one id each")
	require.NotContains(t, ids, "mine")
}

func TestServer_RefusesOtherSites(t *testing.T) {
	t.Parallel()
	var got flow.Registration
	h := serving(recording(&got))
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "http://evil.example"},
		{"Origin", "null"},
		{"Origin", "http://localhost:9000"},
	} {
		for _, path := range []string{"/register", "/register/sample"} {
			w := send(t, h, "POST", path, `{"taskId":"sample"}`, headers...)
			require.Equal(t, http.StatusForbidden, w.Code, headers)
			require.Contains(t, answerOf(t, w).Description, "another site")
			require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
		}
		w := send(t, h, "DELETE", "/", "", headers...)
		require.Equal(t, "cross-origin", problemOf(t, w).Code)
	}
	require.Empty(t, got.FlowID, "nothing was registered")
	for _, headers := range [][]string{
		{},
		{"Sec-Fetch-Site", "same-origin"},
		{"Sec-Fetch-Site", "none"},
		{"Origin", "http://localhost:8000"},
	} {
		require.Equal(t, http.StatusCreated, send(t, h, "POST", "/register/sample", "", headers...).Code, headers)
	}
}

func TestServer_ServesKnownHostsOnly(t *testing.T) {
	t.Parallel()
	h := New(Config{Host: "flower.internal", Insecure: true, Hosts: []string{"Flower.example.com", "register"}},
		fakeStore{}, slog.New(slog.DiscardHandler)).Handler()
	for _, host := range []string{
		"localhost", "localhost:8000", "LOCALHOST", "localhost.", "app.localhost:1", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000",
		"flower.internal:8000", "flower.example.com", "FLOWER.example.com.:443", "register:8000",
		// A page cannot make its own name be an address, so these are not rebound names.
		"10.1.2.3:8000", "[fe80::1]:8000", "",
	} {
		r := request(t, "GET", "/healthz", "")
		r.Host = host
		require.Equal(t, http.StatusOK, do(h, r).Code, host)
	}
	for _, host := range []string{
		"evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost",
		"127.0.0.1.nip.io", "flower.example.com.evil.example", "0x7f.1", "2130706433", "127.1", "a b", "..",
	} {
		for _, route := range allRoutes {
			r := request(t, route.method, route.path, "")
			r.Host = host
			w := do(h, r)
			require.Equal(t, http.StatusMisdirectedRequest, w.Code, "%s %s of %s", route.method, route.path, host)
			if !isRegister(r) {
				require.Equal(t, "unknown-host", problemOf(t, w).Code)
			}
		}
	}
}

func TestServer_ServesOthersTheContractOnly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  Config
		open bool
	}{
		"localhost":          {Config{Host: "localhost"}, true},
		"127.0.0.1":          {Config{Host: "127.0.0.1"}, true},
		"127.8.8.8":          {Config{Host: "127.8.8.8"}, true},
		"::1":                {Config{Host: "::1"}, true},
		"0.0.0.0":            {Config{Host: "0.0.0.0"}, false},
		"::":                 {Config{Host: "::"}, false},
		"everything":         {Config{Host: ""}, false},
		"an address":         {Config{Host: "10.1.2.3"}, false},
		"a name":             {Config{Host: "flower.internal"}, false},
		"0.0.0.0, -insecure": {Config{Host: "0.0.0.0", Insecure: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := New(c.cfg, fakeStore{}, slog.New(slog.DiscardHandler)).Handler()
			for _, path := range []string{"/", "/api/v1/flows/x", "/nothing"} {
				w := send(t, h, "GET", path, "")
				if c.open {
					require.NotEqual(t, http.StatusForbidden, w.Code, path)
					continue
				}
				require.Equal(t, http.StatusForbidden, w.Code, path)
				require.Contains(t, problemOf(t, w).Detail, "-insecure")
			}
			require.Equal(t, http.StatusCreated, send(t, h, "POST", "/register", `{"taskId":"sample"}`).Code)
			require.Equal(t, http.StatusCreated, send(t, h, "POST", "/register/sample", "").Code)
			require.Equal(t, http.StatusOK, send(t, h, "GET", "/healthz", "").Code)
			require.Equal(t, http.StatusOK, send(t, h, "GET", "/readyz", "").Code)
			require.NotEqual(t, http.StatusOK, send(t, h, "GET", "/register/../api/v1/flows/x", "").Code)
		})
	}
}

func TestServer_APanicEndsOneRequest(t *testing.T) {
	t.Parallel()
	var log logBuffer
	h := New(Config{Host: "localhost"}, fakeStore{
		register: func(context.Context, flow.Registration) (flow.Flow, error) { panic("boom: s3cret") },
	}, log.logger()).Handler()
	w := send(t, h, "POST", "/register/sample", "")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	a := answerOf(t, w)
	require.Equal(t, "failed", a.Status)
	require.Equal(t, w.Header().Get("X-Request-Id"), a.RequestID)
	require.NotContains(t, w.Body.String(), "boom")
	require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"))
	require.Contains(t, log.String(), "boom")
	require.Contains(t, log.String(), "server_test.go", "the stack")
	require.Equal(t, http.StatusOK, send(t, h, "GET", "/healthz", "").Code)
}

func TestServer_LimitsRequestsInFlight(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, maxInFlight), make(chan struct{})
	h := serving(fakeStore{register: func(_ context.Context, r flow.Registration) (flow.Flow, error) {
		entered <- struct{}{}
		<-release
		return flow.Flow{ID: r.FlowID, WorkflowID: r.WorkflowID}, nil
	}})
	codes := make(chan int, maxInFlight)
	for range maxInFlight {
		r := request(t, "POST", "/register/sample", "")
		go func() { codes <- do(h, r).Code }()
	}
	for range maxInFlight {
		<-entered
	}
	w := send(t, h, "POST", "/register/sample", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Equal(t, http.StatusOK, send(t, h, "GET", "/readyz", "").Code, "a busy server is not a dead one")
	close(release)
	for range maxInFlight {
		require.Equal(t, http.StatusCreated, <-codes)
	}
	require.Equal(t, http.StatusCreated, send(t, h, "POST", "/register/sample", "").Code)
}

func TestServer_ARequestHas15Seconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := serving(fakeStore{register: func(ctx context.Context, _ flow.Registration) (flow.Flow, error) {
			<-ctx.Done()
			return flow.Flow{}, ctx.Err()
		}})
		start := time.Now()
		w := send(t, h, "POST", "/register/sample", "")
		require.Equal(t, 15*time.Second, time.Since(start))
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, answerOf(t, w).Description, "unknown whether")
		require.NotEmpty(t, w.Header().Get("Retry-After"))
	})
}

func TestServer_ClientsThatLeaveAreNoErrors(t *testing.T) {
	t.Parallel()
	var log logBuffer
	ctx, leave := context.WithCancel(t.Context())
	h := New(Config{Host: "localhost"}, fakeStore{register: func(ctx context.Context, _ flow.Registration) (flow.Flow, error) {
		leave()
		<-ctx.Done()
		return flow.Flow{}, ctx.Err()
	}}, log.logger()).Handler()
	do(h, request(t, "POST", "/register/sample", "").WithContext(ctx))
	require.NotContains(t, log.String(), "level=WARN")
	require.NotContains(t, log.String(), "level=ERROR")
}

func TestServer_AccessLog(t *testing.T) {
	t.Parallel()
	var log logBuffer
	h := New(Config{Host: "localhost"}, fakeStore{}, log.logger()).Handler()
	w := send(t, h, "GET", "/api/v1/flows/x?format=json&token=canary", "")
	require.Regexp(t, `level=DEBUG msg=request component=register method=GET path=/api/v1/flows/x status=404 took=\S+ client=192.0.2.1 request=`+
		w.Header().Get("X-Request-Id"), log.String())
	send(t, h, "POST", "/register/nope", `{"parameters":{"x":"canary"}}`)
	require.Regexp(t, `level=INFO msg=request component=register method=POST path=/register/nope status=404`, log.String())
	require.NotContains(t, log.String(), "canary")
}

func TestThrottle_WritesTheSameErrorOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		throttled := newThrottle(log.logger())
		write := func(text string) {
			throttled.log(t.Context(), &failure{kind: internal, cause: errors.New(text)})
		}
		for range 100 {
			write("one")
		}
		write("two")
		require.Equal(t, 2, strings.Count(log.String(), "\n"))
		time.Sleep(throttlePause)
		write("one")
		require.Contains(t, log.String(), "repeated=99 err=one")

		before := strings.Count(log.String(), "\n")
		for i := range 10_000 { // texts that differ each time do not get around it
			write(strconv.Itoa(i))
		}
		require.LessOrEqual(t, strings.Count(log.String(), "\n")-before, throttleTexts+1)
		require.LessOrEqual(t, len(throttled.seen), throttleTexts+1)
		time.Sleep(throttlePause)
		write("three")
		require.Contains(t, log.String(), "err=three")
	})
}

// start serves on a free port until the test calls stop, which returns Serve's error.
func start(t *testing.T, cfg Config, store Store, log *slog.Logger) (address string, stop func() error) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- New(cfg, store, log).Serve(ctx, l) }()
	stop = func() error { cancel(); return <-ended }
	t.Cleanup(func() { cancel() })
	return l.Addr().String(), stop
}

// client is one that leaves no goroutine behind.
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
	err = New(Config{Host: "127.0.0.1", Port: addr.Port}, fakeStore{}, slog.New(slog.DiscardHandler)).Run(t.Context())
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
	expect(200, "ready\n")

	away := errors.Join(errors.New("dial 10.1.2.3"), flow.ErrUnavailable)
	down.Store(&away)
	expect(503, "the database is not available\n")
	expect(503, "the database is not available\n")
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), "one line per change")

	old := errors.New("schema of 10.1.2.3 is too old")
	down.Store(&old)
	expect(503, "the database cannot be used; the log says why\n")
	down.Store(nil)
	expect(200, "ready\n")
	require.Equal(t, 1, strings.Count(log.String(), `msg="ready again"`))

	s.stopping.Store(true)
	expect(503, "shutting down\n")
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
		require.NoError(t, Healthcheck(t.Context(), Config{Host: host, Port: n}), host)
		down.Store(true)
		require.ErrorContains(t, Healthcheck(t.Context(), Config{Host: host, Port: n}), "503 Service Unavailable: the database is not available")
		down.Store(false)
	}
	require.NoError(t, stop())
	n, _ := strconv.Atoi(port)
	require.ErrorContains(t, Healthcheck(t.Context(), Config{Host: "127.0.0.1", Port: n}), "connection refused")
}

func TestWelcome(t *testing.T) {
	t.Parallel()
	w := send(t, serving(fakeStore{}), "GET", "/", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `curl -X POST http://localhost:8000/register -d '{"taskId": "sample"}'`)
	require.NotContains(t, w.Body.String(), "HOST/")
}

func TestConfig_Validate(t *testing.T) {
	t.Parallel()
	for _, good := range []Config{{}, {Host: "::1", Port: 65535}, {Host: "0.0.0.0"}, {Hosts: []string{"a.example", "Register", "10.0.0.1", "::1"}}} {
		require.NoError(t, good.Validate())
	}
	for want, bad := range map[string]Config{
		"-webport (FLOWER_WEBPORT) 65536": {Port: 65536},
		"-webport (FLOWER_WEBPORT) -1":    {Port: -1},
		"-webhost (FLOWER_WEBHOST)":       {Host: "http://localhost"},
		"-hosts (FLOWER_HOSTS) \"a:1\"":   {Hosts: []string{"ok", "a:1"}},
		"-hosts (FLOWER_HOSTS) \"*.a\"":   {Hosts: []string{"*.a"}},
		"-hosts (FLOWER_HOSTS) \"http":    {Hosts: []string{"http://a"}},
	} {
		require.ErrorContains(t, bad.Validate(), want)
	}
}
