package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// What a person does by hand, at any moment, must stay right: sound is asked after each
// step (see byHand and refused).

// Each change of exec_status by hand, from each state. Task 2 depends on task 1, which
// is the one that is changed.
func TestEdit_EveryMoveOfAStatus(t *testing.T) {
	t.Parallel()
	w := open(t)
	for name, prepare := range map[string]func(t *testing.T) flow.ID{
		"waiting": func(t *testing.T) flow.ID { return register(t, w, def(), def(1)) },
		"running": func(t *testing.T) flow.ID {
			id := register(t, w, def(), def(1))
			claimOne(t, w)
			return id
		},
		"running without owner": func(t *testing.T) flow.ID {
			id := flow.ID(newID())
			byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, program)
			              VALUES ($1, 1, 0, 'x', 1, 1, 'NoOp'), ($1, 2, 1, 'x', 2, 0, 'NoOp')`, string(id))
			return id
		},
		"failed": func(t *testing.T) flow.ID {
			id := register(t, w, def(), def(1))
			verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
			return id
		},
		"finished": func(t *testing.T) flow.ID {
			id := register(t, w, def(), def(1))
			verdict(t, w, &flow.Result{Task: claimOne(t, w), Outcome: flow.OutcomeFinished, Output: object(`{"a": 1}`)})
			return id
		},
		"ignored": func(t *testing.T) flow.ID {
			id := register(t, w, def(), def(1))
			byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
			return id
		},
	} {
		for _, to := range []int{0, 1, 2, 3, 9} {
			t.Run(fmt.Sprintf("%s to %d", name, to), func(t *testing.T) {
				id := prepare(t)
				move(t, w, id, to, name == "running")
				byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
			})
		}
	}
}

// move changes the status of task 1 and checks everything that comes of it.
func move(t *testing.T, w *world, id flow.ID, to int, owned bool) {
	t.Helper()
	const update = `UPDATE kr_task_stat SET exec_status = $2 WHERE task_flow_id = $1 AND task_exec_seq = 1`
	before := look(t, w, id, 1)
	mustExec(t, w.psql, `DELETE FROM kr_event`)
	if to == 1 && before.Status != 1 {
		e := refused(t, w, update, string(id), to)
		require.Equal(t, "23514", string(e.Code))
		require.Equal(t, fmt.Sprintf("task 1 of flow %s: only a watcher sets exec_status to 1", id), e.Message)
		require.Contains(t, e.Hint, "Set it to 0")
		require.Equal(t, before, look(t, w, id, 1))
		return
	}

	tx := begin(t, w)
	mustExec(t, tx, `SET LOCAL flower.reason = 'because I say so'`)
	mustExec(t, tx, update, string(id), to)
	require.NoError(t, tx.Commit())
	sound(t, w)
	after := look(t, w, id, 1)
	if to == before.Status {
		before.RunIn, after.RunIn = nil, nil
		require.Equal(t, before, after, "nothing changes")
		require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`))
		return
	}

	require.Equal(t, to, after.Status)
	require.Empty(t, after.Claim)
	require.Empty(t, after.Watcher)
	require.Equal(t, before.Attempt, after.Attempt)
	require.Equal(t, to == 3, after.Finished != nil)
	require.Equal(t, to == 2, after.Suspended != nil)
	if to == 0 {
		require.Nil(t, after.Started)
		require.Empty(t, after.Error)
		require.Empty(t, after.Output)
		require.Equal(t, after.Attempt, after.AttemptBase)
		require.Zero(t, after.Failed)
	} else {
		require.Equal(t, before.Started, after.Started)
		require.Equal(t, before.Error, after.Error, "nothing that people want to read is lost")
		require.Equal(t, before.Output, after.Output)
		base := before.AttemptBase
		if to == 2 && (before.Status == 3 || before.Status == 9) { // what runs then is a new run
			base = before.Attempt
		}
		require.Equal(t, base, after.AttemptBase)
	}
	reason := ""
	if to == 2 {
		reason = map[bool]string{true: "cancelled", false: "held"}[before.Status == 1]
	}
	require.Equal(t, reason, after.Reason)
	if owned { // its program is still being stopped
		require.NotNil(t, after.RunIn)
		require.InDelta(t, 5, *after.RunIn, 3)
	} else {
		require.Nil(t, after.RunAfter)
	}
	require.Equal(t, to == 0 && !owned, after.Ready)
	if to == 0 && before.Attempt > 0 {
		require.Equal(t, []string{strings.TrimSpace(fmt.Sprintf("%d: %d %s %s", before.Attempt, before.Status, orDash(before.Reason), orDash(before.Error)))},
			[]string(after.Attempts))
		require.Equal(t, before.Output, value[string](t, w, `SELECT coalesce(output::text, '') FROM kr_task_attempt WHERE task_flow_id = $1`, string(id)))
		require.Equal(t, before.Claim, value[string](t, w, `SELECT coalesce(claim_id::text, '') FROM kr_task_attempt WHERE task_flow_id = $1`, string(id)))
	} else {
		require.Empty(t, after.Attempts)
	}

	child := look(t, w, id, 2)
	met := to == 3 || to == 9
	require.Equal(t, map[bool]int{true: 0, false: 1}[met], *child.Unmet)
	require.Equal(t, met, child.Ready)
	require.Equal(t, fmt.Sprintf("%s 1 %d %d because I say so flower pgtest", id, before.Status, to), value[string](t, w,
		`SELECT concat_ws(' ', task_flow_id, task_exec_seq, old_status, new_status, note, actor, application) FROM kr_event`))
	require.True(t, value[bool](t, w, `SELECT event_ts > now() - interval '1 min' AND client IS NOT NULL FROM kr_event`))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// The reason that somebody gave with the change stays.
func TestEdit_AReasonOfOnesOwn(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(2)...)
	claim(t, w, 1)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2, reason = 'cancelled', error = 'not today' WHERE task_flow_id = $1`, string(id))
	for seq := 1; seq <= 2; seq++ {
		r := look(t, w, id, seq)
		require.Equal(t, "cancelled", r.Reason)
		require.Equal(t, "not today", r.Error)
	}
	e := refused(t, w, `UPDATE kr_task_stat SET reason = 'no such reason' WHERE task_flow_id = $1`, string(id))
	require.Equal(t, "23514", string(e.Code))
	require.Empty(t, value[string](t, w, `SELECT coalesce(max(note), '') FROM kr_event`), "none was given")
}

func TestEdit_ARevokedTaskWaitsForItsProgram(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	claimOne(t, w)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1`, string(id))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
	r := look(t, w, id, 1)
	require.InDelta(t, 5, *r.RunIn, 3, "stopped and rerun within a second: the pause stays")
	require.Empty(t, claim(t, w, 5))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = run_after - interval '6 s' WHERE task_flow_id = $1`, string(id))
	n, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	claimOne(t, w)

	// run_after together with the status, as a person may want it: later than the pause.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0, run_after = now() + interval '2 h' WHERE task_flow_id = $1`, string(id))
	require.InDelta(t, 7200, *look(t, w, id, 1).RunIn, 30)
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, string(id))
	claimOne(t, w)
	verdict(t, w, ended(flow.Task{TaskKey: flow.TaskKey{Flow: id, Seq: 1}, ClaimID: look(t, w, id, 1).Claim}, flow.OutcomeFailed))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0, run_after = now() + interval '1 h' WHERE task_flow_id = $1`, string(id))
	require.InDelta(t, 3600, *look(t, w, id, 1).RunIn, 30)
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, string(id))
	require.True(t, look(t, w, id, 1).Ready)
}

// The recipe of the original's README.
func TestEdit_RerunFromTheFailure(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, chain(3)...)
	finish(t, w, claimOne(t, w))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.Equal(t, "3 2 0", statuses(t, w, id))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status = 2`, string(id))
	require.Len(t, run(t, w), 2)
	require.Equal(t, "3 3 3", statuses(t, w, id))
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_task_attempt`))
}

func TestEdit_WholeFlows(t *testing.T) {
	t.Parallel()
	w := open(t)
	diamond := func() flow.ID { return register(t, w, def(), def(1), def(1), def(2, 3), def(4)) }
	unmets := func(id flow.ID) string {
		return value[string](t, w, `SELECT string_agg(unmet::text, ' ' ORDER BY task_exec_seq) FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	}
	id := diamond()
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(id))
	require.Equal(t, "0 0 0 0 0", unmets(id))
	require.Empty(t, claim(t, w, 5))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
	require.Equal(t, "0 1 1 2 1", unmets(id))
	require.Len(t, run(t, w), 5)

	// Everything once more, in one UPDATE.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
	require.Equal(t, "0 1 1 2 1", unmets(id))
	require.Len(t, run(t, w), 5)

	// From one task on.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq >= 3`, string(id))
	require.Equal(t, "0 0 0 1 1", unmets(id))
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 3}, {Flow: id, Seq: 4}, {Flow: id, Seq: 5}}, run(t, w))

	// In both directions at once.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = CASE task_exec_seq WHEN 1 THEN 9 WHEN 2 THEN 2 WHEN 3 THEN 0 WHEN 4 THEN 9 ELSE 3 END
	              WHERE task_flow_id = $1`, string(id))
	require.Equal(t, "9 2 0 9 3", statuses(t, w, id))
	require.Equal(t, "0 0 0 2 0", unmets(id))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = $1`, string(id))
}

// Whatever depends on a task that runs keeps what it began with.
func TestEdit_NoResetUnderARunningDependent(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(1))
	finish(t, w, claimOne(t, w))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id))
	child := claimOne(t, w)
	for _, to := range []int{0, 2} {
		e := refused(t, w, `UPDATE kr_task_stat SET exec_status = $2 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id), to)
		require.Equal(t, fmt.Sprintf("task 1 of flow %s: task 2 depends on it and is running", id), e.Message)
		require.Contains(t, e.Hint, "in the same UPDATE")
		require.Equal(t, "3 1 2", statuses(t, w, id))
	}
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	_ = refused(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.Empty(t, beat(t, w, w.watcher, child).Revoked)

	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
	require.Equal(t, "0 0 0", statuses(t, w, id))
	require.Len(t, beat(t, w, w.watcher, child).Revoked, 1)
}

// A claim and a reset of the parent at the same moment: one of them sees the other.
func TestEdit_AResetRacesAClaim(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	finish(t, w, claimOne(t, w))
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.Empty(t, claim(t, w, 5), "the child is locked")
	require.NoError(t, tx.Commit())
	sound(t, w)
	require.Equal(t, []int{1}, seqsOf(claim(t, w, 5)))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))

	// Now the claim is first, and not yet committed.
	held := begin(t, w)
	mustExec(t, held, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 2 FOR UPDATE`, string(id))
	wait := async(func() error {
		_, err := w.psql.Exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
		return err
	})
	awaitBlocked(t, w, 1)
	mustExec(t, held, `DELETE FROM kr_ready`)
	mustExec(t, held, `UPDATE kr_task_stat SET exec_status = 1, attempt = attempt + 1, claim_id = gen_random_uuid(), watcher_id = $2
	                   WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id), w.watcher)
	require.NoError(t, held.Commit())
	require.ErrorContains(t, wait(), "task 2 depends on it and is running")
	require.Equal(t, "3 1", statuses(t, w, id))
}

// Two people skip the two parents of a task at once.
func TestEdit_TwoPersonsMeetAtTheChild(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, undo := range []bool{false, true} {
		id := register(t, w, def(), def(), def(1, 2))
		const skip = `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = $2`
		tx := begin(t, w)
		mustExec(t, tx, skip, string(id), 1)
		wait := async(func() error {
			_, err := w.psql.Exec(skip, string(id), 2)
			return err
		})
		awaitBlocked(t, w, 1)
		if undo {
			require.NoError(t, tx.Rollback())
		} else {
			require.NoError(t, tx.Commit())
		}
		require.NoError(t, wait())
		sound(t, w)
		require.Equal(t, !undo, look(t, w, id, 3).Ready)
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(id))
	}
}

// A repair has to wait for somebody who is just changing what the task depends on.
func TestEdit_ARecountMeetsAChangeOfDependencies(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(), def(1))
	finish(t, w, claim(t, w, 1)...)
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE kr_task_stat SET depends_task_exec_seq = 2 WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id))
	wait := async(func() error {
		return w.recount(background, []flow.TaskKey{{Flow: id, Seq: 3}})
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	sound(t, w)
	require.Equal(t, 1, *look(t, w, id, 3).Unmet)
	finish(t, w, claimOne(t, w))
	require.True(t, look(t, w, id, 3).Ready)
}

// Dependencies of many flows can be changed at once: no lock is taken for each but those of
// rows, since the others have to fit into the server's table of locks.
func TestEdit_DependenciesOfManyFlows(t *testing.T) {
	t.Parallel()
	w := open(t)
	for range 3 {
		register(t, w, def(), def(), def(1))
	}
	tx := begin(t, w)
	locks := func() (n int) {
		require.NoError(t, tx.Get(&n, `SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'`))
		return n
	}
	mustExec(t, tx, `UPDATE kr_task_stat SET depends_task_exec_seq = 2 WHERE task_exec_seq = 3`)
	require.Zero(t, locks())
	mustExec(t, tx, `UPDATE kr_task_stat SET depends_task_exec_seq = 0 WHERE task_exec_seq = 3`)
	require.Zero(t, locks())
	mustExec(t, tx, `UPDATE kr_task_stat SET depends_task_exec_seq = 9 WHERE task_exec_seq = 3`)
	require.Equal(t, 4, locks(), "somebody else may insert it")
	require.NoError(t, tx.Commit())
	sound(t, w)
}

// What a task is made to depend on is deleted at that moment, and inserted again.
func TestEdit_DependencyThatIsReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(), def(1))
	deleted, tied := begin(t, w), begin(t, w)
	mustExec(t, deleted, `DELETE FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
	wait := async(func() error {
		_, err := tied.Exec(`UPDATE kr_task_stat SET depends_task_exec_seq = 2 WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id))
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, deleted.Commit())
	require.NoError(t, wait())
	wait = async(func() error {
		_, err := w.psql.Exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status) VALUES ($1, 2, 'sample', 1, 3)`, string(id))
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tied.Commit())
	require.NoError(t, wait())
	sound(t, w)
	require.True(t, look(t, w, id, 3).Ready)
}

// A reason is of a suspended task, and an owner of a running one, however they are given.
func TestEdit_WhatContradictsTheStatusIsRefused(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(5)...)
	claim(t, w, 1)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = CASE task_exec_seq WHEN 2 THEN 3 WHEN 3 THEN 9 ELSE 2 END
	              WHERE task_flow_id = $1 AND task_exec_seq IN (2, 3, 4)`, string(id))
	require.Equal(t, "1 3 9 2 0", statuses(t, w, id))
	for _, seq := range []int{1, 2, 3, 5} {
		e := refused(t, w, `UPDATE kr_task_stat SET reason = 'held' WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
		require.Contains(t, e.Message, "only a suspended task has a reason")
		require.NotEmpty(t, e.Hint)
	}
	byHand(t, w, `UPDATE kr_task_stat SET reason = 'failed' WHERE task_flow_id = $1 AND task_exec_seq = 4`, string(id))
	require.Equal(t, "failed", look(t, w, id, 4).Reason)
	for seq, set := range map[int]string{4: "NULL", 5: "now()", 2: "now()"} {
		e := refused(t, w, `UPDATE kr_task_stat SET suspended_ts = `+set+` WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
		require.Contains(t, e.Message, "a suspended task has a suspended_ts, and no other one has")
		require.NotEmpty(t, e.Hint)
	}
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0, reason = 'held' WHERE task_flow_id = $1 AND task_exec_seq = 4`, string(id))
	require.Empty(t, look(t, w, id, 4).Reason, "it goes with the status")

	for row, want := range map[string]string{
		`0, 'failed', NULL`:            "only a suspended task has a reason",
		`3, 'held', NULL`:              "only a suspended task has a reason",
		`0, NULL, gen_random_uuid()`:   "watcher_id is kept by Flower",
		`2, 'lost', gen_random_uuid()`: "watcher_id is kept by Flower",
	} {
		e := refused(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, claim_id, exec_status, reason, watcher_id)
		                    VALUES ('by hand', 1, 'sample', 1, gen_random_uuid(), `+row+`)`)
		require.Contains(t, e.Message, want)
	}
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, reason) VALUES ('by hand', 1, 'sample', 1, 2, 'lost')`)
}

func TestEdit_WhatFlowerKeepsIsRefused(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(), def(1))
	claim(t, w, 1)
	for _, set := range []string{
		"attempt = 7", "attempt = attempt + 1", "claim_id = gen_random_uuid()", "watcher_id = NULL",
		"watcher_id = gen_random_uuid(), claim_id = gen_random_uuid()",
		"exec_status = 0, attempt = 0", "exec_status = 2, claim_id = gen_random_uuid()", "exec_status = 9, watcher_id = gen_random_uuid(), claim_id = gen_random_uuid()",
		"exec_status = 1, attempt = attempt + 1", "exec_status = 7", "exec_status = NULL",
		"task_priority = 20", "task_priority = -21", "max_attempts = 0", "parameters = '[]'", "on_lost = 'x'",
	} {
		for seq := 1; seq <= 2; seq++ {
			if seq == 2 && (set == "watcher_id = NULL" || set == "exec_status = 0, attempt = 0") { // so it is already
				continue
			}
			before := look(t, w, id, seq)
			e := refused(t, w, `UPDATE kr_task_stat SET `+set+` WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
			require.Equal(t, "23", string(e.Code.Class()), set)
			require.Equal(t, before, look(t, w, id, seq), set)
		}
	}
	for _, set := range []string{"task_flow_id = 'other'", "task_exec_seq = 77"} {
		e := refused(t, w, `UPDATE kr_task_stat SET `+set+` WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
		require.Contains(t, e.Message, "a task keeps its task_flow_id and task_exec_seq")
		require.NotEmpty(t, e.Hint)
	}

	// One wrong row of many fails all, and is named.
	e := refused(t, w, `UPDATE kr_task_stat SET exec_status = CASE task_exec_seq WHEN 3 THEN 1 ELSE 9 END WHERE task_flow_id = $1`, string(id))
	require.Contains(t, e.Message, "task 3")
	require.Equal(t, "1 0 0", statuses(t, w, id))
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`))
}

// Errors stay short, whatever the flow is called: lib/pq breaks on long ones.
func TestEdit_MessagesStayShort(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := strings.Repeat("ü", 256)
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ($1, 1, 0, 'x', 1)`, id)
	e := refused(t, w, `UPDATE kr_task_stat SET exec_status = 1 WHERE task_flow_id = $1`, id)
	require.Less(t, len(e.Message), 400)
}

// How a task runs may be changed for this task alone; it is only written down.
func TestEdit_HowATaskRuns(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	byHand(t, w, `UPDATE kr_task_stat SET program = 'Test2', parameters = '{"a": 2}', max_attempts = 4, timeout = '1 min', on_lost = 'suspend'
	              WHERE task_flow_id = $1`, string(id))
	task := claimOne(t, w)
	require.Equal(t, "Test2", task.Program)
	require.JSONEq(t, `{"a": 2}`, string(task.Parameters))
	require.Equal(t, time.Minute, task.Timeout)
	require.JSONEq(t, `{"program": ["NoOp", "Test2"], "parameters": [{}, {"a": 2}], "max_attempts": [1, 4], "timeout": [null, "00:01:00"], "on_lost": ["rerun", "suspend"]}`,
		value[string](t, w, `SELECT change FROM kr_event`))
	byHand(t, w, `UPDATE kr_task_stat SET program = 'Test2' WHERE task_flow_id = $1`, string(id))
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_event`), "nothing changed")
}

// Priority and registered_ts are the place in the queue.
func TestEdit_ThePlaceInTheQueue(t *testing.T) {
	t.Parallel()
	w := open(t)
	a, b := register(t, w, def(), def(1)), register(t, w, def())
	keyA, keyB := flow.TaskKey{Flow: a, Seq: 1}, flow.TaskKey{Flow: b, Seq: 1}
	require.Equal(t, []flow.TaskKey{keyA, keyB}, ready(t, w))
	byHand(t, w, `UPDATE kr_task_stat SET task_priority = -1 WHERE task_flow_id = $1`, string(b))
	require.Equal(t, []flow.TaskKey{keyB, keyA}, ready(t, w))
	byHand(t, w, `UPDATE kr_task_stat SET task_priority = -1 WHERE task_flow_id = $1`, string(a))
	require.Equal(t, []flow.TaskKey{keyA, keyB}, ready(t, w))
	byHand(t, w, `UPDATE kr_task_stat SET registered_ts = registered_ts - interval '1 day' WHERE task_flow_id = $1`, string(b))
	require.Equal(t, []flow.TaskKey{keyB, keyA}, ready(t, w))
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_event WHERE change ? 'task_priority'`))

	// Together with a status.
	for _, set := range []string{
		"exec_status = 9, task_priority = 5", "exec_status = 0, task_priority = 6", "exec_status = 2, registered_ts = now() - interval '1 h'",
		"exec_status = 0, registered_ts = now()", "exec_status = 3, task_priority = 7, run_after = now()", "exec_status = 0, task_priority = 8, run_after = NULL",
		"task_priority = 9, run_after = now() + interval '1 h'", "task_priority = 10, run_after = NULL", "task_priority = 11, run_after = now() - interval '1 h'",
	} {
		byHand(t, w, `UPDATE kr_task_stat SET `+set+` WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(a))
	}
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, []flow.TaskKey{keyB, keyA}, ready(t, w))
}

func TestEdit_RunAfter(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() + interval '1 h' WHERE task_flow_id = $1`, string(id))
	require.Empty(t, claim(t, w, 5))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 h' WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.Empty(t, claim(t, w, 5), "whoever promotes first lets it go")
	n, next, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.InDelta(t, time.Hour, next, float64(time.Minute))
	require.Empty(t, advance(t, w, finished(claimOne(t, w)), flow.Claim{Free: 5}).Claimed, "the child has a time of its own")
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, string(id))
	claimOne(t, w)
}

// What a task depends on can be changed, too.
func TestEdit_Dependencies(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(), def(1), def(3))
	third := func() row { return look(t, w, id, 3) }
	set := func(one int, many string) {
		t.Helper()
		byHand(t, w, `UPDATE kr_task_stat SET depends_task_exec_seq = $2, depends_task_exec_seqs = `+many+` WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id), one)
	}
	finish(t, w, claim(t, w, 1)...)
	require.True(t, third().Ready)

	set(2, "NULL")
	require.Equal(t, 1, *third().Unmet)
	require.False(t, third().Ready)
	require.Empty(t, look(t, w, id, 1).Dependents)
	require.EqualValues(t, []int64{3}, look(t, w, id, 2).Dependents)

	set(1, "'{1,2}'")
	require.Equal(t, 1, *third().Unmet)
	set(1, "NULL")
	require.True(t, third().Ready)
	set(77, "'{77,1,77}'")
	require.Equal(t, 1, *third().Unmet, "one that does not exist is not satisfied")
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status) VALUES ($1, 77, 'x', 1, 3)`, string(id))
	require.True(t, third().Ready)
	set(0, "'{}'")
	require.True(t, third().Ready)
	require.Empty(t, look(t, w, id, 77).Dependents)

	for _, bad := range []string{
		"depends_task_exec_seq = 3", "depends_task_exec_seq = 3, depends_task_exec_seqs = '{3}'", "depends_task_exec_seqs = '{1,2}'",
		"depends_task_exec_seq = 1, depends_task_exec_seqs = '{}'", "depends_task_exec_seq = 1, depends_task_exec_seqs = '{1,NULL}'",
		"depends_task_exec_seq = -1, depends_task_exec_seqs = '{-1}'",
	} {
		e := refused(t, w, `UPDATE kr_task_stat SET `+bad+` WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id))
		require.Equal(t, "23514", string(e.Code), bad)
	}
	run(t, w)
	require.Equal(t, "3 3 3 3 3", statuses(t, w, id))
}

// It looks like what the engine writes, and goes into the queue like that.
func TestEdit_GivenBackLikeTheEngine(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	claimOne(t, w)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0, watcher_id = NULL, started_ts = NULL WHERE task_flow_id = $1`, string(id))
	require.Equal(t, 2, claimOne(t, w).Attempt)
}

// Whenever the engine changes an exec_status, PostgreSQL looks at the condition of each such
// trigger: with three of them a tenth of what a task costs the server.
func TestEdit_TheEngineMeetsOneTrigger(t *testing.T) {
	t.Parallel()
	w := open(t)
	var names []string
	require.NoError(t, w.psql.Select(&names, `
		SELECT tgname FROM pg_trigger
		WHERE  tgrelid = 'kr_task_stat'::regclass AND tgtype & 17 = 17  -- of rows, for UPDATE
		       AND (cardinality(tgattr::int2[]) = 0 OR (SELECT attnum FROM pg_attribute WHERE attrelid = tgrelid AND attname = 'exec_status') = ANY (tgattr))`))
	require.Equal(t, []string{"kr_task_edited"}, names)
}
