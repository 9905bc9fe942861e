package web

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// bulkView is the preview of an action on many flows: exactly what it would do.
type bulkView struct {
	Title   string
	Path    string // what the form is posted to
	What    bulkTarget
	Scopes  []scopeView
	Lines   []effectLine
	Flows   []flow.FlowChange // the first of those in which something changes
	Unshown int
	Refused []flow.Refusal // the first of the flows that are left alone
	Left    int            // how many are
	Button  string
	Nothing string // why there is nothing to do; empty: there is
	Why     string // why this person may not do it
	Problem string // why it was not done just now
	Typed   bool   // the count must be typed

	Plan, Key, Note, Back string
	Expect                int
}

// bulkTarget is what a bulk action is for.
type bulkTarget struct {
	Words  string    // "14 flows that match"
	Filter []string  // what the filter says
	Group  *groupRow // the group of failures; nil: it is none, or is empty now
	Fields []field   // of a form, to say the same again
}

// bulkWord is how an action is called.
type bulkWord struct {
	Button  string // "Rerun"
	Look    look
	Does    [2]string // "1 task runs again"
	Nothing string
}

var bulkWords = map[flow.ActionKind]bulkWord{
	flow.ActionRerun: {
		"Rerun",
		look{Class: "retry", Icon: "rerun"},
		[2]string{"task runs again", "tasks run again"},
		"Nothing of this is failed or cancelled now.",
	},
	flow.ActionCancel: {
		"Cancel", lookCancelled,
		[2]string{"task is stopped, or never starts", "tasks are stopped, or never start"},
		"Nothing of this runs, waits or is held.",
	},
	flow.ActionHold: {
		"Hold", lookHeld,
		[2]string{"task is held; what runs comes to its end", "tasks are held; what runs comes to its end"},
		"Nothing of this waits or runs.",
	},
	flow.ActionResume: {
		"Resume",
		look{Class: "queued", Icon: "resume"},
		[2]string{"task is held no more", "tasks are held no more"},
		"Nothing of this is held.",
	},
	flow.ActionSkip: {
		"Skip failed tasks", lookSkipped,
		[2]string{"failed task is left out, and counts as done", "failed tasks are left out, and count as done"},
		"Nothing of this is failed now.",
	},
	flow.ActionFinish: {
		"Mark failed tasks finished", lookFinished,
		[2]string{"failed task counts as done by hand", "failed tasks count as done by hand"},
		"Nothing of this is failed now.",
	},
}

// What a preview shows one by one.
const changesShown = 100

func newBulkView(p picked, e flow.BulkEffect) bulkView {
	kind := p.action.Kind
	w := bulkWords[kind]
	tasks, flows := plural(e.Changed, "task", "tasks"), plural(len(e.Flows), "flow", "flows")
	v := bulkView{
		Title: bulkTitle(p, e), Path: "/bulk/" + string(kind), What: p.what, Plan: e.Plan, Expect: e.Changed,
		Refused: e.Refused, Left: e.RefusedCount, Typed: needsTyping(kind, e.Changed),
	}
	v.Flows = e.Flows[:min(len(e.Flows), changesShown)]
	v.Unshown = len(e.Flows) - len(v.Flows)
	if kind == flow.ActionRerun && p.action.Filter.Group == nil {
		v.Scopes = bulkScopes(p.action.Scope)
	}
	v.Button = verb(kind) + " " + tasks
	if kind == flow.ActionFinish {
		v.Button += " finished"
	}
	if e.Changed == 0 {
		v.Nothing = w.Nothing
		return v
	}
	v.Lines = append(v.Lines, effectLine{Look: w.Look, Lead: plural(e.Changed, w.Does[0], w.Does[1]), Names: "in " + flows})
	if e.CanGo > 0 && kind != flow.ActionCancel && kind != flow.ActionHold {
		v.Lines = append(v.Lines, effectLine{Look: lookQueued, Lead: plural(e.CanGo, "task can go at once", "tasks can go at once")})
	}
	if kind == flow.ActionCancel {
		v.Lines = append(v.Lines, effectLine{Look: lookRetry, Lead: "Rerun takes them up again"})
	}
	if rest := len(p.action.Flows) - len(e.Flows) - e.RefusedCount; rest > 0 {
		v.Lines = append(v.Lines, effectLine{Look: lookWaiting, Lead: plural(rest, "flow stays as it is", "flows stay as they are")})
	}
	return v
}

func bulkTitle(p picked, e flow.BulkEffect) string {
	kind := p.action.Kind
	words, of := p.what.Words, " of "
	if p.action.Filter.Group != nil {
		if words = plural(e.Changed, "task", "tasks") + " that failed alike"; kind == flow.ActionFinish {
			words += " as finished"
		}
		return verb(kind) + " " + words
	}
	if kind != flow.ActionSkip && kind != flow.ActionFinish {
		of = " "
	}
	return bulkWords[kind].Button + of + words
}

// verb is an action as a button says it.
func verb(kind flow.ActionKind) string {
	if kind == flow.ActionFinish {
		return "Mark"
	}
	return capital(string(kind))
}

func bulkScopes(chosen flow.Scope) []scopeView {
	return []scopeView{
		{string(flow.ScopeFailed), "What failed or was cancelled, and what follows", chosen == flow.ScopeFailed, false},
		{string(flow.ScopeAll), "All tasks of these flows, also what has finished", chosen == flow.ScopeAll, false},
	}
}

// filterWords says what a URL's filter says.
func filterWords(q query) []string {
	names := map[string]string{
		"status": "status", "q": "text", "taskId": "workflow", "registeredBy": "registered by", "program": "program", "reason": "reason",
		"fingerprint": "error like", "since": "since", "until": "until", "minDuration": "longer than", "group": "failures like", "taskSeq": "task",
	}
	var words []string
	for _, name := range filterNames {
		if value := strings.Join(q.values[name], ", "); value != "" {
			words = append(words, names[name]+" "+clip(value, 100))
		}
	}
	if words == nil {
		return []string{"no filter: every flow"}
	}
	return words
}

// bulkDone says what an action on many flows has come to, where some were left alone.
type bulkDone struct {
	Title   string
	Path    string
	Look    look
	Lead    string // "12 tasks run again, in 9 flows."
	Flows   []flow.FlowChange
	Unshown int
	Refused []flow.Refusal
	Left    int // how many flows were left alone
	Button  string
	Back    string
}

func newBulkDone(p picked, e flow.BulkEffect, back string) bulkDone {
	kind := p.action.Kind
	w := bulkWords[kind]
	v := bulkDone{
		Path: "/bulk/" + string(kind), Look: w.Look, Refused: e.Refused, Left: e.RefusedCount, Back: back, Button: w.Button + "…",
		Lead: didAll(kind, e.Changed, len(e.Flows)), Title: plural(e.RefusedCount, "flow was left alone", "flows were left alone"),
	}
	v.Flows = e.Flows[:min(len(e.Flows), changesShown)]
	v.Unshown = len(e.Flows) - len(v.Flows)
	return v
}

func didAll(kind flow.ActionKind, tasks, flows int) string {
	if tasks == 0 {
		return "Nothing was left to do."
	}
	words := didWords[kind]
	return fmt.Sprintf("%s, in %s.", plural(tasks, words[0], words[1]), plural(flows, "flow", "flows"))
}

// didBulk says what an action on many flows has come to, from what actAll has put into the
// URL: kind.tasks.flows.
func didBulk(text string) *message {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil
	}
	kind := flow.ActionKind(parts[0])
	tasks, err := strconv.Atoi(parts[1])
	flows, err2 := strconv.Atoi(parts[2])
	if _, known := bulkWords[kind]; !known || err != nil || err2 != nil || tasks < 0 || flows < 0 {
		return nil
	}
	return &message{Text: didAll(kind, tasks, flows)}
}
