package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// The number of an attempt is no fence: a failover may hand it out twice.
func TestAdvance_LateResultsAreRefused(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	first := claimOne(t, w)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	for _, outcome := range []flow.Outcome{flow.OutcomeFinished, flow.OutcomeFailed, flow.OutcomeHandedBack} {
		require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(first, outcome)).Verdict, outcome)
	}
	behind(t, w, `UPDATE kr_task_stat SET attempt = 0, run_after = NULL WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	behind(t, w, `INSERT INTO kr_ready SELECT `+order+` FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	second := claimOne(t, w)
	require.Equal(t, first.Attempt, second.Attempt)
	before := look(t, w, id, 1)
	for _, outcome := range []flow.Outcome{
		flow.OutcomeFinished, flow.OutcomeFailed, flow.OutcomeTimeout, flow.OutcomeInvalid, flow.OutcomeHandedBack,
	} {
		require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(first, outcome)).Verdict, outcome)
		require.Equal(t, before, look(t, w, id, 1), outcome)
	}
	require.Equal(t, "1 0", statuses(t, w, id))
	finish(t, w, second)
}

// Every change of a running task by hand revokes its claim.
func TestAdvance_TheOperatorsWordStays(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, status := range []int{0, 2, 3, 9} {
		id := register(t, w, def(), def(1))
		task := claimOne(t, w)
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = $2 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id), status)
		before := look(t, w, id, 1)
		before.RunIn = nil
		for _, outcome := range []flow.Outcome{flow.OutcomeFinished, flow.OutcomeFailed, flow.OutcomeHandedBack} {
			require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, outcome)).Verdict, "%d %s", status, outcome)
			after := look(t, w, id, 1)
			after.RunIn = nil
			require.Equal(t, before, after)
		}
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(id))
	}
	id := register(t, w, def())
	task := claimOne(t, w)
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, flow.OutcomeFinished)).Verdict)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, flow.OutcomeFailed)).Verdict)
}

// A result whose answer was lost is given again.
func TestAdvance_RepeatedResultsAreRecorded(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, c := range []struct {
		outcome flow.Outcome
		max     int
		status  flow.Status
	}{
		{flow.OutcomeFinished, 1, flow.Finished},
		{flow.OutcomeFailed, 1, flow.Suspended},
		{flow.OutcomeTimeout, 1, flow.Suspended},
		{flow.OutcomeInvalid, 3, flow.Suspended},
		{flow.OutcomeFailed, 3, flow.Waiting}, // tried again
		{flow.OutcomeHandedBack, 1, flow.Waiting},
	} {
		t.Run(fmt.Sprint(c.outcome, c.max), func(t *testing.T) {
			d := def()
			d.MaxAttempts, d.RetryDelay = c.max, time.Hour
			id := register(t, w, d)
			task := claimOne(t, w)
			require.Equal(t, c.status, verdict(t, w, ended(task, c.outcome)).Status)
			before := look(t, w, id, 1)
			before.RunIn = nil
			again := verdict(t, w, ended(task, c.outcome))
			require.Equal(t, flow.VerdictRecorded, again.Verdict)
			after := look(t, w, id, 1)
			after.RunIn = nil
			require.Equal(t, before, after, "nothing changes")
			if c.status != flow.Waiting {
				require.Equal(t, c.status, again.Status)
				byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
				require.Equal(t, flow.VerdictRecorded, verdict(t, w, ended(task, c.outcome)).Verdict,
					"recorded, and then set back by hand")
			}
			byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(id))
		})
	}
}

// Rescued is not recorded, though the row still has the claim.
func TestAdvance_AResultAfterTheRescueIsRefused(t *testing.T) {
	t.Parallel()
	w := open(t)
	again, stop := def(), def()
	stop.OnLost = flow.OnLostSuspend
	id := register(t, w, again, stop)
	dead := join(t, w, programs...)
	tasks := claimAs(t, w, dead, 2)
	byHand(t, w, `UPDATE kr_watcher SET lease_until = now() - interval '1 s' WHERE watcher_id = $1`, dead)
	require.Len(t, rescueAll(t, w), 2)
	require.Equal(t, "0 2", statuses(t, w, id))
	for _, task := range tasks {
		for _, outcome := range []flow.Outcome{flow.OutcomeFinished, flow.OutcomeFailed, flow.OutcomeTimeout, flow.OutcomeInvalid} {
			require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, outcome)).Verdict, "%d %s", task.Seq, outcome)
		}
	}
	require.Equal(t, "0 2", statuses(t, w, id))
}

func TestAdvance_ABadValueIsRejectedAlone(t *testing.T) {
	t.Parallel()
	w := open(t)
	for name, spoil := range map[string]func(r *flow.Result){
		"lone surrogate in the output": func(r *flow.Result) { r.Output = object(`{"a": "\ud800"}`) },
		"NUL in the output":            func(r *flow.Result) { r.Output = object(`"\u0000"`) },
		"output is no JSON":            func(r *flow.Result) { r.Output = object(`{`) },
		"40 kB that are no JSON":       func(r *flow.Result) { r.Output = object(strings.Repeat("x", 40_000)) },
		"a huge number":                func(r *flow.Result) { r.Output = object(`1e999999`) },
		"NUL in the error": func(r *flow.Result) {
			r.Outcome, r.Error = flow.OutcomeFailed, "a\x00b"
		},
		"bad UTF-8 in the error": func(r *flow.Result) {
			r.Outcome, r.Error = flow.OutcomeFailed, "\xff"
		},
		"a claim that is no UUID": func(r *flow.Result) { r.Task.ClaimID = "mine" },
	} {
		t.Run(name, func(t *testing.T) {
			id := register(t, w, append(independent(6), def(1), def(4))...)
			results := finished(claim(t, w, 6)...)
			results[1].Outcome, results[1].Error = flow.OutcomeFailed, "no"
			spoil(results[3])
			adv := advance(t, w, results, flow.Claim{})
			require.Len(t, adv.Rejected, 1)
			require.Equal(t, results[3], adv.Rejected[0].Result)
			require.False(t, adv.Rejected[0].Busy)
			require.Error(t, adv.Rejected[0].Cause)
			require.Len(t, adv.Verdicts, 5)
			require.Equal(t, 1, look(t, w, id, results[3].Task.Seq).Status)
			sound(t, w)

			// The watcher then gives it as the failure that it is.
			failure := ended(results[3].Task, flow.OutcomeInvalid)
			failure.Task.ClaimID = look(t, w, id, results[3].Task.Seq).Claim
			require.Equal(t, flow.Suspended, verdict(t, w, failure).Status)
			byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(id))
		})
	}
}

// A trigger that somebody has put on the table, for an audit perhaps, and that refuses one
// task, stops nothing else.
func TestAdvance_WhatATriggerRefusesIsRejectedAlone(t *testing.T) {
	t.Parallel()
	w := open(t)
	mustExec(t, w.psql, `CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$`)
	mustExec(t, w.psql, `CREATE TRIGGER audit BEFORE UPDATE ON kr_task_stat FOR EACH ROW WHEN (NEW.task_seq IN (3, 4) AND NEW.exec_status IN (2, 3)) EXECUTE FUNCTION audit()`)
	id := register(t, w, independent(5)...)
	results := finished(claim(t, w, 5)...)
	results[2].Outcome, results[2].Error = flow.OutcomeFailed, "no"
	results[4].Outcome, results[4].Error = flow.OutcomeFailed, "no"
	adv := advance(t, w, results, flow.Claim{})
	require.Len(t, adv.Rejected, 2)
	for _, r := range adv.Rejected {
		require.False(t, r.Busy)
		require.ErrorContains(t, r.Cause, "not today")
	}
	require.Equal(t, "3 3 1 1 2", statuses(t, w, id))
	sound(t, w)
}

func TestAdvance_TakesLargeOutputs(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	text, err := json.Marshal(incompressible(flow.MaxOutput - 2))
	require.NoError(t, err)
	verdict(t, w, &flow.Result{Task: claimOne(t, w), Outcome: flow.OutcomeFinished, Output: text})
	require.JSONEq(t, string(text), look(t, w, id, 1).Output)

	id = register(t, w, def())
	big := incompressible(100_000)
	verdict(t, w, &flow.Result{Task: claimOne(t, w), Outcome: flow.OutcomeFailed, Error: big})
	require.Equal(t, big, look(t, w, id, 1).Error)
}

// A claim whose answer was lost is found by its id.
func TestOwned(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, independent(4)...)
	first, second := newID(), newID()
	tasks := advance(t, w, nil, flow.Claim{ID: first, Free: 2}).Claimed
	advance(t, w, nil, flow.Claim{ID: second, Free: 1})
	found, err := w.Owned(t.Context(), w.watcher, []string{first, newID()})
	require.NoError(t, err)
	require.ElementsMatch(t, tasks, found)
	found, err = w.Owned(t.Context(), newID(), []string{first, second})
	require.NoError(t, err)
	require.Empty(t, found, "another watcher's")
	finish(t, w, tasks...)
	found, err = w.Owned(t.Context(), w.watcher, []string{first})
	require.NoError(t, err)
	require.Empty(t, found, "what has ended is not owned")
}

// The answer of a call is lost: it has happened, or it has not.
func TestAdvance_LostAnswer(t *testing.T) {
	t.Parallel()
	w := open(t)
	for when, recorded := range map[cut]bool{beforeSending: false, afterAnswer: true} {
		id := register(t, w, def(), def(1), def())
		task := claim(t, w, 1)[0]
		network := flakyNetwork(t, w, &w.engine)
		claimID := newID()
		network.arm(when, claimID)
		_, err := w.Advance(t.Context(), finished(task), flow.Claim{ID: claimID, Watcher: w.watcher, Free: 2, Programs: programs})
		require.ErrorIs(t, err, flow.ErrUnavailable)
		require.Zero(t, network.armed.Load())
		require.Equal(t, map[bool]string{true: "3 1 1", false: "1 0 0"}[recorded], statuses(t, w, id))
		sound(t, w)

		// The result is given again, and the claim is asked for.
		require.Equal(t, flow.VerdictRecorded, verdict(t, w, finished(task)[0]).Verdict)
		owned, err := w.Owned(t.Context(), w.watcher, []string{claimID})
		require.NoError(t, err)
		require.Equal(t, map[bool]int{true: 2, false: 0}[recorded], len(owned))
		finish(t, w, owned...)
		run(t, w)
		require.Equal(t, "3 3 3", statuses(t, w, id))
		require.Equal(t, 3, value[int](t, w, `SELECT sum(attempt) FROM kr_task_stat WHERE task_flow_id = $1`, string(id)), "nothing ran twice")
	}
}
