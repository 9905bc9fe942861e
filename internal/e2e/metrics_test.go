package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// metrics returns what a process tells Prometheus.
func (p *process) metrics() string {
	p.t.Helper()
	url, _ := p.Await("metrics are served")["metrics"].(string)
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(p.t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	require.NoError(p.t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(p.t, err)
	require.Equal(p.t, http.StatusOK, answer.StatusCode)
	return string(text)
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	w.define("fails", task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 5}`, timeout: "50 ms"}, task{program: "NoOp"})
	s := w.register("-metrics-addr", "127.0.0.1:0")
	watcher := w.watcher("-metrics-addr", "127.0.0.1:0")
	flow := s.post("fails")
	w.await(flow, "2 0")
	w.await(s.post("sample"), "3 3 3")
	require.Equal(t, http.StatusNotFound, s.send(http.MethodGet, "/metrics", "", "").status, "not where register serves")

	for _, line := range []string{
		`flower_attempts_total{outcome="timeout",program="EchoParamTimeSleep"} 1`, `flower_attempts_total{outcome="finished",program="Test1"} 1`,
		`flower_claims_total{program="Test3"} 1`, `flower_attempt_seconds_count{program="Test2"} 1`, `flower_watcher_workers 5`,
		`flower_late_results_total 0`, `flower_rescues_total 0`, `flower_build_info{program="watcher",`,
	} {
		require.Contains(t, watcher.metrics(), "\n"+line)
	}
	text := s.metrics()
	for _, line := range []string{
		`flower_http_requests_total{code="201",method="POST",route="/register"} 2`, `flower_flows{status="failed"} 1`,
		`flower_suspended_tasks{reason="timeout"} 1`, `flower_watchers{state="alive"} 1`, `flower_workers 5`, `flower_database_up 1`,
		`flower_database_connections{pool="writer"}`,
	} {
		require.Contains(t, text, "\n"+line)
	}
	require.NotContains(t, text, flow)
	pgtest.Eventually(t, soon, "the rules were checked", func() bool {
		var done bool
		require.NoError(t, w.Get(&done, "SELECT EXISTS (SELECT FROM kr_check)"))
		return done
	})
	require.False(t, strings.Contains(watcher.metrics(), "flower_flows"), "what all have in common is register's to tell")
}
