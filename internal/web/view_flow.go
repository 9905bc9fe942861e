package web

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// flowView is what /flows/{id} shows.
type flowView struct {
	flow.State
	Look     look
	Parts    []part
	Actions  []button
	Again    button // registers another one like it
	Failures []failureCard
	Unshown  int // failed tasks that have no card
	Asks     []approvalCard
	MoreAsk  int // tasks that ask and have no card
	Rows     []taskRow
	Rest     pager
	Task     *taskView // the selected one
	Query    query

	// Of all tasks, for the graph: what the list and the timeline show may be a part.
	All      []taskRow
	Timeline timeline
	Levels   []level // instead of a graph that would be too large to be drawn

	graph graph
}

// Span is how long it took, or that it runs.
func (v flowView) Span() span { return span{v.StartedAt, v.EndedAt} }

// part is a segment of the bar of a flow: how many tasks are in a state.
type part struct {
	Look  look
	N     int
	Words string  // "2 finished"
	X, W  float64 // of the bar, in percent
}

// span is from a start to an end. Without an end it still goes on.
type span struct{ From, To time.Time }

// Took writes how long it took; empty where it did not end, or did not begin.
func (s span) Took() string {
	if s.From.IsZero() || s.To.IsZero() {
		return ""
	}
	return took(s.To.Sub(s.From))
}

// Goes reports whether it goes on.
func (s span) Goes() bool { return !s.From.IsZero() && s.To.IsZero() }

// taskRow is a task in the list.
type taskRow struct {
	Seq     int
	Title   string
	Program string
	Look    look
	After   []int
	Span    span    // of its attempt
	Bar     float64 // its share of the longest, in percent; 0 is none
	Attempt string  // "2 of 3"; empty where there is nothing to say
	Failed  int     // attempts that failed before
	Flag    string  // what is odd about a running task
	Why     string  // why it waits, or the first line of its error
	Until   time.Time
	Failing bool    // it is failed now
	Child   flow.ID // the flow that it has registered
	Chosen  bool
	Href    string
}

// AfterText has what it depends on as a script reads it: "1 2".
func (t taskRow) AfterText() string { return joinInts(t.After, " ") }

// Ms is how long it took, for a script; 0 is not known.
func (t taskRow) Ms() int64 {
	if t.Span.From.IsZero() || t.Span.To.IsZero() {
		return 0
	}
	return max(0, t.Span.To.Sub(t.Span.From).Milliseconds())
}

// DependsOn has it as people read it: "1, 2".
func (t taskRow) DependsOn() string { return joinInts(t.After, ", ") }

// graph is a flow's tasks with what follows from how they stand together.
type graph struct {
	bySeq    map[int]flow.TaskState
	children map[int][]int
	blocker  map[int]int // by a waiting task's Seq: the suspended one that it waits for, directly or not
}

func newGraph(tasks []flow.TaskState) graph {
	g := graph{make(map[int]flow.TaskState, len(tasks)), map[int][]int{}, flow.Blockers(tasks)}
	for _, t := range tasks {
		g.bySeq[t.Seq] = t
		for _, p := range t.Parents {
			g.children[p] = append(g.children[p], t.Seq)
		}
	}
	return g
}

// behind returns the waiting tasks that wait for one, directly or not, in their order.
func (g graph) behind(seq int) []int {
	var found []int
	seen := map[int]bool{seq: true}
	for todo := []int{seq}; len(todo) > 0; todo = todo[1:] {
		for _, c := range g.children[todo[0]] {
			if !seen[c] && g.bySeq[c].Status == flow.Waiting {
				seen[c] = true
				found = append(found, c)
				todo = append(todo, c)
			}
		}
	}
	slices.Sort(found)
	return found
}

// name is a task as people call it: "3 load_orders".
func (g graph) name(seq int) string {
	t, ok := g.bySeq[seq]
	if !ok {
		return strconv.Itoa(seq)
	}
	return fmt.Sprintf("%d %s", seq, clip(t.Title(), 40))
}

// names lists the first few tasks by name.
func (g graph) names(seqs []int) string {
	const most = 4
	var list []string
	for i, seq := range seqs {
		if i == most && len(seqs) > most+1 {
			list = append(list, fmt.Sprintf("and %d more", len(seqs)-most))
			break
		}
		list = append(list, g.name(seq))
	}
	return strings.Join(list, ", ")
}

// look shows a task's state: waiting behind what is suspended is blocked, however far.
func (g graph) look(t flow.TaskState) look {
	if t.Status == flow.Waiting && g.blocker[t.Seq] != 0 {
		return lookBlocked
	}
	return lookOfState(t)
}

// why says why a task waits, as a sentence.
func (g graph) why(t flow.TaskState) string {
	if t.Status != flow.Waiting {
		return ""
	}
	if b := g.blocker[t.Seq]; b != 0 {
		return fmt.Sprintf("Blocked by %s (%s)", g.name(b), g.look(g.bySeq[b]).Label)
	}
	switch {
	case t.Wait.Reason == "dependency" && len(t.Wait.For) > 0:
		return "Waits for " + g.names(t.Wait.For)
	case t.Wait.Reason == "retry":
		return fmt.Sprintf("Attempt %d failed, it is tried again", t.Attempt)
	case t.Wait.Reason == "queued" && t.Wait.Position > 0:
		return fmt.Sprintf("Waits for a free worker, position %d in the queue", t.Wait.Position)
	case t.Wait.Reason == "flow" && t.Child != "": // which has a link beside it
		return "Waits until its flow has ended"
	case t.Wait.Why != "":
		return capital(t.Wait.Why)
	}
	return ""
}

func capital(s string) string {
	r := []rune(s)
	return strings.ToUpper(string(r[:min(1, len(r))])) + string(r[min(1, len(r)):])
}

// tasksShown is how many tasks a page of the list has.
const tasksShown = 500

func newFlowView(s flow.State, watchers watchers, q query) flowView {
	g := newGraph(s.Tasks)
	v := flowView{State: s, Look: lookOfWhole(s), Query: q, graph: g}
	v.Parts = parts(s.Tasks, g)
	v.All = taskRows(s.Tasks, g, watchers, q)
	v.Rows, v.Rest = page(pinned(v.All), q)
	v.Failures, v.Unshown = failureCards(s.Tasks, g, watchers, q)
	v.Asks, v.MoreAsk = approvalCards(s.Tasks, g, watchers, q)
	return v
}

// listed are the tasks that the list shows, in their own order.
func (v flowView) listed() []taskRow {
	rows := slices.Clone(v.Rows)
	slices.SortFunc(rows, func(a, b taskRow) int { return cmp.Compare(a.Seq, b.Seq) })
	return rows
}

// parts counts tasks by their look, in the order in which a flow goes from left to right.
func parts(tasks []flow.TaskState, g graph) []part {
	n := map[look]int{}
	for _, t := range tasks {
		n[g.look(t)]++
	}
	all := make([]part, 0, len(n))
	for l, count := range n {
		all = append(all, part{Look: l, N: count, Words: fmt.Sprintf("%d %s", count, strings.ToLower(l.Label))})
	}
	order := []string{"finished", "skipped", "running", "failed", "held", "cancelled", "retry", "queued", "blocked", "waiting"}
	slices.SortFunc(all, func(a, b part) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Look.Class), slices.Index(order, b.Look.Class)),
			cmp.Compare(a.Look.Label, b.Look.Label))
	})
	x := 0.0
	for i := range all {
		all[i].X, all[i].W = x, 100*float64(all[i].N)/float64(len(tasks))
		x += all[i].W
	}
	return all
}

func taskRows(tasks []flow.TaskState, g graph, watchers watchers, q query) []taskRow {
	rows := make([]taskRow, len(tasks))
	longest := time.Duration(0)
	for i, t := range tasks {
		rows[i] = newTaskRow(t, g, watchers, q)
		if s := rows[i].Span; !s.Goes() {
			longest = max(longest, s.To.Sub(s.From))
		}
	}
	for i := range rows {
		if s := rows[i].Span; !s.Goes() && longest > 0 {
			rows[i].Bar = 100 * float64(max(0, s.To.Sub(s.From))) / float64(longest)
		}
	}
	return rows
}

func newTaskRow(t flow.TaskState, g graph, watchers watchers, q query) taskRow {
	row := taskRow{
		Seq: t.Seq, Title: t.Title(), Program: t.Program, Look: g.look(t), After: t.Parents,
		Attempt: attemptText(t), Failed: t.Failed, Why: g.why(t), Failing: t.Failing(), Child: t.Child,
		Href: q.with("task", strconv.Itoa(t.Seq)).without("attempt", "before", "after", "q", "did").String(),
	}
	if row.Title == row.Program {
		row.Program = ""
	}
	switch t.Status {
	case flow.Running:
		row.Span = span{t.StartedAt, time.Time{}}
		row.Flag = watchers.odd(t)
	case flow.Finished, flow.Suspended:
		if !t.StartedAt.IsZero() {
			row.Span = span{t.StartedAt, t.Ended()}
		}
	case flow.Waiting:
		if row.Look.Class == "retry" || row.Look == lookTime {
			row.Until = t.RunAfter
		}
	}
	if t.Status == flow.Suspended || t.Status == flow.Ignored {
		first, _ := firstLine(t.Error)
		row.Why = clip(first, 160)
	}
	if row.Span.To.IsZero() && t.Status != flow.Running {
		row.Span = span{}
	}
	return row
}

// attemptText says which attempt it is, where there is more than one to speak of: not of what
// went well at once. After a rerun by a person the two numbers say nothing together.
func attemptText(t flow.TaskState) string {
	switch {
	case t.Attempt == 0, t.Attempt == 1 && t.Status == flow.Finished:
		return ""
	case t.MaxAttempts > 1 && t.Attempt <= t.MaxAttempts:
		return fmt.Sprintf("%d of %d", t.Attempt, t.MaxAttempts)
	case t.Attempt > 1:
		return strconv.Itoa(t.Attempt)
	}
	return ""
}

// pinned has the failed tasks first.
func pinned(rows []taskRow) []taskRow {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b taskRow) int {
		return cmp.Compare(rank(a), rank(b))
	})
	return rows
}

func rank(t taskRow) int {
	if t.Failing {
		return 0
	}
	return 1
}

// query is that of a page's URL. Links on the page change a part of it.
type query struct{ values url.Values }

func (q query) get(name string) string { return q.values.Get(name) }

// with returns it with one value changed.
func (q query) with(name, value string) query {
	c := q.without(name)
	if value != "" {
		c.values.Set(name, value)
	}
	return c
}

func (q query) without(names ...string) query {
	c := url.Values{}
	for k, v := range q.values {
		if !slices.Contains(names, k) {
			c[k] = v
		}
	}
	return query{c}
}

// Fields are its values as those of a form, without some.
func (q query) Fields(but ...string) []field {
	var list []field
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		if !slices.Contains(but, name) {
			list = append(list, field{name, q.get(name)})
		}
	}
	return list
}

// String is what a link has: "?task=3".
func (q query) String() string { return "?" + q.values.Encode() }

// pager leads through a long list.
type pager struct {
	Earlier, Later string // links; empty where there is none
	Words          string // "1 to 500 of 812"; empty: all is there
}

// page cuts a list to the page that the URL names.
func page(rows []taskRow, q query) ([]taskRow, pager) {
	if len(rows) <= tasksShown {
		return rows, pager{}
	}
	last := (len(rows) - 1) / tasksShown
	n, _ := strconv.Atoi(q.get("rows"))
	n = min(max(n-1, 0), last)
	from, to := n*tasksShown, min((n+1)*tasksShown, len(rows))
	p := pager{Words: fmt.Sprintf("%d to %d of %d", from+1, to, len(rows))}
	if n > 0 {
		p.Earlier = q.with("rows", strconv.Itoa(n)).String()
	}
	if n < last {
		p.Later = q.with("rows", strconv.Itoa(n+2)).String()
	}
	return rows[from:to], p
}

func joinInts(list []int, by string) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, by)
}
