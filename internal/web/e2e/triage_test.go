package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// inView is a function that says whether an element is in the window, whole and not
// covered.
const inView = `(e => {
	const r = e.getBoundingClientRect();
	const top = document.elementFromPoint(r.left + Math.min(r.width / 2, 20), r.top + r.height / 2);
	return r.width > 0 && r.top >= 0 && r.left >= 0 && r.bottom <= innerHeight && r.right <= innerWidth && (e.contains(top) || top?.contains(e) === true);
})`

// drawn waits until the graph of a flow is there.
func (b *tab) drawn() {
	b.Helper()
	b.await("the graph is drawn", `document.querySelector(".graph-box")?.dataset.drawn !== undefined`)
}

// 1. A failed flow, opened: which task, why, and the button that runs it again are in
// sight without a click, and nothing that has not failed says so.
func TestUI_01_FailureAtAGlance(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	b := w.open(flowPath(w.nightly(newPeer(t))))
	b.drawn()
	require.Contains(t, b.text(".failure h2"), "3 load_orders")
	require.Contains(t, b.text(".failure .first"), "503 Service Unavailable")
	require.Contains(t, b.text(".failure .blocks"), "Blocks 2 tasks: 4 build_mart, 5 notify")
	for _, e := range []string{
		`document.querySelector(".failure h2")`, `document.querySelector(".failure .first")`,
		`[...document.querySelectorAll(".failure a.button")].find(a => a.innerText.trim() === "Rerun from here")`,
	} {
		require.True(t, eval[bool](b, inView+`(`+e+`)`), e)
	}
	states := b.texts(".tasks tbody tr:not(.s-failed) .state")
	require.Len(t, states, 4)
	for _, text := range append(states, b.texts(".graph-svg .n:not(.s-failed)")...) {
		require.NotRegexp(t, `(?i)fail`, text)
	}
	require.Equal(t, []string{"Failed"}, b.texts(".tasks tbody tr.s-failed .state"))
	require.Contains(t, eval[string](b, `document.title`), "Failed · nightly")
}

// 2. From the first page, from the list and from the failures it is at most two clicks to
// the text of an error.
func TestUI_02_TwoClicksToTheError(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	flow := w.nightly(newPeer(t))
	b := w.blank()
	for start, clicks := range map[string][]string{
		"/":         {".short-groups a", ".group-flows .flow-cell a"},
		"/flows":    {".failed-task"},
		"/failures": {".group h2 a", ".group-flows .flow-cell a"},
	} {
		b.goTo(start)
		for _, link := range clicks {
			b.click(link)
		}
		b.await("it is there", `document.querySelector(".failure .error .first") !== null && location.pathname === `+quote(flowPath(flow)))
		require.Contains(t, b.text(".failure .error .first"), "503 Service Unavailable", start)
		require.True(t, eval[bool](b, inView+`(document.querySelector(".failure .error .first"))`), start)
	}
}

// 3. Three failures: a card for each, in the order of their times; n and p go round, the
// URL follows, and a reload keeps the selection.
func TestUI_03_ThreeFailures(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	p := newPeer(t)
	refuse := map[string]func(){}
	for _, path := range []string{"/1", "/2", "/3"} {
		free := make(chan struct{})
		refuse[path] = func() { close(free) }
		p.on(path, func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-free:
				w.WriteHeader(http.StatusTeapot)
			case <-r.Context().Done():
			}
		})
	}
	w.define("three", p.calling("one", "/1"), p.calling("two", "/2"), p.calling("three", "/3"))
	flow := w.registered("three")
	w.until(flow, "1 1 1")
	refuse["/2"]()
	w.until(flow, "1 2 1")
	refuse["/3"]()
	w.until(flow, "1 2 2")
	refuse["/1"]()
	w.until(flow, "2 2 2")

	b := w.open(flowPath(flow))
	b.await("three cards", `document.querySelectorAll(".failure").length === 3`)
	var cards []string
	for _, h := range b.texts(".failure h2 a") {
		cards = append(cards, strings.Fields(h)[0])
	}
	require.Equal(t, []string{"2", "3", "1"}, cards)
	task := func() string { return eval[string](b, `new URLSearchParams(location.search).get("task") ?? ""`) }
	chosen := func(seq string) {
		t.Helper()
		b.await("task "+seq+" is selected", `document.querySelector(".tasks tr.chosen")?.dataset.seq === `+quote(seq)+
			` && document.querySelector("#task h2").innerText.startsWith(`+quote(seq+" ")+`)`)
	}
	chosen("2") // the first to fail
	for _, step := range []struct{ key, want string }{{"n", "3"}, {"n", "1"}, {"n", "2"}, {"p", "1"}, {"p", "3"}} {
		b.press(step.key)
		chosen(step.want)
		require.Equal(t, step.want, task())
	}
	b.goTo(b.path())
	chosen("3")
	b.goTo(b.path())
	eval[struct{}](b, `history.back(); undefined`)
	b.await("back", `location.search.includes("task=")`)
}

// Many failures with one error share a card: n and p find each of them.
func TestUI_03_FailuresAlike(t *testing.T) {
	w := newWorld(t)
	w.inserted("alike", shape{states: "f f f f f", after: [][]int32{{}, {}, {}, {}, {}}})
	b := w.open(flowPath("alike"))
	require.Equal(t, 1, b.count(".failure"))
	for _, step := range []struct{ key, want string }{{"n", "2"}, {"n", "3"}, {"n", "4"}, {"p", "3"}, {"p", "2"}, {"p", "1"}, {"p", "5"}} {
		b.press(step.key)
		b.await("task "+step.want+" is selected", `document.querySelector(".alike [aria-current]")?.textContent.startsWith(`+quote(step.want+" ")+`)
			&& document.querySelector("#task h2").innerText.startsWith(`+quote(step.want+" ")+`)`)
	}
}

// hostile is an error with everything that may be in one.
var hostileError = "<script>alert(1)</script><img src=x onerror=alert(2)> \u001b[31mred\u001b[0m \u0001\u0007 \u202egnirts\u202c 日本語 https://example.com/a?b=<c>\n" +
	strings.Repeat("x", 5000) + "\nline three {{.}} ${alert(3)}"

// 4. An error with markup, long lines, escape codes, control bytes, writing that goes the
// other way and Japanese is a text like any other.
func TestUI_04_HostileText(t *testing.T) {
	w := newWorld(t)
	const flow = `x"><script>alert(4)</script>/%2f?#é`
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, reason, error, suspended_ts, started_ts, attempt, program, description, parameters)
		VALUES ($1, 1, '<b>workflow</b>', 1, 2, 'failed', $2, now(), now(), 1, '<i>program</i>', '<script>alert(5)</script> title', '{"<script>": "</script><script>alert(6)</script>"}')`, flow, hostileError)
	for _, path := range []string{flowPath(flow), flowPath(flow) + "?task=1&panel=data", flowPath(flow) + "?task=1&panel=sql", flowPath(flow) + "/rerun", flowPath(flow) + "?task=1%22%3E%3Cscript%3E&panel=%3Cb%3E"} {
		b := w.open(path)
		require.Zero(t, b.count("main script, main img, main b"), path)
		require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth`), 1280, path)
	}
	b := w.open(flowPath(flow))
	b.drawn()
	first := b.text(".failure .first")
	require.Contains(t, first, "<script>alert(1)</script>")
	require.Contains(t, first, "red")
	require.NotContains(t, first, "\u001b")
	require.NotContains(t, first, "[31m")
	require.Contains(t, first, "日本語")
	require.NotContains(t, b.text(".failure"), "xxx", "what is long is folded away")
	eval[struct{}](b, `document.querySelector(".failure details:has(.said)").open = true; undefined`)
	require.Contains(t, b.text(".failure"), strings.Repeat("x", 5000))
	require.Contains(t, b.text(".failure"), "line three {{.}} ${alert(3)}")
	require.Contains(t, eval[string](b, `document.querySelector(".n title").textContent`), "<script>alert(5)</script> title")
	b.size(360, 740)
	require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth`), 360)
}
