package e2e

import (
	"testing"

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
