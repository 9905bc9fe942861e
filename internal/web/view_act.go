package web

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// actView is the preview of an action: exactly what it would do.
type actView struct {
	Title    string
	Flow     flow.State
	Path     string // what the form is posted to
	Scopes   []scopeView
	Tasks    []option // that a scope can begin at
	Seq      int
	Lines    []effectLine
	Refused  []flow.Refusal
	Button   string
	Nothing  string // why there is nothing to do; empty: there is
	Why      string // why this person may not do it
	Problem  string // why it was not done just now
	Planned  string // the tasks that change, for scripts: "3 4 5"
	WithData string // the field for JSON that it takes: parameters, output or none
	Question string // that is answered; empty is none
	Example  string // of a note
	Params   string // of the task that runs again, where it is one; JSON

	// What the form has.
	Plan, Key, Note, Back, Parameters, Output string
	Expect                                    int
}

type scopeView struct {
	Value, Label string
	Chosen       bool
	Task         bool // it begins at a task
}

type option struct {
	Value  int
	Label  string
	Chosen bool
}

// effectLine is one thing that an action does.
type effectLine struct {
	Look  look
	Lead  string // "3 tasks will run again"
	Names string
	Flow  flow.ID // another one that it is about; empty is none
}

// namesShown is how many tasks a line names.
const namesShown = 30

func newActView(a flow.Action, s flow.State, e flow.Effect) actView {
	g := newGraph(s.Tasks)
	v := actView{
		Flow: s, Seq: a.Seq, Refused: e.Refused, Plan: e.Plan, Expect: e.Changed(),
		Path: flowPath(a.Flow) + "/" + string(a.Kind), Example: "the API was down, back at 09:10",
	}
	if a.Kind != flow.ActionRerun && a.Seq != 0 {
		v.Path = fmt.Sprintf("%s/tasks/%d/%s", flowPath(a.Flow), a.Seq, a.Kind)
	}
	if t := g.bySeq[a.Seq]; t.Asks {
		v.Question = t.Error
	}
	var changed []int
	for _, t := range e.Tasks {
		if t.Flow == s.ID {
			changed = append(changed, t.Seq)
		}
	}
	v.Planned = joinInts(changed, " ")
	task := g.name(a.Seq)
	switch a.Kind {
	case flow.ActionRerun:
		v.rerun(a, g, e, changed)
	case flow.ActionCancel:
		v.cancel(a, g, e)
	case flow.ActionApprove:
		v.Title, v.Button, v.Example = "Approve "+task, "Approve", "the figures are right"
		v.Lines = approveLines(g, e, changed)
		v.Nothing = "It asks nothing."
	case flow.ActionSkip:
		v.Title, v.Button = "Skip "+task+" of "+v.name(), "Skip it"
		v.Lines = satisfyLines(g, e, changed, lookSkipped, "is left out, and counts as done")
		v.Nothing = "It is skipped already."
	case flow.ActionFinish:
		v.Title, v.Button, v.WithData = "Mark "+task+" of "+v.name()+" finished", "Mark it finished", "output"
		v.Lines = satisfyLines(g, e, changed, lookFinished, "counts as done by hand; its program is not run")
		v.Nothing = "It is finished already."
	}
	if len(e.Tasks) > 0 || len(e.Refused) > 0 {
		v.Nothing = ""
	}
	return v
}

// name is the flow's, for people.
func (v *actView) name() string { return fmt.Sprintf("%s %s", v.Flow.WorkflowID, short(v.Flow.ID)) }

func (v *actView) rerun(a flow.Action, g graph, e flow.Effect, changed []int) {
	v.Title, v.Button, v.WithData = "Rerun "+v.name(), "Rerun "+plural(len(e.Tasks), "task", "tasks"), "parameters"
	begin := a.Seq
	if t, ok := selected(v.Flow, query{}); ok && begin == 0 {
		begin = t.Seq
	}
	v.Scopes, v.Tasks = scopes(a.Scope), options(v.Flow.Tasks, g, begin)
	v.Lines = rerunLines(g, e, changed)
	v.Nothing = nothingToRerun(a)
	if len(changed) == 1 {
		v.Params = pretty(g.bySeq[changed[0]].Parameters)
	}
}

func (v *actView) cancel(a flow.Action, g graph, e flow.Effect) {
	v.Title, v.Button = "Cancel "+v.name(), "Cancel "+plural(len(e.Tasks), "task", "tasks")
	v.Lines = cancelLines(a, g, e)
	v.Nothing = "Nothing of it runs, waits or is held."
	task := g.name(a.Seq)
	switch {
	case v.Question != "":
		v.Title, v.Button, v.Example = "Reject "+task, "Reject", "not on a Friday"
		v.Lines = rejectLines(g, a.Seq)
	case a.Seq != 0:
		v.Title, v.Button = "Cancel "+task+" of "+v.name(), "Cancel it"
	}
}

func scopes(chosen flow.Scope) []scopeView {
	all := []scopeView{
		{string(flow.ScopeFailed), "What failed, and what follows", false, false},
		{string(flow.ScopeFrom), "From one task on", false, true},
		{string(flow.ScopeOnly), "Only one task", false, true},
		{string(flow.ScopeAll), "All tasks of this flow", false, false},
	}
	for i := range all {
		all[i].Chosen = all[i].Value == string(chosen)
	}
	return all
}

func options(tasks []flow.TaskState, g graph, chosen int) []option {
	list := make([]option, len(tasks))
	for i, t := range tasks {
		list[i] = option{t.Seq, fmt.Sprintf("%s · %s", g.name(t.Seq), g.look(t).Label), t.Seq == chosen}
	}
	return list
}

func nothingToRerun(a flow.Action) string {
	if a.Scope == flow.ScopeFailed {
		return "Nothing of this flow has failed or was cancelled. Choose what else to run again."
	}
	return "There is nothing to run again: it waits already."
}

func rerunLines(g graph, e flow.Effect, changed []int) []effectLine {
	lines := lineOf(nil, lookRetry, changed, "task runs again", "tasks run again", g)
	lines = lineOf(lines, lookWaiting, e.Follow, "task waits for that, and follows", "tasks wait for that, and follow", g)
	return lineOf(lines, lookFinished, g.keep(changed, e.Follow), "task stays as it is", "tasks stay as they are", g)
}

func cancelLines(a flow.Action, g graph, e flow.Effect) []effectLine {
	var running, waiting, held, changed []int
	for _, t := range e.Tasks {
		switch {
		case t.Flow != a.Flow:
			continue
		case t.From == flow.Running:
			running = append(running, t.Seq)
		case t.From == flow.Suspended:
			held = append(held, t.Seq)
		default:
			waiting = append(waiting, t.Seq)
		}
		changed = append(changed, t.Seq)
	}
	lines := lineOf(nil, lookRunning, running, "running task is told to stop", "running tasks are told to stop", g)
	lines = lineOf(lines, lookCancelled, waiting, "waiting task becomes Cancelled", "waiting tasks become Cancelled", g)
	lines = lineOf(lines, lookCancelled, held, "held task becomes Cancelled", "held tasks become Cancelled", g)
	if others := len(e.Tasks) - len(changed); others > 0 {
		lines = append(lines, effectLine{Look: lookCancelled, Lead: plural(others, "task", "tasks") + " of flows that it has registered, too"})
	}
	if a.Seq != 0 {
		lines = lineOf(lines, lookBlocked, g.behind(a.Seq), "task that waits for it does not run", "tasks that wait for it do not run", g)
	} else {
		lines = lineOf(lines, lookFinished, g.keep(changed, nil), "task stays as it is", "tasks stay as they are", g)
	}
	return append(lines, effectLine{Look: lookRetry, Lead: "Rerun takes it up again"})
}

func approveLines(g graph, e flow.Effect, changed []int) []effectLine {
	var lines []effectLine
	for _, seq := range changed {
		lines = append(lines, effectLine{Look: lookFinished, Lead: g.name(seq) + " goes on, and its output says who approved it"})
	}
	return lineOf(lines, lookWaiting, e.Follow, "task waits for that, and follows", "tasks wait for that, and follow", g)
}

func rejectLines(g graph, seq int) []effectLine {
	lines := []effectLine{{Look: lookCancelled, Lead: g.name(seq) + " becomes Cancelled, with the note as its error"}}
	lines = lineOf(lines, lookBlocked, g.behind(seq), "task that waits for it does not run", "tasks that wait for it do not run", g)
	return append(lines, effectLine{Look: lookRetry, Lead: "Rerun has it ask again"})
}

func satisfyLines(g graph, e flow.Effect, changed []int, l look, does string) []effectLine {
	var lines []effectLine
	for _, seq := range changed {
		lines = append(lines, effectLine{Look: l, Lead: g.name(seq) + " " + does})
		if t := g.bySeq[seq]; t.Child != "" && t.Status != flow.Suspended {
			lines = append(lines, effectLine{Look: lookRunning, Lead: "The flow that it waits for goes on, unless that is cancelled, too", Flow: t.Child})
		}
	}
	if len(e.CanGo) > 0 {
		return lineOf(lines, lookQueued, e.CanGo, "task can go at once", "tasks can go at once", g)
	}
	return append(lines, effectLine{Look: lookWaiting, Lead: "No other task can go because of that"})
}

// lineOf adds a line about some tasks, if there are any.
func lineOf(lines []effectLine, l look, seqs []int, one, many string, g graph) []effectLine {
	if len(seqs) == 0 {
		return lines
	}
	var names []string
	for i, seq := range seqs {
		if i == namesShown {
			names = append(names, fmt.Sprintf("and %d more", len(seqs)-namesShown))
			break
		}
		names = append(names, g.name(seq))
	}
	return append(lines, effectLine{Look: l, Lead: plural(len(seqs), one, many), Names: strings.Join(names, ", ")})
}

// keep returns the tasks that are in neither list.
func (g graph) keep(changed, follow []int) []int {
	rest := make(map[int]bool, len(g.bySeq))
	for seq := range g.bySeq {
		rest[seq] = true
	}
	for _, seq := range append(append([]int{}, changed...), follow...) {
		delete(rest, seq)
	}
	return sorted(rest)
}

// did says what an action has come to, from what backTo has put into the URL. What it does
// not know it says nothing about: anybody can write a URL.
func did(text string, who undoer) *message {
	if text == didBefore {
		return &message{Text: "This form was sent before, and carried out then: nothing more was done now."}
	}
	if many, ok := strings.CutPrefix(text, "bulk."); ok {
		return didBulk(many)
	}
	parts := strings.SplitN(text, ".", 3)
	if len(parts) != 3 {
		return nil
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || n < 0 {
		return nil
	}
	kind, id := flow.ActionKind(parts[0]), parts[2]
	words, known := didWords[kind]
	switch {
	case !known:
		return nil
	case n == 0:
		return &message{Text: "Nothing was left to do."}
	}
	return &message{Text: plural(n, words[0], words[1]) + ".", Undo: who(kind, flow.ID(id))}
}

// didWords say what an action has come to: "1 task runs again".
var didWords = map[flow.ActionKind][2]string{
	flow.ActionRerun:   {"task runs again", "tasks run again"},
	flow.ActionCancel:  {"task was cancelled", "tasks were cancelled"},
	flow.ActionHold:    {"task is held", "tasks are held"},
	flow.ActionResume:  {"task goes on", "tasks go on"},
	flow.ActionApprove: {"task was approved", "tasks were approved"},
	flow.ActionSkip:    {"task was skipped", "tasks were skipped"},
	flow.ActionFinish:  {"task was marked finished", "tasks were marked finished"},
}

// didBefore is what an action has come to that was carried out when its form was sent for
// the first time: as by who goes back to the form, and sends it again.
const didBefore = "before"

// undoer returns the form that takes an action back; nil where there is none.
type undoer func(kind flow.ActionKind, id flow.ID) *undo

// undoOf offers the one of hold and resume after the other.
func undoOf(back string) undoer {
	return func(kind flow.ActionKind, id flow.ID) *undo {
		path := flowPath(id)
		fields := []field{{"back", back}}
		switch kind {
		case flow.ActionHold:
			return &undo{"Resume", path + "/resume", fields}
		case flow.ActionResume:
			return &undo{"Hold again", path + "/hold", fields}
		}
		return nil
	}
}
