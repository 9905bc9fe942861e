package register

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

var allRoutes = []struct{ method, path string }{
	{"POST", "/register"},
	{"POST", "/register/sample"},
	{"GET", "/"},
	{"GET", "/healthz"},
	{"GET", "/readyz"},
	{"GET", "/api/v1/flows/x"},
	{"GET", "/nothing/here"},
	{"DELETE", "/"},
	{"OPTIONS", "/register"},
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
	for _, path := range []string{"/", "/healthz", "/readyz"} {
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
		r := newRequest(t, "GET", "/healthz", "")
		r.Host = host
		require.Equal(t, http.StatusOK, do(h, r).Code, host)
	}
	for _, host := range []string{
		"evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost",
		"127.0.0.1.nip.io", "flower.example.com.evil.example", "0x7f.1", "2130706433", "127.1", "a b", "..",
	} {
		for _, route := range allRoutes {
			r := newRequest(t, route.method, route.path, "")
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

// small returns the handler of a server that serves two requests at once and lets three
// wait; its Register waits for release.
func small(release <-chan struct{}) http.Handler {
	s := New(Config{Host: "localhost"}, fakeStore{register: func(_ context.Context, r flow.Registration) (flow.Flow, error) {
		<-release
		return flow.Flow{ID: r.FlowID, WorkflowID: r.WorkflowID}, nil
	}}, slog.New(slog.DiscardHandler))
	s.inFlight, s.queue = make(chan struct{}, 2), make(chan struct{}, 3)
	return s.Handler()
}

func TestServer_LimitsRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := small(release)
		codes := make(chan int, 5)
		for range 5 {
			r := newRequest(t, "POST", "/register/sample", "")
			go func() { codes <- do(h, r).Code }()
		}
		synctest.Wait() // until all of them are in, or in the queue
		w := send(t, h, "POST", "/register/sample", "")
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.Contains(t, answerOf(t, w).Description, "too many requests")
		require.Equal(t, http.StatusOK, send(t, h, "GET", "/readyz", "").Code, "a busy server is not a dead one")
		close(release)
		for range 5 {
			require.Equal(t, http.StatusCreated, <-codes)
		}
		require.Equal(t, http.StatusCreated, send(t, h, "POST", "/register/sample", "").Code)
	})
}

func TestServer_NobodyWaitsInTheQueueForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := small(release)
		var served sync.WaitGroup
		for range 2 {
			r := newRequest(t, "POST", "/register/sample", "")
			served.Go(func() { do(h, r) })
		}
		synctest.Wait()
		start := time.Now()
		require.Equal(t, http.StatusServiceUnavailable, send(t, h, "POST", "/register/sample", "").Code)
		require.Equal(t, queueTimeout, time.Since(start))
		close(release)
		served.Wait()
	})
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

// A site may have requests that wait for something to happen. They have the time for it,
// and take no place of others.
func TestServer_PatientRequests(t *testing.T) {
	t.Parallel()
	waits := Site{
		Prefix: "/waits/",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			problem.Fail(w, r, context.Cause(r.Context()))
		}),
		Patience: func(r *http.Request) time.Duration {
			d, _ := time.ParseDuration(r.URL.Query().Get("wait"))
			return d
		},
	}
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Host: "localhost"}, fakeStore{}, slog.New(slog.DiscardHandler), waits)
		s.inFlight, s.queue, s.patient = make(chan struct{}, 1), make(chan struct{}), make(chan struct{}, 2)
		h := s.Handler()
		for path, want := range map[string]time.Duration{"/waits/": 15 * time.Second, "/waits/?wait=60s": 75 * time.Second} {
			start := time.Now()
			w := send(t, h, "GET", path, "")
			require.Equal(t, want, time.Since(start), path)
			require.Contains(t, problemOf(t, w).Detail, "within "+want.String())
		}
		for range 2 {
			go send(t, h, "GET", "/waits/?wait=60s", "")
		}
		synctest.Wait()
		require.Equal(t, http.StatusCreated, send(t, h, "POST", "/register/sample", "").Code)
		require.Equal(t, http.StatusServiceUnavailable, send(t, h, "GET", "/waits/?wait=1s", "").Code)
		s.end() // they do not keep the server from stopping
		synctest.Wait()
		w := send(t, h, "GET", "/waits/?wait=60s", "")
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, "shutting-down", problemOf(t, w).Code)
	})
}

// On a real connection neither deadline of the server cuts them off, and a client that leaves
// ends them.
func TestServe_PatientRequests(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	waits := Site{Prefix: "/waits/", Patience: func(*http.Request) time.Duration { return time.Minute }, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				ended <- context.Cause(r.Context())
			case <-time.After(1200 * time.Millisecond): // startSmall's read deadline is over
				ended <- nil
				w.WriteHeader(http.StatusNoContent)
			}
		})}
	address, _ := startSmall(t, 3, 2, fakeStore{}, waits)
	status, _ := dial(t, address).ask(t, "/waits/")
	require.NoError(t, <-ended)
	require.Equal(t, http.StatusNoContent, status)

	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/waits/", nil)
	require.NoError(t, err)
	time.AfterFunc(100*time.Millisecond, leave)
	_, err = http.DefaultClient.Do(r) //nolint:bodyclose // there is none
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)
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
	do(h, newRequest(t, "POST", "/register/sample", "").WithContext(ctx))
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
			throttled.log(t.Context(), problem.Unexpected(errors.New(text)))
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

// An outage is told at once, after a few seconds, then once a minute, and so is its end,
// however many requests it costs, and whatever their errors say.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		var port int
		var away bool
		store := fakeStore{register: func(context.Context, flow.Registration) (flow.Flow, error) {
			if port++; away {
				return flow.Flow{}, fmt.Errorf("read tcp 127.0.0.1:%d: %w", port, flow.ErrUnavailable)
			}
			return flow.Flow{}, nil
		}}
		h := New(Config{Host: "localhost"}, store, log.logger()).Handler()
		post := func(want int) {
			t.Helper()
			require.Equal(t, want, send(t, h, "POST", "/register/sample", "").Code)
		}
		info := func() int { return strings.Count(log.String(), "\n") - strings.Count(log.String(), "level=DEBUG") }
		for range 2 {
			before := info()
			away = true
			for range 125 {
				post(503)
				time.Sleep(time.Second)
			}
			require.Equal(t, before+3, info(), "at the begin, after 5 s and after a minute more")
			away = false
			post(201)
			require.Equal(t, before+3+2, info(), "its end, and the flow")
		}
		for _, n := range []int{1, 6, 66} {
			require.Equal(t, 2, strings.Count(log.String(), fmt.Sprintf("refused=%d err=", n)))
		}
		require.Equal(t, 2, strings.Count(log.String(), `msg="the database is back" component=register refused=125 after=2m5s`))

		before := info()
		for range 100 { // every other request
			away = !away
			post(map[bool]int{true: 503, false: 201}[away])
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, info()-before-50, 2, "but for the flows")
	})
}

func TestConfig_Validate(t *testing.T) {
	t.Parallel()
	for _, good := range []Config{{}, {Host: "::1", Port: 65535}, {Host: "0.0.0.0"}, {Hosts: []string{"a.example", "Register", "10.0.0.1", "::1"}}} {
		require.NoError(t, good.Validate())
	}
	for want, bad := range map[string]Config{
		"-webport (FLOWER_WEBPORT) 65536":  {Port: 65536},
		"-webport (FLOWER_WEBPORT) -1":     {Port: -1},
		"-webhost (FLOWER_WEBHOST) \"http": {Host: "http://localhost"},
		"-webhost (FLOWER_WEBHOST) \"l":    {Host: "localhost:8000"},
		"-webhost (FLOWER_WEBHOST) \"[":    {Host: "[::1]"},
		"-hosts (FLOWER_HOSTS) \"a:1\"":    {Hosts: []string{"ok", "a:1"}},
		"-hosts (FLOWER_HOSTS) \"*.a\"":    {Hosts: []string{"*.a"}},
		"-hosts (FLOWER_HOSTS) \"http":     {Hosts: []string{"http://a"}},
	} {
		require.ErrorContains(t, bad.Validate(), want)
	}
}

// Who is refused is told in the log, and cannot fill it.
func TestServer_SecK2_RefusalsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		h := New(Config{Host: "localhost", ReadOnly: true}, fakeStore{}, log.logger()).Handler()
		for range 1000 {
			require.Equal(t, http.StatusForbidden, send(t, h, "POST", "/register/sample", "").Code)
		}
		require.Equal(t, 1, strings.Count(log.String(), "level=INFO"))
		time.Sleep(throttlePause)
		send(t, h, "POST", "/register/sample", "")
		require.Equal(t, 2, strings.Count(log.String(), "level=INFO"))
		require.Contains(t, log.String(), "repeated=999")
	})
}

// Where there are pages, a browser gets them at /, and curl is told what there is.
func TestServer_WelcomesTerminals(t *testing.T) {
	t.Parallel()
	h := New(Config{Host: "localhost"}, fakeStore{}, slog.New(slog.DiscardHandler), echoSite("/")).Handler()
	for _, accept := range []string{"", "*/*", "text/plain"} {
		w := send(t, h, http.MethodGet, "/", "", "Accept", accept)
		require.Contains(t, w.Body.String(), "Register a flow of the workflow", accept)
		require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"), accept)
	}
	page := send(t, h, http.MethodGet, "/", "", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	require.NotContains(t, page.Body.String(), "Register a flow of the workflow")
}
