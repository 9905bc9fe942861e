package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// The count of a group of failures, the list of its flows and what a bulk action on it
// changes are the same set, also where nobody gave a reason or there is no program.
func TestFailureGroup_IsOneSet(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	variety(t, w)
	behind(t, w, `UPDATE kr_task_stat SET program = NULL WHERE exec_status = 2 AND task_id = 'w3' AND task_exec_seq = 1`)
	behind(t, w, `UPDATE kr_task_stat SET error = NULL WHERE exec_status = 2 AND task_id = 'w4' AND task_exec_seq = 1`)
	groups, err := w.FailureGroups(t.Context(), flow.FailureFilter{Limit: 1000})
	require.NoError(t, err)
	require.Greater(t, len(groups.Groups), 20)
	var noReason, noProgram, tasks int
	for _, g := range groups.Groups {
		key := g.Key()
		if g.Reason == "" {
			noReason++
		}
		if g.Program == "" {
			noProgram++
		}
		tasks += g.Tasks.N
		require.Len(t, g.Spread, 12)
		sum := 0
		for _, n := range g.Spread {
			sum += n
		}
		require.Equal(t, g.Tasks.N, sum, "%+v", key)
		require.NotZero(t, g.Spread[0], "the first of them")
		require.True(t, g.FirstAt.Equal(g.LastAt) || g.Spread[11] > 0, "the last of them")
		require.Len(t, paged(t, w, flow.Filter{Group: &key}, 3), g.Flows.N, "%+v", key)
		var n flow.Count
		n, err = w.Count(t.Context(), flow.Filter{Group: &key})
		require.NoError(t, err)
		require.Equal(t, g.Flows, n, "%+v", key)
		var e flow.BulkEffect
		e, err = w.ActAll(t.Context(), flow.BulkAction{Kind: flow.ActionRerun, Filter: flow.BulkFilter{Group: &key}, Terms: flow.Terms{DryRun: true}})
		require.NoError(t, err)
		require.Equal(t, g.Tasks.N, e.Changed, "%+v", key)
		require.Len(t, e.Flows, g.Flows.N, "%+v", key)
	}
	require.NotZero(t, noReason)
	require.NotZero(t, noProgram)
	require.Equal(t, value[int](t, w, `SELECT count(*) FROM v_failed`), tasks)

	g := groups.Groups[0]
	key := g.Key()
	e, err := w.ActAll(t.Context(), flow.BulkAction{
		Kind: flow.ActionSkip, Filter: flow.BulkFilter{Group: &key}, Terms: flow.Terms{Actor: "alice", Way: flow.WayUI, Expect: &g.Tasks.N},
	})
	require.NoError(t, err)
	require.Equal(t, g.Tasks.N, e.Changed)
	require.Empty(t, paged(t, w, flow.Filter{Group: &key}, 100))
}
