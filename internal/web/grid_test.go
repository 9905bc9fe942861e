package web

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A task that did not exist when a flow ran is an empty cell, and each cell leads to its
// task.
func TestGrid(t *testing.T) {
	t.Parallel()
	summary := func(id flow.ID, seconds float64) flow.Summary {
		return flow.Summary{Flow: flow.Flow{ID: id, RegisteredAt: at(seconds)}, Status: flow.FlowFailed}
	}
	task := func(seq, taskSeq int, s flow.Status) flow.TaskState {
		one := ran(seq, s, 0, 1, 2.2)
		one.TaskSeq, one.Description = taskSeq, "old"
		return one
	}
	renamed := task(1, 10, flow.Suspended)
	renamed.Description, renamed.Failed = hostile, 2
	last := []flow.Summary{summary("c", 90_000), summary("b", 60), summary("a", 0)}
	g := newGrid(last, map[flow.ID][]flow.TaskState{
		"a": {task(1, 10, flow.Finished)},
		"b": {task(1, 10, flow.Suspended), task(2, 20, flow.Ignored)},
		"c": {renamed, task(2, 30, flow.Waiting)},
	})
	require.Equal(t, []flow.ID{"a", "b", "c"}, []flow.ID{g.Flows[0].ID, g.Flows[1].ID, g.Flows[2].ID})
	require.Equal(t, []bool{true, false, true}, []bool{g.Flows[0].Day, g.Flows[1].Day, g.Flows[2].Day})
	require.Len(t, g.Rows, 3)
	require.Equal(t, hostile, g.Rows[0].Title, "the latest name")
	require.Equal(t, 2, g.Rows[0].Failed)
	require.Equal(t, lookFinished, g.Rows[0].Cells[0].Look)
	require.Zero(t, g.Rows[1].Cells[0])
	require.Zero(t, g.Rows[1].Cells[2])
	require.Equal(t, "1 old, flow b, Failed, 1.2 s", g.Rows[0].Cells[1].Words)
	require.Contains(t, g.Rows[0].Cells[2].Words, "2 failed attempts before")

	text := partial(t, "grid", g)
	require.Len(t, elements(t, text, "a", "cell"), 3+5)
	require.Len(t, elements(t, text, "a", "marked"), 1)
	require.Contains(t, text, `href="/flower/flows/b?task=2"`)
	partial(t, "grid", newGrid(nil, nil))
}

// A hundred flows of two hundred tasks are a page like any other.
func TestGrid_Large(t *testing.T) {
	t.Parallel()
	var last []flow.Summary
	tasks := map[flow.ID][]flow.TaskState{}
	for i := range 100 {
		id := flow.ID(string(rune('A' + i)))
		last = append(last, flow.Summary{Flow: flow.Flow{ID: id}})
		for seq := range 200 {
			one := ran(seq+1, flow.Finished, 0, 1, 2)
			one.TaskSeq = seq + 1
			tasks[id] = append(tasks[id], one)
		}
	}
	begin := time.Now()
	require.Len(t, elements(t, partial(t, "grid", newGrid(last, tasks)), "td", ""), 200*101)
	t.Logf("made and read in %s", time.Since(begin).Round(time.Millisecond))
}
