package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
)

// badge waits until a flow's page says its state.
func (b *tab) badge(word string) {
	b.Helper()
	b.await("the page says "+word, `document.querySelector(".flow-head .badge")?.innerText.trim() === `+quote(word))
}

// 14. What happens in one tab, or at psql, shows in another one by itself.
func TestUI_14_TwoTabs(t *testing.T) {
	w := newWorld(t)
	w.inserted("shared", shapes[0])
	one, other := w.open(flowPath("shared")), w.open(flowPath("shared"))
	eval[struct{}](other, `window.same = true; undefined`)
	one.dialog("header", "Rerun…")
	one.click("dialog button.primary")
	begin := time.Now()
	other.badge("Running") // a task of it can go
	w.within(2500*time.Millisecond, begin, "from one tab to another")
	w.exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = 'shared' AND task_exec_seq > 2`)
	begin = time.Now()
	other.badge("Finished")
	w.within(2500*time.Millisecond, begin, "from psql to a page")
	require.True(t, eval[bool](other, `window.same`), "it was not loaded again")
}

// refresh makes the page look for news, and waits for the answer.
func (b *tab) refresh() {
	b.Helper()
	eval[bool](b, `new Promise(done => {
		const heard = e => e.detail.target?.id === "live" && (document.removeEventListener("htmx:afterSettle", heard), document.removeEventListener("htmx:afterRequest", after), done(true));
		const after = e => e.detail.target?.id === "live" && setTimeout(heard, 60, e);
		document.addEventListener("htmx:afterSettle", heard);
		document.addEventListener("htmx:afterRequest", after);
		htmx.trigger(document.body, "tick");
	})`)
}

// 17. While a flow runs its page changes, and what a person has done to it stays.
func TestUI_17_RefreshesLeaveThePersonAlone(t *testing.T) {
	w := newWorld(t)
	const n = 12
	s := shape{name: "live"}
	for range n {
		s.states += "3 "
		s.after = append(s.after, []int32{})
	}
	w.inserted("live", s)
	w.exec(`UPDATE kr_task_stat SET exec_status = 2, reason = 'failed', error = 'first' || repeat(E'\nline', 40), parameters = '{"a": 1}' WHERE task_flow_id = 'live' AND task_exec_seq = 1`)
	b := w.open(flowPath("live") + "?task=1")
	b.size(1280, 500)
	b.drawn()
	eval[struct{}](b, `(() => {
		document.querySelector("#set-live").click(); // this test says when
		document.querySelectorAll("details").forEach(d => d.open = true);
		document.querySelector("#search").value = "typed";
		document.querySelector("#graph-slowest").click();
		document.querySelector("[data-graph=in]").click();
		window.node = document.querySelector("#n-5");
		window.row = document.querySelector("#t-5");
		window.place = node.getAttribute("transform");
		const text = document.querySelector(".failure .first"), range = document.createRange();
		range.selectNodeContents(text);
		getSelection().removeAllRanges();
		getSelection().addRange(range);
		document.querySelector("#t-5 a").focus({preventScroll: true});
		scrollTo(0, 300);
		window.seen = document.elementFromPoint(200, 4); // where one reads; it may be anchored by moving the scroll bar
		window.seenAt = seen.getBoundingClientRect().top;
	})(); undefined`)
	b.await("it is paused", `document.documentElement.dataset.live === "off"`)
	state := func() string {
		return eval[string](b, `JSON.stringify({
			moved: Math.abs(window.seen.getBoundingClientRect().top - window.seenAt) > 1, focus: document.activeElement.closest("tr")?.id, selected: getSelection().toString(),
			open: [...document.querySelectorAll("details")].map(d => d.open), typed: document.querySelector("#search").value,
			ticked: document.querySelector("#graph-slowest").checked, zoom: document.querySelector(".graph-svg").getAttribute("width"),
			node: window.node === document.querySelector("#n-5") && node.isConnected && node.getAttribute("transform") === window.place,
			row: window.row === document.querySelector("#t-5"),
		})`)
	}
	before := state()
	require.Contains(t, before, `"first"`)
	require.NotContains(t, strings.Replace(before, `"moved":false`, "", 1), "false", "all is open, and the same")
	counts := func() string {
		return fmt.Sprint(b.texts(".counts li"), b.texts(".tasks .state"), b.texts(".graph-svg .note"))
	}
	seen := map[string]bool{}
	for i := range 20 {
		seq, status := 2+i%(n-1), []int{0, 2, 9}[i%3]
		w.exec(`UPDATE kr_task_stat SET exec_status = $1::int, reason = CASE $1::int WHEN 2 THEN 'held' END WHERE task_flow_id = 'live' AND task_exec_seq = $2`, status, seq)
		b.refresh()
		now := counts()
		require.False(t, seen[now], "it has changed: %s", now)
		seen[now] = true
		require.Equal(t, before, state(), "refresh %d", i+1)
	}
}

// Back twice at once, while the page looks for no news: it shows what the address says.
func TestUI_BackTwice(t *testing.T) {
	w := newWorld(t)
	w.inserted("back", shapes[0])
	b := w.open(flowPath("back"))
	b.click("#set-live")
	for _, n := range []string{"1", "2", "4"} {
		b.click("#t-" + n + " a")
		b.await("the task is selected", `document.querySelector("#task h2").innerText.startsWith("`+n+` ")`)
	}
	eval[struct{}](b, `history.back(); addEventListener("popstate", () => history.back(), {once: true}); undefined`)
	b.await("the address is the first task's", `location.search === "?task=1"`)
	b.await("so is the page", `document.querySelector("#task h2").innerText.startsWith("1 ")`)
}

// An action does not wait for a refresh that takes long, nor is it forgotten when somebody
// goes to another task meanwhile. That one is shown in the end.
func TestUI_ActionDuringARefresh(t *testing.T) {
	w := newWorld(t)
	w.inserted("slow", shape{states: "3 0 0", after: [][]int32{{}, {1}, {2}}})
	p := newProxy(t, w.url, nil)
	w.url = p.URL
	b := w.open(flowPath("slow"))
	b.badge("Running")
	begun, goOn := p.stalls(flowPath("slow"))
	<-begun
	b.pressed(".flow-head form button", "Hold")
	b.click("#t-1 a")
	w.until("slow", "3 2 2")
	b.badge("Held")
	goOn()
	b.await("the task is selected", `document.querySelector("#task h2").innerText.startsWith("1 ")`)
	b.badge("Held")
}

// 19. Twelve tabs over HTTP/1.1: none waits for another.
func TestUI_19_TwelveTabs(t *testing.T) {
	w := newWorld(t)
	w.inserted("many", shape{states: "3 0 0", after: [][]int32{{}, {1}, {2}}})
	first := w.open(flowPath("many"))
	var tabs []*tab
	for range 11 {
		ctx, cancel := chromedp.NewContext(first.ctx)
		t.Cleanup(cancel)
		b := &tab{T: t, ctx: ctx, site: w.site()}
		require.NoError(t, chromedp.Listen(ctx, b.heard))
		tabs = append(tabs, b)
	}
	begin := time.Now()
	var all sync.WaitGroup
	for _, b := range tabs {
		all.Go(func() {
			b.goTo(flowPath("many"))
			b.badge("Running")
		})
	}
	all.Wait()
	w.within(2*time.Second, begin, "eleven more tabs")
	// All of them hear of what happens.
	w.exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = 'many' AND exec_status = 0`)
	for _, b := range append(tabs, first) {
		b.badge("Finished")
	}
}

// 20. Without register the page says so and keeps what it has; with it again, it goes on
// without being loaded again. A new build is said.
func TestUI_20_RegisterIsGone(t *testing.T) {
	w := newWorld(t, "-webport", strconv.Itoa(commandtest.FreePort(t)))
	w.inserted("kept", shape{states: "3 0", after: [][]int32{{}, {1}}})
	b := w.open(flowPath("kept"))
	b.expect("Failed to load resource: net::ERR_")
	b.expect(`console: "htmx:`) // it says which request has failed
	b.badge("Running")
	b.drawn()
	eval[struct{}](b, `window.same = true; undefined`)
	w.register.Signal(syscall.SIGKILL)
	begin := time.Now()
	b.await("it says so", `!document.getElementById("stale").hidden && /Reconnecting, last update \d+ s ago/.test(document.getElementById("stale").innerText)`)
	w.within(5*time.Second, begin, "that register is gone")
	require.Equal(t, []string{"Reconnecting", "0"}, eval[[]string](b, `[document.querySelector("body > .say").textContent, String(document.querySelectorAll("#stale:is([role], [aria-live])").length)]`),
		"it is heard once, and not every second")
	b.picture("TestUI_20_Reconnecting")
	b.badge("Running")
	w.exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = 'kept' AND exec_status = 0`)
	port := w.url[len("http://127.0.0.1:"):]
	w.serve("-webport", port)
	b.badge("Finished")
	require.True(t, eval[bool](b, `document.getElementById("stale").hidden && window.same`))

	p := newProxy(t, w.url, nil)
	w.url = p.URL
	next := w.open(flowPath("kept"))
	require.True(t, eval[bool](next, `document.getElementById("updated").hidden`))
	p.changes(func(h http.Header) { h.Set("Flower-Build", "another") })
	next.refresh()
	next.await("the notice", `!document.getElementById("updated").hidden`)
}

// 21. A page that is paused, or cannot be seen, asks nothing; where nothing has changed
// the answer is 304.
func TestUI_21_AsksNothingInVain(t *testing.T) {
	w := newWorld(t)
	w.inserted("still", shape{states: "3 0", after: [][]int32{{}, {1}}}) // nobody runs it
	w.exec(`UPDATE kr_task_stat SET registered_ts = now() - interval '62 min', started_ts = now() - interval '62 min', finished_ts = now() - interval '61 min'`)
	p := newProxy(t, w.url, nil)
	w.url = p.URL
	b := w.open(flowPath("still"))
	b.badge("Running")
	const pause = `new Promise(done => setTimeout(done, 2500, true))` // more than two looks
	arrived := func() {
		for p.pages(); eval[bool](b, `new Promise(done => setTimeout(done, 300, true))`) && len(p.pages()) > 0; {
		}
	}
	eval[bool](b, pause)
	p.pages()
	eval[bool](b, pause)
	looks := p.pages()
	require.GreaterOrEqual(t, len(looks), 2)
	for _, l := range looks {
		require.Equal(t, passage{"GET", flowPath("still"), http.StatusNotModified}, l)
	}

	see := func(state string) {
		eval[struct{}](b, `Object.defineProperty(document, "visibilityState", {configurable: true, get: () => `+quote(state)+`});
			document.dispatchEvent(new Event("visibilitychange")); undefined`)
	}
	see("hidden")
	arrived() // what was on its way
	eval[bool](b, pause)
	require.Empty(t, p.pages(), "while it cannot be seen")
	see("visible")
	eval[bool](b, pause)
	require.NotEmpty(t, p.pages())

	b.click("#set-live")
	b.await("it is paused", `document.documentElement.dataset.live === "off"`)
	arrived()
	eval[bool](b, pause)
	require.Empty(t, p.pages(), "while it is paused")
}
