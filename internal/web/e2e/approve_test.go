package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A flow that waits for a person says what it asks, without a click; whoever approves it is
// in the output. It leads to the flow that it has waited for, and that one back.
func TestUI_Approve(t *testing.T) {
	w := newWorld(t)
	w.define("load", task{title: "load"})
	w.define("month",
		task{title: "load it", program: "Flow", parameters: `{"workflow": "load"}`},
		task{title: "ask", program: "Approve", parameters: `{"message": "close <the> month? (accounting)"}`, after: []int32{1}},
		task{title: "close", after: []int32{2}})
	w.watcher()
	flow := w.registered("month")
	w.until(flow, "3 2 0")
	b := w.blank()
	b.size(320, 740)
	b.goTo("/flows?status=held")
	require.Zero(t, eval[int](b, `[...document.querySelectorAll(".flow-cell")].filter(c => c.querySelector("strong").getBoundingClientRect().right > c.getBoundingClientRect().right).length`),
		"on a telephone its name is not cut for the sake of its state")
	for _, width := range []int64{901, 1024, 1101} {
		b.size(width, 800)
		b.goTo(flowPath(flow))
		require.GreaterOrEqual(t, eval[float64](b, `document.querySelector("#t-2 .name").getBoundingClientRect().width`), 100.0, "at %d the state leaves its name room", width)
	}
	b.size(1280, 800)
	b.goTo(flowPath(flow))
	require.Equal(t, "Waits for approval", strings.TrimSpace(b.text(".flow-head .badge")))
	require.Equal(t, "close <the> month? (accounting)", b.text(".approval .first"))
	require.Equal(t, "1 task waits for it: 3 close", b.text(".approval .blocks"))
	require.Less(t, eval[float64](b, `document.querySelector(".approval a.button").getBoundingClientRect().bottom`),
		eval[float64](b, `innerHeight`), "the answer is seen without scrolling")
	require.Empty(t, b.accessible(false))

	b.click("#t-1 .state")
	b.await("a click on its row selects it", `document.querySelector("#task h2").innerText.startsWith("1 ")`)
	b.click("#t-1 .note a")
	b.await("its flow", `document.querySelector("h1").innerText === "load"`)
	b.click(".about a")
	b.await("and back", `document.querySelector("h1").innerText === "month"`)

	b.dialog(".approval", "Approve…")
	require.Contains(t, b.text("dialog .question"), "close <the> month?")
	require.Contains(t, b.text("dialog .effect"), "1 task waits for that, and follows: 3 close")
	require.Empty(t, b.accessible(false))
	eval[struct{}](b, `document.querySelector("dialog #note").value = "the figures are right"; window.said = document.querySelector("#message"); undefined`)
	b.click("dialog button.primary")
	b.closed()
	b.await("it says so, where a screen reader listens", `said.isConnected && said.innerText.includes("1 task was approved.")`)
	b.await("what was pressed is gone, and one goes on from the top", `document.activeElement.id === "main"`)
	w.until(flow, "3 3 3")
	b.badge("Finished")
	require.Zero(t, b.count(".approval"))
	require.Equal(t, "anonymous@127.0.0.1 the figures are right", w.value(`SELECT concat_ws(' ', output->>'approved_by', output->>'note')
		FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 2`, flow))
	require.Equal(t, "anonymous@127.0.0.1 ui approve the figures are right",
		w.value(`SELECT concat_ws(' ', actor, way, kind, note) FROM kr_event WHERE task_flow_id = $1`, flow))
}

// Without scripts a no is a page; after it the task asks again if somebody wants it to.
func TestUI_RejectWithoutJavaScript(t *testing.T) {
	w := newWorld(t)
	w.define("month", task{title: "ask", program: "Approve", parameters: `{"message": "close the month?"}`}, task{title: "close", after: []int32{1}})
	w.watcher()
	flow := w.registered("month")
	w.until(flow, "2 0")
	b := w.blank()
	b.withoutScripts()
	b.goTo(flowPath(flow))
	b.click(`.approval a.button:not(.primary)`)
	b.await("the preview", `document.querySelector("h1").innerText === "Reject 1 ask"`)
	require.Contains(t, b.text(".effect"), "1 task that waits for it does not run: 2 close")
	eval[struct{}](b, `document.querySelector("#note").value = "not on a Friday"; undefined`)
	b.click("#sheet button.primary")
	b.await("it reads Cancelled", `document.querySelector(".flow-head .badge")?.innerText.trim() === "Cancelled"`)
	require.Equal(t, "cancelled not on a Friday", w.value(`SELECT concat_ws(' ', reason, error) FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1`, flow))
	require.Equal(t, "2 0", w.statuses(flow))
}
