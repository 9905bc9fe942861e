package postgres

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// approvable is a flow of three tasks in a row, of which the second asks.
func approvable(t *testing.T, w *world) flow.ID {
	t.Helper()
	id := register(t, w, def(), def(1), def(2))
	finish(t, w, claimOne(t, w))
	verdict(t, w, paused(claimOne(t, w), flow.Pause{Ask: true, Why: "deploy it?"}))
	return id
}

// A person approves by way of the API, the pages or a terminal: it is that person who did,
// and not whoever is logged in to the database.
func TestAct_Approve(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := approvable(t, w)
	s, err := w.Flow(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, false}, []bool{s.Tasks[0].Asks, s.Tasks[1].Asks, s.Tasks[2].Asks})
	require.Equal(t, "deploy it?", s.Tasks[1].Error)

	page, err := w.Flows(t.Context(), flow.Filter{Status: []string{flow.FlowHeld}}, flow.Position{}, 10)
	require.NoError(t, err)
	require.Equal(t, 1, page.Flows[0].Asks)
	require.Equal(t, &flow.Question{Seq: 2, Title: "NoOp", Text: "deploy it?"}, page.Flows[0].Question)
	require.Equal(t, "held 1", value[string](t, w, `SELECT status || ' ' || asks FROM v_flow`))
	require.Equal(t, "waits for approval, blocked by task 2 (waits for approval)", value[string](t, w,
		`SELECT string_agg(why, ', ' ORDER BY task_exec_seq) FROM v_task WHERE task_flow_id = $1`, string(id)))

	approve := flow.Action{Kind: flow.ActionApprove, Flow: id, Seq: 2, Terms: flow.Terms{Actor: "alice", Way: flow.WayUI, Note: "tested", DryRun: true}}
	preview := act(t, w, approve)
	require.Equal(t, flow.Effect{
		DryRun: true, Tasks: []flow.TaskChange{{Flow: id, Seq: 2, Title: "NoOp", From: flow.Suspended, To: flow.Waiting, Attempt: 1}},
		CanGo: []int{2}, Follow: []int{3}, Kept: 2, Refused: []flow.Refusal{}, Plan: preview.Plan,
	}, preview)
	require.Equal(t, "3 2 0", statuses(t, w, id))
	approve.DryRun, approve.Expect, approve.Plan = false, new(1), preview.Plan
	act(t, w, approve)
	require.Equal(t, "3 0 0", statuses(t, w, id))
	page, err = w.Flows(t.Context(), flow.Filter{}, flow.Position{}, 10)
	require.NoError(t, err)
	require.Zero(t, page.Flows[0].Asks)
	require.Nil(t, page.Flows[0].Question)
	require.Equal(t, "alice ui approve tested flower", value[string](t, w, `SELECT concat_ws(' ', actor, way, kind, note, login) FROM kr_event`))

	// Who comes second is told who was first.
	approve.Expect, approve.Plan, approve.Actor = nil, "", "bob"
	_, err = w.Act(t.Context(), approve)
	refused := &flow.RefusedError{}
	require.ErrorAs(t, err, &refused)
	require.Equal(t, flow.RefusedWrongStatus, refused.Refused[0].Code)
	require.Equal(t, "task 2 (NoOp) of flow "+string(id)+" was approved already, by alice.", refused.Refused[0].Detail)

	var by struct {
		ApprovedBy string `json:"approved_by"`
		Note       string
	}
	task := claimOne(t, w)
	require.NoError(t, json.Unmarshal(task.Pause.Approval, &by))
	require.Equal(t, []string{"alice", "tested"}, []string{by.ApprovedBy, by.Note})
}

// Approving makes sense for what asks, and for nothing else.
func TestAct_ApproveOfWhatAsksNobody(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := approvable(t, w)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id))
	for seq, c := range map[int]struct {
		code   flow.RefusalCode
		detail string
	}{
		1: {flow.RefusedWrongStatus, "asks nobody (finished): there is nothing to approve."},
		3: {flow.RefusedWrongStatus, "asks nobody (held): there is nothing to approve."},
		4: {flow.RefusedTaskNotFound, "has no task 4."},
	} {
		for _, dry := range []bool{true, false} {
			_, err := w.Act(t.Context(), flow.Action{Kind: flow.ActionApprove, Flow: id, Seq: seq, Terms: flow.Terms{DryRun: dry}})
			refused := &flow.RefusedError{}
			require.ErrorAs(t, err, &refused)
			require.Len(t, refused.Refused, 1)
			require.Equal(t, c.code, refused.Refused[0].Code)
			require.Contains(t, refused.Refused[0].Detail, c.detail)
		}
	}
	_, err := w.Act(t.Context(), flow.Action{Kind: flow.ActionApprove, Flow: id})
	require.ErrorContains(t, err, "approve needs a task", "nobody approves a flow as a whole")
	require.Equal(t, "3 2 2", statuses(t, w, id))
}

// A no is the end of the task that asks, with why, and of nothing else.
func TestAct_CancelOfWhatAsks(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := approvable(t, w)
	reject := flow.Action{Kind: flow.ActionCancel, Flow: id, Seq: 2, Terms: flow.Terms{Actor: "alice", Way: flow.WayUI, Note: "not on a Friday"}}
	require.Equal(t, 1, act(t, w, reject).Changed())
	s, err := w.Flow(t.Context(), id)
	require.NoError(t, err)
	require.False(t, s.Tasks[1].Asks)
	require.Equal(t, []string{"cancelled", "cancelled", "not on a Friday"}, []string{s.Status, string(s.Tasks[1].Reason), s.Tasks[1].Error})
	require.Equal(t, flow.Waiting, s.Tasks[2].Status)
	require.Equal(t, "alice ui cancel not on a Friday", value[string](t, w, `SELECT concat_ws(' ', actor, way, kind, note) FROM kr_event`))
}

// A flow and the task that has registered it know of each other.
func TestFlow_ParentAndChild(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	child := startChild(t, w, task, "")
	s, err := w.Flow(t.Context(), child)
	require.NoError(t, err)
	require.Equal(t, task.TaskKey, s.Parent)
	require.Empty(t, s.Tasks[0].Child)
	last := startChild(t, w, task, `{"a": 1}`)
	require.NotEqual(t, child, last)
	whole, err := w.Flow(t.Context(), task.Flow)
	require.NoError(t, err)
	require.Equal(t, []flow.ID{last, ""}, []flow.ID{whole.Tasks[0].Child, whole.Tasks[1].Child})
	require.Zero(t, whole.Parent)
	one, err := w.Task(t.Context(), task.TaskKey)
	require.NoError(t, err)
	require.Equal(t, last, one.Tasks[0].Child)
}
