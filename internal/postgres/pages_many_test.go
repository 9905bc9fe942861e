package postgres

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/web"
)

// Each list answers within 50 ms, nearly always, with a million flows, and the page of a flow
// of 500 tasks within 150 ms, on a machine that has nothing else to do: go test
// ./internal/postgres -run Pages_OfMany -lists.flows 1000000 -v. On another one the work is worth
// a look: how long processors were at it, here and in the database, with what goes on behind a
// page (the counts of flows, anew).
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
	mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq, exec_status,
			reason, error, attempt, started_ts, finished_ts, suspended_ts, program, description)
		SELECT 'large', s, greatest(s - 20, 0), CASE WHEN s > 20 THEN ARRAY[s - 20] ELSE '{}' END, 'w0', s, st, CASE st WHEN 2 THEN 'failed' END, CASE st WHEN 2 THEN 'it did not work' END, (st <> 0)::int,
			CASE WHEN st <> 0 THEN now() - interval '9 s' END, CASE st WHEN 3 THEN now() END, CASE st WHEN 2 THEN now() END, 'Test1', 'task ' || s
		FROM generate_series(1, 500) s, LATERAL (SELECT CASE WHEN s < 300 THEN 3 WHEN s < 306 THEN 2 ELSE 0 END AS st) x`)
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
		"/failures", "/workflows", "/workflows/w7", "/workflows/rare?flows=100&window=30d", "/watchers", "/events", "/flows/large", "/flows/large?task=301&panel=attempts",
	} {
		get(path)
		work, wait := make([]time.Duration, 20), make([]time.Duration, 20)
		for i := range work {
			before, start := worked(t, w), time.Now()
			get(path)
			wait[i] = time.Since(start)
			work[i] = worked(t, w) - before
		}
		slices.Sort(work)
		slices.Sort(wait)
		limit := 50 * time.Millisecond
		if strings.HasPrefix(path, "/flows/") {
			limit *= 3
		}
		name, _, _ := strings.Cut(path, "&newer=")
		t.Logf("%-60s least %6.1f ms, half %6.1f ms, p95 %6.1f ms; work: least %6.1f ms, half %6.1f ms",
			fmt.Sprintf("%.60s", name), ms(wait[0]), ms(wait[10]), ms(wait[18]), ms(work[0]), ms(work[10]))
		assert.Less(t, wait[18], limit, path)
	}
}

// worked returns how long processors have been at this process, and at those that serve its
// database.
func worked(t *testing.T, w *world) time.Duration {
	t.Helper()
	var use syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	sum := time.Duration(use.Utime.Nano() + use.Stime.Nano())
	var pids []int
	require.NoError(t, w.psql.Select(&pids, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`))
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			continue // it has ended
		}
		var ns int64
		_, err = fmt.Sscan(string(text), &ns)
		require.NoError(t, err)
		sum += time.Duration(ns)
	}
	return sum
}
