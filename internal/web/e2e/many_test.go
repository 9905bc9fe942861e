package e2e

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// sheet waits until the dialog shows what an action would do.
func (b *tab) sheet(button string) {
	b.Helper()
	b.await("the dialog offers "+button, `document.querySelector("dialog[open] button.primary")?.innerText.trim() === `+quote(button))
}

// failedTasks is how many tasks are at 2.
func (w *world) failedTasks() string {
	w.Helper()
	return w.value(`SELECT count(*) FROM kr_task_stat WHERE exec_status = 2`)
}

// 13. A page is ticked, then all that match: the number on the button is what changes. If the
// set has moved meanwhile nothing happens, and the page says so.
func TestUI_13_AllThatMatch(t *testing.T) {
	w := newWorld(t)
	for i := range 64 {
		w.inserted(fmt.Sprintf("failed-%02d", i), shapes[0])
	}
	w.inserted("finished", shape{states: "3", after: [][]int32{{}}})
	b := w.open("/flows?status=failed")
	b.expect("status of 409")
	require.Equal(t, "64", b.text(".chip[aria-current] .n"))
	require.Equal(t, 50, b.count("[data-row]"))
	b.await("the box of the page", `document.querySelector("[data-pick-all]")?.hidden === false`)
	b.click("[data-pick-all]")
	b.await("fifty are ticked", `document.querySelector("[data-picked]").innerText === "50 selected"`)
	require.Contains(t, b.text(".bulk .all"), "Select all 64 that match")
	b.click("[data-pick-match]")
	b.pressed(".bulk button", "Rerun…")
	b.sheet("Rerun 64 tasks")
	b.picture("TestUI_13_Dialog")

	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'failed-07' AND exec_status = 2`)
	b.click("dialog button.primary")
	b.await("it says why", `document.querySelector("dialog[open] .problem")?.innerText.includes("nothing was done")`)
	require.Equal(t, 1, b.count("#live"), "the dialog has the form alone in it")
	require.Equal(t, "63", w.failedTasks())
	b.sheet("Rerun 63 tasks")
	b.click("dialog button.primary")
	b.closed()
	b.await("it says so", `document.querySelector(".message")?.innerText.includes("63 tasks run again, in 63 flows.")`)
	require.Equal(t, "0", w.failedTasks())
	b.await("nothing is ticked any more", `document.querySelectorAll("#picks td input:checked").length === 0`)
}

// 13. A flow in which a task is in the way is left alone, stays ticked, and the page says why.
func TestUI_13_RefusedStaysTicked(t *testing.T) {
	w := newWorld(t)
	w.inserted("free", shape{states: "3 3", after: [][]int32{{}, {1}}})
	w.inserted("in the way", shape{states: "3 1", after: [][]int32{{}, {1}}})
	b := w.open("/flows")
	b.await("the box of the page", `document.querySelector("[data-pick-all]")?.hidden === false`)
	b.click("[data-pick-all]")
	b.pressed(".bulk button", "Rerun…")
	b.await("the dialog is open", `document.querySelector("dialog[open] #scope-all") !== null`)
	b.click("dialog #scope-all")
	b.sheet("Rerun 2 tasks")
	require.Contains(t, b.text("dialog .left"), "1 flow is left alone")
	b.click("dialog button.primary")
	b.await("it says what was left", `document.querySelector("dialog[open] h1")?.innerText === "1 flow was left alone"`)
	require.Equal(t, []string{"in the way"}, eval[[]string](b, `[...document.querySelectorAll("dialog [data-refused]")].map(i => i.value)`))
	require.Equal(t, "0 0", w.statuses("free"))
	require.Equal(t, "3 1", w.statuses("in the way"))
	b.picture("TestUI_13_Refused")
	b.press(kb.Escape)
	b.closed()
	require.Equal(t, []string{"in the way"}, eval[[]string](b, `[...document.querySelectorAll("#picks td input:checked")].map(i => i.value)`))
}

// 13. A group of failures is rerun whole, and nothing else: its count, the list of its flows
// and the button mean the same tasks.
func TestUI_13_GroupOfFailures(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		w.inserted(fmt.Sprintf("alike-%02d", i), shapes[0])
		w.exec(`UPDATE kr_task_stat SET error = $2 WHERE task_flow_id = $1 AND exec_status = 2`, fmt.Sprintf("alike-%02d", i), fmt.Sprintf("no answer from 10.0.0.%d", i))
	}
	w.inserted("else", shapes[0])
	b := w.open("/failures")
	require.Equal(t, "12", b.text(".group-count strong"))
	require.Equal(t, w.value(`SELECT tasks FROM v_failure_group ORDER BY tasks DESC LIMIT 1`), b.text(".group-count strong"))
	b.click(".group h2 a")
	b.await("it is open", `document.querySelectorAll(".group-flows tr").length === 10`)
	b.pressed(".group-flows a", "All 12 flows of this group →")
	b.await("its flows", `document.querySelectorAll("#picks [data-row]").length === 12`)
	b.goTo("/failures")
	b.pressed(".group .buttons a", "Rerun 12 tasks…")
	b.sheet("Rerun 12 tasks")
	b.click("dialog button.primary")
	b.closed()
	b.await("it is gone", `document.querySelectorAll(".group").length === 1`)
	require.Equal(t, "1", w.failedTasks())
	require.Equal(t, "3 3 2 0 0", w.statuses("else"))
}

// 13. More than twenty tasks are cancelled by whoever types how many.
func TestUI_13_CountIsTyped(t *testing.T) {
	w := newWorld(t)
	for i := range 11 {
		w.inserted(fmt.Sprintf("waiting-%02d", i), shape{states: "0 0", after: [][]int32{{}, {1}}})
	}
	b := w.open("/flows")
	b.await("the box of the page", `document.querySelector("[data-pick-all]")?.hidden === false`)
	b.click("[data-pick-all]")
	b.pressed(".bulk button", "Cancel…")
	b.sheet("Cancel 22 tasks")
	b.click("dialog button.primary") // the browser wants the count first
	require.Equal(t, "0", w.failedTasks())
	b.press("22" + kb.Enter)
	b.closed()
	pgtest.Eventually(t, patience, "all are cancelled", func() bool { return w.failedTasks() == "22" })
}

// 15. Without JavaScript: ticked flows, all that match, filters and pages.
func TestUI_15_ManyWithoutJavaScript(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.inserted(fmt.Sprintf("failed-%d", i), shapes[0])
	}
	b := w.blank()
	b.withoutScripts()
	b.goTo("/flows?status=failed&limit=2")
	b.pressed(".pages a", "Older ›")
	b.await("the next page", `document.querySelectorAll("[data-row]").length === 1`)
	b.pressed(".pages a", "‹ Newer")
	b.await("back", `document.querySelectorAll("[data-row]").length === 2`)
	b.click("#picks tbody tr:first-child input")
	b.pressed(".bulk button", "Rerun…")
	b.await("the preview", `document.querySelector("#sheet button.primary")?.innerText.trim() === "Rerun 1 task"`)
	b.click("#sheet button.primary")
	b.await("it says so", `document.querySelector(".message")?.innerText.includes("1 task runs again, in 1 flow.")`)
	require.Equal(t, "2", w.failedTasks())
	require.Contains(t, b.path(), "status=failed")
	b.click("#picks tbody tr:first-child input")
	b.click(".bulk .all input")
	b.pressed(".bulk button", "Rerun…")
	b.await("the preview", `document.querySelector("#sheet button.primary")?.innerText.trim() === "Rerun 2 tasks"`)
	b.click("#sheet button.primary")
	b.await("nothing is failed", `document.querySelector(".empty")?.innerText.includes("No flow matches.")`)
	require.Equal(t, "0", w.failedTasks())
}

// 18. New flows are a number: rows stay where they are until somebody asks for them.
func TestUI_18_NewFlows(t *testing.T) {
	w := newWorld(t)
	w.inserted("first", shapes[0])
	w.inserted("second", shapes[0])
	rows := `[...document.querySelectorAll("#picks tbody input")].map(i => i.value).join(" ")`
	b := w.open("/flows")
	require.Equal(t, "second first", eval[string](b, rows))
	w.inserted("third", shapes[0])
	b.await("there is a new one", `document.querySelector("#new-flows")?.innerText.includes("1 new flow ")`)
	require.Equal(t, "second first", eval[string](b, rows))
	w.inserted("fourth", shapes[0])
	b.await("there are two", `document.querySelector("#new-flows")?.innerText.includes("2 new flows ")`)
	b.click("#new-flows a")
	b.await("they are shown", rows+` === "fourth third second first"`)
	require.Zero(t, b.count("#new-flows"))
}

// A page that is loaded again ticks nothing: a browser would tick what is now in the place of
// what was ticked.
func TestUI_13_ReloadTicksNothing(t *testing.T) {
	w := newWorld(t)
	w.inserted("first", shapes[0])
	w.inserted("second", shapes[0])
	b := w.open("/flows")
	b.click(`#picks input[value="first"]`)
	w.inserted("third", shapes[0])
	eval[struct{}](b, `location.reload(), undefined`)
	b.await("it is loaded again", `document.querySelectorAll("#picks [data-row]").length === 3 && document.readyState === "complete"`)
	require.Zero(t, b.count("#picks td input:checked"))
}

// An open start page stays one: / is something else to curl.
func TestUI_NowStaysUpToDate(t *testing.T) {
	w := newWorld(t)
	w.inserted("first", shapes[0])
	b := w.open("/")
	require.Equal(t, []string{"Running", "Queued", "Failed in 24 h", "Finished in 1 h"}, b.texts(".number h2"))
	b.await("it was refreshed", `performance.getEntriesByType("resource").filter(e => e.initiatorType === "xmlhttprequest").length > 1`)
	require.Equal(t, 1, b.count("#live main"))
	w.inserted("second", shapes[0])
	b.await("the news are there", `document.querySelector(".short-groups .often")?.innerText === "2×"`)
}

// 23. A filter is in the URL, back and forward restore it.
func TestUI_23_FiltersAreInTheURL(t *testing.T) {
	w := newWorld(t)
	w.inserted("one", shapes[0])
	w.inserted("two", shape{states: "3", after: [][]int32{{}}})
	b := w.open("/flows")
	b.pressed(".chips a", "Failed\n1")
	b.await("one is left", `location.search === "?status=failed" && document.querySelectorAll("[data-row]").length === 1 && document.querySelector("[data-pick-all]")?.hidden === false`)
	eval[struct{}](b, `const s = document.querySelector("[name=since]"); s.value = "1h"; s.dispatchEvent(new Event("change", {bubbles: true})); undefined`)
	b.await("the time as well", `new URLSearchParams(location.search).get("since") === "1h" && new URLSearchParams(location.search).get("status") === "failed"`)
	require.Equal(t, 1, strings.Count(b.path(), "since"), "and nothing that was not chosen: %s", b.path())
	require.NotContains(t, b.path(), "taskId")
	rows := `[...document.querySelectorAll("[data-row]")].map(r => r.id).join(" ")`
	require.Equal(t, eval[string](b, rows), eval[string](w.open(b.path()), rows), "the same in another browser")
	eval[struct{}](b, `history.back(); undefined`)
	b.await("back", `location.search === "?status=failed" && document.querySelector("[name=since]").value === ""`)
	eval[struct{}](b, `history.back(); undefined`)
	b.await("all", `location.search === "" && document.querySelectorAll("[data-row]").length === 2`)
	eval[struct{}](b, `history.forward(); undefined`)
	b.await("forward", `location.search === "?status=failed" && document.querySelectorAll("[data-row]").length === 1`)
	for query, want := range map[string]string{
		"q=tw": "f-two", "taskId=shapes&status=finished": "f-two", "program=NoOp&reason=failed": "f-one", "since=1h": "f-two f-one",
		"registeredBy=nobody": "", "until=1h": "", "since=1h&minDuration=2s": "f-two f-one", "since=1h&minDuration=1h": "",
	} {
		b.goTo("/flows?" + query)
		require.Equal(t, want, eval[string](b, rows), query)
		for name, value := range fields(t, query) {
			require.Equal(t, value, eval[string](b, `document.querySelector('.filter [name="`+name+`"]').value`), "the field shows it: %s", query)
		}
	}
}

// fields are what a query chooses but for the status, which is a chip.
func fields(t *testing.T, query string) map[string]string {
	t.Helper()
	values, err := url.ParseQuery(query)
	require.NoError(t, err)
	all := map[string]string{}
	for name, list := range values {
		if name != "status" {
			all[name] = list[0]
		}
	}
	return all
}

// 26. The numbers of chips and groups are those of the views.
func TestUI_26_NumbersAreThoseOfTheViews(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.inserted(fmt.Sprintf("flow-%02d", i), shapes[i%len(shapes)])
	}
	w.inserted("waiting", shape{states: "0", after: [][]int32{{}}})
	w.inserted("done", shape{states: "3 9", after: [][]int32{{}, {1}}})
	b := w.open("/flows")
	for _, word := range []string{"queued", "held", "cancelled", "finished", "running", "failed"} {
		condition := `status = '` + word + `'`
		if word == "failed" { // also those that run on
			condition += ` OR failed_task IS NOT NULL`
		}
		want := w.value(`SELECT count(*) FROM v_flow WHERE ` + condition)
		require.Equal(t, want, b.text(".chip.s-"+word+" .n"), word)
		b.goTo("/flows?status=" + word)
		require.Equal(t, want, fmt.Sprint(b.count("[data-row]")), word)
		b.goTo("/flows")
	}
	b.goTo("/failures")
	require.Equal(t, w.value(`SELECT string_agg(tasks::text, ' ' ORDER BY tasks DESC, last_ts DESC) FROM v_failure_group`), strings.Join(b.texts(".group-count strong"), " "))
}

// 27. Flows that were inserted by hand, whatever their ids, are listed, opened and rerun from
// the list like any other.
func TestUI_27_OddIDsInLists(t *testing.T) {
	w := newWorld(t)
	ids := []string{"test_flow_1", "a/b c%2F?d=e&f#g", `"><script>alert(1)</script>`, "夜間バッチ", longName}
	for _, id := range ids {
		w.inserted(id, shapes[0])
	}
	b := w.open("/flows")
	require.Equal(t, len(ids), b.count("[data-row]"))
	for i := range ids {
		id := ids[len(ids)-1-i]
		b.goTo("/flows")
		eval[struct{}](b, fmt.Sprintf(`document.querySelectorAll("#picks .flow-cell a")[%d].click(); undefined`, i))
		b.await("its page", `document.querySelector("#flow-id") !== null`)
		require.Equal(t, id, eval[string](b, `decodeURIComponent(location.pathname.slice("/flows/".length))`))
	}
	b.goTo("/flows")
	b.await("the box of the page", `document.querySelector("[data-pick-all]")?.hidden === false`)
	b.click("[data-pick-all]")
	b.pressed(".bulk button", "Rerun…")
	b.sheet(fmt.Sprintf("Rerun %d tasks", len(ids)))
	b.click("dialog button.primary")
	b.closed()
	pgtest.Eventually(t, patience, "all are rerun", func() bool { return w.failedTasks() == "0" })
}

// lists are the screens that are about many flows.
func (g *gallery) lists() []screen {
	return []screen{
		{"now", "/", nil},
		{"flows", "/flows", nil},
		{"flows-picked", "/flows?status=failed", func(b *tab) {
			b.await("the box of the page", `document.querySelector("[data-pick-all]")?.hidden === false`)
			b.click("[data-pick-all]")
		}},
		{"flows-none", "/flows?q=nowhere", nil},
		{"bulk", "/bulk/rerun?all=1&status=failed", nil},
		{"failures", "/failures", nil},
		{"failures-open", "/failures", func(b *tab) {
			b.click(".group h2 a")
			b.await("it is open", `document.querySelector(".group-flows") !== null`)
		}},
		{"workflows", "/workflows", nil},
		{"workflow", "/workflows/nightly", func(b *tab) { b.drawn() }},
		{"workflow-long", "/workflows/" + longName, func(b *tab) { b.drawn() }},
		{"watchers", "/watchers", nil},
		{"events", "/events", nil},
	}
}
