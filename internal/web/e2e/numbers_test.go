package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// demo fills the database with what make demo has: two hundred flows of six workflows, whose
// tasks call a site.
func (w *world) demo(site string) {
	w.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "dev", "demo.sql"))
	require.NoError(w, err)
	for part := range strings.SplitSeq(strings.ReplaceAll(string(text), "{site}", site), "\n-- then\n") {
		w.exec(part)
	}
}

// answer asks the API for a path, as programs do.
func answer[T any](w *world, path string) (v T) {
	w.Helper()
	status, text := fetch(w.T, w.url+"/api/v1"+path)
	require.Equal(w, http.StatusOK, status, "%s: %s", path, text)
	require.NoError(w, json.Unmarshal([]byte(text), &v), path)
	return v
}

// items asks for a list; f says what of each is of interest.
func items[T any](w *world, path string, f func(T) string) []string {
	w.Helper()
	list := []string{}
	for _, one := range answer[struct{ Items []T }](w, path).Items {
		list = append(list, f(one))
	}
	return list
}

// took is a duration as pages write it.
func (b *tab) took(ms int64) string {
	b.Helper()
	return eval[string](b, fmt.Sprintf(`import(document.querySelector('script[type=module]').src.replace("main.js", "time.js")).then(m => m.took(%d))`, ms))
}

// What the API says, as far as it is compared.
type (
	countOf struct {
		Count int
		Exact bool
	}
	bucket struct {
		Ts               time.Time
		Finished, Failed int
	}
	statsOf struct {
		Flows   map[string]countOf
		Workers int
		Running int
		Queue   countOf
		Buckets []bucket
	}
	flowOf struct {
		TaskFlowID, TaskID, Status string
		Counts                     map[string]int
		Failure                    struct {
			TaskExecSeq int
			Title       string
		}
	}
)

func id(f flowOf) string { return f.TaskFlowID }

func (c countOf) String() string {
	if c.Exact {
		return fmt.Sprint(c.Count)
	}
	return fmt.Sprint(c.Count) + "+"
}

// chart is what the chart of the start page says, bar by bar, and what its table says.
func (b *tab) chart() (bars, rows []string) {
	b.Helper()
	const when = `e => new Date(e).toISOString().slice(5, 16).replace("T", " ") + " UTC: "`
	bars = b.texts(".ended .columns-chart g title")
	rows = eval[[]string](b, `[...document.querySelectorAll("#ended-table tbody tr")].map(r => (`+when+`)(r.querySelector("time").dateTime) + r.cells[1].textContent + " finished, " + r.cells[2].textContent + " failed")`)
	return bars, rows
}

// 31. A rerun two days later does not squash what was before: each attempt fills the timeline
// when it is chosen, and where all are shown the days between are cut out, visibly. The
// numbers of a chart are those of its table, and of the API.
func TestUI_31_TimelineAndCharts(t *testing.T) {
	w := newWorld(t)
	w.inserted("late", shape{states: "3 3", after: [][]int32{{}, {1}}})
	w.exec(`SET LOCAL session_replication_role = replica; -- what attempts are counted by is kept by Flower
		UPDATE kr_task_stat SET attempt = task_exec_seq, registered_ts = now() - interval '48 h',
		started_ts = CASE task_exec_seq WHEN 1 THEN now() - interval '48 h' ELSE now() - interval '60 s' END,
		finished_ts = CASE task_exec_seq WHEN 1 THEN now() - interval '2879 min' ELSE now() - interval '20 s' END`)
	w.exec(`INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts, reason, error)
		VALUES ('late', 2, 1, 2, now() - interval '2879 min', now() - interval '2878 min', 'failed', 'not today')`)
	b := w.open(flowPath("late"))
	b.drawn() // until then what is below moves
	width := func(row, nth int) float64 {
		return eval[float64](b, fmt.Sprintf(`document.querySelectorAll("#tl-%d .run")[%d].getBoundingClientRect().width / document.querySelector("#tl-%d .track").getBoundingClientRect().width`, row, nth, row))
	}
	require.Equal(t, 2, b.count("#tl-2 .run"), "each attempt is a bar")
	require.Equal(t, 1, b.count("#tl-2 .cut"), "what is left out can be seen")
	require.Contains(t, b.text("#timeline header"), "nothing went on for 1 d 23 h")
	for _, one := range [][2]int{{1, 0}, {2, 0}, {2, 1}} {
		require.Greater(t, width(one[0], one[1]), 0.1, "%v", one)
	}
	b.pressed("#timeline .tabs a", "2")
	b.await("the second attempt alone", `document.querySelectorAll("#tl-2 .run").length === 1 && document.querySelectorAll("#tl-2 .cut").length === 0`)
	require.Greater(t, width(2, 0), 0.7, "it fills the timeline")

	w.demo(w.url)
	for _, win := range []struct{ name, api string }{{"24h", "window=24h&bucket=15m"}, {"7d", "window=7d&bucket=2h"}} {
		pgtest.Eventually(t, patience, "both are read within the same bar", func() bool {
			b.goTo("/?window=" + win.name)
			bars, rows := b.chart()
			require.Equal(t, rows, bars, win.name)
			require.NotEmpty(t, bars)
			var want []string
			total := 0
			for _, k := range answer[statsOf](w, "/stats?"+win.api).Buckets {
				want = append(want, fmt.Sprintf("%s UTC: %d finished, %d failed", k.Ts.UTC().Format("01-02 15:04"), k.Finished, k.Failed))
				total += k.Finished
			}
			require.NotZero(t, total)
			return slices.Equal(want, bars)
		})
	}
}

// 42. What a page says is what the API says: the same flows, groups and numbers, for the same
// filter.
func TestUI_42_PagesAreTheAPI(t *testing.T) {
	w := newWorld(t)
	w.demo(w.url)
	w.watcher("-workers", "2", "-http-timeout", "10m")
	p := newPeer(t)
	t.Cleanup(p.stalls("/slow"))
	w.define("slow", p.calling("call", "/slow"))
	running := []string{w.registered("slow"), w.registered("slow"), w.registered("slow")}
	w.until(running[1], "1")
	b := w.blank()
	for name, same := range map[string]func(*world, *tab){
		"now": sameNow, "flows": sameFlows, "failures": sameFailures, "workflows": sameWorkflows, "watchers and events": sameWatchersAndEvents, "flow": sameFlow,
	} {
		t.Run(name, func(t *testing.T) { same(w.in(t), b.in(t)) })
	}
}

func sameNow(w *world, b *tab) {
	b.goTo("/")
	s := answer[statsOf](w, "/stats?window=24h&bucket=5m")
	require.Equal(w, []string{fmt.Sprint(s.Running), s.Queue.String()}, b.texts(".number strong")[:2])
	require.Contains(w, b.text(".number.s-running"), fmt.Sprintf("of %d workers", s.Workers))
	failed := 0
	for _, k := range s.Buckets {
		failed += k.Failed
	}
	require.Equal(w, fmt.Sprint(failed), b.texts(".number strong")[2])
	type task struct {
		TaskFlowID  string
		TaskExecSeq int
		Position    int
	}
	require.Equal(w, items(w, "/running", func(r task) string { return fmt.Sprintf("r-%s-%d", r.TaskFlowID, r.TaskExecSeq) }), b.ids(`[id^="r-"]`))
	require.Equal(w, items(w, "/queue?limit=10", func(r task) string { return fmt.Sprintf("q-%s-%d", r.TaskFlowID, r.TaskExecSeq) }), b.ids(`[id^="q-"]`))
	require.ElementsMatch(w, items(w, "/failures?limit=5", func(g struct{ Tasks int }) string { return fmt.Sprintf("%d×", g.Tasks) }), b.texts(".often"))
}

func sameFlows(w *world, b *tab) {
	s := answer[statsOf](w, "/stats")
	b.goTo("/flows")
	require.Equal(w, s.Flows["all"].String(), b.text(".chip .n"))
	for status, n := range s.Flows {
		if status != "all" {
			require.Equal(w, n.String(), b.text(".chip.s-"+status+" .n"), status)
		}
	}
	for _, filter := range []string{"", "status=failed", "status=running", "status=held,cancelled", "taskId=nightly", "taskId=nightly&status=failed", "q=i/o", "since=24h", "registeredBy=carol", "program=HTTPPostRequest&status=failed", "reason=lost", "since=7d&minDuration=5m"} {
		b.goTo("/flows?" + filter)
		require.Equal(w, items(w, "/flows?limit=50&"+filter, id), eval[[]string](b, `[...document.querySelectorAll("#picks [name=flow]")].map(e => e.value)`), filter)
		require.Equal(w, items(w, "/flows?limit=50&"+filter, func(f flowOf) string {
			all := 0
			for _, n := range f.Counts {
				all += n
			}
			return fmt.Sprintf("%d/%d", f.Counts["finished"]+f.Counts["ignored"], all)
		}), b.texts(".flows .tasks-cell .muted"), filter)
		require.Equal(w, items(w, "/flows?limit=50&"+filter, func(f flowOf) string {
			if f.Failure.TaskExecSeq == 0 {
				return ""
			}
			return fmt.Sprintf("%d %s", f.Failure.TaskExecSeq, f.Failure.Title)
		}), eval[[]string](b, `[...document.querySelectorAll(".flows .failure-cell")].map(e => e.querySelector("strong")?.firstChild.data ?? "")`), filter)
	}
}

func sameFailures(w *world, b *tab) {
	for _, filter := range []string{"", "taskId=reports", "program=EchoParamTimeSleep", "since=24h"} {
		b.goTo("/failures?" + filter)
		require.Equal(w, items(w, "/failures?"+filter, func(g struct{ Tasks, Flows int }) string { return fmt.Sprintf("%d tasks, %d flows", g.Tasks, g.Flows) }),
			eval[[]string](b, `[...document.querySelectorAll(".group")].map(g => g.querySelector(".group-count strong").innerText + " tasks, " + /All (\d+) flow|The flow|Its flow/.exec(g.querySelector(".menu a").textContent)?.[1].concat(" flows"))`), filter)
	}
}

func sameWorkflows(w *world, b *tab) {
	b.goTo("/workflows")
	require.Equal(w, items(w, "/workflows", func(f struct {
		TaskID string
		Tasks  []any
	},
	) string {
		return fmt.Sprintf("%s %d", f.TaskID, len(f.Tasks))
	}), eval[[]string](b, `[...document.querySelectorAll(".workflows tbody tr")].map(r => r.querySelector("strong").innerText + " " + parseInt(r.querySelector(".count-cell").innerText))`))

	b.goTo("/workflows/nightly?window=7d")
	s := answer[struct {
		ByStatus    map[string]int
		SuccessRate float64
		DurationMs  struct{ P50, P95 int64 }
		Tasks       []struct{ Runs, Failed int }
	}](w, "/workflows/nightly/stats?window=7d")
	all := 0
	for _, n := range s.ByStatus {
		all += n
	}
	numbers := b.texts(".numbers strong")
	require.Equal(w, []string{fmt.Sprintf("%.0f %%", 100*s.SuccessRate), fmt.Sprint(all), b.took(s.DurationMs.P50), b.took(s.DurationMs.P95)}, numbers)
	var went []string
	for _, one := range s.Tasks {
		went = append(went, fmt.Sprintf("%d %d", one.Runs, one.Failed))
	}
	require.Equal(w, went, eval[[]string](b, `[...document.querySelectorAll(".went tbody tr")].map(r => r.cells[1].innerText + " " + parseInt(r.cells[2].innerText))`))
}

func sameWatchersAndEvents(w *world, b *tab) {
	b.goTo("/watchers")
	require.Equal(w, items(w, "/watchers", func(one struct {
		Host               string
		PID, Busy, Workers int
	},
	) string {
		return fmt.Sprintf("%s:%d %d of %d", one.Host, one.PID, one.Busy, one.Workers)
	}), eval[[]string](b, `[...document.querySelectorAll(".watchers tbody tr")].map(r => r.cells[0].innerText + " " + r.cells[2].innerText.trim())`))
	for _, filter := range []string{"", "actor=alice", "kind=rerun", "kind=hold"} {
		b.goTo("/events?" + filter)
		require.Equal(w, items(w, "/events?limit=50&"+filter, func(e struct{ EventID int64 }) string { return fmt.Sprintf("e-%d", e.EventID) }), b.ids(".all-events tbody tr")[:len(items(w, "/events?limit=50&"+filter, func(struct{}) string { return "" }))], filter)
	}
}

func sameFlow(w *world, b *tab) {
	for _, f := range append(items(w, "/flows?limit=3&status=failed", id), items(w, "/flows?limit=3&taskId=slow", id)...) {
		b.goTo(flowPath(f))
		type task struct {
			TaskExecSeq   int
			Status, Title string
			Reason        *string
			DurationMs    *int64
		}
		got := answer[struct {
			Status string
			Tasks  []task
		}](w, flowPath(f))
		require.Equal(w, strings.ToUpper(got.Status[:1])+got.Status[1:], b.text(".flow-head .badge"), f)
		rows := map[string]bool{}
		for _, row := range eval[[]string](b, `[...document.querySelectorAll(".tasks [data-seq]")].map(r => r.dataset.seq + " " + r.dataset.title + " " + (r.dataset.took ?? ""))`) {
			rows[row] = true
		}
		for _, one := range got.Tasks {
			took := ""
			if one.DurationMs != nil && one.Status != "running" {
				took = b.took(*one.DurationMs)
			}
			require.Contains(w, rows, fmt.Sprintf("%d %s %s", one.TaskExecSeq, one.Title, took), f)
		}
		require.Len(w, rows, len(got.Tasks))
	}
}

// in lets a part of a test use the same world.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.T = t
	return &part
}

// ids are those of elements.
func (b *tab) ids(css string) []string {
	b.Helper()
	return eval[[]string](b, `[...document.querySelectorAll(`+quote(css)+`)].map(e => e.id)`)
}

// manyFlows puts finished flows into the tables, of which one in a hundred has failed, as if
// they had run. No trigger runs.
func (w *world) manyFlows(n int) {
	w.Helper()
	w.exec(fmt.Sprintf(`SET LOCAL session_replication_role = replica;
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, registered_ts, started_ts, finished_ts, suspended_ts, reason, error, attempt, claim_id, program, dependents)
		SELECT 'flow-' || to_char(f, 'FM000000'), s, 'w' || f %% 50, s, CASE WHEN bad THEN 2 ELSE 3 END, ts, ts, CASE WHEN NOT bad THEN ts + interval '1 s' END, CASE WHEN bad THEN ts + interval '1 s' END,
		       CASE WHEN bad THEN 'failed' END, CASE WHEN bad THEN format('order %%s is not there', f) END, 1, gen_random_uuid(), 'NoOp', CASE s WHEN 1 THEN '{2}'::int[] ELSE '{}' END
		FROM   generate_series(1, %[1]d) f, generate_series(1, 2) s, LATERAL (SELECT now() - (%[1]d - f) * interval '5 s' AS ts, f %% 100 = 3 AND s = 2 AS bad) x ORDER BY f, s;
		INSERT INTO kr_flow (task_flow_id, task_id, registered_ts, registered_by)
		SELECT 'flow-' || to_char(f, 'FM000000'), 'w' || f %% 50, now() - (%[1]d - f) * interval '5 s', 'cron' FROM generate_series(1, %[1]d) f`, n))
	w.exec(`VACUUM ANALYZE kr_task_stat, kr_flow`)
}

// 24. With 100,000 flows the first page and the twentieth one further back answer within 50
// ms, and nothing reads the table of tasks from end to end. That they do so nearly always,
// also with a million, is seen where nothing else runs: Pages_OfMany in internal/postgres.
func TestUI_24_ManyFlows(t *testing.T) {
	w := newWorld(t)
	w.manyFlows(100_000)
	older := regexp.MustCompile(`rel="next" href="([^"]*)"`)
	page := func(path string) string {
		t.Helper()
		code, text := fetch(t, w.url+path, "Accept", "text/html")
		require.Equal(t, http.StatusOK, code, path)
		return text
	}
	deep := "/flows"
	for range 20 {
		m := older.FindStringSubmatch(page(deep))
		require.NotNil(t, m, deep)
		deep = "/flows" + strings.ReplaceAll(m[1], "&amp;", "&")
	}
	require.Contains(t, page(deep), "flow-099000", "a thousand are before them")
	for _, path := range []string{"/flows", deep, "/flows?status=failed", "/flows?taskId=w7", "/flows?q=" + url.QueryEscape("order 5"), "/failures", "/"} {
		page(path)
		times := make([]time.Duration, 20)
		for i := range times {
			begin := time.Now()
			page(path)
			times[i] = time.Since(begin)
		}
		slices.Sort(times)
		w.atMost(50*time.Millisecond, times[10], path)
		t.Logf("half in %s, nearly all in %s: %.60s", times[10].Round(time.Millisecond), times[18].Round(time.Millisecond), path)
	}
	const scans = `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'kr_task_stat'`
	w.register.Signal(syscall.SIGTERM) // what its connections have counted is known when they end
	require.Zero(t, w.register.Exit())
	require.Equal(t, "0", w.value(scans))
	w.exec(`SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off; SELECT max(error) FROM kr_task_stat; SELECT pg_stat_force_next_flush()`)
	pgtest.Eventually(t, patience, "one would be seen", func() bool { return w.value(scans) != "0" })
	w.serve("-webport", "0")
	b := w.open(deep)
	require.Equal(t, 50, b.count("[data-row]"))
}
