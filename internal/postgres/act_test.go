package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// act carries out an action, and asserts that everything is right after it.
func act(t *testing.T, w *world, a flow.Action) flow.Effect {
	t.Helper()
	e, err := w.Act(t.Context(), a)
	require.NoError(t, err)
	sound(t, w)
	return e
}

func TestAct_Rerun(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(2), def(2, 3), def(4))
	finish(t, w, claimOne(t, w))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	rerun := flow.Action{Kind: flow.ActionRerun, Flow: id, Terms: flow.Terms{
		Actor: "alice", Way: flow.WayAPI, Note: "the API was down", DryRun: true,
	}}
	preview := act(t, w, rerun)
	require.Equal(t, flow.Effect{
		DryRun: true, Tasks: []flow.TaskChange{{Flow: id, Seq: 2, Title: "NoOp", From: flow.Suspended, To: flow.Waiting, Attempt: 1}},
		CanGo: []int{2}, Follow: []int{3, 4, 5}, Kept: 4, Refused: []flow.Refusal{}, Plan: preview.Plan,
	}, preview)
	require.Equal(t, "3 2 0 0 0", statuses(t, w, id))
	rerun.DryRun, rerun.Expect, rerun.Plan = false, ptr(1), preview.Plan
	done := act(t, w, rerun)
	require.Equal(t, "3 0 0 0 0", statuses(t, w, id))
	done.DryRun = true
	require.Equal(t, preview, done)
	require.Equal(t, "alice api rerun the API was down flower", value[string](t, w, `SELECT concat_ws(' ', actor, way, kind, note, login) FROM kr_event`))

	rerun.Expect, rerun.Plan = nil, ""
	require.Zero(t, act(t, w, rerun).Changed(), "again: nothing to do")
	require.Len(t, run(t, w), 4)
}
