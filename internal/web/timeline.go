package web

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// timeline is when the tasks of a flow waited and ran, each attempt a bar of its own.
// Nothing in it is the present moment: what goes on ends at an edge that moves seldom,
// and static/js/chart.js draws it up to the second.
type timeline struct {
	scale
	Rows    []timelineRow
	Choices []choice // which attempts are shown; none where all have one alone
	Part    string   // which tasks of many: "1 to 500 of 812"; empty is all
}

// Tall reports whether it is too long to be shown as a whole at once.
func (t timeline) Tall() bool { return len(t.Rows) > 40 }

// timelineRow is a task. Hand-made rows may have none of these times.
type timelineRow struct {
	Seq    int
	Title  string
	Look   look
	Href   string
	Chosen bool
	Low    bool // one of the last: what pops up at it goes up
	Bars   []bar
}

// Total writes how long its attempts ran together; empty if none has ended.
func (r timelineRow) Total() string {
	total := time.Duration(0)
	for _, b := range r.Bars {
		if !b.Start.IsZero() && !b.End.IsZero() {
			total += b.End.Sub(b.Start)
		}
	}
	if total == 0 {
		return ""
	}
	return took(total)
}

// bar is an attempt, or the wait for the next one. X and W are of the width, in percent.
type bar struct {
	try
	Look         look
	Href         string
	WaitX, WaitW float64
	RunX, RunW   float64
}

// Waited writes how long it waited for what is not in its flow: a worker, a retry, a time, a
// call, a person. Empty if it did not.
func (b bar) Waited() string { return span{b.Ready, b.Start}.Took() }

// Took writes how long it ran; empty while it does.
func (b bar) Took() string { return span{b.Start, b.End}.Took() }

// Waits reports whether it waits, and has not started.
func (b bar) Waits() bool { return b.Start.IsZero() }

// Goes reports whether it runs.
func (b bar) Goes() bool { return !b.Start.IsZero() && b.End.IsZero() }

// SignX is where the icon of its state is.
func (b bar) SignX() float64 { return max(b.RunX+b.RunW, b.WaitX+b.WaitW) }

// choice is a link that chooses one of several views.
type choice struct {
	Name, Href string
	On         bool
}

// try is an attempt in time. A zero time has not come yet.
type try struct {
	Seq, Attempt int
	Status       flow.Status
	Reason       flow.Reason
	Ready        time.Time // since when it could go; zero is not known
	Retry        bool      // Ready is the end of the attempt before
	Start, End   time.Time
	again        time.Time // when a person had the task run again
	present      bool      // the task's row is of it
}

// newTimeline makes the timeline of a flow of its rows and the attempts that were
// superseded.
func newTimeline(s flow.State, superseded []flow.Attempt, rows []taskRow, q query) timeline {
	all := tries(s.Tasks, superseded)
	chosen, _ := strconv.Atoi(q.get("tries"))
	t := timeline{Choices: choicesOf(all, chosen, q)}
	if len(t.Choices) == 0 {
		chosen = 0
	}
	shown, from, to := within(all, chosen)
	t.scale = newScale(shown, from, to, s.AsOf)
	bySeq := map[int][]try{}
	for _, one := range shown {
		bySeq[one.Seq] = append(bySeq[one.Seq], one)
	}
	for i, r := range rows {
		row := timelineRow{
			Seq: r.Seq, Title: r.Title, Look: r.Look, Href: r.Href, Chosen: r.Chosen,
			Low: len(rows) > 4 && i >= len(rows)-3,
		}
		for _, one := range bySeq[r.Seq] {
			row.Bars = append(row.Bars, t.bar(one, r.Look, q))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (t timeline) bar(one try, present look, q query) bar {
	b := bar{try: one, Look: lookOfTry(one)}
	if one.present {
		b.Look = present
	}
	b.Href = q.with("task", strconv.Itoa(one.Seq)).with("attempt", strconv.Itoa(one.Attempt)).without("before", "after", "q", "did").String()
	if one.Start.IsZero() {
		b.Href = q.with("task", strconv.Itoa(one.Seq)).without("attempt", "before", "after", "q", "did").String()
		b.WaitX, b.WaitW = t.x(one.Ready), t.x(t.To)-t.x(one.Ready)
		return b
	}
	b.RunX = t.x(one.Start)
	b.RunW = t.x(cmp.Or(one.End, t.To)) - b.RunX
	b.WaitX = b.RunX
	if !one.Ready.IsZero() {
		b.WaitX, b.WaitW = t.x(one.Ready), b.RunX-t.x(one.Ready)
	}
	return b
}

// lookOfTry shows what an attempt came to. One that was superseded while it ran was taken
// from its watcher: by a person, or because the watcher was gone.
func lookOfTry(one try) look {
	if one.Status == flow.Running && !one.End.IsZero() {
		return lookStopped
	}
	return lookOfTask(one.Status, one.Reason, "")
}

// tries puts all attempts of a flow together, each with the moment from which it could go.
func tries(tasks []flow.TaskState, superseded []flow.Attempt) []try {
	bySeq := map[int][]try{}
	for _, a := range superseded {
		if !a.StartedAt.IsZero() {
			bySeq[a.Seq] = append(bySeq[a.Seq], try{
				Seq: a.Seq, Attempt: a.Number, Status: a.Status, Reason: a.Reason, Start: a.StartedAt, End: later(a.EndedAt, a.StartedAt), again: a.AgainAt,
			})
		}
	}
	for _, t := range tasks {
		if one, ok := present(t); ok {
			bySeq[t.Seq] = append(bySeq[t.Seq], one)
		}
		slices.SortFunc(bySeq[t.Seq], func(a, b try) int { return cmp.Compare(a.Attempt, b.Attempt) })
	}
	var all []try
	for _, t := range tasks {
		list := bySeq[t.Seq]
		for i := range list {
			readied(&list[i], list[:i], t, bySeq)
		}
		all = append(all, list...)
	}
	return all
}

// present is the attempt that a task's row is of, or the wait for one.
func present(t flow.TaskState) (try, bool) {
	one := try{Seq: t.Seq, Attempt: max(1, t.Attempt), Status: t.Status, Reason: t.Reason, Start: t.StartedAt, present: true}
	switch {
	case t.Status == flow.Waiting:
		switch t.Wait.Reason {
		case "queued", "limit", "no_watcher", "retry", "time", "flow", "callback":
			one.Ready, one.Start, one.Attempt = t.StartedAt, time.Time{}, t.Attempt+1 // it has a start where its program pauses
			return one, true
		}
		return one, false
	case t.StartedAt.IsZero():
		return one, false
	case t.Status == flow.Running:
		return one, true
	case t.Status == flow.Ignored:
		one.End = later(t.FinishedAt, t.StartedAt)
	default:
		one.End = later(t.Ended(), t.StartedAt)
	}
	return one, true
}

// readied works out since when an attempt could go: its flow was registered, what the task
// depends on had ended, and the attempt before it had ended or a person had set it back.
func readied(one *try, earlier []try, t flow.TaskState, bySeq map[int][]try) {
	note := func(at time.Time) {
		if at.After(one.Ready) && (one.Start.IsZero() || !at.After(one.Start)) {
			one.Ready = at
		}
	}
	note(t.RegisteredAt)
	for _, p := range t.Parents {
		for _, parent := range bySeq[p] {
			note(parent.End)
		}
	}
	if n := len(earlier); n > 0 {
		before := earlier[n-1]
		note(before.End)
		one.Retry = one.Ready.Equal(before.End)
		if !before.again.IsZero() {
			note(before.again)
			one.Retry = one.Retry && one.Ready.Equal(before.End)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// choicesOf lets one choose the attempts that are shown: all, or those of one number with
// what followed until the next.
func choicesOf(all []try, chosen int, q query) []choice {
	most := 0
	for _, one := range all {
		if !one.Start.IsZero() {
			most = max(most, one.Attempt)
		}
	}
	if most < 2 {
		return nil
	}
	list := []choice{{Name: "All", Href: q.without("tries", "did").String(), On: chosen < 1 || chosen > most}}
	for n := max(1, most-7); n <= most; n++ {
		list = append(list, choice{strconv.Itoa(n), q.with("tries", strconv.Itoa(n)).without("did").String(), n == chosen})
	}
	return list
}

// within returns the attempts of a number, from the first of them to the first of the
// next number, with whatever else went on in that time; 0 is all that there is. A zero
// time is no limit.
func within(all []try, chosen int) (shown []try, from, to time.Time) {
	if chosen < 1 {
		return all, from, to
	}
	first := func(n int) (at time.Time) {
		for _, one := range all {
			if one.Attempt == n && !one.Start.IsZero() && (at.IsZero() || one.begin().Before(at)) {
				at = one.begin()
			}
		}
		return at
	}
	from, to = first(chosen), first(chosen+1)
	for _, one := range all {
		if (to.IsZero() || one.begin().Before(to)) && (one.End.IsZero() || one.End.After(from)) {
			shown = append(shown, one)
		}
	}
	return shown, from, to
}

// begin is when an attempt began to keep something busy. The pause before a retry does
// not.
func (t try) begin() time.Time {
	if t.Retry && !t.Start.IsZero() || t.Ready.IsZero() {
		return t.Start
	}
	return t.Ready
}
