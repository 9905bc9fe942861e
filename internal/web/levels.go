package web

import (
	"cmp"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// drawnTasks is how many tasks a graph may have to be drawn: laying out 300 takes a
// second, and 1,000 a quarter of a minute.
const drawnTasks = 300

// level is the tasks of a large flow that are equally far from the first ones, by the
// longest way.
type level struct {
	N     int // 1 is what depends on nothing
	Parts []part
	News  []taskRow // failed, running or queued
	Rest  []taskRow
}

// newLevels puts the tasks of a large graph into columns; none where it can be drawn.
func newLevels(tasks []flow.TaskState, rows []taskRow) []level {
	if len(tasks) <= drawnTasks {
		return nil
	}
	depth := depths(tasks)
	bySeq := map[int]taskRow{}
	for _, r := range rows {
		bySeq[r.Seq] = r
	}
	var levels []level
	for _, t := range tasks {
		d := depth[t.Seq]
		for len(levels) <= d {
			levels = append(levels, level{N: len(levels) + 1})
		}
		l, r := &levels[d], bySeq[t.Seq]
		switch r.Look.Class {
		case "failed", "running", "queued", "retry", "held":
			l.News = append(l.News, r)
		default:
			l.Rest = append(l.Rest, r)
		}
	}
	for i := range levels {
		l := &levels[i]
		slices.SortStableFunc(l.News, func(a, b taskRow) int { return cmp.Compare(rank(a), rank(b)) })
		l.Parts = partsOf(slices.Concat(l.News, l.Rest))
	}
	return levels
}

// depths returns how many tasks are before each, on the longest way. Whoever made a cycle
// by hand gets some answer.
func depths(tasks []flow.TaskState) map[int]int {
	parents := make(map[int][]int, len(tasks))
	for _, t := range tasks {
		parents[t.Seq] = t.Parents
	}
	depth, open := make(map[int]int, len(tasks)), map[int]bool{}
	var visit func(seq int) int
	visit = func(seq int) int {
		if d, done := depth[seq]; done || open[seq] {
			return d
		}
		open[seq] = true
		d := 0
		for _, p := range parents[seq] {
			if _, known := parents[p]; known {
				d = max(d, visit(p)+1)
			}
		}
		depth[seq] = d
		return d
	}
	for _, t := range tasks {
		visit(t.Seq)
	}
	return depth
}

// partsOf counts rows by their state.
func partsOf(rows []taskRow) []part {
	n := map[look]int{}
	for _, r := range rows {
		n[r.Look]++
	}
	all := make([]part, 0, len(n))
	for l, count := range n {
		all = append(all, part{Look: l, N: count, Words: plural(count, strings.ToLower(l.Label), strings.ToLower(l.Label))})
	}
	slices.SortFunc(all, func(a, b part) int { return cmp.Or(b.N-a.N, cmp.Compare(a.Look.Label, b.Look.Label)) })
	return all
}
