package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
)

// parent returns a task, claimed, that may register flows of the workflow "load", a chain
// of two.
func parent(t *testing.T, w *world) flow.Task {
	t.Helper()
	define(t, w, "load", def(), def(1))
	register(t, w, def(), def(1))
	return claimOne(t, w)
}

func startChild(t *testing.T, w *world, of flow.Task, parameters string) flow.ID {
	t.Helper()
	var given json.RawMessage
	if parameters != "" {
		given = object(parameters)
	}
	id, err := w.StartChild(t.Context(), of, "load", given)
	require.NoError(t, err)
	return id
}

func endOf(t *testing.T, w *world, id flow.ID) flow.End {
	t.Helper()
	e, err := w.FlowEnd(t.Context(), id)
	require.NoError(t, err)
	return e
}

// rerunTask sets a task to 0 by hand and claims it again.
func rerunTask(t *testing.T, w *world, of flow.Task) flow.Task {
	t.Helper()
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(of.Flow), of.Seq)
	for _, task := range claim(t, w, 9) {
		if task.TaskKey == of.TaskKey {
			return task
		}
	}
	require.FailNow(t, "it cannot be claimed")
	return flow.Task{}
}

func TestStartChild_OneForAllAttempts(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	child := startChild(t, w, task, `{"day": 1}`)
	require.Equal(t, fmt.Sprintf("load|%s|1|task 1 of flow %s", task.Flow, task.Flow), value[string](t, w,
		`SELECT concat_ws('|', task_id, parent_flow_id, parent_exec_seq, registered_by) FROM kr_flow WHERE task_flow_id = $1`, string(child)))
	require.JSONEq(t, `{"day": 1}`, look(t, w, child, 1).Parameters)

	// The same attempt, once more; one after a crash; and another watcher's beside it.
	require.Equal(t, child, startChild(t, w, task, `{"day": 1}`))
	task.Attempt++
	require.Equal(t, child, startChild(t, w, task, `{"day": 1}`))
	require.Equal(t, 2, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE task_id = 'load'`))
	require.NotEqual(t, child, startChild(t, w, task, `{"day": 2}`), "that is something else")
	require.Equal(t, "0 0", statuses(t, w, child))
}

// Attempts that overlap, of watchers that do not know of each other.
func TestStartChild_AtOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	var ids [8]flow.ID
	var group errgroup.Group
	for i := range ids {
		db := w.DB
		if i%2 == 1 {
			db = another(t, w)
		}
		group.Go(func() (err error) {
			ids[i], err = db.StartChild(background, task, "load", nil)
			return err
		})
	}
	require.NoError(t, group.Wait())
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
	require.Equal(t, 2, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE task_id = 'load'`))
}

// A person who runs the task again means the same flow, which goes on from its failure:
// unless the task had finished with it.
func TestStartChild_ARerun(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	child := startChild(t, w, task, "")
	verdict(t, w, paused(task, flow.Pause{Flow: child}))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.Equal(t, "2 0", statuses(t, w, child))
	require.Equal(t, 1, due(t, w))
	task = claimOne(t, w)
	verdict(t, w, ended(task, flow.OutcomeFailed))

	task = rerunTask(t, w, task)
	require.Nil(t, task.Pause)
	require.Equal(t, child, startChild(t, w, task, ""))
	require.Equal(t, "0 0", statuses(t, w, child), "it goes on from the failure")
	require.Contains(t, value[string](t, w, `SELECT note FROM kr_event WHERE task_flow_id = $1`, string(child)), "runs again")
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))

	// Only the attempt of the person does so, not those that follow by themselves.
	verdict(t, w, ended(task, flow.OutcomeHandedBack))
	task = claimOne(t, w)
	require.Equal(t, child, startChild(t, w, task, ""))
	require.Equal(t, "2 0", statuses(t, w, child))
	verdict(t, w, ended(task, flow.OutcomeFailed))

	// Other parameters are another flow, and so is what the task had finished with.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(child))
	task = rerunTask(t, w, task)
	require.Equal(t, child, startChild(t, w, task, ""), "it has been repaired meanwhile")
	finish(t, w, finishedWith(t, w, task, child))
	task = rerunTask(t, w, task)
	next := startChild(t, w, task, "")
	require.NotEqual(t, child, next)
	require.Equal(t, next, startChild(t, w, task, ""))
}

// finishedWith records a task with the output of a flow, and returns another one for the
// caller to go on with.
func finishedWith(t *testing.T, w *world, task flow.Task, child flow.ID) flow.Task {
	t.Helper()
	record(t, w, &flow.Result{Task: task, Outcome: flow.OutcomeFinished, Output: object(fmt.Sprintf(`{"flow": %q}`, child))})
	return claimOne(t, w)
}

func TestStartChild_Errors(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	_, err := w.StartChild(t.Context(), task, "no such", nil)
	require.ErrorIs(t, err, flow.ErrNotFound)
	w.CheckParameters(func(flow.Workflow, json.RawMessage) error {
		return &flow.InvalidError{Subject: "it", Problem: "is wrong"}
	})
	_, err = w.StartChild(t.Context(), task, "load", nil)
	require.ErrorAs(t, err, new(*flow.InvalidError), "checked as by register")
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_flow WHERE task_id = 'load'`))
}

// A workflow that registers itself comes to an end.
func TestStartChild_Depth(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "load", def())
	registerOf(t, w, "load")
	var err error
	n := 0
	for ; err == nil && n < 20; n++ {
		_, err = w.StartChild(t.Context(), claimOne(t, w), "load", nil)
	}
	require.Equal(t, maxDepth, n, "the first one, nine in it, and one too many")
	var invalid *flow.InvalidError
	require.True(t, errors.As(err, &invalid), err)
	require.Equal(t, `workflow "load": it would run in 10 others, one in the other, and 9 are allowed: load, load, load, load, load, load, load, load, load, load`, err.Error())
}

func TestFlowEnd(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, c := range []struct{ tasks, want string }{ // exec_status and reason, in a chain or not
		{"0", ""},
		{"3 0", ""},
		{"3 1", ""},
		{"3 3", "finished"},
		{"9 3", "finished"},
		{"9", "finished"},
		{"3 2failed 0-", "failed"},
		{"2timeout", "failed"},
		{"2", "failed"},
		{"2failed 0", ""}, // something of it can go
		{"2failed 1", ""},
		{"2held 3", ""},
		{"2held 2cancelled", ""},
		{"2held 2lost", "failed"},
		{"3 2cancelled 2cancelled", "cancelled"},
		{"2cancelled 0-", "cancelled"},
	} {
		id := newID()
		for i, s := range strings.Fields(c.tasks) {
			after := 0
			if s[len(s)-1] == '-' {
				s, after = s[:len(s)-1], i
			}
			mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason)
				VALUES ($1, $2, $3, 'x', $2, $4, nullif($5, ''))`, id, i+1, after, s[:1], s[1:])
		}
		require.Equal(t, c.want, endOf(t, w, flow.ID(id)).Status, c.tasks)
	}
	require.Equal(t, flow.End{Status: "deleted"}, endOf(t, w, "never was"))
	sound(t, w)
}

func TestFlowEnd_WhatItSays(t *testing.T) {
	t.Parallel()
	w := open(t)
	last := def(1)
	last.Description = "invoice\nall of it"
	id := register(t, w, def(), last, def(1))
	record(t, w, &flow.Result{Task: claimOne(t, w), Outcome: flow.OutcomeFinished, Output: object(`1`)})
	tasks := claim(t, w, 2)
	require.Equal(t, []int{2, 3}, seqsOf(tasks))
	verdict(t, w, ended(tasks[0], flow.OutcomeFailed))
	record(t, w, &flow.Result{Task: tasks[1], Outcome: flow.OutcomeFinished, Output: object(`{"n": 3}`)})
	require.Equal(t, flow.End{Status: "failed", Seq: 2, Title: "invoice", Error: "it is failed"}, endOf(t, w, id))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND exec_status = 2`, string(id))
	e := endOf(t, w, id)
	require.Equal(t, "finished", e.Status)
	require.JSONEq(t, `{"3": {"n": 3}}`, string(e.Outputs), "of the last tasks alone")
}

// A task that waits for a flow goes on when that has ended, and not before, however often
// somebody looks. It is looked at seldom, and more seldom the older it is.
func TestPromote_WaitsForAFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	child := startChild(t, w, task, "")
	verdict(t, w, paused(task, flow.Pause{Flow: child, Why: "waits for flow x of workflow load"}))
	require.Equal(t, "flow: waits for flow x of workflow load", whyWaiting(t, w, task.Flow, 1))
	for age, want := range map[time.Duration]float64{time.Second: 0.5, 30 * time.Second: 3, time.Hour: 10} {
		byHand(t, w, `UPDATE kr_flow SET registered_ts = now() - $2 * interval '1 ms' WHERE task_flow_id = $1`, string(child), age.Milliseconds())
		byHand(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 s' WHERE run_after IS NOT NULL`)
		promoted, next, err := w.Promote(t.Context())
		require.NoError(t, err)
		require.Zero(t, promoted)
		require.InDelta(t, want, next.Seconds(), 0.4, age)
		require.InDelta(t, want, *look(t, w, task.Flow, 1).RunIn, 0.4)
	}
	require.Equal(t, "flow: waits for flow x of workflow load", whyWaiting(t, w, task.Flow, 1))
	require.Len(t, run(t, w), 2)
	require.Equal(t, "3 3", statuses(t, w, child))
	require.Equal(t, 1, due(t, w))
	again := claimOne(t, w)
	require.Equal(t, 2, again.Attempt)
	require.Equal(t, child, again.Pause.Flow)

	// A flow that is no more is not waited for.
	verdict(t, w, paused(again, flow.Pause{Flow: child}))
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(child))
	require.Equal(t, 1, due(t, w))
}

// Cancelling a flow cancels what its tasks have registered, down to the last one, and
// nothing that has ended or that somebody else wants.
func TestCancel_Children(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	child := startChild(t, w, task, "")
	grandchild := startChild(t, w, claimOne(t, w), "")
	other := registerOf(t, w, "load")
	require.Equal(t, 6, operate(t, w, `flower_cancel($1, 'too late')`, string(task.Flow)))
	for _, id := range []flow.ID{task.Flow, child, grandchild} {
		require.Equal(t, "2 2", statuses(t, w, id))
		require.Equal(t, "too late", look(t, w, id, 2).Error)
	}
	require.Equal(t, "0 0", statuses(t, w, other))

	// Its rerun takes the cancelled one up again.
	require.Equal(t, 2, operate(t, w, `flower_rerun($1)`, string(task.Flow)))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL`)
	for _, again := range claim(t, w, 9) {
		if again.Flow == task.Flow {
			require.Equal(t, child, startChild(t, w, again, ""))
		}
	}
	require.Equal(t, "0 0", statuses(t, w, child))

	// A task that failed and is not cancelled keeps what it has registered.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2, reason = 'failed' WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(task.Flow))
	operate(t, w, `flower_cancel($1)`, string(task.Flow))
	require.Equal(t, "0 0", statuses(t, w, child))
}

// Whoever cancels a task just before it registers a flow, or while it does so, is sure that
// none goes on: not of its watcher either, which may die at any moment.
func TestCancel_WhileAChildIsRegistered(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	start := func() error {
		_, err := w.StartChild(background, task, "load", nil)
		return err
	}
	cancel := func(tx sqlx.Execer) error {
		_, err := tx.Exec(`SELECT flower_cancel($1)`, string(task.Flow))
		return err
	}

	// The cancel comes second, and waits: the flow is made, and cancelled.
	tx := begin(t, w)
	key := childKey(task, "load", nil)
	mustExec(t, tx, `INSERT INTO kr_flow (task_flow_id, task_id, idempotency_key) VALUES ('in the way', 'load', $1)`, key)
	started := async(start)
	awaitBlocked(t, w, 1)
	cancelled := async(func() error { return cancel(w.psql) })
	awaitBlocked(t, w, 2)
	require.NoError(t, tx.Rollback())
	require.NoError(t, started())
	require.NoError(t, cancelled())
	child := flow.ID(value[string](t, w, `SELECT task_flow_id FROM kr_flow WHERE idempotency_key = $1`, key))
	require.Equal(t, "2 2", statuses(t, w, task.Flow))
	require.Equal(t, "2 2", statuses(t, w, child))

	// It comes first: what was made before stays cancelled, and nothing is made.
	require.ErrorContains(t, start(), "was stopped or taken over")
	require.Equal(t, "2 2", statuses(t, w, child))
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(child))
	require.ErrorContains(t, start(), "was stopped or taken over")

	operate(t, w, `flower_rerun($1)`, string(task.Flow))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL`)
	task = claimOne(t, w)
	tx = begin(t, w)
	require.NoError(t, cancel(tx))
	started = async(start)
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.ErrorContains(t, started(), "was stopped or taken over")
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_flow WHERE task_id = 'load'`))
	sound(t, w)
}

// A flow that is held is cancelled like any other, and so is what its tasks wait for.
func TestCancel_Held(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	child := startChild(t, w, task, "")
	verdict(t, w, paused(task, flow.Pause{Flow: child}))
	require.Equal(t, 2, operate(t, w, `flower_hold($1)`, string(task.Flow)))
	e := actAll(t, w, flow.BulkAction{Kind: flow.ActionCancel, Filter: flow.BulkFilter{Status: []string{"held"}}})
	require.Equal(t, 4, e.Changed)
	for _, id := range []flow.ID{task.Flow, child} {
		require.Equal(t, "cancelled", value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, string(id)))
	}
	require.Zero(t, operate(t, w, `flower_resume($1)`, string(task.Flow)), "it is held no more")
	require.Equal(t, 2, operate(t, w, `flower_rerun($1)`, string(task.Flow)))
	require.Equal(t, "0 0", statuses(t, w, task.Flow))
}
