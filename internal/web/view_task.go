package web

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/d-tsuji/flower/internal/flow"
)

// taskView is the selected task.
type taskView struct {
	flow.TaskState
	Row     taskRow
	Facts   attemptView // of the attempt that is shown, which as a rule is the present one
	Tabs    []tab
	Panel   string // which tab is open
	Error   errorView
	Params  string
	Result  string
	SQL     []statement
	Buttons []button

	Log      *logView // nil unless its panel is open
	Attempts []attemptView
	Events   []eventView
	Older    int    // the attempt whose error is shown, if it is not the present one
	Present  string // link to the present one
}

// attemptView is one try.
type attemptView struct {
	flow.Attempt
	Look    look
	Span    span
	Watcher string
	First   string // line of its error
	Chosen  bool
	Href    string // its error, or, if it has none, its log
	LogHref string
}

// eventView is a change that a person has made.
type eventView struct {
	flow.Event
	From, To *look
}

// eventsShown is how many events a panel has.
const eventsShown = 50

// tab is a part of the panel.
type tab struct {
	Key, Name string
	N         int // how many there are; 0 is not said
	Href      string
	Open      bool
}

// statement is SQL to be copied, with what it is for.
type statement struct{ ID, For, Text string }

// presentAttempt is the attempt that a task's row is of.
func presentAttempt(t flow.TaskState) flow.Attempt {
	return flow.Attempt{
		TaskKey: t.TaskKey, Number: t.Attempt, Current: true, Status: t.Status, Reason: t.Reason,
		WatcherID: t.WatcherID, StartedAt: t.StartedAt, EndedAt: t.Ended(),
	}
}

// Code is "2 Suspend": what people who think in SQL call the state.
func (v attemptView) Code() string { return cmp.Or(codes[v.Status], v.Status.String()) }

// codes are the states as the original's table has them.
var codes = map[flow.Status]string{
	flow.Waiting: "0 Wait", flow.Running: "1 Running", flow.Suspended: "2 Suspend", flow.Finished: "3 Finish", flow.Ignored: "9 Ignore",
}

// selected returns the task that the URL names, else the one that failed first, else one
// that runs, else the one that ended last, else the first. There is none in a flow without
// tasks.
func selected(s flow.State, q query) (flow.TaskState, bool) {
	if len(s.Tasks) == 0 {
		return flow.TaskState{}, false
	}
	seq, err := strconv.Atoi(q.get("task"))
	best := s.Tasks[0]
	for _, t := range s.Tasks {
		if err == nil && t.Seq == seq {
			return t, true
		}
		if interest(t) > interest(best) || interest(t) == interest(best) && newer(t, best) {
			best = t
		}
	}
	return best, true
}

// interest is how much a person wants to see a task who has said nothing.
func interest(t flow.TaskState) int {
	switch {
	case t.Failing():
		return 4
	case t.Asks:
		return 3
	case t.Status == flow.Running:
		return 2
	case !t.Ended().IsZero():
		return 1
	}
	return 0
}

// newer reports whether of two tasks that interest alike the first is the better one: the
// failure or the question that came first, or what ended last.
func newer(t, best flow.TaskState) bool {
	switch {
	case t.Failing(), t.Asks:
		return t.SuspendedAt.Before(best.SuspendedAt)
	case t.Status == flow.Running:
		return false
	}
	return t.Ended().After(best.Ended())
}

// showAttempts lists the tries, and shows the error and the output of the one that the URL
// names.
func (v *taskView) showAttempts(attempts []flow.Attempt, known watchers, q query) {
	if v.Paused { // its present attempt has started, and is in no list before it goes on
		attempts = append([]flow.Attempt{v.Facts.Attempt}, attempts...)
	}
	here := q.with("task", strconv.Itoa(v.Seq)).without("before", "after", "q")
	for _, a := range attempts {
		n := strconv.Itoa(a.Number)
		first, _ := firstLine(a.Error)
		one := attemptView{
			Attempt: a, Look: lookOfAttempt(a), Span: span{a.StartedAt, a.EndedAt}, Watcher: known.name(a.WatcherID), First: clip(first, 200),
			Chosen: q.get("attempt") == n, LogHref: here.with("attempt", n).with("panel", "log").String(),
		}
		one.Href = here.with("attempt", n).with("panel", "error").String()
		if a.Current {
			one.Look = v.Row.Look
			one.Href = here.without("attempt").with("panel", "error").String()
		} else if one.Chosen {
			v.Older = a.Number
			v.Error = newErrorView("task-error", a.Error)
			v.Result = pretty(a.Output)
			v.Facts = one
		}
		v.Attempts = append(v.Attempts, one)
	}
	v.Present = q.without("attempt", "before", "after", "q").String()
	v.count("attempts", len(attempts))
}

// lookOfAttempt shows what an attempt came to. One that ran when it was superseded was
// stopped.
func lookOfAttempt(a flow.Attempt) look {
	if !a.Current && a.Status == flow.Running {
		return lookStopped
	}
	return lookOfTask(a.Status, a.Reason, "")
}

func (v *taskView) showEvents(page flow.EventPage) {
	for _, e := range page.Events {
		v.Events = append(v.Events, newEventView(e))
	}
	v.count("events", len(page.Events))
}

// lookOfChange shows what an action has met or made. Why a task was suspended is not in an
// event: of some actions it follows.
func lookOfChange(did flow.ActionKind, s flow.Status) look {
	if s == flow.Suspended {
		switch did {
		case flow.ActionApprove:
			return lookApproval
		case flow.ActionHold, flow.ActionResume:
			return lookHeld
		case flow.ActionCancel:
			return lookCancelled
		}
	}
	return lookOfTask(s, "", "")
}

// newEventView shows what an event met and made.
func newEventView(e flow.Event) eventView {
	v := eventView{Event: e}
	if e.From != nil {
		l := lookOfChange(e.Action, *e.From)
		if e.Action == flow.ActionCancel && *e.From == flow.Suspended {
			l = lookHeld // or it asked; what else is stopped already, no cancel changes
		}
		v.From = &l
	}
	if e.To != nil {
		l := lookOfChange(e.Action, *e.To)
		v.To = &l
	}
	return v
}

// Changed is what else was changed, in one line, without what looks secret; of an output or an
// error its beginning, as a hundred of them are on a page.
func (v eventView) Changed() string { return clip(oneLine(pretty(v.Change)), 1000) }

func (v *taskView) count(key string, n int) {
	for i := range v.Tabs {
		if v.Tabs[i].Key == key {
			v.Tabs[i].N = n
		}
	}
}

var panels = []tab{
	{Key: "error", Name: "Error"},
	{Key: "log", Name: "Log"},
	{Key: "data", Name: "Parameters, output"},
	{Key: "attempts", Name: "Attempts"},
	{Key: "events", Name: "Events"},
	{Key: "sql", Name: "SQL"},
}

// panelOf returns which panel is open: the error of what failed, the log of what runs.
func panelOf(t flow.TaskState, q query) string {
	for _, p := range panels {
		if p.Key == q.get("panel") {
			return p.Key
		}
	}
	if t.Status == flow.Running || t.Status == flow.Finished {
		return "log"
	}
	return "error"
}

func newTaskView(t flow.TaskState, row taskRow, watchers watchers, q query) taskView {
	v := taskView{
		Facts:     attemptView{Attempt: presentAttempt(t), Look: row.Look, Span: row.Span, Watcher: watchers.name(t.WatcherID)},
		TaskState: t, Row: row, Panel: panelOf(t, q),
		Error: newErrorView("task-error", t.Error), Params: pretty(t.Parameters), Result: pretty(t.Output), SQL: statements(t),
	}
	here := q.with("task", strconv.Itoa(t.Seq))
	for _, p := range panels {
		if p.Key == "error" && t.Asks {
			p.Name = "Question"
		}
		p.Href, p.Open = here.with("panel", p.Key).without("before", "after", "q", "did").String(), p.Key == v.Panel
		v.Tabs = append(v.Tabs, p)
	}
	return v
}

// statements are the SQL of a task: what a page shows is rows, and nothing more.
func statements(t flow.TaskState) []statement {
	key := fmt.Sprintf("task_flow_id = %s AND task_exec_seq = %d", literal(string(t.Flow)), t.Seq)
	all := []statement{
		{For: "The row", Text: "SELECT * FROM kr_task_stat WHERE " + key + ";"},
		{For: "In words, with why it waits", Text: "SELECT * FROM v_task WHERE " + key + ";"},
		{For: "Its log", Text: "SELECT * FROM v_task_log WHERE " + key + " ORDER BY attempt, line_no;"},
		{For: "Attempts before this one", Text: "SELECT * FROM kr_task_attempt WHERE " + key + " ORDER BY attempt;"},
		{For: "Who changed what by hand", Text: "SELECT * FROM kr_event WHERE " + key + " ORDER BY event_id;"},
	}
	switch {
	case t.Asks: // running it again would be an answer
		all = append(all, statement{For: "Approve it", Text: fmt.Sprintf("SELECT flower_approve(%s, %d);", literal(string(t.Flow)), t.Seq)})
	case t.Status == flow.Suspended:
		all = append(all, statement{For: "Run it again", Text: "UPDATE kr_task_stat SET exec_status = 0 WHERE " + key + " AND exec_status = 2;"})
	}
	for i := range all {
		all[i].ID = fmt.Sprintf("sql-%d", i)
	}
	return all
}
