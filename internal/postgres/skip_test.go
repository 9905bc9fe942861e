package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// skipped is the result of a task whose condition does not hold.
func skipped(task flow.Task) *flow.Result {
	return &flow.Result{Task: task, Outcome: flow.OutcomeSkipped, Error: "skipped: it rains"}
}

func TestSkip_WhatDependsOnItGoesOn(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		id := register(t, w, def(), def(1), def(1), def(2, 3))
		first := claimOne(t, w)
		adv := advance(t, w, []*flow.Result{skipped(first)}, flow.Claim{Free: 2})
		require.Len(t, adv.Verdicts, 1)
		require.Equal(t, flow.VerdictRecorded, adv.Verdicts[0].Verdict)
		require.Equal(t, flow.Ignored, adv.Verdicts[0].Status)
		require.Equal(t, []int{2, 3}, seqsOf(adv.Claimed), "claimed in the same breath")

		r := look(t, w, id, 1)
		require.Equal(t, 9, r.Status)
		require.Equal(t, "skipped: it rains", r.Error)
		require.Empty(t, r.Reason)
		require.Empty(t, r.Output)
		require.Nil(t, r.Started, "its program was not run")
		require.Nil(t, r.Finished)
		require.Nil(t, r.Suspended)
		require.Empty(t, r.Watcher)
		require.Equal(t, first.ClaimID, r.Claim)
		require.Equal(t, 1, r.Attempt)
		require.Zero(t, r.Failed)

		// One that finishes and one that is skipped, in one call.
		adv = record(t, w, finished(adv.Claimed[0])[0], skipped(adv.Claimed[1]))
		require.Empty(t, adv.Rejected)
		require.Equal(t, "9 3 9 0", statuses(t, w, id))
		finish(t, w, claimOne(t, w))
		require.Equal(t, "finished", value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, string(id)))
		require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`), "nobody has done it by hand")
	})
}

// A flow of which everything is skipped is finished.
func TestSkip_AWholeFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, chain(3)...)
	for range 3 {
		require.Equal(t, flow.Ignored, verdict(t, w, skipped(claimOne(t, w))).Status)
	}
	require.Equal(t, "9 9 9", statuses(t, w, id))
	require.Equal(t, "finished 3/3", value[string](t, w, `SELECT status || ' ' || progress FROM v_flow WHERE task_flow_id = $1`, string(id)))
}

func TestSkip_IsFenced(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	task := claimOne(t, w)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.Equal(t, flow.VerdictRefused, verdict(t, w, skipped(task)).Verdict)
	require.Equal(t, "2 0", statuses(t, w, id))

	// Skipped by a person, the task is not the watcher's to skip.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.Equal(t, flow.VerdictRefused, verdict(t, w, skipped(task)).Verdict)
	require.Equal(t, "9 0", statuses(t, w, id))
}

// The answer was lost, and the result is given again: as often as one likes, also when
// somebody has had the task run again meanwhile.
func TestSkip_GivenAgain(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	task := claimOne(t, w)
	for range 3 {
		j := verdict(t, w, skipped(task))
		require.Equal(t, flow.VerdictRecorded, j.Verdict)
		require.Equal(t, flow.Ignored, j.Status)
	}
	require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, flow.OutcomeFailed)).Verdict)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, finished(task)[0]).Verdict)

	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0, run_if = NULL WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	r := look(t, w, id, 1)
	require.True(t, r.Ready)
	require.Empty(t, r.Error)
	require.Equal(t, []string{"1: 9 - skipped: it rains"}, []string(r.Attempts))
	require.Equal(t, flow.VerdictRecorded, verdict(t, w, skipped(task)).Verdict, "it was")
	require.Len(t, run(t, w), 2)
	require.Equal(t, "3 3", statuses(t, w, id))
}

// Where a limit holds others back, a skipped task makes room.
func TestSkip_MakesRoom(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "limited", independent(3)...)
	_, err := w.psql.Exec(`INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('limited', 1)`)
	require.NoError(t, err)
	id := registerOf(t, w, "limited")
	for range 3 {
		require.Equal(t, flow.Ignored, verdict(t, w, skipped(claimOne(t, w))).Status)
		sound(t, w)
	}
	require.Equal(t, "9 9 9", statuses(t, w, id))
}

// The condition is copied like everything else that says how a task runs, and reaches the
// watcher by every way that a claim has.
func TestSkip_TheConditionIsCopied(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def(1)
	d.RunIf = "outputs[1] != 'no'"
	define(t, w, "w", def(), d, def(2))
	_, err := w.psql.Exec(`UPDATE ms_task_definition SET run_if = $1 WHERE task_seq = 2`, d.RunIf)
	require.NoError(t, err)
	id := registerOf(t, w, "w")
	byHand(t, w, `UPDATE ms_task_definition SET run_if = 'false'`)
	first := claimOne(t, w)
	require.Empty(t, first.RunIf)
	claimed := advance(t, w, finished(first), flow.Claim{Free: 1}).Claimed // directly
	require.Len(t, claimed, 1)
	require.Equal(t, d.RunIf, claimed[0].RunIf)
	owned, err := w.Owned(t.Context(), w.watcher, []string{claimed[0].ClaimID})
	require.NoError(t, err)
	require.Equal(t, claimed, owned)
	record(t, w, ended(claimed[0], flow.OutcomeNotStarted))
	require.Equal(t, d.RunIf, claimOne(t, w).RunIf, "from the queue")

	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program) VALUES ('by hand', 1, 'w', 2, NULL), ('by hand', 2, 'w', 2, 'Test1')`)
	require.Equal(t, "false", value[string](t, w, `SELECT run_if FROM kr_task_stat WHERE task_flow_id = 'by hand' AND task_exec_seq = 1`))
	require.True(t, value[bool](t, w, `SELECT run_if IS NULL FROM kr_task_stat WHERE task_flow_id = 'by hand' AND task_exec_seq = 2`), "it has its own program")

	byHand(t, w, `UPDATE kr_task_stat SET run_if = NULL WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
	require.JSONEq(t, `{"run_if": ["outputs[1] != 'no'", null]}`, value[string](t, w, `SELECT change FROM kr_event WHERE change IS NOT NULL AND task_flow_id = $1`, string(id)))
}

// A reason that the database does not take harms that result alone.
func TestSkip_ABadReasonHarmsItselfAlone(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(2)...)
	tasks := claim(t, w, 2)
	bad := skipped(tasks[0])
	bad.Error = "\x00"
	adv := record(t, w, bad, skipped(tasks[1]))
	require.Len(t, adv.Rejected, 1)
	require.Equal(t, tasks[0].TaskKey, adv.Rejected[0].Result.Task.TaskKey)
	require.Equal(t, 9, look(t, w, id, tasks[1].Seq).Status)
}
