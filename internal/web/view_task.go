package web

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// taskView is the selected task.
type taskView struct {
	flow.TaskState
	Row     taskRow
	Code    string // "2 Suspend": what people who think in SQL call its state
	Words   []string
	Tabs    []tab
	Panel   string // which tab is open
	Error   errorView
	Params  string
	Result  string
	SQL     []statement
	Buttons []button
}

// tab is a part of the panel.
type tab struct {
	Key, Name string
	N         int // how many there are; 0 is not said
	Href      string
	Open      bool
}

// statement is SQL to be copied, with what it is for.
type statement struct{ ID, For, Text string }

// codes are the states as the original's table has them.
var codes = map[flow.Status]string{
	flow.Waiting: "0 Wait", flow.Running: "1 Running", flow.Suspended: "2 Suspend", flow.Finished: "3 Finish", flow.Ignored: "9 Ignore",
}

// selected returns the task that the URL names, else the one that failed first, else one
// that runs, else none.
func selected(s flow.State, q query) (flow.TaskState, bool) {
	var failed, running *flow.TaskState
	seq, err := strconv.Atoi(q.get("task"))
	for i := range s.Tasks {
		t := &s.Tasks[i]
		switch {
		case err == nil && t.Seq == seq:
			return *t, true
		case failure(*t) && (failed == nil || t.SuspendedAt.Before(failed.SuspendedAt)):
			failed = t
		case t.Status == flow.Running && running == nil:
			running = t
		}
	}
	for _, t := range []*flow.TaskState{failed, running} {
		if t != nil {
			return *t, true
		}
	}
	return flow.TaskState{}, false
}

var panels = []tab{
	{Key: "error", Name: "Error"},
	{Key: "log", Name: "Log"},
	{Key: "data", Name: "Parameters"},
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
		TaskState: t, Row: row, Code: codes[t.Status], Panel: panelOf(t, q),
		Error: newErrorView("task-error", t.Error), Params: pretty(t.Parameters), Result: pretty(t.Output), SQL: statements(t),
	}
	if v.Code == "" {
		v.Code = t.Status.String()
	}
	if t.Attempt > 0 {
		v.Words = append(v.Words, attemptOf(t))
	}
	if name := watchers.name(t.WatcherID); name != "" {
		v.Words = append(v.Words, name)
	}
	here := q.with("task", strconv.Itoa(t.Seq))
	for _, p := range panels {
		p.Href, p.Open = here.with("panel", p.Key).without("before", "q", "did").String(), p.Key == v.Panel
		v.Tabs = append(v.Tabs, p)
	}
	return v
}

// statements are the SQL of a task: what a page shows is rows, and nothing more.
func statements(t flow.TaskState) []statement {
	key := fmt.Sprintf("task_flow_id = %s AND task_exec_seq = %d", quote(string(t.Flow)), t.Seq)
	all := []statement{
		{For: "The row", Text: "SELECT * FROM kr_task_stat WHERE " + key + ";"},
		{For: "In words, with why it waits", Text: "SELECT * FROM v_task WHERE " + key + ";"},
		{For: "Its log", Text: "SELECT * FROM v_task_log WHERE " + key + " ORDER BY attempt, line_no;"},
		{For: "Attempts before this one", Text: "SELECT * FROM kr_task_attempt WHERE " + key + " ORDER BY attempt;"},
		{For: "Who changed what by hand", Text: "SELECT * FROM kr_event WHERE " + key + " ORDER BY event_id;"},
	}
	if t.Status == flow.Suspended {
		all = append(all, statement{For: "Run it again", Text: "UPDATE kr_task_stat SET exec_status = 0 WHERE " + key + " AND exec_status = 2;"})
	}
	for i := range all {
		all[i].ID = fmt.Sprintf("sql-%d", i)
	}
	return all
}

// quote makes an SQL literal of a text.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}
