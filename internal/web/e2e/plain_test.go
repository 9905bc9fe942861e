package e2e

import (
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// pressed clicks on a button or link by its text, where it is, as nothing but a browser does.
// What a test would mark it with is gone after the next refresh.
func (b *tab) pressed(within, text string) {
	b.Helper()
	var at []float64
	pgtest.Eventually(b.T, patience, text+" is in "+within, func() bool {
		var err error
		at, err = tryEval[[]float64](b, `(() => {
			const e = [...document.querySelectorAll(`+quote(within)+`)].find(e => e.innerText.trim() === `+quote(text)+`);
			if (!e) return [];
			e.scrollIntoView({block: "nearest", behavior: "instant"});
			const r = e.getBoundingClientRect(), x = r.left + r.width / 2, y = r.top + r.height / 2;
			const top = document.elementFromPoint(x, y);
			return top && (e.contains(top) || top.contains(e)) ? [x, y] : [];
		})()`)
		return err == nil && len(at) == 2
	})
	b.do(chromedp.MouseClickXY(at[0], at[1]))
}

// 15. Without JavaScript: what failed, and everything that can be done about it.
func TestUI_15_WithoutJavaScript(t *testing.T) {
	w := newWorld(t)
	w.inserted("plain", shape{states: "3 f 0 f 0", after: [][]int32{{}, {1}, {2}, {1}, {4}}})
	b := w.blank()
	b.withoutScripts()
	b.goTo(flowPath("plain"))
	require.Contains(t, b.text(".failure .first"), "it did not work")
	require.NotContains(t, b.text("body"), "ago", "times are in UTC")
	require.Contains(t, b.text(".about"), "UTC")
	require.Zero(t, eval[int](b, `[...document.querySelectorAll("#graph")].filter(e => e.offsetParent).length`), "no empty box where a graph would be")
	require.NotZero(t, b.count("#timeline .run"))

	b.click("#t-1 a")
	b.await("the task is selected", `document.querySelector("#task h2").innerText.startsWith("1 ")`)
	b.pressed("#task .tabs a", "SQL")
	b.await("its panel is open", `document.querySelector("#task pre").innerText.includes("SELECT")`)

	b.pressed(".flow-head a.button", "Rerun…")
	b.await("the preview", `document.querySelector("#sheet .effect") !== null`)
	b.click("#scope-from")
	eval[struct{}](b, `document.querySelector("#from").value = "4"; undefined`)
	b.pressed("#sheet button", "Show what that does")
	b.await("what it does", `location.search.includes("scope=from") && document.querySelector("#sheet button.primary")?.innerText.trim() === "Rerun 1 task"`)
	require.Equal(t, "4", eval[string](b, `document.querySelector("#sheet").dataset.planned`))
	require.Contains(t, b.text("#sheet .effect"), "5 task E")
	b.pressed("#sheet button", "Rerun 1 task")
	b.await("it says so", `document.querySelector(".message")?.innerText.includes("1 task")`)
	require.Equal(t, "3 2 0 0 0", w.statuses("plain"))

	b.pressed(".failure a.button", "Skip…")
	b.await("the preview", `document.querySelector("#sheet .effect") !== null`)
	b.click("#sheet button.primary")
	b.await("it says so", `document.querySelector(".message") !== null`)
	require.Equal(t, "3 9 0 0 0", w.statuses("plain"))
	b.pressed(".flow-head button", "Hold")
	b.await("Resume is offered", `[...document.querySelectorAll(".flow-head button")].some(e => e.innerText.trim() === "Resume")`)
	require.Equal(t, "3 9 2 2 2", w.statuses("plain"))
	b.pressed(".flow-head button", "Resume")
	b.await("Hold is offered", `[...document.querySelectorAll(".flow-head button")].some(e => e.innerText.trim() === "Hold")`)
	b.pressed(".flow-head a.button", "Cancel…")
	b.await("the preview", `document.querySelector("#sheet .effect") !== null`)
	b.click("#sheet button.primary")
	b.await("it reads Cancelled", `document.querySelector(".flow-head .badge")?.innerText.trim() === "Cancelled"`)

	b.pressed(".settings button", "Local")
	b.await("it is set", `document.documentElement.dataset.zone === "utc"`)
	require.Equal(t, flowPath("plain"), strings.SplitN(b.path(), "?", 2)[0])
}

// 16. A form from another site is refused, with and without what browsers say about it;
// curl works; whoever may only read sees the buttons, disabled, with the reason.
func TestUI_16_WhoMayDoWhat(t *testing.T) {
	w := newWorld(t)
	w.inserted("guarded", shapes[0])
	target := w.url + flowPath("guarded") + "/rerun"
	require.Equal(t, http.StatusForbidden, post(t, target, "Origin", "http://evil.example"))
	require.Equal(t, http.StatusForbidden, post(t, target, "Sec-Fetch-Site", "cross-site"))
	require.Equal(t, "3 3 2 0 0", w.statuses("guarded"))
	require.Equal(t, http.StatusSeeOther, post(t, target))
	require.Equal(t, "3 3 0 0 0", w.statuses("guarded"))

	file := filepath.Join(t.TempDir(), "tokens")
	token := func(name, role string) string {
		text, err := exec.Command(filepath.Join(bin, "register"), "token", "-name", name, "-role", role, "-file", file).Output()
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	reader, operator := token("rita", "reader"), token("otto", "operator")
	w.serve("-webport", "0", "-tokens-file", file)
	w.inserted("theirs", shapes[0])
	target = w.url + flowPath("theirs") + "/rerun"
	require.Equal(t, http.StatusForbidden, post(t, target, "Authorization", "Bearer "+reader))
	require.Equal(t, "3 3 2 0 0", w.statuses("theirs"))

	b := w.blank()
	b.expect("status of 401")
	b.goTo(flowPath("theirs"))
	b.await("it asks who it is", `document.querySelector("#token") !== null`)
	b.do(chromedp.SendKeys(chromedp.CSS("#token"), reader+kb.Enter))
	b.badge("Failed")
	require.Equal(t, flowPath("theirs"), b.path())
	for _, button := range []string{"Rerun…", "Cancel…", "Hold", "Rerun from here", "Skip…"} {
		why := eval[string](b, `[...document.querySelectorAll("[aria-disabled]")].find(e => e.innerText.trim().startsWith(`+quote(button)+`))?.title ?? ""`)
		require.Contains(t, why, "reader", button)
	}
	const shown = `document.querySelector("[aria-disabled] .unseen").offsetWidth`
	require.LessOrEqual(t, eval[int](b, shown), 1)
	b.do(chromedp.Click(chromedp.CSS("[aria-disabled]")))
	require.Greater(t, eval[int](b, shown), 50, "a finger, and Tab, have no title: the reason comes with the focus")
	require.Equal(t, http.StatusSeeOther, post(t, target, "Authorization", "Bearer "+operator))
	require.Equal(t, "otto", w.value(`SELECT DISTINCT actor FROM kr_event WHERE task_flow_id = 'theirs' AND new_status = 0`))
}

// post sends a form as somebody would with curl, or a browser on another site.
func post(t *testing.T, target string, header ...string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, http.NoBody)
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a, err := client.Do(r)
	require.NoError(t, err)
	defer func() { _ = a.Body.Close() }()
	_, _ = io.Copy(io.Discard, a.Body)
	return a.StatusCode
}

// 40. Behind a proxy, under a path of its own which the proxy takes off or leaves: links,
// files, refreshes and redirects work.
func TestUI_40_BehindAProxy(t *testing.T) {
	for name, rewrite := range map[string]func(*httputil.ProxyRequest){
		"prefix kept": nil,
		"prefix stripped": func(r *httputil.ProxyRequest) {
			r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/flower")
			r.Out.URL.RawPath = strings.TrimPrefix(r.In.URL.RawPath, "/flower")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "-base-path", "/flower")
			w.inserted("a/b c%", shapes[0])
			p := newProxy(t, w.url, rewrite)
			w.url = p.URL
			b := w.open("/flower" + flowPath("a/b c%"))
			b.drawn()
			for _, href := range eval[[]string](b, `[...document.querySelectorAll("a[href], form[action], link[href], script[src], use[href]")]
				.map(e => e.getAttribute("href") ?? e.getAttribute("action") ?? e.getAttribute("src"))`) {
				if !strings.HasPrefix(href, "?") && !strings.HasPrefix(href, "#") && href != "" {
					require.True(t, strings.HasPrefix(href, "/flower/"), href)
				}
			}
			w.exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE exec_status = 2`)
			b.badge("Running") // it is refreshed
			b.pressed(".flow-head button", "Hold")
			b.badge("Held")
			b.pressed(".flow-head button", "Resume")
			b.badge("Running")
			b.dialog("header", "Rerun…")
			b.click("dialog #scope-all")
			b.await("another choice", `document.querySelector("dialog button.primary").innerText.trim() === "Rerun 2 tasks"`)
			b.click("dialog button.primary")
			b.closed()
			require.Equal(t, "0 0 9 0 0", w.statuses("a/b c%"), "what is skipped stays so")
			require.Equal(t, "/flower"+flowPath("a/b c%"), strings.SplitN(b.path(), "?", 2)[0])
			b.goTo("/flower/flows/a%2Fb%20c%25?task=2")
			b.click("#set-zone")
			b.await("it is set", `document.documentElement.dataset.zone === "utc"`)
			b.goTo("/flower/help")
			require.Equal(t, "utc", eval[string](b, `document.documentElement.dataset.zone`), "the cookie is for all pages")
			for _, a := range p.pages() {
				require.Less(t, a.status, 400, "%v", a)
			}
		})
	}
}

// 41. What a page loads is small, comes from here alone, and is written by hand but for
// three files.
func TestUI_41_Budget(t *testing.T) {
	w := newWorld(t)
	w.inserted("small", shapes[0])
	b := w.blank()
	b.goTo(flowPath("small"))
	b.drawn()
	loaded := eval[[]string](b, `performance.getEntriesByType("resource").map(e => e.name).filter(n => /\/static\/.*\.(js|css)$/.test(n))`)
	for _, file := range []string{"js/layout-worker.js", "vendor/dagre-3.1.3.min.js"} { // what a worker loads the page does not know
		loaded = append(loaded, regexp.MustCompile(`/static/[^/]+/`).FindString(loaded[0])+file)
	}
	size, seen := 0, map[string]bool{}
	for _, name := range loaded {
		name = name[strings.Index(name, "/static/"):]
		if !seen[name] {
			seen[name] = true
			_, text := fetch(t, w.url+name, "Accept-Encoding", "gzip")
			size += len(text)
		}
	}
	t.Logf("%d bytes of scripts and styles, in %d files", size, len(seen))
	require.Greater(t, len(seen), 10)
	require.Less(t, size, 60<<10)

	vendored := 0
	err := filepath.WalkDir("../static", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".js" {
			text, unread := os.ReadFile(path)
			require.NoError(t, unread)
			longest := 0
			for line := range strings.Lines(string(text)) {
				longest = max(longest, len(line))
			}
			if strings.HasSuffix(path, ".min.js") {
				vendored++
			} else {
				require.Less(t, longest, 400, "%s is written by hand", path)
			}
		}
		return err
	})
	require.NoError(t, err)
	require.Equal(t, 3, vendored)
}
