package e2e

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// 22. A watcher that was killed is missed on every page; the task that it ran says so, and
// with another watcher both are gone.
func TestUI_22_WatcherIsKilled(t *testing.T) {
	w := newWorld(t)
	watcher := w.watcher("-workers", "1")
	p := newPeer(t)
	free := p.stalls("/slow")
	w.define("slow", p.calling("first", "/slow"), task{title: "second", after: []int32{1}})
	flow := w.registered("slow")
	w.until(flow, "1 0")
	w.registered("slow") // can go, and nobody is free
	b, help := w.open(flowPath(flow)), w.open("/help")
	b.badge("Running")
	require.Zero(t, b.count("#banner"))
	watcher.Signal(syscall.SIGKILL)
	begin := time.Now()
	b.await("the task says so", `document.querySelector("#t-1").innerText.includes("No heartbeat")`)
	b.await("the banner", `document.querySelector("#banner")?.innerText.includes("No watcher is connected")`)
	w.within(13*time.Second, begin, "that a watcher is missed") // its lease, and a refresh
	b.picture("TestUI_22_NoHeartbeat")
	help.goTo("/help")
	require.Contains(t, help.text("#banner"), "No watcher is connected. 1 task can go")
	free()
	w.watcher()
	w.until(flow, "3 3")
	b.badge("Finished")
	b.await("the banner is gone", `document.querySelector("#banner") === null`)
}

// 25. The beginning of an id leads to its flow; where it is that of several, they are
// listed; an unknown one is not found, in so many words.
func TestUI_25_BeginningOfAnID(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"alpha-one-1", "alpha-two-1", "beta-three-1"} {
		w.inserted(id, shapes[1])
	}
	b := w.open("/flows/beta-t")
	b.badge("Failed")
	require.Equal(t, "/flows/beta-three-1", b.path())
	b.expect("status of 404")
	b.goTo("/flows/alpha-")
	require.ElementsMatch(t, []string{"alpha-one-1", "alpha-two-1"}, b.texts("main ul a"))
	require.Equal(t, http.StatusNotFound, status(t, w.url+"/flows/alpha-"))
	b.goTo("/flows/gamma-nobody")
	require.Contains(t, b.text("main"), "gamma-nobody")
	require.Equal(t, 3, b.count("main table a"), "the newest flows are offered")
	require.Equal(t, http.StatusNotFound, status(t, w.url+"/flows/gamma-nobody"))
	b.press("/") // to the search box, which has the id that was not found
	eval[struct{}](b, `document.querySelector("#search").select(); undefined`)
	b.press("beta-t" + kb.Enter)
	b.badge("Failed")
	require.Equal(t, "/flows/beta-three-1", b.path())
}

func status(t *testing.T, url string) int {
	t.Helper()
	code, _ := fetch(t, url)
	return code
}

// fetch asks as a program does, and returns the status and the text.
func fetch(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	require.NoError(t, err)
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	return a.StatusCode, string(text)
}

// 27. Whatever a person has typed as an id, its flow opens and runs again like any other.
func TestUI_27_IDsOfAllSorts(t *testing.T) {
	w := newWorld(t)
	b := w.blank()
	for _, id := range []string{"test_flow_1", "a/b", "with a blank", "100%", "%2F", "日本語の流れ", "...", "a?b=c#d", "a+b&c", `"quoted" 'twice'`, longName} {
		w.inserted(id, shapes[0])
		b.goTo(flowPath(id))
		b.badge("Failed")
		b.drawn()
		require.Equal(t, id, eval[string](b, `document.querySelector(".flow-id [data-copy]").dataset.copy`))
		b.click("#t-4 a")
		b.await("the task is selected", `document.querySelector("#task h2").innerText.startsWith("4 ")`)
		b.dialog("header", "Rerun…")
		b.click("dialog button.primary")
		b.closed()
		pgtest.Eventually(t, patience, "it can run again", func() bool { return w.statuses(id) == "3 3 0 0 0" })
		b.badge("Running")
	}
}

// 38. Without its database a page says so, with status 503, and comes back by itself; one
// that is open keeps what it has.
func TestUI_38_DatabaseIsAway(t *testing.T) {
	w := newWorld(t)
	w.inserted("kept", shapes[0])
	p, through := w.db.Proxy(t)
	w.register = commandtest.Start(t, bin+"/register", commandtest.Environment(t, through), "-webport", "0")
	w.url = w.register.AwaitURL()
	open := w.open(flowPath("kept"))
	open.badge("Failed")
	open.drawn()
	open.expect("status of 503")
	open.expect("Failed to load resource")
	open.expect(`console: "Response Status Error Code 503`) // htmx says which request has failed
	open.dialog("header", "Rerun…")
	p.Silence()
	p.Cut()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/api/v1/flows/kept": 503, flowPath("kept"): 503} {
		code, _ := fetch(t, w.url+path)
		require.Equal(t, want, code, path)
	}
	b := w.blank()
	b.expect("status of 503")
	b.goTo(flowPath("kept"))
	require.Contains(t, b.text("main"), "again every 5 seconds")
	open.await("it says so", `!document.getElementById("stale").hidden`)
	open.badge("Failed")
	require.Equal(t, 5, open.count(".graph-svg .n"), "what it had is still there")
	open.click("dialog button.primary")
	open.await("it says what came of it", `document.querySelector("dialog .bad")?.innerText.includes("send the form again")`)
	open.picture("TestUI_38_Action")
	open.refresh()
	require.Equal(t, 1, open.count("dialog .bad"), "no refresh of the page takes it away")
	p.Heal()
	b.badge("Failed")
	open.await("it is back", `document.getElementById("stale").hidden`)
	require.True(t, strings.HasPrefix(open.path(), flowPath("kept")))
	open.click("dialog button.primary")
	open.closed()
	require.Equal(t, "3 3 0 0 0", w.statuses("kept"))
}

// A page of what somebody has deleted says so, and so does what is asked of it.
func TestUI_DeletedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.inserted("gone", shapes[0])
	b := w.open(flowPath("gone"))
	b.badge("Failed")
	b.expect("status of 404")
	b.expect(`console: "Response Status Error Code 404`)
	w.exec(`DELETE FROM kr_task_stat WHERE task_flow_id = 'gone'`)
	b.await("the page says so", `document.getElementById("stale").innerText.includes("no longer there")`)
	b.badge("Failed") // what it had is still there
	b.pressed(".flow-head a.button", "Rerun…")
	b.await("so does the action", `document.querySelector("#message .bad")?.innerText.includes("No flow has the id")`)
}
