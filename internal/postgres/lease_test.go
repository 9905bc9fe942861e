package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func beat(t *testing.T, w *world, watcher string, running ...flow.Task) flow.Pulse {
	t.Helper()
	pulse, err := w.Beat(t.Context(), watcher, running)
	require.NoError(t, err)
	return pulse
}

// age makes a watcher look as if it had last been heard of so many seconds ago.
func age(t *testing.T, w *world, watcher string, seconds int) {
	t.Helper()
	byHand(t, w, `UPDATE kr_watcher SET started_ts = started_ts - $2 * interval '1 s', stable_since = stable_since - $2 * interval '1 s',
	              heartbeat_ts = heartbeat_ts - $2 * interval '1 s', lease_until = least(lease_until, clock_timestamp() + `+leaseSQL+`) - $2 * interval '1 s'
	              WHERE watcher_id = $1`, watcher, seconds)
}

// stable makes a watcher one that has beaten in time for a minute.
func stable(t *testing.T, w *world, watcher string) {
	t.Helper()
	byHand(t, w, `UPDATE kr_watcher SET stable_since = stable_since - interval '1 min' WHERE watcher_id = $1`, watcher)
}

// rescueAll lets the watcher of w rescue.
func rescueAll(t *testing.T, w *world) []flow.Rescued {
	t.Helper()
	rescued, err := rescueOnce(w)
	require.NoError(t, err)
	return rescued
}

func rescueOnce(w *world) (all []flow.Rescued, err error) {
	err = w.Rescue(background, w.watcher, func(rescued []flow.Rescued) { all = append(all, rescued...) })
	return all, err
}

func watchers(t *testing.T, w *world) int {
	t.Helper()
	return value[int](t, w, `SELECT count(*) FROM kr_watcher`)
}

func TestLease_AWatchersLife(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := newID()
	me := flow.Watcher{ID: id, Host: "host", PID: 7, Version: "v1", Programs: []string{"A", "B"}, Workers: 3}
	require.NoError(t, w.Join(t.Context(), me))
	require.NoError(t, w.Join(t.Context(), me), "safe to repeat")
	require.Equal(t, "host 7 v1 {A,B} 3 0 f", value[string](t, w,
		`SELECT concat_ws(' ', host, pid, version, programs, workers, busy, draining) FROM kr_watcher WHERE watcher_id = $1`, id))
	left := func() float64 {
		return value[float64](t, w, `SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM kr_watcher WHERE watcher_id = $1`, id)
	}
	require.InDelta(t, 10, left(), 3)

	age(t, w, id, 3)
	task := flow.Task{TaskKey: flow.TaskKey{Flow: "x", Seq: 1}, ClaimID: newID()}
	require.Equal(t, []flow.Task{task}, beat(t, w, id, task).Revoked)
	require.InDelta(t, 10, left(), 3)
	require.Equal(t, 1, value[int](t, w, `SELECT busy FROM kr_watcher WHERE watcher_id = $1`, id))

	require.NoError(t, w.Drain(t.Context(), id))
	require.True(t, value[bool](t, w, `SELECT draining FROM kr_watcher WHERE watcher_id = $1`, id))
	beat(t, w, id)
	require.True(t, value[bool](t, w, `SELECT draining FROM kr_watcher WHERE watcher_id = $1`, id), "a heartbeat does not undo it")

	require.NoError(t, w.Leave(t.Context(), id, false))
	require.Equal(t, 1, watchers(t, w))
	_, err := w.Beat(t.Context(), id, nil)
	require.ErrorIs(t, err, flow.ErrFenced, "and does not bring it back")
	require.Equal(t, 1, watchers(t, w))
	require.NoError(t, w.Leave(t.Context(), id, false), "safe to repeat")
	require.NoError(t, w.Drain(t.Context(), id), "of nobody")
}

func TestLease_BeatTellsHowManyThereAre(t *testing.T) {
	t.Parallel()
	w := open(t)
	require.Equal(t, 1, beat(t, w, w.watcher).Watchers)
	var others []string
	for range 3 {
		others = append(others, newID())
		require.NoError(t, w.Join(t.Context(), flow.Watcher{ID: others[len(others)-1], Host: "h", Version: "v1", Programs: programs, Workers: 1}))
	}
	require.Equal(t, 4, beat(t, w, w.watcher).Watchers)
	require.NoError(t, w.Drain(t.Context(), others[0]))
	require.Equal(t, 3, beat(t, w, w.watcher).Watchers, "one stops")
	age(t, w, others[1], 11)
	require.Equal(t, 2, beat(t, w, w.watcher).Watchers, "one has vanished")
}

func TestLease_BeatTellsWhatWasRevoked(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(6)...)
	tasks := claim(t, w, 6)
	require.Empty(t, beat(t, w, w.watcher, tasks...).Revoked)
	for i, status := range []int{0, 2, 3, 9} {
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = $3 WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), tasks[i].Seq, status)
	}
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), tasks[4].Seq)
	pulse := beat(t, w, w.watcher, tasks...)
	require.Equal(t, keysOf(tasks[:5]), keysOf(pulse.Revoked))
	for _, r := range pulse.Revoked {
		require.Equal(t, tasks[0].ClaimID, r.ClaimID)
	}

	// The same task under another claim is another attempt.
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, string(id))
	again := claimOne(t, w)
	pulse = beat(t, w, w.watcher, tasks[0], again)
	require.Equal(t, []flow.TaskKey{tasks[0].TaskKey}, keysOf(pulse.Revoked))
	require.Equal(t, tasks[0].ClaimID, pulse.Revoked[0].ClaimID)
}

// After an outage everybody was late. Nobody declares anybody dead until it has been in
// time itself for a whole lease.
func TestLease_OnlyAStableWatcherRescues(t *testing.T) {
	t.Parallel()
	w := open(t)
	dead := join(t, w, programs...)
	require.False(t, beat(t, w, w.watcher).Rescue, "nobody is dead")
	age(t, w, dead, 60)
	require.False(t, beat(t, w, w.watcher).Rescue, "it has only just joined")
	stable(t, w, w.watcher)
	require.True(t, beat(t, w, w.watcher).Rescue)
	require.True(t, beat(t, w, w.watcher).Rescue)

	byHand(t, w, `UPDATE kr_watcher SET heartbeat_ts = heartbeat_ts - interval '5 s' WHERE watcher_id = $1`, w.watcher)
	require.False(t, beat(t, w, w.watcher).Rescue, "it was late")
	require.False(t, beat(t, w, w.watcher).Rescue, "and is not stable yet")
	byHand(t, w, `UPDATE kr_watcher SET stable_since = stable_since - interval '9 s' WHERE watcher_id = $1`, w.watcher)
	require.False(t, beat(t, w, w.watcher).Rescue)
	byHand(t, w, `UPDATE kr_watcher SET stable_since = stable_since - interval '1 s' WHERE watcher_id = $1`, w.watcher)
	require.True(t, beat(t, w, w.watcher).Rescue)
}

func TestLease_LostTasksRunAgain(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	dead := join(t, w, programs...)
	lost := claimAs(t, w, dead, 5)
	require.Empty(t, rescueAll(t, w), "its lease has not ended")
	age(t, w, dead, 11)
	require.Equal(t, []flow.Rescued{{Key: lost[0].TaskKey, Watcher: dead, Status: flow.Waiting}}, rescueAll(t, w))
	require.Equal(t, 1, watchers(t, w))
	r := look(t, w, id, 1)
	require.Equal(t, 0, r.Status)
	require.True(t, r.Ready)
	require.Equal(t, 1, r.Lost)
	require.Zero(t, r.Failed, "no attempt is spent")
	require.Empty(t, r.Watcher)
	require.Nil(t, r.Started)
	require.Empty(t, r.Reason)
	require.Equal(t, []string{fmt.Sprintf("1: 1 lost its watcher %s vanished", dead)}, []string(r.Attempts))
	sound(t, w)
	_, err := w.Beat(t.Context(), dead, lost)
	require.ErrorIs(t, err, flow.ErrFenced)

	again := claimOne(t, w)
	require.Equal(t, 2, again.Attempt)
	require.Zero(t, again.AttemptBase)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, finished(lost...)[0]).Verdict)
	finish(t, w, again)
	require.Empty(t, rescueAll(t, w))
}

func TestLease_OnLostSuspend(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.OnLost = flow.OnLostSuspend
	id := register(t, w, d)
	dead := join(t, w, programs...)
	beat(t, w, dead, claimAs(t, w, dead, 5)...)
	age(t, w, dead, 11)
	require.Equal(t, flow.Suspended, rescueAll(t, w)[0].Status)
	r := look(t, w, id, 1)
	require.Equal(t, "lost", r.Reason)
	require.Contains(t, r.Error, "its watcher host:1 ("+dead+") vanished", "where to look, when its row is gone")
	require.Contains(t, r.Error, "on_lost")
	require.NotNil(t, r.Suspended)
	require.NotNil(t, r.Started)
	sound(t, w)
}

// A task that is lost three times may be what ends its watchers.
func TestLease_TheThirdLossSuspends(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	for loss := 1; loss <= 3; loss++ {
		dead := join(t, w, programs...)
		require.Len(t, claimAs(t, w, dead, 5), 1)
		age(t, w, dead, 11)
		rescued := rescueAll(t, w)
		require.Len(t, rescued, 1)
		r := look(t, w, id, 1)
		require.Equal(t, loss, r.Lost)
		switch loss {
		case 1:
			require.True(t, r.Ready)
		case 2:
			require.False(t, r.Ready, "it gets time")
			require.InDelta(t, 10, *r.RunIn, 3)
			byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL`)
		case 3:
			require.Equal(t, flow.Suspended, rescued[0].Status)
			require.Equal(t, "lost", r.Reason)
			require.Contains(t, r.Error, "loss 3")
			require.Contains(t, r.Error, "attempt 3")
			require.Contains(t, r.Error, "it may be what ends its watchers")
		}
		sound(t, w)
	}
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0`)
	require.Zero(t, look(t, w, id, 1).Lost, "a reset by hand forgives")
}

// A flow that is held stays so when a watcher vanishes.
func TestLease_LostTasksOfAHeldFlowAreHeld(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	dead := join(t, w, programs...)
	claimAs(t, w, dead, 5)
	byHand(t, w, `SELECT flower_hold($1)`, string(id))
	age(t, w, dead, 11)
	rescueAll(t, w)
	require.Equal(t, "2 2", statuses(t, w, id))
	require.Equal(t, "held", look(t, w, id, 1).Reason)
	byHand(t, w, `SELECT flower_resume($1)`, string(id))
	require.Equal(t, "0 0", statuses(t, w, id))
	require.Len(t, run(t, w), 2)
}

func TestLease_TasksOfTheLivingAreLeftAlone(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(4)...)
	dead, living := join(t, w, programs...), join(t, w, programs...)
	claimAs(t, w, dead, 1)
	mine, theirs := claim(t, w, 1), claimAs(t, w, living, 1)
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status) VALUES ('third party', 1, 'x', 1, 1)`)
	age(t, w, dead, 11)
	require.Len(t, rescueAll(t, w), 1)
	require.Equal(t, "0 1 1 0", statuses(t, w, id))
	require.Equal(t, "1", statuses(t, w, "third party"), "a running task without owner belongs to somebody else")
	require.Equal(t, 2, watchers(t, w))
	finish(t, w, append(mine, theirs...)...)

	swept, err := w.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, flow.Swept{}, swept)
	require.Equal(t, "1", statuses(t, w, "third party"))

	// Nor does a watcher declare itself dead.
	age(t, w, w.watcher, 60)
	age(t, w, living, -60)
	require.Empty(t, rescueAll(t, w))
}

// A clock that was set back by an hour leaves leases an hour long, and stable watchers
// in the future.
func TestLease_AClockSetBack(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	dead := join(t, w, programs...)
	claimAs(t, w, dead, 1)
	stable(t, w, w.watcher)
	age(t, w, w.watcher, -3600)
	age(t, w, dead, -3600)
	require.False(t, beat(t, w, w.watcher).Rescue, "it must be stable first, by the new clock")
	require.False(t, value[bool](t, w, `SELECT bool_or(stable_since > clock_timestamp()) FROM kr_watcher WHERE watcher_id = $1`, w.watcher))
	stable(t, w, w.watcher)
	require.True(t, beat(t, w, w.watcher).Rescue, "there is a lease that no living watcher can have")
	require.Empty(t, rescueAll(t, w))
	require.True(t, value[bool](t, w, `SELECT max(lease_until) < clock_timestamp() + interval '11 s' FROM kr_watcher`), "cut to what it can be")
	require.False(t, beat(t, w, w.watcher).Rescue)
	age(t, w, dead, 11)
	require.True(t, beat(t, w, w.watcher).Rescue)
	require.Len(t, rescueAll(t, w), 1)
}

// What a watcher leaves behind is rescued at once, not when somebody sweeps.
func TestLease_LeavingTasksBehind(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	leaving := join(t, w, programs...)
	task := claimAs(t, w, leaving, 1)[0]
	require.NoError(t, w.Leave(t.Context(), leaving, true))
	stable(t, w, w.watcher)
	require.True(t, beat(t, w, w.watcher).Rescue)
	require.Equal(t, []flow.Rescued{{Key: task.TaskKey, Watcher: leaving, Status: flow.Waiting}}, rescueAll(t, w))
	require.Equal(t, 1, watchers(t, w))
}

// What a watcher has told of is rescued however long it takes to look for the rest, and
// whatever becomes of who does that.
func TestLease_WhatIsListedGoesFirst(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(4)...)
	dead := join(t, w, programs...)
	listed := claimAs(t, w, dead, 3)
	beat(t, w, dead, listed...)
	rest := claimAs(t, w, dead, 1)
	_, err := w.Advance(t.Context(), finished(listed[1]), flow.Claim{ID: newID(), Watcher: dead})
	require.NoError(t, err)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_exec_seq = $1`, listed[2].Seq)
	age(t, w, dead, 11)

	tx := begin(t, w)
	gone, rescued, err := rescueExpired(t.Context(), tx, w.watcher)
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	require.Equal(t, []string{dead}, gone)
	require.Equal(t, []flow.Rescued{{Key: listed[0].TaskKey, Watcher: dead, Status: flow.Waiting}}, rescued)
	require.Equal(t, "0 3 2 1", statuses(t, w, id))
	_, err = w.Beat(t.Context(), dead, rest)
	require.ErrorIs(t, err, flow.ErrFenced)
	finish(t, w, claimOne(t, w))

	require.Empty(t, rescueAll(t, w), "nobody is dead")
	other := join(t, w, programs...)
	age(t, w, other, 11)
	require.Equal(t, []flow.Rescued{{Key: rest[0].TaskKey, Watcher: dead, Status: flow.Waiting}}, rescueAll(t, w), "with the next one that is")
	sound(t, w)
}

// The first part of a rescue takes as long as what it rescues.
func TestLease_WhatIsListedIsFoundByKey(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // reading v_invariant takes long here
	dead := join(t, w, programs...)
	register(t, w, independent(50)...)
	beat(t, w, dead, claimAs(t, w, dead, 50)...)
	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet)
		SELECT 'flow ' || i, 1, 'x', 1, 3, 0 FROM generate_series(1, 50000) i`)
	cost := func(query string, args ...any) int {
		t.Helper()
		tx := begin(t, w)
		defer func() { require.NoError(t, tx.Rollback()) }()
		var plan string
		require.NoError(t, tx.Get(&plan, `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+query, args...))
		return buffersIn(t, plan)
	}
	for _, statistics := range []string{``, `ANALYZE`} {
		mustExec(t, w.psql, statistics)
		require.Less(t, cost(rescueListedSQL, pq.Array([]string{dead})), 50*30)
		require.Greater(t, cost(rescueStraySQL), 50*30, "which reads it whole")
	}
}

// Rescue and finish meet at the task: one of them wins, and everybody is told so.
func TestLease_RescueRacesFinish(t *testing.T) {
	t.Parallel()
	w := open(t)
	const rounds = 300
	register(t, w, independent(rounds)...)
	wins := map[bool]int{}
	for round := range rounds {
		dead := newID()
		mustExec(t, w.psql, `INSERT INTO kr_watcher (watcher_id, host, pid, version, programs, workers, lease_until)
		                     VALUES ($1, 'h', 1, 'v', '{NoOp}', 1, clock_timestamp() + interval '1 min')`, dead)
		tasks := claimAs(t, w, dead, 1)
		require.Len(t, tasks, 1)
		mustExec(t, w.psql, `UPDATE kr_watcher SET lease_until = clock_timestamp() - interval '1 s' WHERE watcher_id = $1`, dead)
		result := ended(tasks[0], []flow.Outcome{flow.OutcomeFinished, flow.OutcomeFailed}[round%2])
		start := make(chan struct{})
		var adv flow.Advanced
		var rescued []flow.Rescued
		waitFinish := async(func() (err error) {
			<-start
			for range round % 8 { // a rescue has some statements before the one that counts
				mustExec(t, w.psql, `SELECT 1`)
			}
			adv, err = w.Advance(background, []*flow.Result{result}, flow.Claim{ID: newID(), Watcher: dead})
			return err
		})
		waitRescue := async(func() (err error) {
			<-start
			rescued, err = rescueOnce(w)
			return err
		})
		close(start)
		require.NoError(t, waitFinish())
		require.NoError(t, waitRescue())
		require.Empty(t, adv.Rejected)
		recorded := adv.Verdicts[0].Verdict == flow.VerdictRecorded
		wins[recorded]++
		require.NotEqual(t, recorded, len(rescued) == 1, "round %d: recorded %v, rescued %v", round, recorded, rescued)
		status := value[int](t, w, `SELECT exec_status FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`,
			string(tasks[0].Flow), tasks[0].Seq)
		if !recorded {
			require.Equal(t, 0, status)
			mustExec(t, w.psql, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = $2`,
				string(tasks[0].Flow), tasks[0].Seq)
			continue
		}
		require.Equal(t, []int{3, 2}[round%2], status)
	}
	t.Logf("recorded %d times, rescued %d times", wins[true], wins[false])
}

// A locked task is left for later, and then found although its watcher has no row.
func TestLease_ALockedTaskIsRescuedLater(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(2)...)
	dead := join(t, w, programs...)
	claimAs(t, w, dead, 2)
	age(t, w, dead, 11)
	tx := begin(t, w)
	mustExec(t, tx, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1 FOR UPDATE`, string(id))
	started := time.Now()
	require.Len(t, rescueAll(t, w), 1)
	require.Less(t, time.Since(started), time.Second, "it does not wait")
	require.NoError(t, tx.Rollback())
	require.Equal(t, "1 0", statuses(t, w, id))
	swept, err := w.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, []flow.Rescued{{Key: flow.TaskKey{Flow: id, Seq: 1}, Watcher: dead, Status: flow.Waiting}}, swept.Rescued)
	require.Equal(t, "0 0", statuses(t, w, id))
}

// Two watchers find the same one dead.
func TestLease_TwoRescuersShareNoTask(t *testing.T) {
	t.Parallel()
	w := open(t)
	const tasks = 300
	register(t, w, independent(tasks)...)
	dead := join(t, w, programs...)
	require.Len(t, claimAs(t, w, dead, tasks), tasks)
	age(t, w, dead, 11)
	var rescued [2][]flow.Rescued
	var wait [2]func() error
	for i := range wait {
		wait[i] = async(func() (err error) {
			rescued[i], err = rescueOnce(w)
			return err
		})
	}
	require.NoError(t, wait[0]())
	require.NoError(t, wait[1]())
	require.Equal(t, tasks, len(rescued[0])+len(rescued[1]))
	require.Equal(t, tasks, value[int](t, w, `SELECT sum(lost_count) FROM kr_task_stat`))
}

// More than a round of the rescue takes.
func TestLease_ManyLostTasks(t *testing.T) {
	t.Parallel()
	w := open(t)
	const tasks = 2500
	register(t, w, independent(tasks)...)
	dead := join(t, w, programs...)
	require.Len(t, claimAs(t, w, dead, tasks), tasks)
	age(t, w, dead, 11)
	require.Len(t, rescueAll(t, w), tasks)
	require.Len(t, ready(t, w), tasks)
}
