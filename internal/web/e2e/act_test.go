package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// shape is a flow whose tasks stand in some states: "3 2 0" with what each depends on.
type shape struct {
	name, states string // f is failed, h held, c cancelled; digits are statuses
	after        [][]int32
}

var shapes = []shape{
	{"chain", "3 3 f 0 0", [][]int32{{}, {1}, {2}, {3}, {4}}},
	{"diamond", "3 3 f 0", [][]int32{{}, {1}, {1}, {2, 3}}},
	{"fan-out", "3 f 3 3 0 3", [][]int32{{}, {1}, {1}, {1}, {2}, {3}}},
	{"two failures", "f f 0 3", [][]int32{{}, {}, {1, 2}, {}}},
	{"skipped", "3 9 f 0", [][]int32{{}, {1}, {2}, {3}}},
	{"held", "3 f h 0 c", [][]int32{{}, {1}, {1}, {2, 3}, {1}}},
}

// inserted puts a flow of a shape into the table, as somebody at psql would.
func (w *world) inserted(id string, s shape) {
	w.Helper()
	var states, after []string
	for i, state := range strings.Fields(s.states) {
		states, after = append(states, state), append(after, ints(s.after[i]))
	}
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq, exec_status, reason, error,
			program, description, attempt, started_ts, finished_ts, suspended_ts)
		SELECT $1, seq, coalesce(after[1], 0), after, 'shapes', seq, status, reason, CASE reason WHEN 'failed' THEN 'it did not work' END,
			'NoOp', 'task ' || chr(64 + seq), attempt, CASE WHEN attempt > 0 THEN now() - interval '5 s' END,
			CASE WHEN status IN (3, 9) THEN now() - interval '3 s' END, CASE WHEN status = 2 THEN now() END
		FROM (SELECT seq::int, after::int[], CASE WHEN state IN ('f', 'h', 'c') THEN 2 ELSE state::smallint END AS status,
				CASE state WHEN 'f' THEN 'failed' WHEN 'h' THEN 'held' WHEN 'c' THEN 'cancelled' END AS reason,
				CASE WHEN state IN ('3', 'f') THEN 1 ELSE 0 END AS attempt
			FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS t (state, after, seq)) AS t`, id, pq.Array(states), pq.Array(after))
}

// reset returns the tasks that a person has set back, as "3 4".
func (w *world) reset(flow string) string {
	w.Helper()
	return w.value(`SELECT coalesce(string_agg(task_exec_seq::text, ' ' ORDER BY task_exec_seq), '') FROM kr_event
		WHERE task_flow_id = $1 AND new_status = 0`, flow)
}

// 7. What a rerun's preview says is what is reset, for each scope and shape.
func TestUI_07_RerunPreviewIsWhatHappens(t *testing.T) {
	w := newWorld(t)
	b := w.blank()
	n := 0
	for _, s := range shapes {
		for _, scope := range []string{"scope=failed", "scope=from&from=1", "scope=from&from=2", "scope=only&from=1", "scope=only&from=2", "scope=all"} {
			n++
			flow := fmt.Sprintf("flow-%d", n)
			w.inserted(flow, s)
			what := s.name + " " + scope
			b.goTo(flowPath(flow) + "/rerun?" + scope)
			planned := eval[string](b, `document.querySelector("#sheet").dataset.planned`)
			require.NotEmpty(t, planned, what)
			label := b.text("#sheet button.primary")
			require.Equal(t, fmt.Sprintf("Rerun %s", plural(len(strings.Fields(planned)), "task", "tasks")), label, what)
			for seq := range strings.FieldsSeq(planned) {
				require.Contains(t, b.text(".effect"), fmt.Sprintf("%s task %c", seq, 'A'+seq[0]-'1'), what)
			}
			before := w.statuses(flow)
			require.Empty(t, w.reset(flow), what)
			b.click("#sheet button.primary")
			pgtest.Eventually(t, patience, what+" is done", func() bool { return w.statuses(flow) != before || w.reset(flow) != "" })
			require.Equal(t, planned, w.reset(flow), what)
			b.await("it says so", `document.querySelector(".message")?.innerText.includes(`+quote(plural(len(strings.Fields(planned)), "task", "tasks"))+`)`)
		}
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// everything is a digest of all rows.
func (w *world) everything() string {
	w.Helper()
	return w.value(`SELECT md5(concat(
		(SELECT string_agg(t::text, ';' ORDER BY task_flow_id, task_exec_seq) FROM kr_task_stat t), (SELECT string_agg(f::text, ';' ORDER BY task_flow_id) FROM kr_flow f),
		(SELECT string_agg(e::text, ';' ORDER BY event_id) FROM kr_event e), (SELECT string_agg(a::text, ';' ORDER BY task_flow_id, task_exec_seq, attempt) FROM kr_task_attempt a),
		(SELECT string_agg(r::text, ';' ORDER BY r::text) FROM kr_ready r)))`)
}

// 8. A preview changes nothing.
func TestUI_08_PreviewChangesNothing(t *testing.T) {
	w := newWorld(t)
	b := w.blank()
	for i, s := range shapes {
		flow := fmt.Sprintf("flow-%d", i)
		w.inserted(flow, s)
	}
	before := w.everything()
	for i := range shapes {
		path := fmt.Sprintf("/flows/flow-%d", i)
		for _, action := range []string{"/rerun", "/rerun?scope=all", "/rerun?scope=from&from=1", "/rerun?scope=only&from=2", "/cancel", "/tasks/2/skip", "/tasks/3/finish"} {
			b.goTo(path + action)
			require.NotZero(t, b.count("#sheet"), path+action)
		}
	}
	require.Equal(t, before, w.everything())
}

// dialog opens an action as a dialog over the page, by the text of its button.
func (b *tab) dialog(within, button string) {
	b.Helper()
	find := `[...document.querySelectorAll(` + quote(within+" a.button") + `)].find(a => a.innerText.trim() === ` + quote(button) + `)`
	b.await(button+" is there", find+` !== undefined`)
	eval[struct{}](b, find+`.click(); undefined`)
	b.await("the dialog is open", `document.querySelector("dialog[open] #sheet") !== null`)
}

// closed waits until the dialog is gone.
func (b *tab) closed() {
	b.Helper()
	b.await("the dialog is closed", `document.querySelector("dialog[open]") === null`)
}

// 9. What changed between the preview and the confirmation is not done: the dialog stays,
// says why and shows what would happen now, which can be confirmed.
func TestUI_09_PlanChanged(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	p := newPeer(t)
	p.refuses("/a", http.StatusTeapot, "")
	p.refuses("/b", http.StatusTeapot, "")
	w.define("two", p.calling("a", "/a"), p.calling("b", "/b"))
	flow := w.registered("two")
	w.until(flow, "2 2")

	b := w.open(flowPath(flow))
	b.expect("status of 409")
	b.dialog("header", "Rerun…")
	require.Equal(t, "Rerun 2 tasks", b.text("dialog button.primary"))
	goOn := p.stalls("/a")
	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 1`, flow)
	w.until(flow, "1 2")
	b.click("dialog button.primary")
	b.await("it says why", `document.querySelector("dialog[open] .problem")?.innerText.includes("nothing was done")`)
	require.Equal(t, "1 2", w.statuses(flow))
	require.Equal(t, "Rerun 1 task", b.text("dialog button.primary"))
	require.NotContains(t, b.text("dialog .effect strong"), "2 tasks")
	b.picture("TestUI_09_Dialog")
	p.on("/b", nil)
	b.click("dialog button.primary")
	b.closed()
	w.until(flow, "1 3")
	goOn()
	w.until(flow, "3 3")
	b.badge("Finished") // the page goes on to look for news
}

// 9. Where nothing is left to be done, the dialog leads back, and what its button said can
// still be read under the mouse that has pressed it.
func TestUI_09_NothingLeft(t *testing.T) {
	w := newWorld(t)
	w.inserted("done", shapes[0])
	b := w.open(flowPath("done"))
	b.expect("status of 409")
	b.dialog("header", "Rerun…")
	w.exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = 'done' AND exec_status = 2`)
	b.click("dialog button.primary")
	b.await("nothing is left to do", `document.querySelector("dialog button.primary:disabled:hover") !== null`)
	b.focused("dialog [data-back]")
	require.Equal(t, eval[string](b, `(() => {
		const other = document.querySelector("main").appendChild(document.createElement("button"));
		other.disabled = true;
		return getComputedStyle(other).backgroundColor;
	})()`), eval[string](b, `getComputedStyle(document.querySelector("dialog button.primary")).backgroundColor`))
}

// 9. A button does what is shown: as long as it is not known what another choice would do,
// nothing. What is shown too late, when the dialog was closed, is not shown at all.
func TestUI_09_LatePreview(t *testing.T) {
	w := newWorld(t)
	w.inserted("late", shapes[0])
	p := newProxy(t, w.url, nil)
	w.url = p.URL
	b := w.open(flowPath("late"))
	b.dialog("header", "Rerun…")
	begun, goOn := p.stalls("scope=all")
	b.click("dialog #scope-all")
	<-begun
	require.Equal(t, 1, b.count("dialog button.primary:disabled"))
	goOn()
	b.await("what it would do", `document.querySelector("dialog form[method=post] [name=scope]")?.value === "all" && document.querySelector("dialog button.primary:enabled") !== null`)
	begun, goOn = p.stalls("scope=failed")
	b.click("dialog #scope-failed")
	<-begun
	b.press(kb.Escape)
	b.closed()
	goOn()
	pgtest.Eventually(t, patience, "the answer has come", func() bool {
		return slices.ContainsFunc(p.pages(), func(a passage) bool { return strings.Contains(a.path, "scope=failed") })
	})
	b.refresh()
	require.Zero(t, b.count("dialog[open]"))
}

// 9. Who selects what was typed into a dialog, and lets go of the mouse beside it, still has
// it. A click beside it closes it.
func TestUI_09_BesideTheDialog(t *testing.T) {
	w := newWorld(t)
	w.inserted("beside", shapes[0])
	b := w.open(flowPath("beside"))
	b.dialog("header", "Rerun…")
	b.click("dialog #note")
	b.do(chromedp.KeyEvent("typed"))
	at := eval[[]float64](b, `(() => { const r = document.querySelector("dialog #note").getBoundingClientRect(); return [r.left + 60, r.top + r.height / 2]; })()`)
	b.do(chromedp.DragAndDropXY(at[0], at[1], 20, at[1]))
	require.Equal(t, "typed", eval[string](b, `document.querySelector("dialog[open] #note")?.value ?? ""`))
	b.do(chromedp.MouseClickXY(20, at[1]))
	b.closed()
}

// 9. What is typed wrong comes back as it was typed, with what is wrong with it.
func TestUI_09_TypedWrong(t *testing.T) {
	w := newWorld(t)
	w.inserted("wrong", shapes[0])
	b := w.open(flowPath("wrong"))
	b.expect("status of 422")
	b.dialog("header", "Rerun…")
	eval[struct{}](b, `(() => {
		const form = document.querySelector("dialog form[method=post]");
		form.querySelector("details").open = true;
		form.elements.parameters.value = '{"a": 1';
		form.elements.note.value = "typed";
	})(); undefined`)
	b.click("dialog button.primary")
	b.await("it says what is wrong", `document.querySelector("dialog[open] .problem")?.innerText.includes("Nothing was done. Parameters")`)
	require.Equal(t, []string{`{"a": 1`, "typed"}, eval[[]string](b, `["parameters", "note"].map(n => document.querySelector("dialog form[method=post]").elements[n].value)`))
	eval[struct{}](b, `document.querySelector("dialog #parameters").value += "}"; undefined`)
	b.click("dialog button.primary")
	b.closed()
	require.Equal(t, "1", w.value(`SELECT parameters->>'a' FROM kr_task_stat WHERE task_flow_id = 'wrong' AND task_exec_seq = 3`))
}

// 10. A double click and a repeated Enter are one rerun.
func TestUI_10_OnlyOnce(t *testing.T) {
	w := newWorld(t)
	for i, act := range []func(b *tab){
		func(b *tab) {
			b.do(chromedp.Click(chromedp.CSS("dialog button.primary"), chromedp.AtLeast(1)))
		},
		func(b *tab) {
			at := b.middle("dialog button.primary")
			b.do(chromedp.MouseClickXY(at[0], at[1]))
			b.do(chromedp.MouseClickXY(at[0], at[1], chromedp.ClickCount(2)))
		},
		func(b *tab) {
			b.do(chromedp.Focus(chromedp.CSS("dialog #note")))
			b.press(kb.Enter + kb.Enter + kb.Enter)
		},
		func(b *tab) {
			eval[struct{}](b, `const b = document.querySelector("dialog button.primary"); b.click(); b.click(); b.click(); undefined`)
		},
	} {
		flow := fmt.Sprintf("flow-%d", i)
		w.inserted(flow, shapes[0])
		b := w.open(flowPath(flow))
		b.dialog("header", "Rerun…")
		act(b)
		b.closed()
		b.await("the page says so", `document.querySelector(".message") !== null`)
		require.Equal(t, "3", w.reset(flow))
	}
}

// 10. The second click of a double click, which may come when the first one is answered, is
// not one on what is there by then: Resume, where Hold was.
func TestUI_10_DoubleClickHolds(t *testing.T) {
	w := newWorld(t)
	w.inserted("held", shape{states: "3 0 0", after: [][]int32{{}, {1}, {2}}})
	b := w.open(flowPath("held"))
	click := func(n int) {
		at := b.middle(".flow-head form button")
		b.do(chromedp.MouseClickXY(at[0], at[1], chromedp.ClickCount(n)))
	}
	click(1)
	b.badge("Held")
	click(2)
	b.refresh()
	require.Equal(t, "3 2 2", w.statuses("held"))
	click(1)
	b.badge("Running")
}

// 11. Skip names what can go, and after it that goes. Hold offers Resume, which gives back
// what was held.
func TestUI_11_SkipHoldResume(t *testing.T) {
	w := newWorld(t)
	w.inserted("skip", shape{states: "f 0 0 0", after: [][]int32{{}, {1}, {1}, {2}}})
	b := w.open(flowPath("skip"))
	b.size(1280, 500)
	eval[struct{}](b, `document.querySelector("#task").scrollIntoView(), undefined`)
	b.dialog("#task", "Skip…")
	effect := b.text("dialog .effect")
	require.Contains(t, effect, "2 task B")
	require.Contains(t, effect, "3 task C")
	require.NotContains(t, effect, "4 task D")
	b.click("dialog button.primary")
	b.closed()
	b.await("what it came to is seen from where the button was", `scrollY > 200 && `+inView+`(document.querySelector("#message .message"))`)
	require.Equal(t, "9 0 0 0", w.statuses("skip"))
	w.watcher()
	w.until("skip", "9 3 3 3")

	w.inserted("hold", shape{states: "3 f h 0 0", after: [][]int32{{}, {1}, {1}, {2}, {2}}})
	b.goTo(flowPath("hold"))
	require.Equal(t, "Resume", b.text(".flow-head form button")) // one of it is held already
	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'hold' AND reason = 'held'`)
	w.until("hold", "3 2 3 0 0")
	b.await("Hold is offered", `document.querySelector(".flow-head form button").innerText.trim() === "Hold"`)
	b.click(".flow-head form button")
	w.until("hold", "3 2 3 2 2")
	b.await("Resume is offered", `document.querySelector(".flow-head form button").innerText.trim() === "Resume"`)
	b.await("and beside the message", `document.querySelector(".message form button")?.innerText.trim() === "Resume"`)
	b.click(".message form button")
	w.until("hold", "3 2 3 0 0")
	require.Equal(t, "failed", w.value(`SELECT reason FROM kr_task_stat WHERE task_flow_id = 'hold' AND exec_status = 2`))
}

// 12. Cancel stops what runs and what waits, the event says who, and a rerun takes it up.
func TestUI_12_Cancel(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	p := newPeer(t)
	gone := make(chan struct{})
	p.on("/slow", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(gone)
	})
	w.define("slow", p.calling("first", "/slow"), task{title: "second", after: []int32{1}}, task{title: "third", after: []int32{2}})
	flow := w.registered("slow")
	w.until(flow, "1 0 0")
	b := w.open(flowPath(flow))
	b.dialog("header", "Cancel…")
	require.Contains(t, b.text("dialog .effect"), "1 running task")
	b.click("dialog button.primary")
	b.closed()
	w.until(flow, "2 2 2")
	<-gone
	b.await("it reads Cancelled", `document.querySelector(".flow-head .badge").innerText.trim() === "Cancelled"`)
	require.Equal(t, []string{"Cancelled", "Cancelled", "Cancelled"}, b.texts(".tasks .state"))
	require.Contains(t, w.value(`SELECT DISTINCT actor FROM kr_event WHERE task_flow_id = $1`, flow), "anonymous@127.0.0.1")
	p.on("/slow", nil)
	b.dialog("header", "Rerun…")
	b.click("dialog button.primary")
	b.closed()
	w.until(flow, "3 3 3")
	b.await("it reads Finished", `document.querySelector(".flow-head .badge").innerText.trim() === "Finished"`)
}
