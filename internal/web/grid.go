package web

import (
	"fmt"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// grid is the tasks of a workflow by its last flows: a table of small links, in which a
// column is a flow, the oldest first.
type grid struct {
	Flows []gridFlow
	Rows  []gridRow
}

type gridFlow struct {
	flow.Summary
	Look  look
	Day   bool // the first of its day
	Words string
}

type gridRow struct {
	TaskSeq int
	Title   string
	Failed  int // of the flows that are shown
	Cells   []gridCell
}

// gridCell is a task of a flow. One that did not exist then has no Look.
type gridCell struct {
	Flow  flow.ID
	Seq   int // of the task in its flow
	Look  look
	Mark  bool // an attempt of it had failed before
	Words string
}

// newGrid puts the tasks of the last flows, the latest flow first, into columns. A row is
// named as in the latest flow that has it.
func newGrid(last []flow.Summary, tasks map[flow.ID][]flow.TaskState) grid {
	g := grid{}
	rows := map[int]*gridRow{}
	n := len(last)
	for i := range last {
		f := last[n-1-i]
		column := gridFlow{Summary: f, Look: lookOfSummary(f)}
		column.Day = i == 0 || !sameDay(f.RegisteredAt, last[n-i].RegisteredAt)
		column.Words = fmt.Sprintf("%s: %s", short(f.ID), column.Look.Label)
		g.Flows = append(g.Flows, column)
		for _, t := range tasks[f.ID] {
			r := rows[t.TaskSeq]
			if r == nil {
				r = &gridRow{TaskSeq: t.TaskSeq, Cells: make([]gridCell, n)}
				rows[t.TaskSeq] = r
			}
			r.Title = t.Title()
			r.Cells[i] = newGridCell(f.ID, t)
			if t.Failing() {
				r.Failed++
			}
		}
	}
	for _, r := range rows {
		g.Rows = append(g.Rows, *r)
	}
	slices.SortFunc(g.Rows, func(a, b gridRow) int { return a.TaskSeq - b.TaskSeq })
	return g
}

func newGridCell(id flow.ID, t flow.TaskState) gridCell {
	c := gridCell{Flow: id, Seq: t.Seq, Look: lookOfState(t), Mark: t.Failed > 0}
	c.Words = fmt.Sprintf("%d %s, flow %s, %s", t.Seq, t.Title(), short(id), c.Look.Label)
	if e := t.Ended(); !e.IsZero() && !t.StartedAt.IsZero() {
		c.Words += ", " + took(max(time.Duration(0), e.Sub(t.StartedAt)))
	}
	if c.Mark {
		c.Words += ", " + plural(t.Failed, "failed attempt", "failed attempts") + " before"
	}
	return c
}
