package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// unseenFocus says what is wrong with how the focus is shown; empty is nothing.
const unseenFocus = `(() => {
	const e = document.activeElement, r = e.getBoundingClientRect(), style = getComputedStyle(e);
	const name = e.outerHTML.slice(0, 120);
	if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) return "no outline: " + name;
	if (r.bottom < 0 || r.right < 0 || r.top > innerHeight || r.left > innerWidth) return "out of sight: " + name;
	const shown = [[0.5, 0.5], [0.1, 0.2], [0.9, 0.8], [0.1, 0.8], [0.9, 0.2]].some(([x, y]) => {
		const top = document.elementFromPoint(r.left + r.width * x, r.top + r.height * y);
		return top && (e.contains(top) || top.contains(e));
	});
	return shown ? "" : "covered: " + name;
})()`

// tabTo goes on with the Tab key until an element has the focus, which is seen wherever it is.
func (b *tab) tabTo(css string) {
	b.Helper()
	for range 120 {
		b.press(kb.Tab)
		if eval[bool](b, `document.activeElement === document.body || !document.hasFocus()`) {
			continue // past the last one, in what is the browser's
		}
		require.Empty(b, eval[string](b, unseenFocus))
		if eval[bool](b, `document.activeElement.matches(`+quote(css)+`)`) {
			return
		}
	}
	require.FailNow(b, "Tab does not lead there", css)
}

// focused waits until an element has the focus.
func (b *tab) focused(css string) {
	b.Helper()
	b.await(css+" has the focus", `document.activeElement.matches(`+quote(css)+`)`)
	require.Empty(b, eval[string](b, unseenFocus))
}

// 33. From the start page to the error, by keyboard alone, and from the list as well.
func TestUI_33_KeyboardToTheError(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	flow := w.nightly(newPeer(t))
	b := w.open("/")
	arrived := func() {
		t.Helper()
		b.badge("Failed")
		require.Equal(t, flowPath(flow), strings.SplitN(b.path(), "?", 2)[0])
		require.Contains(t, b.text(".failure .error .first"), "503 Service Unavailable")
	}
	b.press("gx")
	b.await("the failures", `location.pathname === "/failures" && document.readyState === "complete"`)
	b.press("j")
	b.focused(".group h2 a")
	b.press(kb.Enter)
	b.await("it is open", `document.querySelector(".group-flows a") !== null`)
	b.tabTo(".group-flows .flow-cell a")
	b.press(kb.Enter)
	arrived()
	b.press("gf")
	b.await("the flows", `location.pathname === "/flows" && document.readyState === "complete"`)
	b.press("j")
	b.focused("[data-row] .flow-cell a")
	b.press(kb.Enter)
	arrived()
	b.tabTo(".tasks #t-5 a") // past everything that is above it
	b.press("l")
	b.await("its log is in sight", inView+`(document.querySelector("#log"))`)
}

// 33. A rerun by keyboard alone does what its preview says, whatever scope is chosen.
func TestUI_33_KeyboardRerun(t *testing.T) {
	w := newWorld(t)
	b := w.blank()
	for n, scope := range []string{"failed", "from", "only", "all"} {
		flow := fmt.Sprintf("keys-%d", n)
		w.inserted(flow, shapes[2])
		b.goTo(flowPath(flow))
		b.press("j")
		b.focused("#t-2 a") // what failed is first
		b.press("r")
		b.await("the dialog is open", `document.querySelector("dialog[open] #sheet") !== null`)
		b.focused("dialog button.primary")
		b.tabTo("dialog #note")
		b.do(chromedp.KeyEvent("by keyboard"))
		b.tabTo("dialog [name=scope]")
		for range n {
			b.press(kb.ArrowDown)
		}
		b.await("what it would do", `document.querySelector("dialog [name=scope]:checked")?.value === `+quote(scope)+` && document.querySelector("dialog form[method=post] [name=scope]").value === `+quote(scope))
		b.focused("dialog [name=scope]:checked")
		planned := eval[string](b, `document.querySelector("#sheet").dataset.planned`)
		require.NotEmpty(t, planned)
		b.tabTo("dialog button.primary")
		b.press(kb.Enter)
		b.closed()
		pgtest.Eventually(t, patience, "it is done", func() bool { return w.reset(flow) == planned })
		require.Equal(t, "by keyboard", w.value(`SELECT DISTINCT coalesce(note, 'none') FROM kr_event WHERE task_flow_id = $1 AND new_status = 0`, flow))
		b.focused("#t-2 a")
	}
}

// 33. Many flows by keyboard alone: two are ticked, then all that match.
func TestUI_33_KeyboardBulk(t *testing.T) {
	w := newWorld(t)
	for i := range 60 {
		w.inserted(fmt.Sprintf("failed-%02d", i), shapes[0])
	}
	b := w.open("/flows?status=failed")
	b.await("the box of the page", `document.querySelector("[data-pick-all]")?.hidden === false`)
	b.press("jxjx")
	b.await("two are ticked", `document.querySelector("[data-picked]").textContent === "2 selected"`)
	b.press("r")
	b.sheet("Rerun 2 tasks")
	b.press(kb.Escape)
	b.closed()
	b.press(kb.Escape)
	b.await("none is", `document.querySelectorAll("#picks td input:checked").length === 0`)
	b.press("x")
	eval[struct{}](b, `document.querySelector("#picks tbody tr:last-child a:last-child").focus(); undefined`)
	b.tabTo("[data-pick-match]")
	b.press(" ")
	b.await("all that match", `document.querySelector("[data-picked]").textContent === "All that match"`)
	b.tabTo("[data-bulk]")
	b.press(kb.Enter)
	b.sheet("Rerun 60 tasks")
	b.focused("dialog button.primary")
	b.press(kb.Enter)
	b.closed()
	pgtest.Eventually(t, patience, "all are rerun", func() bool { return w.failedTasks() == "0" })
}

// 33. Keys do nothing while somebody types, with Ctrl or Alt, or when they are switched off.
func TestUI_33_KeysLeaveOneAlone(t *testing.T) {
	w := newWorld(t)
	w.inserted("typed", shapes[0])
	b := w.open(flowPath("typed"))
	b.press("/")
	b.focused("#search")
	eval[struct{}](b, `document.activeElement.select(); undefined`) // this protocol types the slash, too
	b.do(chromedp.KeyEvent("rgxtv?"))
	require.Equal(t, "rgxtv?", eval[string](b, `document.activeElement.value`))
	still := func() {
		t.Helper()
		require.Equal(t, flowPath("typed"), b.path())
		require.Zero(t, b.count("dialog[open]"))
		require.Equal(t, "auto on", eval[string](b, `document.documentElement.dataset.theme + " " + document.documentElement.dataset.live`))
	}
	still()
	eval[struct{}](b, `document.activeElement.blur(); undefined`)
	b.press("v", chromedp.ModifierCtrl)
	b.press("t", chromedp.ModifierAlt)
	still()
	b.press("?")
	b.await("the keys", `document.querySelector("dialog[open] .keys") !== null`)
	b.pressed("dialog button", "Switch keys off")
	b.await("they are off", `document.documentElement.dataset.keys === "off" && document.readyState === "complete"`)
	b.goTo(flowPath("typed"))
	b.press("tvr?gx")
	still()
}
