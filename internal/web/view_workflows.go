package web

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// workflowsView is what /workflows shows.
type workflowsView struct {
	Text   string // that names must have in them
	Rows   []workflowRow
	Broken int    // of the rows
	First  string // links to the first and to the next page; empty where there is none
	Next   string
}

// workflowRow is a workflow in the list.
type workflowRow struct {
	flow.WorkflowState
	Tasks    string // "5 tasks"
	Limits   string // "one flow at a time"
	Marks    []mark // its last flows, the oldest first
	LastFlow *mark
	Register button
}

// mark is a flow as a small sign.
type mark struct {
	flow.Summary
	Look  look
	Words string
}

func newWorkflowsView(states []flow.WorkflowState, q query, who access.Principal) workflowsView {
	v := workflowsView{Text: q.get("q")}
	for _, w := range states {
		row := workflowRow{
			WorkflowState: w, Tasks: plural(len(w.Workflow.Tasks), "task", "tasks"), Limits: limits(w), Marks: marks(w.Last),
			Register: registerButton(w, who),
		}
		if n := len(row.Marks); n > 0 {
			row.LastFlow = &row.Marks[n-1]
		}
		if len(w.Problems) > 0 {
			v.Broken++
		}
		v.Rows = append(v.Rows, row)
	}
	if q.get("after") != "" {
		v.First = q.without("after").String()
	}
	return v
}

// marks has the flows of a workflow, of which the latest comes first, the other way round.
func marks(last []flow.Summary) []mark {
	list := make([]mark, 0, len(last))
	for _, f := range slices.Backward(last) {
		l := lookOfSummary(f)
		words := fmt.Sprintf("%s: %s", short(f.ID), l.Label)
		if !f.EndedAt.IsZero() && !f.StartedAt.IsZero() {
			words += ", took " + took(f.Took)
		}
		list = append(list, mark{f, l, words})
	}
	return list
}

// limits says how much of a workflow may run at once; empty where there is no limit.
func limits(w flow.WorkflowState) string {
	var words []string
	switch {
	case w.MaxRunningFlows == 1:
		words = append(words, "one flow at a time")
	case w.MaxRunningFlows > 1:
		words = append(words, fmt.Sprintf("%d flows at a time", w.MaxRunningFlows))
	}
	switch {
	case w.MaxRunningTasks == 1:
		words = append(words, "one task at a time")
	case w.MaxRunningTasks > 1:
		words = append(words, fmt.Sprintf("%d tasks at a time", w.MaxRunningTasks))
	}
	return strings.Join(words, ", ")
}

func workflowPath(id flow.WorkflowID) string { return "/workflows/" + url.PathEscape(string(id)) }

// registerButton leads to the form that makes a flow.
func registerButton(w flow.WorkflowState, who access.Principal) button {
	return button{Label: "Register…", Icon: "resume", Path: workflowPath(w.ID) + "/register", Dialog: true}.
		needs(who, access.Registrar).unless(len(w.Problems) > 0, "Its definition is broken")
}
