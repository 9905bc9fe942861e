package web

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

func asks(at int, question string) func(*flow.TaskState) {
	return func(t *flow.TaskState) {
		t.Status, t.Reason, t.Error, t.Attempt, t.SuspendedAt, t.Asks = flow.Suspended, flow.ReasonHeld, question, 1, second(at), true
	}
}

func held(t *flow.TaskState) { t.Status, t.Reason = flow.Suspended, flow.ReasonHeld }

// A flow that waits for a person says so, shows what is asked and what waits for the
// answer, and has that task selected.
func TestApprovalCards(t *testing.T) {
	t.Parallel()
	s := diamond(finished(0, 10), asks(40, "later?"), asks(30, "publish?\nAll of it. (to be approved by Ann)"), waits("blocked", 2, 3), waits("dependency", 4), finished(0, 5))
	s.Status = flow.FlowHeld
	v := newFlowView(s, nil, queryOf(""))
	require.Equal(t, lookApproval, v.Look)
	require.Empty(t, v.Failures)
	require.Len(t, v.Asks, 2)
	require.Equal(t, errorView{ID: "question-3", First: "publish?", Rest: []string{"All of it. (to be approved by Ann)"}}, v.Asks[1].Question)
	require.Equal(t, "2 tasks wait for it: 4 d, 5 e", v.Asks[1].Blocks)
	require.Equal(t, second(30), v.Asks[1].Since)
	require.Equal(t, "Blocked by 2 b (Waits for approval)", v.Rows[3].Why)
	chosen, _ := selected(s, queryOf(""))
	require.Equal(t, 3, chosen.Seq, "what was asked first")
	panel := newTaskView(chosen, v.Rows[2], nil, queryOf(""))
	require.Equal(t, "Question", panel.Tabs[0].Name)
	panel.showAttempts([]flow.Attempt{presentAttempt(chosen)}, nil, queryOf(""))
	require.Equal(t, lookApproval, panel.Attempts[0].Look)

	s.Tasks[5].Status, s.Tasks[5].Reason = flow.Suspended, flow.ReasonHeld
	require.Equal(t, lookHeld, newFlowView(s, nil, queryOf("")).Look, "by somebody, too")
	s.Status = flow.FlowRunning
	require.Equal(t, lookRunning, newFlowView(s, nil, queryOf("")).Look)
	failedAt(50, "no")(&s.Tasks[0])
	chosen, _ = selected(s, queryOf(""))
	require.Equal(t, 1, chosen.Seq, "a failure comes before a question")

	listed := flow.Summary{Status: flow.FlowHeld, Asks: 1, Counts: flow.Counts{Finished: 2, Suspended: 1}, Question: &flow.Question{Seq: 3, Title: "c", Text: "publish?"}}
	row := newFlowRow(listed, queryOf(""), access.Principal{})
	require.Equal(t, []any{lookApproval, "3 c", lookApproval, "publish?"}, []any{row.Look, row.Failed, row.Reason, row.Error})
	site := newSite(t, Config{}, &fakeStore{flows: []flow.Summary{listed}, watchers: []flow.WatcherState{{}}})
	page := serve(site, access.Operator, sent(http.MethodGet, "/flows", nil))
	require.Equal(t, http.StatusOK, page.Code)
	require.Contains(t, page.Body.String(), `?task=3" title="3 c: publish?"`)
	listed.Counts.Suspended++
	require.Equal(t, lookHeld, lookOfSummary(listed))

	for range 2 * cardsShown {
		s.Tasks = append(s.Tasks, s.Tasks[1])
	}
	cards, unshown := approvalCards(s.Tasks, newGraph(s.Tasks), nil, queryOf(""))
	require.Len(t, cards, cardsShown)
	require.Equal(t, cardsShown+2, unshown)
}

// What can be done with what asks: an answer is first. Resume is no answer, and is offered
// for what somebody has held alone.
func TestButtonsOfWhatAsks(t *testing.T) {
	t.Parallel()
	who := access.Principal{Name: "alice", Role: access.Operator}
	labels := func(buttons []button) (list []string) {
		for _, b := range buttons {
			if b.Why == "" {
				list = append(list, b.Label)
			}
		}
		return list
	}
	s := diamond(finished(0, 10), asks(20, "publish?"))
	require.Equal(t, []string{"Approve…", "Reject…", "Skip…", "Mark finished…"}, labels(taskButtons(s.Tasks[1], newGraph(s.Tasks), who)))
	require.Equal(t, []string{"Rerun…", "Cancel…"}, labels(flowButtons(s, who)))
	require.Equal(t, []string{"Rerun…", "Cancel…", "Resume"}, labels(flowButtons(diamond(finished(0, 10), held), who)))
	require.Equal(t, []string{"Rerun…", "Cancel…", "Resume"}, labels(flowButtons(diamond(held, asks(20, "publish?")), who)))

	// A rerun is offered where it comes to something, a cancel where something goes on.
	whole := []string{"Rerun from here", "Skip…", "Mark finished…"}
	for name, c := range map[string]struct {
		state flow.State
		want  []string
		why   string
	}{
		"failed":         {diamond(failedAt(20, "no")), whole, ""},
		"finished":       {diamond(finished(0, 10)), whole[:1], ""},
		"running":        {diamond(func(t *flow.TaskState) { t.Status = flow.Running }), []string{"Cancel task…", "Skip…", "Mark finished…"}, "It runs: cancel it first, or wait"},
		"waits":          {diamond(waits("queued"), waits("dependency", 1)), []string{"Cancel task…", "Skip…", "Mark finished…"}, "It has not run yet"},
		"for a call":     {diamond(waits("callback")), []string{"Cancel task…", "Skip…", "Mark finished…"}, "It has begun, and waits: cancel it first, or wait"},
		"for a retry":    {diamond(waits("retry")), []string{"Cancel task…", "Skip…", "Mark finished…"}, "It is tried again by itself"},
		"held":           {diamond(held), []string{"Rerun from here", "Cancel task…", "Skip…", "Mark finished…"}, ""},
		"what has ended": {diamond(waits("queued"), waits("dependency", 1), finished(0, 10)), []string{"Rerun from here", "Cancel task…", "Skip…", "Mark finished…"}, ""},
	} {
		buttons := taskButtons(c.state.Tasks[0], newGraph(c.state.Tasks), who)
		require.Equal(t, c.want, labels(buttons), name)
		require.Equal(t, c.why, buttons[0].Why, name)
	}
	who.Role = access.Registrar
	require.Empty(t, labels(approvalButtons(s.Tasks[1].TaskKey, who)))
}

// textOf is what one reads of a page.
func textOf(page string) string {
	return strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " ")), " ")
}

// The pages of an answer show the question, and what each answer does.
func TestAnswers(t *testing.T) {
	t.Parallel()
	state := diamond(finished(0, 10), asks(20, "publish <all>?"), asks(20, "and?"), waits("blocked", 2, 3), waits("dependency", 4))
	store := fullStore("plain")
	store.flow = func(flow.ID) (flow.State, error) { return state, nil }
	effect := flow.Effect{Tasks: []flow.TaskChange{{Flow: "f", Seq: 2, From: flow.Suspended, To: flow.Waiting}}, CanGo: []int{2}, Follow: []int{4, 5}}
	store.act = func(flow.Action) (flow.Effect, error) { return effect, nil }
	s := newSite(t, Config{}, store)
	text := func(path string) string { return textOf(get(s, path).Body.String()) }
	page := text("/flows/f/tasks/2/approve")
	require.Contains(t, page, "Approve 2 b publish &lt;all&gt;? 2 b goes on, and its output says who approved it . 2 tasks wait for that, and follow : 4 d, 5 e")
	effect.CanGo, effect.Follow = nil, nil
	page = text("/flows/f/tasks/2/cancel")
	require.Contains(t, page, "Reject 2 b publish &lt;all&gt;? 2 b becomes Cancelled, with the note as its error . 2 tasks that wait for it do not run : 4 d, 5 e Rerun has it ask again")
	require.Contains(t, text("/flows/f/tasks/1/cancel"), "Cancel 1 a")
	require.Contains(t, text("/flows/f?did=approve.1.f"), "1 task was approved.")

	// Somebody else was first.
	refused := []flow.Refusal{{Flow: "f", Seq: 2, Code: flow.RefusedWrongStatus, Detail: "task 2 (b) of flow f was approved already, by bob."}}
	store.act = func(flow.Action) (flow.Effect, error) {
		return flow.Effect{}, &flow.RefusedError{Refused: refused}
	}
	w := ask(s, access.Operator, http.MethodPost, "/flows/f/tasks/2/approve", nil)
	require.Equal(t, http.StatusConflict, w.Code)
	require.Contains(t, w.Body.String(), "was approved already, by bob.")
	require.Regexp(t, `data-back autofocus>Back</a>\s*<button class="primary" disabled>Approve</button>`, w.Body.String(), "what cannot be pressed gets no focus")
}

// Of the flows that a cancel stops too, no task is taken for one of this flow.
func TestCancelOfRegisteredFlows(t *testing.T) {
	t.Parallel()
	s := diamond(finished(0, 10), waits("flow"), held)
	e := flow.Effect{Tasks: []flow.TaskChange{{Flow: "child", Seq: 1, From: flow.Running}, {Flow: "f", Seq: 2}, {Flow: "f", Seq: 3, From: flow.Suspended}}}
	v := newActView(flow.Action{Kind: flow.ActionCancel, Flow: "f"}, s, e)
	require.Equal(t, "2 3", v.Planned)
	require.Equal(t, "Cancel 3 tasks", v.Button)
	require.Equal(t, []effectLine{
		{Look: lookCancelled, Lead: "1 waiting task becomes Cancelled", Names: "2 b"},
		{Look: lookCancelled, Lead: "1 held task becomes Cancelled", Names: "3 c"},
		{Look: lookCancelled, Lead: "1 task of flows that it has registered, too"},
		{Look: lookFinished, Lead: "1 task stays as it is", Names: "1 a"},
		{Look: lookRetry, Lead: "Rerun takes it up again"},
	}, v.Lines)
}

// Of a task that waits for a flow: a cancel stops that as well, and what is skipped or marked
// leaves it alone. Both is said, and who waits for the task.
func TestTaskThatWaitsForAFlow(t *testing.T) {
	t.Parallel()
	s := diamond(finished(0, 10), waits("flow"), finished(0, 10), waits("dependency", 2))
	s.Tasks[1].Child = "child"
	store := fullStore("plain")
	store.flow = func(flow.ID) (flow.State, error) { return s, nil }
	store.act = func(a flow.Action) (flow.Effect, error) {
		e := flow.Effect{Tasks: []flow.TaskChange{{Flow: "f", Seq: 2}}, CanGo: []int{4}}
		if a.Kind == flow.ActionCancel {
			e = flow.Effect{Tasks: []flow.TaskChange{{Flow: "child", Seq: 1, From: flow.Running}, {Flow: "f", Seq: 2}}}
		}
		return e, nil
	}
	site := newSite(t, Config{BasePath: "/flower"}, store)
	for _, action := range []string{"skip", "finish"} {
		require.Contains(t, get(site, "/flows/f/tasks/2/"+action).Body.String(),
			`The flow that it waits for goes on, unless that is cancelled, too</strong>: <a href="/flower/flows/child"><code>child</code></a>`)
	}
	page := textOf(get(site, "/flows/f/tasks/2/cancel").Body.String())
	require.Contains(t, page, "Cancel 2 b of w f 1 waiting task becomes Cancelled : 2 b 1 task of flows that it has registered, too . "+
		"1 task that waits for it does not run : 4 d Rerun takes it up again")

	failedAt(20, "task 1 of flow child failed")(&s.Tasks[1])
	require.NotContains(t, get(site, "/flows/f/tasks/2/skip").Body.String(), "goes on", "it has ended")
}

// A flow and the one that has registered it lead to each other.
func TestParentAndChild(t *testing.T) {
	t.Parallel()
	state := diamond(waits("flow"), failedAt(20, "task 1 of flow a/b failed"))
	state.Tasks[0].Child, state.Tasks[1].Child = "0191f3a0-0000-7000-8000-000000000000", "a/b"
	state.Parent, state.RegisteredBy = flow.TaskKey{Flow: "up?", Seq: 7}, "task 7 of flow up?"
	store := fullStore("plain")
	store.flow = func(flow.ID) (flow.State, error) { return state, nil }
	page := get(newSite(t, Config{BasePath: "/flower"}, store), "/flows/f").Body.String()
	require.Contains(t, page, `Registered by <a href="/flower/flows/up%3F?task=7">task 7 of flow up?</a>,`)
	require.Contains(t, page, `<p class="why">Waits until its flow has ended</p>`)
	require.Contains(t, page, `<a href="/flower/flows/0191f3a0-0000-7000-8000-000000000000">its flow 0191f3a0-0000</a>`)
	require.Equal(t, 2, strings.Count(page, `<a href="/flower/flows/a%2Fb">its flow a/b</a>`), "in the list and beside its failure")
	require.Contains(t, page, `<dt>Its flow</dt><dd><a href="/flower/flows/a%2Fb">a/b</a></dd>`)
	require.Contains(t, page, "Waits for a flow")
}

// Each reason to wait has a word of its own.
func TestEveryWaitHasALook(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, reason := range flow.WaitReasons {
		l := lookOfWait(reason).Label
		require.Empty(t, seen[l], "%s reads like %s", reason, seen[l])
		seen[l] = reason
	}
}

// What an event has met: nobody is told that something had failed which was approved.
func TestLookOfChange(t *testing.T) {
	t.Parallel()
	require.Equal(t, lookApproval, lookOfChange(flow.ActionApprove, flow.Suspended))
	require.Equal(t, lookHeld, lookOfChange(flow.ActionResume, flow.Suspended))
	require.Equal(t, lookCancelled, lookOfChange(flow.ActionCancel, flow.Suspended))
	require.Equal(t, "Suspended", lookOfChange(flow.ActionRerun, flow.Suspended).Label, "what it was is in no event")
	require.Equal(t, lookRunning, lookOfChange(flow.ActionCancel, flow.Running))
	from, to := flow.Suspended, flow.Suspended
	no := newEventView(flow.Event{Action: flow.ActionCancel, From: &from, To: &to})
	require.Equal(t, []look{lookHeld, lookCancelled}, []look{*no.From, *no.To})
}

// A task that has paused has started: its attempt is there, and goes on.
func TestAttemptsOfWhatPauses(t *testing.T) {
	t.Parallel()
	s := diamond(waits("callback"))
	s.Tasks[0].Attempt, s.Tasks[0].StartedAt, s.Tasks[0].Paused = 2, second(10), true
	v := newTaskView(s.Tasks[0], taskRows(s.Tasks, newGraph(s.Tasks), nil, queryOf(""))[0], nil, queryOf(""))
	v.showAttempts([]flow.Attempt{{Number: 1, Status: flow.Suspended, Reason: flow.ReasonFailed, StartedAt: second(1), EndedAt: second(2)}}, nil, queryOf(""))
	require.Len(t, v.Attempts, 2)
	require.Equal(t, 2, v.Attempts[0].Number)
	require.True(t, v.Attempts[0].Current)
	require.Equal(t, lookCallback, v.Attempts[0].Look)
	require.True(t, v.Attempts[0].Span.Goes())
}
