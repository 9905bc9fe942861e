package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/request"
)

// How often an open page asks again.
const (
	everyActive = time.Second     // something runs
	everyNow    = 2 * time.Second // lists of what happens
	everyElse   = 5 * time.Second
)

// maxID is the length of an id, in characters. A longer one is nobody's.
const maxID = 256

// pathID returns an id of the path, unescaped once.
func pathID(r *http.Request, name string) (string, error) {
	id, err := request.ID(mux.Vars(r)[name])
	if err != nil || utf8.RuneCountInString(id) > maxID {
		return "", notFound("the id in this address cannot be one")
	}
	return id, nil
}

// readFlow reads the flow that the path names.
func (s *Site) readFlow(ctx context.Context, r *http.Request) (flow.State, error) {
	id, err := pathID(r, "task_flow_id")
	if err != nil {
		return flow.State{}, err
	}
	state, err := s.store.Flow(ctx, flow.ID(id))
	if errors.Is(err, flow.ErrNotFound) {
		return state, s.find(ctx, flow.ID(id))
	}
	return state, err
}

// showFlow is GET /flows/{id}: which task failed, why, and on again.
func (s *Site) showFlow(r *http.Request, sh *shell) (any, error) {
	state, err := s.readFlow(r.Context(), r)
	if err != nil {
		return nil, err
	}
	list, err := s.store.Watchers(r.Context())
	if err != nil {
		return nil, err
	}
	q, watching := query{r.URL.Query()}.without("did"), byID(list)
	v := newFlowView(state, watching, q)
	if t, ok := selected(state, q); ok {
		if v.Task, err = s.readTask(r.Context(), t, rowOf(v.All, t.Seq), watching, q); err != nil {
			return nil, known(err, t.TaskKey) // it may be deleted meanwhile
		}
		v.Task.Buttons = taskButtons(t, v.graph, sh.Who)
		v.choose(t.Seq)
	}
	superseded, err := s.store.Superseded(r.Context(), state.ID)
	if err != nil {
		return nil, err
	}
	v.Timeline = newTimeline(state, superseded, v.listed(), q)
	v.Timeline.Part = v.Rest.Words
	v.Levels = newLevels(state.Tasks, v.All)
	v.Actions, v.Again = flowButtons(state, sh.Who), againButton(state, sh.Who)
	for i := range v.Failures {
		c := &v.Failures[i]
		t := state.Tasks[indexOf(state.Tasks, c.Task.Seq)]
		c.Buttons = taskButtons(t, v.graph, sh.Who)
		if i < cardsWithLog {
			if c.Log, err = s.lastLines(r.Context(), t); err != nil {
				return nil, known(err, t.TaskKey)
			}
		}
	}
	for i := range v.Asks {
		c := &v.Asks[i]
		c.Buttons = approvalButtons(flow.TaskKey{Flow: state.ID, Seq: c.Task.Seq}, sh.Who)
	}
	sh.Title = fmt.Sprintf("%s · %s %s", v.Look.Label, state.WorkflowID, short(state.ID))
	sh.Active, sh.Icon, sh.AsOf, sh.Every = "Flows", v.Look.Class, state.AsOf, everyElse
	if v.EndedAt.IsZero() {
		sh.Every = everyActive
	}
	return v, nil
}

// readTask reads what the panel of the selected task shows, and no more than is open.
func (s *Site) readTask(ctx context.Context, t flow.TaskState, row taskRow, known watchers, q query) (*taskView, error) {
	v := newTaskView(t, row, known, q)
	attempts, err := s.store.Attempts(ctx, t.TaskKey)
	if err != nil {
		return nil, err
	}
	v.showAttempts(attempts, known, q)
	events, err := s.store.Events(ctx, flow.EventFilter{Flow: t.Flow, Seq: t.Seq, Limit: eventsShown})
	if err != nil {
		return nil, err
	}
	v.showEvents(events)
	if v.Panel == "log" {
		// Its links are about this task, also when another one is selected by then.
		log, err := s.readLog(ctx, t.TaskKey, q.with("task", strconv.Itoa(t.Seq)).with("panel", "log"), logPanel)
		if err != nil {
			return nil, err
		}
		v.Log = &log
	}
	return &v, nil
}

// lastLines are the last lines of a task's log, of the attempt that failed.
func (s *Site) lastLines(ctx context.Context, t flow.TaskState) ([]flow.LogLine, error) {
	page, err := s.store.Log(ctx, flow.LogFilter{TaskKey: t.TaskKey, Attempt: t.Attempt, Limit: logLines})
	return page.Lines, err
}

func rowOf(rows []taskRow, seq int) taskRow {
	for _, r := range rows {
		if r.Seq == seq {
			return r
		}
	}
	return taskRow{}
}

func indexOf(tasks []flow.TaskState, seq int) int {
	for i, t := range tasks {
		if t.Seq == seq {
			return i
		}
	}
	return -1
}

// choose marks the selected task wherever it is shown.
func (v *flowView) choose(seq int) {
	for _, rows := range [][]taskRow{v.Rows, v.All} {
		for i := range rows {
			rows[i].Chosen = rows[i].Seq == seq
		}
	}
	for i := range v.Failures {
		c := &v.Failures[i]
		c.Task.Chosen = c.Task.Seq == seq
		for j := range c.Alike {
			c.Alike[j].Chosen = c.Alike[j].Seq == seq
		}
	}
	for i := range v.Asks {
		v.Asks[i].Task.Chosen = v.Asks[i].Task.Seq == seq
	}
	if v.Task != nil {
		v.Task.Row.Chosen = true
	}
}

// flowButtons are what can be done with a flow.
func flowButtons(s flow.State, who access.Principal) []button {
	waits, runs, held, asks := 0, 0, 0, 0
	for _, t := range s.Tasks {
		switch {
		case t.Status == flow.Waiting:
			waits++
		case t.Status == flow.Running:
			runs++
		case t.Asks: // which no resume answers
			asks++
		case t.Status == flow.Suspended && t.Reason == flow.ReasonHeld:
			held++
		}
	}
	path := flowPath(s.ID)
	hold := button{Label: "Hold", Icon: "held", Path: path + "/hold", Post: true}.
		unless(waits+runs == 0, "Nothing of it waits or runs")
	if held > 0 {
		hold = button{Label: "Resume", Icon: "resume", Path: path + "/resume", Post: true, Primary: true}
	}
	return []button{
		button{Label: "Rerun…", Icon: "rerun", Path: path + "/rerun", Dialog: true, Key: "rerun", Primary: s.Status == flow.FlowFailed || s.Status == flow.FlowCancelled}.
			needs(who, access.Operator),
		button{Label: "Cancel…", Icon: "cancelled", Path: path + "/cancel", Dialog: true}.
			needs(who, access.Operator).unless(waits+runs+asks+held == 0, "Nothing of it waits, runs or is held"),
		hold.needs(who, access.Operator),
	}
}

func againButton(s flow.State, who access.Principal) button {
	b := button{Label: "Register another…", Path: workflowPath(s.WorkflowID) + "/register", Query: "?" + url.Values{"flow": {string(s.ID)}}.Encode()}
	return b.needs(who, access.Registrar).unless(s.Undefined, "Its workflow has no definition now")
}

// taskButtons are what can be done with a task. Only what has not ended can be cancelled.
func taskButtons(t flow.TaskState, g graph, who access.Principal) []button {
	path := flowPath(t.Flow)
	seq := strconv.Itoa(t.Seq)
	of := path + "/tasks/" + seq
	why := g.whyNotAgain(t)
	first := []button{
		button{Label: "Rerun from here", Icon: "rerun", Path: path + "/rerun", Query: "?scope=from&from=" + seq, Dialog: true, Primary: t.Failing()}.
			needs(who, access.Operator).unless(why != "", why),
	}
	switch {
	case t.Asks:
		first = approvalButtons(t.TaskKey, who)
	case t.Status == flow.Waiting, t.Status == flow.Running, t.Reason == flow.ReasonHeld:
		first = append(first, button{Label: "Cancel task…", Icon: "cancelled", Path: of + "/cancel", Dialog: true}.needs(who, access.Operator))
	}
	return append(first,
		button{Label: "Skip…", Icon: "skipped", Path: of + "/skip", Dialog: true}.
			needs(who, access.Operator).unless(t.Status.Satisfies(), "It is "+strings.ToLower(lookOfTask(t.Status, "", "").Label)+" already"),
		button{Label: "Mark finished…", Icon: "finished", Path: of + "/finish", Dialog: true}.
			needs(who, access.Operator).unless(t.Status == flow.Finished, "It is finished already"),
	)
}

// whyNotAgain says why a rerun from a task would come to nothing; empty: it would not. What
// waits is run again by itself, but something after it may have ended.
func (g graph) whyNotAgain(t flow.TaskState) string {
	switch {
	case t.Status == flow.Running:
		return "It runs: cancel it first, or wait"
	case t.Status != flow.Waiting || g.endedAfter(t.Seq):
		return ""
	}
	switch t.Wait.Reason {
	case "time", "flow", "callback":
		return "It has begun, and waits: cancel it first, or wait"
	case "retry":
		return "It is tried again by itself"
	}
	return "It has not run yet"
}

// endedAfter reports whether anything that comes after a task has ended.
func (g graph) endedAfter(seq int) bool {
	seen := map[int]bool{seq: true}
	for todo := []int{seq}; len(todo) > 0; todo = todo[1:] {
		for _, c := range g.children[todo[0]] {
			if s := g.bySeq[c].Status; s == flow.Finished || s == flow.Suspended {
				return true
			}
			if !seen[c] {
				seen[c] = true
				todo = append(todo, c)
			}
		}
	}
	return false
}

// approvalButtons are the answers to a task that asks. A no is its end: it is cancelled.
func approvalButtons(key flow.TaskKey, who access.Principal) []button {
	path := fmt.Sprintf("%s/tasks/%d", flowPath(key.Flow), key.Seq)
	return []button{
		button{Label: "Approve…", Icon: "tick", Path: path + "/approve", Dialog: true, Primary: true}.needs(who, access.Operator),
		button{Label: "Reject…", Icon: "cancelled", Path: path + "/cancel", Dialog: true}.needs(who, access.Operator),
	}
}
