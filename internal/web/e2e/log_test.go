package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// 5. After a rerun that succeeds both attempts are there, the first one's error by a link
// of its own, and the row keeps its mark.
func TestUI_05_AttemptsAreKept(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	p := newPeer(t)
	p.refuses("/once", http.StatusServiceUnavailable, "not today")
	w.define("again", p.calling("call", "/once"))
	flow := w.registered("again")
	w.until(flow, "2")
	b := w.open(flowPath(flow))
	p.on("/once", nil)
	b.dialog(".failure", "Rerun from here")
	b.click("dialog button.primary")
	b.closed()
	w.until(flow, "3")
	b.badge("Finished")
	require.Zero(t, b.count(".failure"))
	require.Contains(t, b.text("#t-1"), "1 failed attempt")
	b.click(`#task [data-panel="attempts"]`)
	b.await("the attempts", `new URLSearchParams(location.search).get("panel") === "attempts" && document.querySelectorAll("#task [id^='attempt-'], #task tbody tr").length >= 2`)
	require.Contains(t, b.text("#task"), "503 Service Unavailable")
	link := eval[string](b, `[...document.querySelectorAll("#task a[href*='attempt=1']")][0]?.href ?? ""`)
	require.NotEmpty(t, link, "the first attempt has a link")
	b.goTo(strings.TrimPrefix(link, w.site()))
	require.Contains(t, b.text("#task"), "503 Service Unavailable")
	require.Len(t, b.texts("#tl-1 .track .run"), 2, "each attempt is a bar")
}

// 6. A log of 50,000 lines is opened at its end in no time; what was before comes without
// a jump, the browser finds a word of it, and the download has every line.
func TestUI_06_LongLog(t *testing.T) {
	w := newWorld(t)
	const lines = 50_000
	w.inserted("talks", shape{states: "3", after: [][]int32{{}}})
	w.exec(`INSERT INTO kr_task_log (task_flow_id, task_exec_seq, attempt, claim_id, line_no, line_ts, stream, text)
		SELECT 'talks', 1, 1, '00000000-0000-0000-0000-000000000001', n, now() - interval '1 s', 'stdout', 'line number ' || n || CASE n WHEN 123 THEN ' needle' ELSE '' END FROM generate_series(1, $1::int) AS n`, lines)
	begin := time.Now()
	b := w.open(flowPath("talks") + "?task=1&panel=log")
	b.await("the last line is in sight", `(() => {
		const last = document.querySelector("#L50000")?.getBoundingClientRect(), box = document.querySelector("#task .log-box")?.getBoundingClientRect();
		return last && last.bottom <= box.bottom + 2 && last.top >= box.top;
	})()`)
	w.within(time.Second, begin, "a log of 50,000 lines")
	shown := b.count("#log-lines .line")
	require.LessOrEqual(t, shown, 1000)
	require.True(t, eval[bool](b, `find("number 49990")`), "the browser finds it")

	first := eval[string](b, `document.querySelector("#log-lines .line").id`)
	eval[struct{}](b, `window.line = document.getElementById(`+quote(first)+`); line.scrollIntoView({block: "center"}); window.at = line.getBoundingClientRect().top; undefined`)
	eval[struct{}](b, `document.querySelector("[data-log-earlier]").click(); undefined`)
	b.await("more lines", fmt.Sprintf(`document.querySelectorAll("#log-lines .line").length > %d`, shown))
	require.InDelta(t, 0, eval[float64](b, `line.getBoundingClientRect().top - at`), 2, "what was read stays where it is")

	b.goTo(flowPath("talks") + "?task=1&panel=log&q=needle")
	b.await("the line", `document.querySelector("#log-lines")?.innerText.includes("line number 123 needle")`)
	require.Equal(t, 1, b.count("#log-lines .line"))
	b.pressed("#task .tabs a", "Log")
	b.await("all lines, and nothing in the field", `document.querySelectorAll("#log-lines .line").length > 1 && document.querySelector("#log-q").value === ""`)

	eval[struct{}](b, `location.assign(`+quote(flowPath("talks")+"?task=1&panel=log#L123")+`), undefined`)
	b.await("the line that a link names", `document.querySelector("#L123:target") !== null && `+inView+`(document.querySelector("#L123 .said"))`)

	href := eval[string](b, `document.querySelector("#task a[download]").getAttribute("href")`)
	r, err := http.Get(w.url + href)
	require.NoError(t, err)
	defer func() { _ = r.Body.Close() }()
	n, last := countLines(t, r)
	require.Equal(t, lines, n)
	require.Contains(t, last, "line number 50000")
}

// A log that grows by more lines between two looks than a page has is whole, and in order.
func TestUI_LogGrowsFast(t *testing.T) {
	w := newWorld(t)
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, attempt, started_ts)
		VALUES ('hurry', 1, 0, 'hurry', 1, 1, 1, now())`)
	printed := func(from, to int) {
		w.exec(`INSERT INTO kr_task_log (task_flow_id, task_exec_seq, attempt, claim_id, line_no, line_ts, stream, text)
			SELECT 'hurry', 1, 1, '00000000-0000-0000-0000-000000000001', n, now(), 'stdout', 'line ' || n FROM generate_series($1::int, $2::int) AS n`, from, to)
	}
	printed(1, 300)
	b := w.open(flowPath("hurry") + "?panel=log")
	whole := `(() => {
		const numbers = [...document.querySelectorAll("#log-lines > .line")].map(l => Number(l.dataset.no));
		return numbers.every((n, i) => i === 0 || n === numbers[i - 1] + 1) && numbers.at(-1);
	})()`
	b.await("its end", whole+` === 300`)
	printed(301, 900)
	b.await("its new end", whole+` === 900`)
	require.Equal(t, "101", eval[string](b, `document.querySelector("#log-lines > .line").dataset.no`))
	eval[struct{}](b, `document.querySelector("[data-log-earlier]").click(); undefined`)
	b.await("its beginning", `document.querySelector("#L1") !== null`)
	printed(901, 910)
	b.await("its last end", whole+` === 910`)
	require.Zero(t, b.count("[data-log-earlier]"), "there is nothing earlier")

	// Of what prints very much only the newest lines are written while it runs.
	printed(2001, 2010)
	b.await("lines that follow none", `document.querySelector("#L2010") !== null && document.querySelector("#L2001").dataset.gap !== undefined`)
	printed(911, 2000)
	w.exec(`UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = 'hurry'`)
	b.await("those that came late", whole+` === 2010`)
}

func countLines(t *testing.T, r *http.Response) (n int, last string) {
	t.Helper()
	in := bufio.NewScanner(r.Body)
	for in.Scan() {
		n, last = n+1, in.Text()
	}
	require.NoError(t, in.Err())
	return n, last
}
