package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/stretchr/testify/require"
)

// longName is as long as an id may be, and cannot be broken where people would.
var longName = strings.Repeat("a_very_long_name_", 16)[:256]

// gallery is a world in which every page has something to show.
type gallery struct {
	*world
	failed, running, finished, large string
}

func newGallery(t *testing.T) *gallery {
	t.Helper()
	g := &gallery{world: newWorld(t)}
	g.watcher("-workers", "3", "-http-timeout", "10m") // what runs must run on while it is looked at
	p := newPeer(t)
	g.failed = g.nightly(p)
	g.finished = g.registered("sample")
	g.until(g.finished, "3 3 3")
	free := p.stalls("/slow")
	t.Cleanup(free)
	g.define("billing", p.calling("invoices", "/slow"), p.calling("letters", "/slow"), p.calling("dunning", "/slow"), task{title: "report", after: []int32{1, 2, 3}})
	g.running = g.registered("billing")
	g.until(g.running, "1 1 1 0")
	g.registered("billing") // waits for a free worker
	for i, s := range shapes {
		g.inserted(fmt.Sprintf("by hand %d/%s", i, s.name), s)
	}
	g.define(longName, task{title: longName, program: "NoOp"})
	g.inserted(longName, shape{states: "f 0", after: [][]int32{{}, {1}}})
	g.exec(`UPDATE kr_task_stat SET task_id = $1, description = $1, program = $1, error = $1 WHERE task_flow_id = $1`, longName)
	g.large = "a large one"
	g.inserted(g.large, shape{states: strings.Repeat("3 ", 300) + strings.Repeat("f ", 20), after: build(320, func(i int) []int32 { return list(i > 12, int32(i-12)) })})
	return g
}

// screen is a page of the gallery, and what is done to it before it is looked at.
type screen struct {
	name, path string
	do         func(b *tab)
}

// screens are all pages, each in the states in which it looks different.
func (g *gallery) screens() []screen {
	drawn := func(b *tab) { b.drawn() }
	return append(g.lists(), []screen{
		{"flow-failed", flowPath(g.failed), drawn},
		{"flow-attempts", flowPath(g.failed) + "?task=3&panel=attempts", drawn},
		{"flow-log", flowPath(g.failed) + "?task=1&panel=log", drawn},
		{"flow-data", flowPath(g.failed) + "?task=3&panel=data", drawn},
		{"flow-sql", flowPath(g.failed) + "?task=3&panel=sql", drawn},
		{"flow-running", flowPath(g.running), drawn},
		{"flow-finished", flowPath(g.finished), drawn},
		{"flow-by-hand", flowPath("by hand 5/held"), drawn},
		{"flow-long", flowPath(longName), drawn},
		{"flow-large", flowPath(g.large), nil},
		{"flow-dialog", flowPath(g.failed), func(b *tab) {
			b.drawn()
			b.dialog("header", "Rerun…")
		}},
		{"rerun", flowPath(g.failed) + "/rerun?scope=from&from=1", nil},
		{"cancel", flowPath(g.running) + "/cancel", nil},
		{"skip", flowPath(g.failed) + "/tasks/3/skip", nil},
		{"skip-long", flowPath(longName) + "/tasks/1/skip", nil},
		{"log", flowPath(g.failed) + "/tasks/3/log", nil},
		{"register", "/workflows/nightly/register", nil},
		{"help", "/help", nil},
		{"notfound", "/flows/no-such-flow", nil},
	}...)
}

// 33. axe-core finds nothing on any page, in either theme, at any width, and no page
// scrolls sideways. Whoever looks at the pictures sees what it cannot.
func TestUI_33_Accessible(t *testing.T) {
	g := newGallery(t)
	b := g.blank()
	b.expect("status of 404")
	found := map[string][]string{} // what is wrong, and where
	for _, s := range g.screens() {
		b.size(1280, 800)
		b.goTo(s.path)
		if s.do != nil {
			s.do(b)
		}
		// A page that changes under axe's hands confuses it.
		eval[struct{}](b, `document.documentElement.dataset.live = "off"; undefined`)
		for _, theme := range themes {
			b.prefer("color-scheme="+theme, "reduced-motion=reduce")
			for _, width := range []int64{1280, 768, 360, 320} {
				b.size(width, 800)
				where := fmt.Sprintf("%s-%s-%d", s.name, theme, width)
				switch {
				case width == 360:
					b.whole(where)
					continue
				case width == 1280:
					b.whole(where)
				}
				for _, rule := range b.accessible(theme == "dark" && width < 1280) {
					found[rule] = append(found[rule], where)
				}
				if wide := eval[int64](b, `document.documentElement.scrollWidth`); wide > width {
					found["it scrolls sideways"] = append(found["it scrolls sideways"], fmt.Sprintf("%s: %d", where, wide))
				}
			}
		}
	}
	for rule, where := range found {
		t.Errorf("%s\n\ton %s", rule, strings.Join(where, ", "))
	}
}

// 34. In forced colours, zoomed to 200 %, and with names of 256 characters, what can be
// done stays in sight.
func TestUI_34_ActionsStayInSight(t *testing.T) {
	g := newGallery(t)
	b := g.blank()
	for _, path := range []string{flowPath(g.failed), flowPath(longName)} {
		for _, size := range [][2]int64{{1280, 800}, {640, 400}, {320, 640}} {
			for _, mode := range []string{"", "forced-colors=active"} {
				b.prefer("reduced-motion=reduce", mode)
				b.size(size[0], size[1])
				b.goTo(path)
				require.Empty(t, eval[[]string](b, `[...document.querySelectorAll(".actions > *, .failure .buttons > *")].filter(e => {
					const r = e.getBoundingClientRect();
					return r.width < 24 || r.height < 24 || r.left < 0 || r.right > innerWidth;
				}).map(e => e.innerText)`), "%s at %v", path[:20], size)
				require.LessOrEqual(t, eval[int64](b, `document.documentElement.scrollWidth`), size[0], "%s at %v: it scrolls sideways", path[:20], size)
			}
		}
	}
	b.prefer("forced-colors=active")
	b.size(1280, 800)
	b.goTo(flowPath(g.failed))
	b.drawn()
	b.whole("flow-failed-forced-1280")
	b.prefer("reduced-motion=reduce")
	b.goTo(flowPath(g.running))
	require.Zero(t, eval[int](b, `document.getAnimations().length`), "nothing moves")
}

// 35. Without colours, states are told apart: each has an icon of its own and a word.
func TestUI_35_StatesWithoutColour(t *testing.T) {
	g := newGallery(t)
	b := g.open("/help")
	icons := map[string]string{}
	for _, badge := range eval[[][]string](b, `[...document.querySelectorAll(".badge, .state")].map(e => [e.innerText.trim(), e.querySelector("use")?.getAttribute("href").split("#")[1] ?? ""])`) {
		require.NotEmpty(t, badge[0], "a word")
		require.NotEmpty(t, badge[1], "an icon: %s", badge[0])
		icons[badge[0]] = badge[1]
	}
	for _, pair := range [][2]string{{"Failed", "Blocked"}, {"Failed", "Finished"}, {"Held", "Cancelled"}, {"Waiting", "Queued"}, {"Running", "Waiting"}, {"Skipped", "Finished"}, {"Retry", "Queued"}, {"Suspended", "Failed"}} {
		require.NotEmpty(t, icons[pair[0]], "%s is in the legend", pair[0])
		require.NotEqual(t, icons[pair[0]], icons[pair[1]], "%v", pair)
	}
	for _, s := range g.screens() {
		b.expect("status of 404")
		b.goTo(s.path)
		require.Zero(t, eval[int](b, `[...document.querySelectorAll(".badge, .state")].filter(e => !e.innerText.trim() || !e.querySelector("use")).length`), s.name)
	}
	for _, sight := range []string{"achromatopsia", "deuteranopia"} {
		b.sight(sight)
		b.goTo(flowPath(g.failed))
		b.drawn()
		b.whole("flow-failed-" + sight)
	}
}

// 36. The first thing that is painted has the right theme, and Copy works where there is
// no secure context, in a dialog too.
func TestUI_36_ThemeAndCopy(t *testing.T) {
	w := newWorld(t, "-hosts", host)
	w.watcher()
	flow := w.nightly(newPeer(t))
	w.url = strings.Replace(w.url, "127.0.0.1", host, 1)
	b := w.open(flowPath(flow))
	b.drawn()
	require.False(t, eval[bool](b, `isSecureContext`))
	eval[struct{}](b, `document.addEventListener("copy", () => {
		const e = document.activeElement;
		window.copied = e.value === undefined ? getSelection().toString() : e.value.slice(e.selectionStart, e.selectionEnd);
	}); undefined`)
	copied := func(button string) string {
		b.click(button)
		b.await("it says so", `document.querySelector('[data-said="Copied"]') !== null`)
		return eval[string](b, `document.querySelectorAll("[data-said]").forEach(e => delete e.dataset.said), window.copied`)
	}
	require.Equal(t, flow, copied(".flow-id [data-copy]"))
	require.Contains(t, copied(".failure [data-copy-from]"), "503 Service Unavailable")
	long := "first" + strings.Repeat("\nline", 30)
	w.exec(`UPDATE kr_task_stat SET error = $2 WHERE task_flow_id = $1 AND exec_status = 2`, flow, long)
	b.await("it is shown", `document.querySelector(".failure .first")?.textContent === "first"`)
	require.Equal(t, long, copied(".failure [data-copy-from]"), "without how much of it is folded away")
	b.dialog("header", "Rerun…")
	eval[struct{}](b, `document.querySelector("dialog form").append(Object.assign(document.createElement("button"), {type: "button", id: "in-dialog", textContent: "copy"})); document.querySelector("#in-dialog").dataset.copy = "from a dialog"; undefined`)
	require.Equal(t, "from a dialog", copied("#in-dialog"))
	require.Equal(t, "Copied", b.text("dialog .say"), "what is beneath a dialog is heard no more")
	b.goTo("/workflows/nightly/register")
	eval[struct{}](b, `document.addEventListener("copy", () => { window.copied = document.activeElement.value; }); undefined`)
	require.Contains(t, copied("[data-copy-register]"), "curl -X POST 'http://"+host)
	eval[struct{}](b, `document.querySelector("#parameters").value = '{"order": 1234567890123456789}'; undefined`)
	require.Contains(t, copied("[data-copy-register]"), `{"parameters":{"order":1234567890123456789}}`)

	b.size(320, 640)
	require.Equal(t, "Theme: auto", b.text("#set-theme"), "on a telephone it is heard, too")
	b.size(1280, 800)

	// What the server sends has the theme: no script has run yet.
	b.goTo(flowPath(flow))
	for range 3 {
		b.click("#set-theme")
		theme := eval[string](b, `document.documentElement.dataset.theme`)
		require.Contains(t, eval[string](b, `fetch(location.href).then(r => r.text())`), `data-theme="`+theme+`"`)
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
		require.Equal(t, "light", eval[string](b, `getComputedStyle(document.documentElement).colorScheme`), "of the %s theme nothing but dark text is printed", theme)
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	}
}
