package e2e

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// graphs makes 30 graphs of all sorts, always the same.
func graphs() map[string][][]int32 {
	random := rand.New(rand.NewPCG(1, 2))
	all := map[string][][]int32{}
	add := func(name string, after [][]int32) { all[fmt.Sprintf("%02d-%s", len(all), name)] = after }
	for _, n := range []int{1, 2, 7, 40} {
		add("chain", build(n, func(i int) []int32 { return list(i > 0, int32(i)) }))
	}
	for _, width := range []int{2, 3, 5} {
		add("tree", build(31, func(i int) []int32 { return list(i > 0, int32((i-1)/width+1)) }))
	}
	for _, width := range []int{2, 5, 20} {
		add("diamond", build(width+2, func(i int) []int32 {
			if i == width+1 {
				return until(2, width+1)
			}
			return list(i > 0, 1)
		}))
	}
	add("fan-out", build(51, func(i int) []int32 { return list(i > 0, 1) }))
	add("fan-in", build(51, func(i int) []int32 {
		if i == 50 {
			return until(1, 50)
		}
		return nil
	}))
	add("parts", build(30, func(i int) []int32 { return list(i%3 > 0, int32(i)) }))
	add("alone", build(12, func(int) []int32 { return nil }))
	for _, n := range []int{20, 60, 200} {
		for range 2 {
			layer := n / 8
			add("layered", build(n, func(i int) []int32 { return some(random, max(0, i/layer*layer-layer), i/layer*layer, 2) }))
		}
	}
	for len(all) < 30 {
		n := 5 + random.IntN(40)
		add("random", build(n, func(i int) []int32 { return some(random, 0, i, random.IntN(3)) }))
	}
	return all
}

func build(n int, after func(i int) []int32) [][]int32 {
	all := make([][]int32, n)
	for i := range all {
		if all[i] = after(i); all[i] == nil {
			all[i] = []int32{}
		}
	}
	return all
}

func list(yes bool, seq int32) []int32 {
	if yes {
		return []int32{seq}
	}
	return nil
}

func until(from, to int) (seqs []int32) {
	for seq := from; seq <= to; seq++ {
		seqs = append(seqs, int32(seq))
	}
	return seqs
}

// some chooses up to n of the tasks with places from low to below high.
func some(r *rand.Rand, low, high, n int) (seqs []int32) {
	chosen := map[int32]bool{}
	for range n {
		if high > low {
			if seq := int32(low + r.IntN(high-low) + 1); !chosen[seq] {
				chosen[seq] = true
				seqs = append(seqs, seq)
			}
		}
	}
	return seqs
}

// insertGraph puts a flow of a graph into the table. Some of its titles are long.
func (w *world) insertGraph(id string, after [][]int32) {
	w.Helper()
	s := shape{after: after, states: strings.Repeat("3 ", len(after))}
	w.inserted(id, s)
	w.exec(`UPDATE kr_task_stat SET description = CASE task_exec_seq % 5 WHEN 0 THEN repeat('a very long title ', 14) WHEN 1 THEN 'WWWW読み込みWWWWWWWWWWWWWW' ELSE 'task_' || task_exec_seq END
		WHERE task_flow_id = $1`, id)
}

// faults looks at the picture itself for what a graph may not have.
const faults = `(() => {
	const found = [], svg = document.querySelector(".graph-svg");
	const box = e => { const b = e.getBBox(), m = e.getCTM(), n = svg.getCTM(), s = n.a;
		return {x: b.x + (m.e - n.e) / s, y: b.y + (m.f - n.f) / s, w: b.width, h: b.height}; };
	const nodes = [...svg.querySelectorAll(".n")].map(g => ({seq: g.dataset.node, ...box(g.querySelector(".node")), g}));
	for (const [i, a] of nodes.entries()) {
		for (const b of nodes.slice(i + 1))
			if (a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h) found.push("nodes " + a.seq + " and " + b.seq + " overlap");
		for (const text of a.g.querySelectorAll("text")) {
			const t = box(text);
			if (t.w && (t.x < a.x || t.y < a.y || t.x + t.w > a.x + a.w || t.y + t.h > a.y + a.h)) found.push("the text of " + a.seq + " leaves it: " + text.textContent);
		}
	}
	let edges = 0;
	for (const line of svg.querySelectorAll(".edge .line")) {
		edges++;
		const length = line.getTotalLength();
		for (let at = 2; at < length - 2; at += 5) {
			const p = line.getPointAtLength(at);
			for (const n of nodes) if (p.x > n.x + 1 && p.x < n.x + n.w - 1 && p.y > n.y + 1 && p.y < n.y + n.h - 1) {
				found.push("an edge crosses " + n.seq);
				at = length;
				break;
			}
		}
	}
	return {found, edges, nodes: nodes.length};
})()`

// places are where the nodes are.
func (b *tab) places() string {
	b.Helper()
	return eval[string](b, `[...document.querySelectorAll(".n")].map(n => n.id + n.getAttribute("transform")).join(" ")`)
}

// 28. In 30 graphs no nodes overlap, no edge crosses a node, no text leaves its node; a
// change of state moves nothing, and neither does a reload. With 301 tasks there are
// columns.
func TestUI_28_GraphsAreReadable(t *testing.T) {
	w := newWorld(t)
	b := w.blank()
	for name, after := range graphs() {
		w.insertGraph(name, after)
		b.goTo(flowPath(name))
		b.drawn()
		got := eval[struct {
			Found        []string
			Edges, Nodes int
		}](b, faults)
		require.Empty(t, got.Found, name)
		require.Equal(t, len(after), got.Nodes, name)
		edges := 0
		for _, seqs := range after {
			edges += len(seqs)
		}
		require.Equal(t, edges, got.Edges, name)

		places := b.places()
		w.exec(`UPDATE kr_task_stat SET exec_status = 0, started_ts = NULL, finished_ts = NULL WHERE task_flow_id = $1 AND task_exec_seq = 1`, name)
		b.refresh()
		b.await("the state is taken over", `!document.querySelector("#n-1").classList.contains("s-finished")`)
		require.Equal(t, places, b.places(), name)
		b.goTo(flowPath(name))
		b.drawn()
		require.Equal(t, places, b.places(), name)
	}
	w.insertGraph("large", build(301, func(i int) []int32 { return list(i > 10, int32(i-10)) }))
	b.goTo(flowPath("large"))
	require.Zero(t, b.count("#graph"))
	require.Equal(t, 28, b.count(".level"))
	b.size(1280, 900)
}

// selected waits until a task is the selected one everywhere.
func (b *tab) selected(seq string) {
	b.Helper()
	b.await("task "+seq+" is selected", `document.querySelector("#n-`+seq+`.chosen") && document.querySelector("#t-`+seq+`.chosen") && document.querySelector("#tl-`+seq+`.chosen")
		&& document.querySelector("#task h2").innerText.startsWith("`+seq+` ") && document.querySelectorAll(".n.chosen, .tasks tr.chosen, #timeline tr.chosen").length === 3
		&& new URLSearchParams(location.search).get("task") === "`+seq+`"`)
}

// 29. A click on a node, a row or a bar selects the same task, arrows go along the edges,
// and the selected node comes into view, while the page stays where it is.
func TestUI_29_OneSelection(t *testing.T) {
	w := newWorld(t)
	w.insertGraph("pick", build(40, func(i int) []int32 { return list(i > 0, int32(i)) }))
	b := w.open(flowPath("pick"))
	b.drawn()
	b.click("#n-2 .node")
	b.selected("2")
	b.click("#t-4 a")
	b.selected("4")
	b.do(chromedp.ScrollIntoView(chromedp.CSS("#tl-6")))
	b.click("#tl-6 .run")
	b.selected("6")
	require.Equal(t, "1", eval[string](b, `new URLSearchParams(location.search).get("attempt") ?? ""`), "a bar is an attempt")

	b.do(chromedp.Focus(chromedp.CSS(".graph-box")))
	at := eval[float64](b, `scrollY`)
	for _, step := range []struct{ key, want string }{{kb.ArrowRight, "7"}, {kb.ArrowRight, "8"}, {kb.ArrowLeft, "7"}} {
		b.press(step.key)
		b.selected(step.want)
	}
	inBox := func(seq string) {
		t.Helper()
		b.await("node "+seq+" is in view", `(() => {
			const n = document.querySelector("#n-`+seq+`").getBoundingClientRect(), box = document.querySelector(".graph-box").getBoundingClientRect();
			return n.left >= box.left && n.right <= box.right && n.top >= box.top && n.bottom <= box.bottom;
		})()`)
	}
	inBox("7")
	require.InDelta(t, at, eval[float64](b, `scrollY`), 1)
	b.do(chromedp.Focus(chromedp.CSS("#t-30 a")))
	b.press(kb.ArrowRight)
	b.selected("31")
	inBox("31")
	require.Equal(t, "t-31", eval[string](b, `document.activeElement.closest("tr").id`), "the focus goes along")
	eval[struct{}](b, `history.back(); undefined`)
	b.selected("7")
}

// 30. The graph, downloaded, opens alone, in the theme that it was seen in, with a title
// for each node.
func TestUI_30_DownloadedGraph(t *testing.T) {
	w := newWorld(t)
	w.inserted("saved", shapes[0])
	b := w.open(flowPath("saved"))
	b.drawn()
	back := map[string]string{}
	for _, theme := range themes {
		b.prefer("color-scheme=" + theme)
		svg := eval[string](b, `import(document.querySelector('script[type=module]').src.replace("main.js", "graph-save.js"))
			.then(m => m.standalone(document.querySelector(".graph-svg")))`)
		require.NotRegexp(t, `class=|var\(|light-dark|href=|color-mix|<script|style=`, svg)
		alone := w.blank()
		alone.do(chromedp.Navigate("data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(svg))))
		require.Equal(t, "svg", eval[string](alone, `document.documentElement.localName`))
		require.Equal(t, []string{"1 task A: Finished · 2.0 s", "2 task B: Finished · 2.0 s", "3 task C: Failed · 5.0 s", "4 task D: Blocked", "5 task E: Blocked"},
			eval[[]string](alone, `[...document.querySelectorAll("title")].map(t => t.textContent).sort()`))
		require.Empty(t, eval[[]string](alone, `[...document.querySelectorAll("text")].filter(t => {
			const b = t.getBBox(), n = t.parentNode.querySelector("rect:nth-of-type(2)").getBBox();
			return b.x + b.width > n.x + n.width;
		}).map(t => t.textContent)`), "no text leaves its node")
		require.Zero(t, eval[int](alone, `document.querySelectorAll("use").length`))
		require.Equal(t, 5, eval[int](alone, `document.querySelectorAll("svg svg").length`), "an icon in each")
		back[theme] = eval[string](alone, `getComputedStyle(document.querySelector("rect")).fill`)
	}
	require.NotEqual(t, back["light"], back["dark"])
	require.Equal(t, "rgb(255, 255, 255)", back["light"])
	b.click("[data-graph=save]") // and it is handed to the browser without a word of the policy
}
