package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// 37. Where nothing has happened yet every page says so, and what to do. The sample is two
// clicks away, on a page that shows it run to its end.
func TestUI_37_FirstSteps(t *testing.T) {
	w := newWorld(t)
	b := w.blank()
	for _, page := range []struct{ path, says, offers string }{
		{"/", "Nothing has been registered yet.", "Register sample…"},
		{"/flows", "No flow yet.", "Register sample…"},
		{"/flows?status=failed", "No flow matches.", "Clear the filter"},
		{"/failures", "Nothing is failed.", ""},
		{"/workflows?q=nowhere", "No workflow has “nowhere” in its name.", "Show all"},
		{"/workflows/sample", "No flow of it yet.", "Register…"},
		{"/watchers", "No watcher has been here.", ""},
		{"/events", "Nobody has changed anything by hand.", ""},
		{"/events?kind=rerun", "Nothing like this has been done.", "Clear the filter"},
	} {
		b.goTo(page.path)
		require.Contains(t, b.text("main"), page.says, page.path)
		if page.offers != "" {
			require.Contains(t, b.texts("main a.button"), page.offers, page.path)
		}
		require.Empty(t, b.accessible(false), page.path)
		require.Zero(t, b.count("#banner"), "nothing waits for a watcher yet: %s", page.path)
	}
	w.exec(`DELETE FROM ms_task_definition`)
	b.goTo("/workflows")
	require.Contains(t, b.text("main"), "No workflow yet.")
	w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, parameters) VALUES
		('sample', 1, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 0.5}'), ('sample', 2, 'Test2', '{}'), ('sample', 3, 'Test3', '{}')`)

	w.watcher()
	b.goTo("/")
	b.dialog("main", "Register sample…")
	b.press(kb.Escape)
	b.closed()
	b.dialog("main", "Register sample…")
	b.click("dialog button.primary")
	b.await("its page", `location.pathname.startsWith("/flows/") && document.readyState === "complete"`)
	eval[struct{}](b, `window.same = true; undefined`)
	b.badge("Finished")
	require.True(t, eval[bool](b, `window.same`), "by itself")
	require.Equal(t, "sample", b.text("h1"))
	require.Equal(t, "1", w.value(`SELECT count(*) FROM kr_flow`))
}

// Somebody who sees the pages for the first time runs the sample that fails, sees why it did,
// and brings it to its end.
func TestUI_OperatorMendsTheSample(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	b := w.open("/")
	b.pressed("main a.button", "Workflows")
	b.await("the workflows", `document.readyState === "complete" && document.querySelector("#w-sample-fails") !== null`)
	b.pressed("#w-sample-fails a.button", "Register…")
	b.await("the form", `document.querySelector("dialog[open] #sheet button.primary") !== null`)
	b.pressed("dialog button.primary", "Register")
	b.badge("Failed")
	require.Contains(t, b.text(".failure h2"), "3 invoice")
	require.Contains(t, b.text(".failure .first"), "it did not end within its timeout of 1s")
	require.True(t, eval[bool](b, inView+`([...document.querySelectorAll(".failure a.button")].find(a => a.innerText.trim() === "Rerun from here"))`))
	b.pressed(".failure a.button", "Rerun from here")
	b.sheet("Rerun 1 task")
	b.pressed("dialog summary", "Change parameters")
	require.Contains(t, b.text("dialog details pre"), `"SLEEP_TIME_SECOND": 60`)
	b.click("dialog #parameters")
	b.do(chromedp.KeyEvent(`{"SLEEP_TIME_SECOND": 0.5}`))
	b.picture("TestUI_OperatorMendsTheSample_Dialog")
	b.pressed("dialog button.primary", "Rerun 1 task")
	b.closed()
	b.badge("Finished")
	require.Contains(t, b.text("#t-3"), "1 failed attempt")
}
