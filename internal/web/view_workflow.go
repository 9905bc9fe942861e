package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/d-tsuji/flower/internal/definition"
	"github.com/d-tsuji/flower/internal/flow"
)

// workflowView is what /workflows/{id} shows.
type workflowView struct {
	flow.WorkflowState
	Deleted  bool
	Register button
	Limits   string
	Stats    flow.WorkflowStats
	Rate     string // "96 %" of the flows that ended have finished; empty: none has ended
	Period   string // "in the last 7 days"
	Window   []tab
	Sizes    []tab
	Size     int
	Took     durations
	Grid     grid
	Went     []wentRow

	// The definition: the present one, or the version that the URL names.
	Present  flow.Definition
	Shown    flow.Definition
	Of       int // the version that is shown; 0 is the present one
	Tasks    []definedRow
	SQL      string
	Versions []versionRow
	More     bool   // there are older versions
	Back     string // link to the present one

	// For the graph.
	All    []taskRow
	Levels []level
}

// WorkflowID names it, for the partial that draws a graph.
func (v *workflowView) WorkflowID() flow.WorkflowID { return v.ID }

// definedRow is a task of the definition.
type definedRow struct {
	flow.TaskDefinition
	Title   string
	Lines   string // the rest of its description
	After   []int
	Params  string // JSON in one line, cut; empty is none
	Whole   string // the same in lines
	Tries   string // "3, 10 s apart"
	Usually time.Duration
	Chosen  bool
	Href    string
}

// AfterText has what it depends on as a script reads it.
func (d definedRow) AfterText() string { return joinInts(d.After, " ") }

// AfterWords has it as people read it.
func (d definedRow) AfterWords() string { return joinInts(d.After, ", ") }

// wentRow is how the tasks of one definition went.
type wentRow struct {
	flow.TaskStats
	Share       float64 // of the longest median, in percent
	Share95     float64
	FailedShare string // "4 %"
	Slowest     bool
	Worst       bool // it failed most often
	List        string
}

// versionRow is a definition that the workflow has had.
type versionRow struct {
	flow.DefinitionVersion
	Present bool
	Chosen  bool
	Href    string
	Changes []string // against the one before
	By      string
}

func (v *workflowView) fill(cells map[flow.ID][]flow.TaskState, span period, q query) {
	v.Period = span.Words
	v.Limits = limits(v.WorkflowState)
	v.Took = newDurations(v.Last, v.Stats.Took)
	v.Grid = newGrid(v.Last, cells)
	if rate, known := v.Stats.SuccessRate(); known {
		v.Rate = percent(rate)
	}
	v.Went = wentRows(v.Stats, v.ID)
	usual := map[int]time.Duration{}
	for _, t := range v.Stats.Tasks {
		usual[t.TaskSeq] = t.Took.P50
	}
	v.Tasks = definedRows(v.Shown.Tasks, usual, q)
	v.All, v.Levels = definedGraph(v.Tasks)
	if len(v.Shown.Tasks) > 0 {
		v.SQL = definitionSQL(v.Shown)
	}
	if v.Of > 0 {
		v.Back = q.without("version").String()
	}
	for _, one := range spans {
		v.Window = append(v.Window, tab{Name: one.Name, Href: q.with("window", one.Name).String(), Open: one == span})
	}
	for _, n := range gridSizes {
		v.Sizes = append(v.Sizes, tab{Name: strconv.Itoa(n), Href: q.with("flows", strconv.Itoa(n)).String(), Open: n == v.Size})
	}
}

// percent writes a share; one that is not everything is never 100 %, nor one that is
// something 0 %.
func percent(share float64) string {
	n := int(share*100 + 0.5)
	switch {
	case share > 0 && n == 0:
		n = 1
	case share < 1 && n == 100:
		n = 99
	}
	return fmt.Sprintf("%d %%", n)
}

func wentRows(s flow.WorkflowStats, id flow.WorkflowID) []wentRow {
	rows := make([]wentRow, len(s.Tasks))
	var longest time.Duration
	most := 0
	for i, t := range s.Tasks {
		rows[i] = wentRow{TaskStats: t}
		longest = max(longest, t.Took.P95)
		most = max(most, t.Failed+t.Attempts)
		if t.Runs > 0 && t.Failed > 0 {
			rows[i].FailedShare = percent(float64(t.Failed) / float64(t.Runs))
		}
		rows[i].List = "/failures" + query{map[string][]string{"taskId": {string(id)}, "program": {t.Program}}}.String()
	}
	for i := range rows {
		r := &rows[i]
		if longest > 0 {
			r.Share, r.Share95 = 100*float64(r.Took.P50)/float64(longest), 100*float64(r.Took.P95)/float64(longest)
			r.Slowest = len(rows) > 1 && r.Took.P95 == longest
		}
		r.Worst = len(rows) > 1 && most > 0 && r.Failed+r.Attempts == most
	}
	return rows
}

func definedRows(tasks []flow.TaskDefinition, usual map[int]time.Duration, q query) []definedRow {
	tasks = slices.SortedStableFunc(slices.Values(tasks), func(a, b flow.TaskDefinition) int { return cmp.Compare(a.Seq, b.Seq) })
	rows := make([]definedRow, len(tasks))
	chosen := q.get("task")
	for i, t := range tasks {
		r := definedRow{
			TaskDefinition: t, Title: t.Title(), After: t.DependsOn, Whole: pretty(t.Parameters), Usually: usual[t.Seq], Chosen: chosen == strconv.Itoa(t.Seq),
		}
		_, r.Lines = firstLine(t.Description)
		if t.DependsOn == nil && i > 0 {
			r.After = []int{tasks[i-1].Seq}
		}
		r.Params = clip(oneLine(r.Whole), 60)
		if t.MaxAttempts > 1 {
			r.Tries = fmt.Sprintf("%d, after %s", t.MaxAttempts, took(t.RetryDelay))
		}
		r.Href = q.with("task", strconv.Itoa(t.Seq)).String()
		rows[i] = r
	}
	return rows
}

// oneLine writes JSON, masked already, without its lines.
func oneLine(text string) string {
	var b bytes.Buffer
	if json.Compact(&b, []byte(text)) != nil {
		return ""
	}
	return b.String()
}

// lookDefined is a task that is only defined.
var lookDefined = look{"waiting", "waiting", "Defined"}

// definedGraph makes of a definition what a graph too large to be drawn is made of.
func definedGraph(rows []definedRow) ([]taskRow, []level) {
	all := make([]taskRow, len(rows))
	states := make([]flow.TaskState, len(rows))
	for i, r := range rows {
		all[i] = taskRow{Seq: r.Seq, Title: r.Title, Look: lookDefined, After: r.After, Href: r.Href, Chosen: r.Chosen}
		states[i] = flow.TaskState{TaskKey: flow.TaskKey{Seq: r.Seq}, Parents: r.After}
	}
	return all, newLevels(states, all)
}

func (v *workflowView) setVersions(versions []flow.DefinitionVersion, q query) {
	v.More = len(versions) > versionsShown
	for i, one := range versions[:min(len(versions), versionsShown)] {
		r := versionRow{
			DefinitionVersion: one, Present: i == 0 && !v.Deleted, Chosen: q.get("version") == strconv.Itoa(one.Version),
			Href: q.with("version", strconv.Itoa(one.Version)).without("task").String(), By: one.AppliedBy,
		}
		if i+1 < len(versions) {
			r.Changes = changes(versions[i+1].Definition, one.Definition)
		} else if one.Definition != nil {
			r.Changes = []string{plural(len(one.Definition.Tasks), "task", "tasks")}
		}
		v.Versions = append(v.Versions, r)
	}
}

// changes says what one version of a definition has that the one before had not.
func changes(old, now *flow.Definition) []string {
	switch {
	case now == nil:
		return []string{"deleted"}
	case old == nil:
		return []string{"made anew, with " + plural(len(now.Tasks), "task", "tasks")}
	}
	all, err := definition.Diff(*old, *now)
	if err != nil {
		return []string{err.Error()}
	}
	words := make([]string, min(len(all), versionLines))
	for i := range words {
		words[i] = all[i].String()
	}
	if more := len(all) - len(words); more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return words
}
