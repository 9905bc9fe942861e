package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler(false).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code)
	return w.Body.String()
}

// fakeStore has a census, or an error, and counts how often it was asked.
type fakeStore struct {
	census flow.Census
	check  flow.Check
	err    error
	asked  int
}

func (s *fakeStore) Census(context.Context) (flow.Census, error) { s.asked++; return s.census, s.err }
func (s *fakeStore) Checked(context.Context) (flow.Check, error) { return s.check, s.err }

func TestState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := New("register", "v1", slog.New(slog.NewTextHandler(&log, nil)))
		store := &fakeStore{
			census: flow.Census{
				Flows:  map[string]int{"failed": 2, "running": 1},
				Queued: 3, Running: 4, Suspended: map[flow.Reason]int{flow.ReasonTimeout: 5},
				OldestWait: 90 * time.Second, Watchers: map[string]int{"late": 1}, Workers: 10, Busy: 6, HeartbeatAge: 1500 * time.Millisecond,
			},
			check: flow.Check{Done: true, Age: time.Minute, Broken: []flow.BrokenRule{{Rule: "queue", Rows: 7, Key: flow.TaskKey{Flow: "an-id"}}}},
		}
		m.State(store)
		m.Pools(func(tell func(string, int, int, int64, time.Duration)) { tell("writer", 4, 2, 9, 3*time.Second) })
		text := scrape(t, m)
		for _, line := range []string{
			`flower_build_info{program="register",version="v1"} 1`, `flower_database_up 1`,
			`flower_flows{status="failed"} 2`, `flower_flows{status="running"} 1`,
			`flower_tasks{state="queued"} 3`, `flower_tasks{state="running"} 4`, `flower_tasks{state="limited"} 0`,
			`flower_suspended_tasks{reason="timeout"} 5`, `flower_suspended_tasks{reason="held"} 0`, `flower_queue_oldest_seconds 90`,
			`flower_watchers{state="late"} 1`, `flower_watchers{state="alive"} 0`, `flower_workers 10`, `flower_workers_busy 6`,
			`flower_heartbeat_age_seconds 1.5`, `flower_invariant_violations{rule="queue"} 7`, `flower_invariant_check_age_seconds 60`,
			`flower_database_connections{pool="writer"} 4`, `flower_database_connection_waits_total{pool="writer"} 9`,
			`flower_database_connection_wait_seconds_total{pool="writer"} 3`,
		} {
			require.Contains(t, text, "\n"+line+"\n")
		}
		require.NotContains(t, text, "an-id")
		require.Contains(t, text, "go_goroutines")
		readme, err := os.ReadFile("../../README.md")
		require.NoError(t, err)
		_, alerts, _ := strings.Cut(string(readme), "\nWorth an alert are")
		alerts, _, _ = strings.Cut(alerts, "\n\n")
		named := regexp.MustCompile(`flower_[a-z_]+`).FindAllString(alerts, -1)
		require.Len(t, named, 5, "what README.md names")
		for _, name := range named {
			require.Contains(t, text, "\n"+name)
		}

		// However often somebody asks, the database is asked each half minute.
		for range 10 {
			scrape(t, m)
		}
		require.Equal(t, 1, store.asked)
		time.Sleep(censusEvery)
		store.err = errors.New("away")
		text = scrape(t, m)
		require.Contains(t, text, "\nflower_database_up 0\n")
		require.NotContains(t, text, "flower_flows", "old figures would look like new ones")
		scrape(t, m)
		require.Equal(t, 3, store.asked)
		require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), "said once")
		store.err, store.check, store.census.Watchers = nil, flow.Check{Done: true}, nil
		text = scrape(t, m)
		require.Contains(t, text, `flower_invariant_violations{rule=""} 0`)
		require.Contains(t, text, `flower_watchers{state="alive"} 0`)
		require.NotContains(t, text, "\nflower_heartbeat_age_seconds ")
	})
}

func TestWork(t *testing.T) {
	t.Parallel()
	m := New("watcher", "v1", slog.New(slog.DiscardHandler))
	w := m.Work()
	w.Claimed("Test1")
	w.Claimed("Test1")
	w.Ended("Test1", flow.OutcomeFinished, 2*time.Second)
	w.Ended("Test1", flow.OutcomeFailed, 20*time.Millisecond)
	w.Refused()
	w.Rescued(3)
	renewed := time.Time{}
	m.Pulse(func() (int, int, time.Time) { return 5, 2, renewed })
	text := scrape(t, m)
	for _, line := range []string{
		`flower_claims_total{program="Test1"} 2`, `flower_attempts_total{outcome="finished",program="Test1"} 1`,
		`flower_attempts_total{outcome="failed",program="Test1"} 1`, `flower_attempt_seconds_bucket{program="Test1",le="0.025"} 1`,
		`flower_attempt_seconds_count{program="Test1"} 2`, `flower_late_results_total 1`, `flower_rescues_total 3`,
		`flower_watcher_workers 5`, `flower_watcher_busy 2`, `flower_watcher_heartbeat_age_seconds -1`,
	} {
		require.Contains(t, text, "\n"+line+"\n")
	}
	renewed = time.Now().Add(-time.Minute)
	require.Regexp(t, `(?m)^flower_watcher_heartbeat_age_seconds 60\.`, scrape(t, m))
}

func TestWeb(t *testing.T) {
	t.Parallel()
	m := New("register", "v1", slog.New(slog.DiscardHandler))
	w := m.Web()
	w.Request("POST", "/register", 201, 3*time.Millisecond)
	w.Request("POST", "/register/sample", 201, time.Millisecond)
	w.Request("POST", "/register/rerun", 404, time.Millisecond)
	w.Request("BREW", "/nobody/knows/this", 404, time.Millisecond)
	w.Request("GET", "/api/v1/flows/secret-id/tasks/3/log", 200, time.Millisecond)
	w.Request("GET", "/api/v1/queue", 400, time.Millisecond) // nobody was served there yet
	w.Request("GET", "/api/v1/running", 500, time.Millisecond)
	w.Request("GET", "/api/v1/running", 404, time.Millisecond)
	w.Panic()
	text := scrape(t, m)
	for _, line := range []string{
		`flower_http_requests_total{code="201",method="POST",route="/register"} 1`,
		`flower_http_requests_total{code="201",method="POST",route="/register/{}"} 1`,
		`flower_http_requests_total{code="404",method="POST",route="/register/{}"} 1`,
		`flower_http_requests_total{code="404",method="other",route="other"} 1`,
		`flower_http_requests_total{code="400",method="GET",route="other"} 1`,
		`flower_http_requests_total{code="500",method="GET",route="/api/v1/running"} 1`,
		`flower_http_requests_total{code="404",method="GET",route="/api/v1/running"} 1`,
		`flower_http_requests_total{code="200",method="GET",route="/api/v1/flows/{}/tasks/{}/log"} 1`,
		`flower_http_request_seconds_bucket{route="/register",le="0.005"} 1`, `flower_http_panics_total 1`,
	} {
		require.Contains(t, text, "\n"+line+"\n")
	}
	require.NotContains(t, text, "secret-id")
}

// Whatever people ask for, there are only so many labels.
func TestWeb_LabelsAreFew(t *testing.T) {
	t.Parallel()
	m := New("register", "v1", slog.New(slog.DiscardHandler))
	w := m.Web()
	for i := range 20_000 {
		status := []int{200, 404, 401, 400, 500}[i%5]
		w.Request(fmt.Sprintf("M%d", i), fmt.Sprintf("/api/v1/%s/%d/x", []string{"flows", "log", "x"}[i%3], i), status, time.Millisecond)
		path := "/api"
		for n := i; n > 0; n /= 3 {
			path += []string{"/log", "/rerun", "/x"}[n%3]
		}
		w.Request("GET", path, status, time.Millisecond)
	}
	require.LessOrEqual(t, len(w.routes), maxRoutes)
	routes := map[string]bool{}
	for _, match := range regexp.MustCompile(`flower_http_requests_total\{.*route="([^"]*)"`).FindAllStringSubmatch(scrape(t, m), -1) {
		routes[match[1]] = true
	}
	require.LessOrEqual(t, len(routes), maxRoutes+1)
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/":                             "/",
		"":                              "other",
		"/register/":                    "/register/",
		"/register/a%2Fb":               "/register/{}",
		"/register/sample/":             "/register/{}/",
		"/flows":                        "/flows",
		"/flows/log":                    "/flows/{}",
		"/api/v1/flows":                 "/api/v1/flows",
		"/api/v1/flows/f/rerun":         "/api/v1/flows/{}/rerun",
		"/api/v1/workflows/tasks/graph": "/api/v1/workflows/{}/graph",
		"/static/123/js/app.js":         "/static/{}",
		"/evil":                         "other",
		"//evil":                        "other",
		"/flows/1/2/3/4/5/6/7/8/9":      "other",
		"/api/v1/flows/" + strings.Repeat("x", 4000): "/api/v1/flows/{}",
	} {
		require.Equal(t, want, template(path), path)
	}
}

// Each route of the API and of the pages is told apart from the others.
func TestTemplate_KnowsAllRoutes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../api/openapi.json")
	require.NoError(t, err)
	var api struct{ Paths map[string]any }
	require.NoError(t, json.Unmarshal(text, &api))
	routes := slices.Collect(maps.Keys(api.Paths))
	text, err = os.ReadFile("../web/site.go")
	require.NoError(t, err)
	for _, match := range regexp.MustCompile(`route\("([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
		routes = append(routes, match[1])
	}
	require.Greater(t, len(routes), 50)
	id := regexp.MustCompile(`\{[^}]*\}`)
	for _, route := range routes {
		if strings.HasPrefix(route, "/static/") {
			continue
		}
		require.Equal(t, id.ReplaceAllString(route, "{}"), template(id.ReplaceAllString(route, "017")), route)
	}
}

func TestServe_SecM1(t *testing.T) {
	t.Parallel()
	m := New("register", "v1", slog.New(slog.DiscardHandler))
	var log bytes.Buffer
	m.log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	serve, failed := m.Serve(ctx, "127.0.0.1:0")
	require.NoError(t, failed)
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	address := regexp.MustCompile(`metrics=http://(\S+)/metrics`).FindStringSubmatch(log.String())[1]
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{"/metrics": 200, "/debug/pprof/": 200, "/debug/pprof/heap": 200, "/": 404, "/debug/vars": 404} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
		require.NoError(t, err)
		answer, err := client.Do(r)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, want, answer.StatusCode, path)
	}
	cancel()
	require.NoError(t, <-ended)
	_, failed = m.Serve(t.Context(), "nowhere:0")
	require.ErrorContains(t, failed, "-metrics-addr")

	// Where others can reach it there are no profiles.
	w := httptest.NewRecorder()
	m.Handler(false).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/pprof/heap", nil))
	require.Equal(t, http.StatusNotFound, w.Code)
}
