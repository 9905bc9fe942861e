package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func paused(task flow.Task, p flow.Pause) *flow.Result {
	return &flow.Result{Task: task, Outcome: flow.OutcomePaused, Pause: &p}
}

// pauseOf reads what a task keeps; "" is nothing.
func pauseOf(t *testing.T, w *world, id flow.ID, seq int) string {
	t.Helper()
	return value[string](t, w, `SELECT coalesce(pause::text, '') FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
}

func whyWaiting(t *testing.T, w *world, id flow.ID, seq int) string {
	t.Helper()
	return value[string](t, w, `SELECT wait_reason || ': ' || why FROM v_why_waiting WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
}

// due lets every time come, and somebody notice.
func due(t *testing.T, w *world) (promoted int) {
	t.Helper()
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 s' WHERE run_after IS NOT NULL`)
	promoted, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	sound(t, w)
	return promoted
}

func TestPause_HoldsNoWorkerAndIsNoFailure(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		d := def()
		d.MaxAttempts, d.RetryDelay = 2, time.Hour
		id := register(t, w, d, def(1))
		task := claimOne(t, w)
		require.Nil(t, task.Pause)
		j := verdict(t, w, paused(task, flow.Pause{After: time.Hour, State: object(`{"job": 7}`)}))
		require.Equal(t, flow.VerdictRecorded, j.Verdict)
		require.Equal(t, flow.Waiting, j.Status)
		require.WithinDuration(t, time.Now().Add(time.Hour), j.RunNext, time.Minute)
		r := look(t, w, id, 1)
		require.Equal(t, 0, r.Status)
		require.False(t, r.Ready)
		require.InDelta(t, 3600, *r.RunIn, 60)
		require.Equal(t, 1, r.Attempt)
		require.Zero(t, r.Failed)
		require.Nil(t, r.Started)
		require.Empty(t, r.Error)
		require.Empty(t, r.Attempts, "a pause is no attempt to be kept")
		require.Empty(t, claim(t, w, 9))
		require.Regexp(t, `^time: waits until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d `, whyWaiting(t, w, id, 1))
		require.Equal(t, "dependency: waits for task 1", whyWaiting(t, w, id, 2))
		sound(t, w)

		require.Equal(t, 1, due(t, w))
		require.Equal(t, "queued: can go: waits for a free worker", whyWaiting(t, w, id, 1))
		task = claimOne(t, w)
		require.Equal(t, 2, task.Attempt)
		require.JSONEq(t, `{"job": 7}`, string(task.Pause.State))
		owned, err := w.Owned(t.Context(), w.watcher, []string{task.ClaimID})
		require.NoError(t, err)
		require.Equal(t, []flow.Task{task}, owned)

		// A failure has its attempts whole, is told from a pause, and leaves the state.
		require.Equal(t, flow.Waiting, verdict(t, w, ended(task, flow.OutcomeFailed)).Status)
		require.Contains(t, whyWaiting(t, w, id, 1), "retry: attempt 2 failed")
		require.Equal(t, []string{"2: 2 failed it is failed"}, []string(look(t, w, id, 1).Attempts))
		due(t, w)
		task = claimOne(t, w)
		require.JSONEq(t, `{"job": 7}`, string(task.Pause.State))
		verdict(t, w, paused(task, flow.Pause{After: time.Hour, Why: "waits for the moon", State: object(`"full"`)}))
		require.Equal(t, "time: waits for the moon", whyWaiting(t, w, id, 1))
		require.Equal(t, 1, look(t, w, id, 1).Failed, "neither more nor less")
		due(t, w)
		task = claimOne(t, w)
		require.JSONEq(t, `"full"`, string(task.Pause.State))
		finish(t, w, task)
		require.Empty(t, pauseOf(t, w, id, 1), "nothing is left of it")
		require.Len(t, run(t, w), 1)
	})
}

// Times are compared where the clock is that counts.
func TestPause_Times(t *testing.T) {
	t.Parallel()
	w := open(t)
	now := value[time.Time](t, w, `SELECT clock_timestamp()`)
	for name, c := range map[string]struct {
		pause flow.Pause
		in    float64 // seconds; 0 is at once
	}{
		"a time":             {flow.Pause{Until: now.Add(time.Hour)}, 3600},
		"a time of the past": {flow.Pause{Until: now.Add(-time.Hour)}, 0},
		"a while":            {flow.Pause{After: 90 * time.Second}, 90},
		"the time counts":    {flow.Pause{Until: now.Add(time.Hour), After: time.Second}, 3600},
		"neither":            {flow.Pause{}, 0},
		"less than nothing":  {flow.Pause{After: -time.Hour}, 0},
		"a flow":             {flow.Pause{Flow: "x"}, 0.5},
		"a flow, later":      {flow.Pause{Flow: "x", After: time.Minute}, 60},
	} {
		t.Run(name, func(t *testing.T) {
			id := register(t, w, def())
			j := verdict(t, w, paused(claimOne(t, w), c.pause))
			r := look(t, w, id, 1)
			require.Equal(t, c.in == 0, r.Ready)
			if c.in == 0 {
				require.Nil(t, r.RunAfter)
				require.True(t, j.RunNext.IsZero())
			} else {
				require.InDelta(t, c.in, r.RunAfter.Sub(now).Seconds(), 30)
				require.True(t, r.RunAfter.Equal(j.RunNext))
			}
			byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
		})
	}
}

// A pause is fenced like every result, and may be given twice.
func TestPause_Fence(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	task := claimOne(t, w)
	for range 2 {
		require.Equal(t, flow.VerdictRecorded, verdict(t, w, paused(task, flow.Pause{After: time.Hour})).Verdict)
	}
	due(t, w)
	again := claimOne(t, w)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, paused(task, flow.Pause{Ask: true})).Verdict)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, finished(task)[0]).Verdict)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE exec_status = 1`)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, paused(again, flow.Pause{})).Verdict)

	// A rescue leaves the claim in the row, but it was no pause.
	id := register(t, w, def())
	task = claimOne(t, w)
	age(t, w, w.watcher, 60)
	w.watcher = join(t, w, programs...)
	stable(t, w, w.watcher)
	require.Len(t, rescueAll(t, w), 1)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, paused(task, flow.Pause{})).Verdict)
	require.Equal(t, "0", statuses(t, w, id))
}

// What a person does to a task that pauses: held, it goes on where it was; else it begins
// anew.
func TestPause_ByHand(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, c := range []struct {
		name  string
		edits []string
		keeps bool
	}{
		{"hold and resume", []string{`SELECT flower_hold(%s)`, `SELECT flower_resume(%s)`}, true},
		{"held by hand", []string{`UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = %s`, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = %s`}, true},
		{"cancel and rerun", []string{`SELECT flower_cancel(%s)`, `SELECT flower_rerun(%s)`}, false},
		{"skip and rerun", []string{`SELECT flower_skip(%s, 1)`, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = %s`}, false},
		{"done and rerun", []string{`UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = %s`, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = %s`}, false},
		{"held, and then done", []string{
			`SELECT flower_hold(%s)`, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = %s`,
			`UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = %s`, `SELECT flower_resume(%s)`,
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := def()
			d.MaxAttempts = 2
			id := register(t, w, d)
			verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
			before := claimOne(t, w)
			verdict(t, w, paused(before, flow.Pause{After: time.Hour, State: object(`1`)}))
			for _, edit := range c.edits {
				byHand(t, w, fmt.Sprintf(edit, "'"+string(id)+"'"))
			}
			require.Equal(t, "0", statuses(t, w, id))
			require.Equal(t, c.keeps, pauseOf(t, w, id, 1) != "")
			r := look(t, w, id, 1)
			require.InDelta(t, 3600, *r.RunIn, 60, "the time is another matter")
			due(t, w)
			after := claimOne(t, w)
			require.Equal(t, c.keeps, after.Pause != nil)
			require.Equal(t, c.keeps, before.IdempotencyKey() == after.IdempotencyKey())
			finish(t, w, after)
		})
	}
}

// A hold that comes while the program still runs.
func TestPause_HeldInsteadOfWaiting(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	task := claimOne(t, w)
	byHand(t, w, `SELECT flower_hold($1)`, string(id))
	for range 2 {
		j := verdict(t, w, paused(task, flow.Pause{After: time.Hour, Why: "waits"}))
		require.Equal(t, flow.VerdictRecorded, j.Verdict)
		require.Equal(t, flow.Suspended, j.Status)
	}
	require.Equal(t, "held", look(t, w, id, 1).Reason)
	byHand(t, w, `SELECT flower_resume($1)`, string(id))
	require.Equal(t, "time: waits", whyWaiting(t, w, id, 1), "its time has not come")

	// It came while the task was held.
	byHand(t, w, `SELECT flower_hold($1)`, string(id))
	require.Zero(t, due(t, w))
	byHand(t, w, `SELECT flower_resume($1)`, string(id))
	require.Equal(t, "waits", claimOne(t, w).Pause.Why)
}

func TestPause_SurvivesALostWatcher(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	verdict(t, w, paused(claimOne(t, w), flow.Pause{State: object(`1`)}))
	claimOne(t, w)
	age(t, w, w.watcher, 60)
	w.watcher = join(t, w, programs...)
	stable(t, w, w.watcher)
	require.Len(t, rescueAll(t, w), 1)
	task := claimOne(t, w)
	require.Equal(t, 3, task.Attempt)
	require.JSONEq(t, `1`, string(task.Pause.State))
	require.Equal(t, string(id)+":1:0", task.IdempotencyKey())
}

// A task that pauses takes no room of max_running_tasks; its flow stays under way.
func TestPause_Limits(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "narrow", def(), def())
	limit(t, w, "narrow", 1, 1)
	ids := registerMany(t, w, "narrow", 2)
	first := claimOne(t, w)
	verdict(t, w, paused(first, flow.Pause{After: time.Hour}))
	second := claimOne(t, w)
	require.Equal(t, []string{"1/2"}, places(ids, []flow.Task{second}))
	finish(t, w, second)
	require.Empty(t, claim(t, w, 9), "its flow is under way")

	// One that asks makes way, like one that failed.
	require.Equal(t, 2, due(t, w), "one that is due, and admitted then")
	verdict(t, w, paused(claimOne(t, w), flow.Pause{Ask: true, Why: "go on?"}))
	require.Equal(t, []string{"2/1"}, places(ids, []flow.Task{claimOne(t, w)}))
	sound(t, w)
}

func TestPause_Asks(t *testing.T) {
	t.Parallel()
	w := open(t)
	ask := func(t *testing.T) (flow.ID, flow.Task) {
		t.Helper()
		d := def()
		d.Description = "deploy"
		id := register(t, w, d, def(1), def())
		task := claim(t, w, 1)[0]
		finish(t, w, claim(t, w, 1)...)
		j := verdict(t, w, paused(task, flow.Pause{Ask: true, Why: "deploy it?", State: object(`1`)}))
		require.Equal(t, flow.Suspended, j.Status)
		r := look(t, w, id, 1)
		require.Equal(t, "held", r.Reason)
		require.Equal(t, "deploy it?", r.Error)
		require.Empty(t, r.Attempts)
		require.Equal(t, "held|deploy it?", value[string](t, w, `SELECT concat_ws('|', status, error) FROM v_task WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id)))
		require.Equal(t, "blocked: blocked by task 1 (waits for approval)", whyWaiting(t, w, id, 2))
		require.Equal(t, "held", value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, string(id)))
		require.Empty(t, claim(t, w, 9))
		return id, task
	}
	for name, approve := range map[string]string{
		"with the function": `SELECT flower_approve('%s', 1, 'looks good')`,
		"set to 0":          `SET flower.reason = 'looks good'; UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = '%s' AND task_exec_seq = 1; RESET flower.reason`,
	} {
		t.Run(name, func(t *testing.T) {
			id, before := ask(t)
			byHand(t, w, fmt.Sprintf(approve, id))
			task := claimOne(t, w)
			require.Equal(t, before.IdempotencyKey(), task.IdempotencyKey())
			require.JSONEq(t, `1`, string(task.Pause.State))
			require.False(t, task.Pause.Ask)
			require.Contains(t, string(task.Pause.Approval), `"approved_by"`)
			require.Contains(t, string(task.Pause.Approval), `"note": "looks good"`)
			finish(t, w, task)
			finish(t, w, claimOne(t, w))
			nothingAsks(t, w, id, 1, "finished")
			nothingAsks(t, w, id, 2, "finished")
		})
	}
	t.Run("set to 3", func(t *testing.T) {
		id, _ := ask(t)
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
		require.Equal(t, []int{2}, seqsOf(claim(t, w, 9)))
		r := look(t, w, id, 1)
		require.Contains(t, r.Output, `"approved_by"`)
		require.Empty(t, pauseOf(t, w, id, 1))
	})
	t.Run("set to 9", func(t *testing.T) {
		id, _ := ask(t)
		operate(t, w, `flower_skip($1, 1)`, string(id))
		require.Equal(t, []int{2}, seqsOf(claim(t, w, 9)))
		require.Empty(t, look(t, w, id, 1).Output)
	})
	t.Run("hold, resume and rerun answer nothing", func(t *testing.T) {
		id, _ := ask(t)
		require.Equal(t, 1, operate(t, w, `flower_hold($1)`, string(id)))
		require.Equal(t, 1, operate(t, w, `flower_resume($1)`, string(id)))
		require.Zero(t, operate(t, w, `flower_rerun($1)`, string(id)))
		require.Equal(t, "2 0 3", statuses(t, w, id))
		// Approved, and held before anybody has run it: the answer stays.
		require.Equal(t, 1, operate(t, w, `flower_approve($1, 1)`, string(id)))
		operate(t, w, `flower_hold($1)`, string(id))
		require.Equal(t, 2, operate(t, w, `flower_resume($1)`, string(id)))
		require.NotNil(t, claimOne(t, w).Pause.Approval)
	})
	t.Run("asked while its flow is held", func(t *testing.T) {
		id := register(t, w, def())
		task := claimOne(t, w)
		operate(t, w, `flower_hold($1)`, string(id))
		verdict(t, w, paused(task, flow.Pause{Ask: true, Why: "go on?"}))
		require.Zero(t, operate(t, w, `flower_resume($1)`, string(id)))
		operate(t, w, `flower_approve($1, 1)`, string(id))
		require.NotNil(t, claimOne(t, w).Pause.Approval)
	})
	t.Run("cancelled", func(t *testing.T) {
		id, _ := ask(t)
		require.Equal(t, 2, operate(t, w, `flower_cancel($1, 'not on a Friday')`, string(id)))
		require.Equal(t, "cancelled", value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, string(id)))
		require.Equal(t, "not on a Friday", look(t, w, id, 1).Error)
		require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_event WHERE task_flow_id = $1 AND task_exec_seq = 1 AND note = 'not on a Friday'`, string(id)))
		nothingAsks(t, w, id, 1, "cancelled")
		operate(t, w, `flower_rerun($1)`, string(id))
		require.Nil(t, claimOne(t, w).Pause, "it asks anew")
	})
}

// nothingAsks has a task approved that asks nobody.
func nothingAsks(t *testing.T, w *world, id flow.ID, seq int, state string) {
	t.Helper()
	_, err := w.psql.Exec(`SELECT flower_approve($1, $2)`, string(id), seq)
	require.ErrorContains(t, err, fmt.Sprintf(`of flow %s asks nobody (%s): there is nothing to approve.`, id, state))
}

// The statement that a flow offers to rerun what failed answers nothing.
func TestPause_TheOfferedRerunAnswersNothing(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def())
	tasks := claim(t, w, 2)
	verdict(t, w, paused(tasks[0], flow.Pause{Ask: true, Why: "go on?"}))
	verdict(t, w, ended(tasks[1], flow.OutcomeFailed))
	s, err := w.Flow(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "go on?", s.Tasks[0].Error)
	byHand(t, w, s.Recover)
	require.Equal(t, 2, look(t, w, id, tasks[0].Seq).Status)
	require.Equal(t, 0, look(t, w, id, tasks[1].Seq).Status)
}

// What somebody writes into a pause harms nobody.
func TestPause_Spoilt(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, text := range []string{`1`, `"flow"`, `[]`, `null`, `{"flow": 7}`, `{"flow": null}`, `{"until": "soon"}`, `{"state": {"a": 1}, "more": true}`} {
		id, other := register(t, w, def()), register(t, w, def())
		for _, task := range claim(t, w, 2) {
			verdict(t, w, paused(task, flow.Pause{After: time.Hour, State: object(`1`)}))
		}
		byHand(t, w, `UPDATE kr_task_stat SET pause = $2 WHERE task_flow_id = $1`, string(id), text)
		_, err := w.Flow(t.Context(), id)
		require.NoError(t, err)
		require.NotEmpty(t, whyWaiting(t, w, id, 1), text)
		require.Equal(t, 2, due(t, w), text)
		tasks := claim(t, w, 2)
		require.ElementsMatch(t, []flow.ID{id, other}, []flow.ID{tasks[0].Flow, tasks[1].Flow})
		finish(t, w, tasks...)
	}
}

func TestPause_AsItIsShown(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts, d.RetryDelay = 2, time.Hour
	id := register(t, w, d)
	verdict(t, w, paused(claimOne(t, w), flow.Pause{After: time.Hour, Why: "waits for the moon"}))
	shown := func() flow.TaskState {
		s, err := w.Flow(t.Context(), id)
		require.NoError(t, err)
		return s.Tasks[0]
	}
	require.True(t, shown().Paused)
	require.Equal(t, "waits for the moon", shown().Why)
	due(t, w)
	require.False(t, shown().Paused, "it can go")
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.False(t, shown().Paused, "a retry is no pause")
}
