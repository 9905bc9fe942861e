package postgres

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/web"
)

// Each page answers within 50 ms, nearly always, with a million flows, on a machine that
// has nothing else to do: go test ./internal/postgres -run Pages_OfMany -lists.flows 1000000 -v.
func TestPages_OfMany(t *testing.T) {
	if *manyFlows == 0 {
		t.Skip("measures with -lists.flows")
	}
	w := openBroken(t)
	fillFlows(t, w, *manyFlows)
	mustExec(t, w.psql, `INSERT INTO ms_task_definition (task_id, task_seq, program)
		SELECT w, s, 'Test' || s FROM (SELECT 'w' || n AS w FROM generate_series(0, 49) n UNION ALL SELECT 'rare') x, generate_series(1, 3) s`)
	mustExec(t, w.psql, `INSERT INTO kr_tally SELECT ts, gen_random_uuid(), 200, 2
		FROM generate_series(date_trunc('minute', now()) - interval '14 days', now(), interval '1 minute') ts`)
	mustExec(t, w.psql, `ANALYZE`)

	site := web.New(web.Config{}, w.DB, slog.New(slog.DiscardHandler)).Handler()
	get := func(path string) string {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r = r.WithContext(access.With(r.Context(), access.Principal{Name: "alice", Role: access.Operator}))
		answer := httptest.NewRecorder()
		site.ServeHTTP(answer, r)
		require.Equal(t, http.StatusOK, answer.Code, "%s: %s", path, answer.Body)
		return answer.Body.String()
	}
	older := regexp.MustCompile(`rel="next" href="([^"]*)"`)
	deep := "/flows"
	for range 20 {
		m := older.FindStringSubmatch(get(deep))
		deep = "/flows" + strings.ReplaceAll(m[1], "&amp;", "&")
	}
	for _, path := range []string{
		"/", "/?window=7d", "/flows", deep, "/flows?status=failed", "/flows?status=running", "/flows?status=queued", "/flows?status=held", "/flows?status=finished",
		"/flows?taskId=w7", "/flows?taskId=w7&status=failed", "/flows?since=24h", "/flows?q=w4", "/flows?q=503", "/flows?program=Test2", "/flows?registeredBy=alice",
		"/failures", "/workflows", "/workflows/w7", "/workflows/rare?flows=100&window=30d", "/watchers", "/events",
	} {
		get(path)
		times := make([]time.Duration, 20)
		for i := range times {
			start := time.Now()
			get(path)
			times[i] = time.Since(start)
		}
		slices.Sort(times)
		name, _, _ := strings.Cut(path, "&newer=")
		require.Less(t, times[18], 50*time.Millisecond, path)
		t.Logf("%-60s least %6.1f ms, half %6.1f ms, p95 %6.1f ms", fmt.Sprintf("%.60s", name), ms(times[0]), ms(times[10]), ms(times[18]))
	}
}
