package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// What operators do to a flow at psql.

func operate(t *testing.T, w *world, call string, args ...any) int {
	t.Helper()
	n := value[int](t, w, `SELECT `+call, args...)
	sound(t, w)
	return n
}

func TestOperate_HoldAndResume(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 2
	id := register(t, w, d, def(), def(1), def(2))
	other := register(t, w, def())
	byHand(t, w, `UPDATE kr_task_stat SET task_priority = 5 WHERE task_flow_id = $1`, string(other))
	task := claim(t, w, 1)[0]
	require.Equal(t, 4, operate(t, w, `flower_hold($1, 'not at night')`, string(id)))
	require.Equal(t, "1 2 2 2", statuses(t, w, id))
	require.Equal(t, 0, operate(t, w, `flower_hold($1)`, string(id)), "again: nothing to do")
	require.Empty(t, beat(t, w, w.watcher, task).Revoked, "what runs may end")
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_event WHERE note = 'not at night' AND new_status = 2`))
	require.Equal(t, []flow.TaskKey{{Flow: other, Seq: 1}}, keysOf(claim(t, w, 9)))

	// Its retry is held, too.
	verdict(t, w, ended(task, flow.OutcomeFailed))
	require.Equal(t, "2 2 2 2", statuses(t, w, id))
	require.Equal(t, "held", value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, string(id)))
	require.Equal(t, 0, operate(t, w, `flower_rerun($1)`, string(id)), "held is not failed")
	require.Equal(t, 4, operate(t, w, `flower_resume($1)`, string(id)))
	require.Equal(t, "0 0 0 0", statuses(t, w, id))
	require.Len(t, run(t, w), 4)
	require.Equal(t, 0, operate(t, w, `flower_resume($1)`, string(id)))
}

// A reason is that of its call, and not of what the same transaction does next.
func TestOperate_AReasonForOneCall(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := []flow.ID{register(t, w, def()), register(t, w, def()), register(t, w, def())}
	tx := begin(t, w)
	mustExec(t, tx, `SELECT flower_cancel($1, 'the disk is full')`, string(ids[0]))
	mustExec(t, tx, `SELECT flower_cancel($1)`, string(ids[1]))
	mustExec(t, tx, `SET LOCAL flower.reason = 'my own'`)
	mustExec(t, tx, `SELECT flower_cancel($1, 'another'), flower_cancel($2)`, string(ids[0]), string(ids[2]))
	require.NoError(t, tx.Commit())
	for id, want := range map[flow.ID]string{ids[0]: "the disk is full", ids[1]: "", ids[2]: "my own"} {
		require.Equal(t, want, value[string](t, w, `SELECT coalesce(max(note), '') FROM kr_event WHERE task_flow_id = $1`, string(id)))
		require.Equal(t, want, look(t, w, id, 1).Error)
	}
}

// A resume while a task still runs lets its retry go.
func TestOperate_ResumeWhileATaskRuns(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 2
	id := register(t, w, d, def(1))
	task := claimOne(t, w)
	operate(t, w, `flower_hold($1)`, string(id))
	require.Equal(t, 2, operate(t, w, `flower_resume($1)`, string(id)))
	require.Equal(t, flow.Waiting, verdict(t, w, ended(task, flow.OutcomeFailed)).Status)
	require.Len(t, run(t, w), 2)
}

func TestOperate_CancelAndRerun(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(), def(1), def(2), def())
	finish(t, w, claim(t, w, 1)...)
	running := claim(t, w, 1)
	require.Equal(t, 4, operate(t, w, `flower_cancel($1, 'wrong day')`, string(id)))
	require.Equal(t, "3 2 2 2 2", statuses(t, w, id))
	for seq := 2; seq <= 5; seq++ {
		r := look(t, w, id, seq)
		require.Equal(t, "cancelled", r.Reason)
		require.Equal(t, "wrong day", r.Error)
	}
	require.Len(t, beat(t, w, w.watcher, running...).Revoked, 1)
	require.Equal(t, "cancelled", value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, string(id)))
	require.Empty(t, claim(t, w, 9))
	require.Equal(t, 4, operate(t, w, `flower_rerun($1, 'the right day')`, string(id)))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, string(id)) // its program has been stopped
	require.Len(t, run(t, w), 4)
}

func TestOperate_Skip(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.Equal(t, 1, operate(t, w, `flower_skip($1, 1, 'done by hand')`, string(id)))
	require.Equal(t, "9 0", statuses(t, w, id))
	require.Equal(t, "it is failed", look(t, w, id, 1).Error, "people still want to know")
	require.Equal(t, 0, operate(t, w, `flower_skip($1, 1)`, string(id)))
	require.Equal(t, []int{2}, seqsOf(claim(t, w, 9)))
}

// A finish in flight frees a task that a hold or a cancel must not miss.
func TestOperate_AgainstAFinishInFlight(t *testing.T) {
	t.Parallel()
	w := open(t)
	for call, want := range map[string]string{"flower_hold": "held", "flower_cancel": "cancelled"} {
		id := register(t, w, def(), def(), def(1, 2))
		tasks := claim(t, w, 2)
		finish(t, w, tasks[1])

		// The last parent is finished by hand, which has to wait for the child.
		lock := begin(t, w)
		mustExec(t, lock, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 3 FOR UPDATE`, string(id))
		finishing := begin(t, w)
		mustExec(t, finishing, `SET LOCAL lock_timeout = 0`)
		waitFinish := async(func() error {
			_, err := finishing.Exec(`UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), tasks[0].Seq)
			if err == nil {
				err = finishing.Commit()
			}
			return err
		})
		awaitBlocked(t, w, 1)
		waitOperator := async(func() error {
			_, err := w.psql.Exec(`SELECT `+call+`($1)`, string(id))
			return err
		})
		awaitBlocked(t, w, 2)
		require.NoError(t, lock.Rollback())
		errFinish, errOperator := waitFinish(), waitOperator()
		require.NoError(t, errFinish)
		require.NoError(t, errOperator)
		sound(t, w)
		require.Equal(t, want, look(t, w, id, 3).Reason, call)
		require.Empty(t, claim(t, w, 9), call)
		byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	}
}
