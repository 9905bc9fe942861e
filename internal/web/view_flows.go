package web

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// flowsView is what /flows shows.
type flowsView struct {
	Title  string
	Query  query
	Filter filterForm
	Names  suggestions
	Chips  []chip
	Rows   []flowRow
	New    flow.Count // flows that came since the page was opened
	Show   string     // link to them
	Newer  string     // links to the pages before and after; empty where there is none
	Older  string
	Bulk   bulkBar
	Clear  string // link that clears the filter; empty if there is none
}

// NewWords is how many flows are new.
func (v flowsView) NewWords() string { return counted(v.New, "new flow", "new flows") }

// chip is a word for flows with how many there are, and a link to them.
type chip struct {
	Look   look
	Href   string
	Count  string
	Chosen bool
	News   bool // it is worth a mark
}

// flowRow is a flow in the list.
type flowRow struct {
	flow.Summary
	Look     look
	Span     span
	Parts    []part // of its tasks, as a bar
	Progress string // "2/5"

	// The task that failed first; or if none has, one that asks a person.
	Failed    string // "3 load_orders"; empty: neither
	FailedSeq int
	Reason    look   // in what way it failed
	Error     string // the first line

	Rerun *button
	ID    string
}

// filterForm has what the fields of the form show.
type filterForm struct {
	Text, Workflow, By, Program, Until string

	Since, Longer, Reasons []listOption
	More                   bool        // one of the rarer fields is set
	Group                  *groupWords // the list is of one group of failures
	Hidden                 []field     // what the form keeps
}

// groupWords is a group of failures in words.
type groupWords struct {
	Workflow, Task, Program string
	Reason                  look
}

// listOption is an option of a field.
type listOption struct {
	Value, Label string
	Chosen       bool
}

var (
	sinceChoices = []listOption{
		{Value: "", Label: "any time"},
		{Value: "15m", Label: "last 15 minutes"},
		{Value: "1h", Label: "last hour"},
		{Value: "24h", Label: "last 24 hours"},
		{Value: "7d", Label: "last 7 days"},
		{Value: "30d", Label: "last 30 days"},
	}
	longerChoices = []listOption{
		{Value: "", Label: "any duration"},
		{Value: "10s", Label: "10 s or longer"},
		{Value: "1m", Label: "1 minute or longer"},
		{Value: "10m", Label: "10 minutes or longer"},
		{Value: "1h", Label: "1 hour or longer"},
		{Value: "6h", Label: "6 hours or longer"},
		{Value: "24h", Label: "24 hours or longer"},
	}
)

// choose marks the one that a URL has. Another value than those is one more choice.
func choose(list []listOption, value string) []listOption {
	list = slices.Clone(list)
	found := false
	for i := range list {
		list[i].Chosen = list[i].Value == value
		found = found || list[i].Chosen
	}
	if !found {
		list = append(list, listOption{value, value, true})
	}
	return list
}

func newFilterForm(f flow.Filter, q query) filterForm {
	form := filterForm{
		Text: q.get("q"), Workflow: string(f.WorkflowID), By: f.RegisteredBy, Program: f.Program, Until: q.get("until"),
		Since: choose(sinceChoices, q.get("since")), Longer: choose(longerChoices, q.get("minDuration")),
		More: f.RegisteredBy != "" || f.Program != "" || f.Reason != "" || !f.Until.IsZero() || f.MinDuration > 0,
	}
	all := []listOption{{Value: "", Label: "any reason"}}
	for _, r := range reasons {
		all = append(all, listOption{Value: string(r), Label: lookOfReason(r).Label})
	}
	form.Reasons = choose(all, string(f.Reason))
	keep := []string{"status", "fingerprint", "limit"}
	if f.Group != nil {
		form.Group = &groupWords{string(f.Group.WorkflowID), strconv.Itoa(f.Group.TaskSeq), f.Group.Program, lookOfReason(f.Group.Reason)}
		keep = append(keep, "group", "taskId", "taskSeq", "program", "reason")
	}
	for _, name := range keep {
		if value := q.get(name); value != "" {
			form.Hidden = append(form.Hidden, field{name, value})
		}
	}
	return form
}

func newFlowsView(page flow.Page, counts flow.FlowCounts, f flow.Filter, q query, who access.Principal) flowsView {
	v := flowsView{Title: "Flows", Query: q, Filter: newFilterForm(f, q), Newer: back(q), Show: q.without("at").String()}
	v.Chips = newChips(counts, f, q)
	for _, s := range page.Flows {
		v.Rows = append(v.Rows, newFlowRow(s, q, who))
	}
	if !page.Next.IsZero() {
		v.Older = older(q, page.Next)
	}
	if isFiltered(q) {
		v.Clear = "?" + url.Values{}.Encode()
	}
	match := number(counts.All)
	switch len(f.Status) {
	case 0:
	case 1:
		match = number(counts.ByStatus[f.Status[0]])
		v.Title = fmt.Sprintf("%s %s · Flows", match, strings.ToLower(lookOfFlow(f.Status[0]).Label))
	default: // a flow that runs with a failed task has two words
		match = ""
	}
	v.Bulk = newBulkBar(match, q, who)
	return v
}

func newChips(counts flow.FlowCounts, f flow.Filter, q query) []chip {
	link := func(word string) string {
		return q.without("after", trailName, "at", "did").with("status", word).String()
	}
	chips := []chip{{Look: look{"", "", "All"}, Href: link(""), Count: number(counts.All), Chosen: len(f.Status) == 0}}
	for _, word := range []string{flow.FlowRunning, flow.FlowQueued, flow.FlowFailed, flow.FlowHeld, flow.FlowCancelled, flow.FlowFinished} {
		n := counts.ByStatus[word]
		chips = append(chips, chip{
			Look: lookOfFlow(word), Href: link(word), Count: number(n), Chosen: slices.Contains(f.Status, word),
			News: word == flow.FlowFailed && n.N > 0,
		})
	}
	return chips
}

func newFlowRow(s flow.Summary, q query, who access.Principal) flowRow {
	r := flowRow{Summary: s, Look: lookOfSummary(s), Span: span{s.StartedAt, s.EndedAt}, ID: string(s.ID)}
	r.Parts = countParts(s)
	r.Progress = fmt.Sprintf("%d/%d", s.Counts.Finished+s.Counts.Ignored, s.Counts.Total())
	if s.Question != nil {
		r.Failed, r.FailedSeq = fmt.Sprintf("%d %s", s.Question.Seq, s.Question.Title), s.Question.Seq
		r.Reason, r.Error = lookApproval, s.Question.Text
	}
	if s.Failure != nil {
		r.Failed, r.FailedSeq = fmt.Sprintf("%d %s", s.Failure.Seq, s.Failure.Title), s.Failure.Seq
		r.Reason, r.Error = lookOfReason(s.Failure.Reason), s.Failure.Error
	}
	if s.Failure != nil || s.Status == flow.FlowCancelled {
		b := button{Label: "Rerun…", Path: flowPath(s.ID) + "/rerun", Query: backQuery(q), Dialog: true}.needs(who, access.Operator)
		r.Rerun = &b
	}
	return r
}

// backQuery is a query that leads an action back to this list.
func backQuery(q query) string {
	return "?" + url.Values{"back": {"/flows" + q.without("at").String()}}.Encode()
}

// countParts is the bar of a flow of which only the counts are known: whatever is suspended
// is shown as what the flow is, and what waits for it is not told from what can go.
func countParts(s flow.Summary) []part {
	suspended := lookOfSummary(s)
	switch {
	case s.Failure != nil:
		suspended = lookFailed
	case s.Status != flow.FlowHeld && s.Status != flow.FlowCancelled:
		suspended = lookSuspended
	}
	all := []part{
		{Look: lookFinished, N: s.Counts.Finished},
		{Look: lookSkipped, N: s.Counts.Ignored},
		{Look: lookRunning, N: s.Counts.Running},
		{Look: suspended, N: s.Counts.Suspended},
		{Look: lookWaiting, N: s.Counts.Waiting},
	}
	x := 0.0
	parts := all[:0]
	for _, p := range all {
		if p.N == 0 {
			continue
		}
		p.Words = fmt.Sprintf("%d %s", p.N, strings.ToLower(p.Look.Label))
		p.X, p.W = x, 100*float64(p.N)/float64(s.Counts.Total())
		x += p.W
		parts = append(parts, p)
	}
	return parts
}

// PartWords has the bar in words.
func (r flowRow) PartWords() string {
	words := make([]string, len(r.Parts))
	for i, p := range r.Parts {
		words[i] = p.Words
	}
	return strings.Join(words, ", ")
}

// bulkBar is what can be done with ticked flows, or with all that match.
type bulkBar struct {
	All     string // "14": how many match; empty: it is not known
	Fields  []field
	Back    string
	Buttons []button
	More    []button
	Why     string
}

func newBulkBar(match string, q query, who access.Principal) bulkBar {
	b := bulkBar{All: match, Fields: filterFields(q), Back: "/flows" + q.without("at", "did").String(), Why: button{}.needs(who, access.Operator).Why}
	label := func(kind flow.ActionKind) button {
		w := bulkWords[kind]
		return button{Label: w.Button + "…", Icon: w.Look.Icon, Path: "/bulk/" + string(kind), Key: string(kind), Why: b.Why}
	}
	b.Buttons = []button{label(flow.ActionRerun), label(flow.ActionCancel)}
	b.More = []button{label(flow.ActionHold), label(flow.ActionResume), label(flow.ActionSkip), label(flow.ActionFinish)}
	return b
}
