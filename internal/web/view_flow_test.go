package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// diamond is 1 → 2, 3 → 4 → 5, and 6 alone; tests say how they stand.
func diamond(states ...func(*flow.TaskState)) flow.State {
	parents := [][]int{{}, {1}, {1}, {2, 3}, {4}, {}}
	s := flow.State{Flow: flow.Flow{ID: "f", WorkflowID: "w"}, Status: flow.FlowFailed, AsOf: second(100)}
	for i, change := range states {
		t := flow.TaskState{
			TaskKey: flow.TaskKey{Flow: "f", Seq: i + 1}, Parents: parents[i], Program: "P", Description: string(rune('a' + i)), MaxAttempts: 1,
		}
		change(&t)
		s.Tasks = append(s.Tasks, t)
	}
	return s
}

func second(seconds int) time.Time { return time.Unix(1e9+int64(seconds), 0).UTC() }

func finished(from, to int) func(*flow.TaskState) {
	return func(t *flow.TaskState) {
		t.Status, t.Attempt, t.StartedAt, t.FinishedAt = flow.Finished, 1, second(from), second(to)
	}
}

func failedAt(at int, text string) func(*flow.TaskState) {
	return func(t *flow.TaskState) {
		t.Status, t.Reason, t.Error, t.Attempt = flow.Suspended, flow.ReasonFailed, text, 1
		t.StartedAt, t.SuspendedAt = second(at-1), second(at)
	}
}

func waits(reason string, on ...int) func(*flow.TaskState) {
	return func(t *flow.TaskState) { t.Wait = flow.Wait{Reason: reason, For: on} }
}

func queryOf(text string) query { return query{sent(http.MethodGet, "/x"+text, nil).URL.Query()} }

// The earliest failure is the cause: it comes first, and is selected. What stands behind
// it, however far, is blocked by it.
func TestFlowView(t *testing.T) {
	t.Parallel()
	s := diamond(finished(0, 10), failedAt(30, "late"), failedAt(20, "early\nmore"), waits("blocked", 2, 3), waits("dependency", 4), waits("queued"))
	s.StartedAt, s.EndedAt = second(0), second(30)
	v := newFlowView(s, nil, queryOf(""))

	require.Equal(t, lookFailed, v.Look)
	require.Equal(t, "30.0 s", v.Span().Took())

	var words []string
	total := 0.0
	for _, p := range v.Parts {
		words = append(words, p.Words)
		require.InDelta(t, total, p.X, 1e-9)
		total += p.W
	}
	require.Equal(t, []string{"1 finished", "2 failed", "1 queued", "2 blocked"}, words)
	require.InDelta(t, 100, total, 1e-9)

	require.Len(t, v.Failures, 2)
	require.Equal(t, 3, v.Failures[0].Task.Seq)
	require.Equal(t, "early", v.Failures[0].Error.First)
	require.Equal(t, []string{"more"}, v.Failures[0].Error.Rest)
	require.Equal(t, "Blocks 2 tasks: 4 d, 5 e", v.Failures[0].Blocks)
	chosen, ok := selected(s, queryOf(""))
	require.True(t, ok)
	require.Equal(t, 3, chosen.Seq)

	var rows []string
	for _, r := range v.Rows {
		rows = append(rows, fmt.Sprintf("%d %s %s|%s|%.0f", r.Seq, r.Look.Label, r.Why, r.Span.Took(), r.Bar))
	}
	require.Equal(t, []string{
		"2 Failed late|1.0 s|10", "3 Failed early|1.0 s|10", "1 Finished |10.0 s|100",
		"4 Blocked Blocked by 2 b (Failed)||0", "5 Blocked Blocked by 2 b (Failed)||0", "6 Queued ||0",
	}, rows, "failed ones are pinned on top")
	require.Equal(t, "1, 2", taskRow{After: []int{1, 2}}.DependsOn())
}

// A flow that goes on has no end, and no bar of what runs: that would be the present.
func TestFlowViewRunning(t *testing.T) {
	t.Parallel()
	s := diamond(finished(0, 10), func(t *flow.TaskState) {
		t.Status, t.Attempt, t.StartedAt, t.WatcherID = flow.Running, 1, second(10), "w1"
	}, finished(10, 12), waits("dependency", 2))
	s.Status, s.StartedAt = flow.FlowRunning, second(0)
	known := watchers{"w1": {Watcher: flow.Watcher{ID: "w1", Host: "h", PID: 7}, State: "alive"}}
	v := newFlowView(s, known, queryOf(""))
	require.True(t, v.Span().Goes())
	require.Empty(t, v.Span().Took())
	require.Zero(t, v.Rows[1].Bar)
	require.True(t, v.Rows[1].Span.Goes())
	require.Empty(t, v.Rows[1].Flag)
	require.Equal(t, "Waits for 2 b", v.Rows[3].Why)
	require.Empty(t, v.Failures)
	chosen, _ := selected(s, queryOf(""))
	require.Equal(t, 2, chosen.Seq)

	known["w1"] = flow.WatcherState{State: "dead"}
	require.Equal(t, "No heartbeat", newFlowView(s, known, queryOf("")).Rows[1].Flag)
	require.Equal(t, "No heartbeat", newFlowView(s, nil, queryOf("")).Rows[1].Flag)
	s.Tasks[1].WatcherID = ""
	require.Equal(t, "Unowned", newFlowView(s, known, queryOf("")).Rows[1].Flag)
}

func TestSelected(t *testing.T) {
	t.Parallel()
	done := diamond(finished(0, 10), finished(10, 30), finished(10, 20))
	for q, want := range map[string]int{"": 2, "?task=1": 1, "?task=99": 2, "?task=x": 2} {
		got, ok := selected(done, queryOf(q))
		require.True(t, ok)
		require.Equal(t, want, got.Seq, q)
	}
	got, _ := selected(diamond(waits("queued"), waits("dependency", 1)), queryOf(""))
	require.Equal(t, 1, got.Seq)
	_, ok := selected(flow.State{}, queryOf("?task=1"))
	require.False(t, ok)
}

// Whatever leads to another log begins at its end: a place in this one is none there.
func TestLinksLeaveThisLog(t *testing.T) {
	t.Parallel()
	s := diamond(finished(0, 10), failedAt(30, "late"), waits("queued"))
	q := queryOf("?task=2&attempt=1&panel=log&wrap=0&before=900&after=800&q=x")
	v := newFlowView(s, nil, q)
	task := newTaskView(s.Tasks[1], v.All[1], nil, q)
	task.showAttempts([]flow.Attempt{{Number: 2, Current: true}, {Number: 1}}, nil, q)
	links := []string{task.Present}
	for _, r := range newTimeline(s, nil, v.listed(), q).Rows {
		links = append(links, r.Href)
		for _, b := range r.Bars {
			links = append(links, b.Href)
		}
	}
	for _, one := range task.Tabs {
		links = append(links, one.Href)
	}
	require.Greater(t, len(links), 10)
	for _, link := range links {
		require.NotRegexp(t, `(before|after|[?&]q)=`, link)
		require.Contains(t, link, "wrap=0")
	}
}

// Many failures with one error are one card, which names them all.
func TestFailuresAlike(t *testing.T) {
	t.Parallel()
	s := flow.State{Status: flow.FlowFailed}
	for i := range 60 {
		text := fmt.Sprintf("error %d", i)
		if i < 12 {
			text = "503 Service Unavailable"
		}
		s.Tasks = append(s.Tasks, flow.TaskState{
			TaskKey: flow.TaskKey{Flow: "f", Seq: i + 1}, Status: flow.Suspended, Reason: flow.ReasonFailed, Error: text, Fingerprint: text, SuspendedAt: second(100 - i),
		})
	}
	cards, unshown := failureCards(s.Tasks, newGraph(s.Tasks), nil, queryOf(""))
	require.Len(t, cards, cardsShown)
	require.Equal(t, 60-cardsShown, unshown)
	require.Equal(t, 60, cards[0].Task.Seq, "the earliest first")

	cards, unshown = failureCards(s.Tasks[:13], newGraph(s.Tasks[:13]), nil, queryOf(""))
	require.Len(t, cards, 2)
	require.Zero(t, unshown)
	require.Len(t, cards[1].Alike, 12)
	require.Equal(t, 12, cards[1].Task.Seq)
}

func TestErrorView(t *testing.T) {
	t.Parallel()
	text := "first"
	for i := range 40 {
		text += fmt.Sprintf("\nline %d", i)
	}
	v := newErrorView("id", text+"\n\n")
	require.Equal(t, "first", v.First)
	require.Len(t, v.Rest, errorLines)
	require.Len(t, v.More, 40-errorLines)
	require.Equal(t, errorView{ID: "id", First: "one"}, newErrorView("id", "one\n \n"))
	require.Len(t, newErrorView("id", "a\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13").Rest, 13, "one line is not folded away")
	v = newErrorView("e", "502 Bad Gateway\n<html>\n"+strings.Repeat("<p>", 5000))
	require.Equal(t, []string{"<html>"}, v.Rest, "what is one line may be a page high")
	require.Len(t, v.More, 1)
}

func TestAttemptText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attempt, most int
		want          string
	}{{0, 3, ""}, {1, 1, ""}, {1, 3, "1 of 3"}, {3, 3, "3 of 3"}, {4, 3, "4"}, {2, 1, "2"}} {
		require.Equal(t, c.want, attemptText(flow.TaskState{Attempt: c.attempt, MaxAttempts: c.most}))
	}
	require.Empty(t, attemptText(flow.TaskState{Attempt: 1, MaxAttempts: 3, Status: flow.Finished}))
}

func TestWhy(t *testing.T) {
	t.Parallel()
	g := newGraph(diamond(finished(0, 1), waits("queued")).Tasks)
	for want, w := range map[string]flow.Wait{
		"": {},
		"Waits for a free worker, position 37 in the queue": {Reason: "queued", Position: 37, Why: "can go"},
		"Can go: waits for a free worker":                   {Reason: "queued", Why: "can go: waits for a free worker"},
		"No watcher has the program 'X'":                    {Reason: "no_watcher", Why: "no watcher has the program 'X'"},
		"Waits for flow 01a2 of workflow load":              {Reason: "flow", Why: "waits for flow 01a2 of workflow load"},
		"Waits for the callback of POST http://h/":          {Reason: "callback", Why: "waits for the callback of POST http://h/"},
		"Attempt 2 failed, it is tried again":               {Reason: "retry", Why: "…"},
		"Waits for 1 a, 2 b, 7":                             {Reason: "dependency", For: []int{1, 2, 7}},
		"Waits for 1 a, 2 b, 3, 4, and 2 more":              {Reason: "dependency", For: []int{1, 2, 3, 4, 5, 6}},
	} {
		require.Equal(t, want, g.why(flow.TaskState{Attempt: 2, Wait: w}))
	}
}

// A flow of any length has a list in pages, the failed tasks first.
func TestPager(t *testing.T) {
	t.Parallel()
	rows := make([]taskRow, 1200)
	for i := range rows {
		rows[i] = taskRow{Seq: i + 1, Failing: i == 1100}
	}
	first, p := page(pinned(rows), queryOf("?task=3"))
	require.Equal(t, 1101, first[0].Seq)
	require.Equal(t, pager{Later: "?rows=2&task=3", Words: "1 to 500 of 1200"}, p)
	last, p := page(rows, queryOf("?rows=77"))
	require.Len(t, last, 200)
	require.Equal(t, "?rows=2", p.Earlier)
	require.Empty(t, p.Later)
	all, p := page(rows[:500], queryOf(""))
	require.Len(t, all, 500)
	require.Equal(t, pager{}, p)
}

func TestBanner(t *testing.T) {
	t.Parallel()
	require.Nil(t, newBanner(flow.Attention{}))
	require.Contains(t, newBanner(flow.Attention{NoWatcher: true, CanGo: flow.Count{N: 1}}).Text, "1 task can go and nothing runs")
	require.Contains(t, newBanner(flow.Attention{NoWatcher: true, CanGo: flow.Count{N: 1000, More: true}}).Text, "1,000+ tasks can go")
	require.Contains(t, newBanner(flow.Attention{Strangers: []string{"Report"}}).Text, "program Report")
	require.Contains(t, newBanner(flow.Attention{Check: flow.Check{Broken: []flow.BrokenRule{{Rule: "owned means running"}}}}).Text, "owned means running")
}

func TestStatements(t *testing.T) {
	t.Parallel()
	all := statements(flow.TaskState{TaskKey: flow.TaskKey{Flow: `it's \`, Seq: 3}, Status: flow.Suspended})
	require.Equal(t, `SELECT * FROM kr_task_stat WHERE task_flow_id = 'it''s \' AND task_exec_seq = 3;`, all[0].Text)
	require.Equal(t, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'it''s \' AND task_exec_seq = 3 AND exec_status = 2;`, all[len(all)-1].Text)
	all = statements(flow.TaskState{TaskKey: flow.TaskKey{Flow: "it's", Seq: 3}, Status: flow.Suspended, Asks: true})
	require.Equal(t, `SELECT flower_approve('it''s', 3);`, all[len(all)-1].Text)
}

func TestThousands(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, thousands(n))
	}
}
