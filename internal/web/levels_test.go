package web

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func levelsOf(tasks []flow.TaskState) []level {
	return newLevels(tasks, taskRows(tasks, newGraph(tasks), nil, query{}))
}

// A graph of up to 300 tasks is drawn; a larger one has a column for each level, in which
// what is news is not folded away.
func TestLevels(t *testing.T) {
	t.Parallel()
	var tasks []flow.TaskState
	for seq := 1; seq <= drawnTasks+1; seq++ {
		one := ran(seq, flow.Finished, 0, 1, 2)
		if seq > 10 {
			one.Parents = []int{seq - 10, 1}
		}
		tasks = append(tasks, one)
	}
	tasks[4], tasks[25], tasks[26] = ran(5, flow.Suspended, 0, 1, 2), ran(26, flow.Running, 0, 1, 0, 16), ran(27, flow.Suspended, 0, 1, 2, 17)
	tasks[20].Parents = []int{1, 9999} // there is no such task
	require.Empty(t, levelsOf(tasks[:drawnTasks]))
	levels := levelsOf(tasks)
	n := 0
	for i, l := range levels {
		require.Equal(t, i+1, l.N)
		n += len(l.News) + len(l.Rest)
	}
	require.Equal(t, len(tasks), n, "each task is in one column")
	require.Len(t, levels[0].Rest, 9)
	require.Equal(t, 5, levels[0].News[0].Seq)
	require.Equal(t, []int{27, 26}, []int{levels[2].News[0].Seq, levels[2].News[1].Seq}, "failed ones first")
	require.Equal(t, "9 finished", levels[0].Parts[0].Words)
	require.Len(t, elements(t, partial(t, "graph", flowView{Levels: levels}), "section", "level"), len(levels))
}

// Whoever has made a cycle by hand must not hang the server.
func TestLevels_Cycle(t *testing.T) {
	t.Parallel()
	var tasks []flow.TaskState
	for seq := range drawnTasks + 1 {
		tasks = append(tasks, ran(seq+1, flow.Finished, 0, 1, 2, (seq+1)%(drawnTasks+1)+1))
	}
	n := 0
	for _, l := range levelsOf(tasks) {
		n += len(l.Rest)
	}
	require.Equal(t, len(tasks), n)
}
