package postgres

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// expect lets a task be answered by a hash.
func expect(t *testing.T, w *world, task flow.Task, hash string) {
	t.Helper()
	expected, err := w.ExpectCallback(t.Context(), task, hash, false)
	require.NoError(t, err)
	require.True(t, expected)
}

// asking is a task that has asked and waits for an hour.
func asking(t *testing.T, w *world, hash string) flow.Task {
	t.Helper()
	task := claimOne(t, w)
	expect(t, w, task, hash)
	verdict(t, w, paused(task, flow.Pause{Callback: true, After: time.Hour, Why: "waits for the callback of POST http://h/", State: object(`{"attempt": 1}`)}))
	return task
}

func bring(t *testing.T, w *world, task flow.Task, hash, body string) flow.Answered {
	t.Helper()
	answered, err := w.Answer(t.Context(), task.TaskKey, hash, body)
	require.NoError(t, err)
	sound(t, w)
	return answered
}

func TestCallback_EndsThePause(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		id := register(t, w, def(), def(1))
		task := asking(t, w, "a")
		require.Equal(t, "callback: waits for the callback of POST http://h/", whyWaiting(t, w, id, 1))
		require.Empty(t, claim(t, w, 9))

		for _, wrong := range []string{"b", "", "A"} {
			_, err := w.Answer(t.Context(), task.TaskKey, wrong, `1`)
			require.ErrorIs(t, err, flow.ErrNotFound)
		}
		for _, nobody := range []flow.TaskKey{{Flow: id, Seq: 2}, {Flow: id, Seq: 3}, {Flow: "none", Seq: 1}} {
			_, err := w.Answer(t.Context(), nobody, "a", `1`)
			require.ErrorIs(t, err, flow.ErrNotFound)
		}
		const body = `{"n": 1e999, "text": "as it was written"}`
		require.Equal(t, flow.AnswerTaken, bring(t, w, task, "a", body))
		require.Equal(t, flow.AnswerRepeated, bring(t, w, task, "a", body))
		require.Equal(t, "queued: can go: waits for a free worker", whyWaiting(t, w, id, 1))

		task = claimOne(t, w)
		require.Equal(t, &flow.Answer{Attempt: 1, Body: body}, task.Pause.Answer)
		require.JSONEq(t, `{"attempt": 1}`, string(task.Pause.State))
		require.Equal(t, flow.AnswerRepeated, bring(t, w, task, "a", body))
		finish(t, w, task)
		_, err := w.Answer(t.Context(), task.TaskKey, "a", body)
		require.ErrorIs(t, err, flow.ErrNotFound, "the pause is gone")
		require.Len(t, run(t, w), 1)
		require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`), "nobody has changed anything by hand")
	})
}

// While an answer is found to be there already, claims pass its task over.
func TestCallback_ARepetitionWakesWatchers(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	task := asking(t, w, "a")
	hints, _ := listenTo(t, w)
	require.Equal(t, flow.AnswerTaken, bring(t, w, task, "a", `7`))
	hinted(t, hints, "an answer")
	require.Equal(t, flow.AnswerRepeated, bring(t, w, task, "a", `7`))
	hinted(t, hints, "a repetition")
}

// Somebody's open transaction is waited for, not for ever, and is no outage.
func TestCallback_WaitsForPeople(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	task := asking(t, w, "a")
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE kr_task_stat SET task_priority = 5 WHERE task_flow_id = $1`, string(task.Flow))
	_, err := w.Answer(t.Context(), task.TaskKey, "a", `7`)
	require.ErrorIs(t, err, flow.ErrLocked)
	require.NotErrorIs(t, err, flow.ErrUnavailable)
	require.NoError(t, tx.Rollback())
	require.Equal(t, flow.AnswerTaken, bring(t, w, task, "a", `7`))
}

// Whoever is asked may be faster than the answer that he takes his time.
func TestCallback_BeforeThePause(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	task := claimOne(t, w)
	expect(t, w, task, "a")
	require.Equal(t, flow.AnswerTaken, bring(t, w, task, "a", `7`))
	j := verdict(t, w, paused(task, flow.Pause{Callback: true, After: time.Hour}))
	require.Equal(t, flow.Waiting, j.Status)
	require.True(t, j.RunNext.IsZero(), "it goes on at once")
	task = claimOne(t, w)
	require.Equal(t, &flow.Answer{Attempt: 1, Body: `7`}, task.Pause.Answer)

	// No need to ask once more; but if that was a failure.
	expected, err := w.ExpectCallback(t.Context(), task, "b", false)
	require.NoError(t, err)
	require.False(t, expected)
	expected, err = w.ExpectCallback(t.Context(), task, "b", true)
	require.NoError(t, err)
	require.True(t, expected)
	_, err = w.Answer(t.Context(), task.TaskKey, "a", `7`)
	require.ErrorIs(t, err, flow.ErrNotFound, "whoever has failed is not asked any more")
	require.Equal(t, flow.AnswerTaken, bring(t, w, task, "b", `8`))
}

// A request that is sent again may be taken for a repetition: both tokens are good.
func TestCallback_SentAgain(t *testing.T) {
	t.Parallel()
	for _, hash := range []string{"a", "b"} {
		w := open(t)
		d := def()
		d.MaxAttempts = 2
		register(t, w, d)
		task := claimOne(t, w)
		expect(t, w, task, "a")
		require.Equal(t, flow.Waiting, verdict(t, w, ended(task, flow.OutcomeFailed)).Status)
		due(t, w)
		task = claimOne(t, w)
		require.NotNil(t, task.Pause)
		require.False(t, task.Pause.Callback, "it has not paused")
		expect(t, w, task, "b")
		verdict(t, w, paused(task, flow.Pause{Callback: true, After: time.Hour}))
		require.Equal(t, flow.AnswerTaken, bring(t, w, task, hash, `1`))
		require.Equal(t, 2, claimOne(t, w).Pause.Answer.Attempt)
	}
}

// Only so many are kept, the last ones.
func TestCallback_ManyTokens(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	task := claimOne(t, w)
	for i := range 105 {
		expect(t, w, task, fmt.Sprint(i))
	}
	require.Equal(t, 100, value[int](t, w, `SELECT jsonb_array_length(pause->'callbacks') FROM kr_task_stat`))
	_, err := w.Answer(t.Context(), task.TaskKey, "4", `1`)
	require.ErrorIs(t, err, flow.ErrNotFound)
	require.Equal(t, flow.AnswerTaken, bring(t, w, task, "5", `1`))
}

// Whoever has lost the task expects nothing.
func TestCallback_ExpectIsFenced(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	task := claimOne(t, w)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0`)
	_, err := w.ExpectCallback(t.Context(), task, "a", false)
	require.ErrorContains(t, err, "it was changed by hand or taken over")
	due(t, w)
	again := claimOne(t, w)
	_, err = w.ExpectCallback(t.Context(), task, "a", false)
	require.Error(t, err)
	expect(t, w, again, "b")
}

// What a person does to a task that waits for a call.
func TestCallback_ByHand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    string
		want  flow.Answered // empty: the token is not known any more
		after string        // what follows a call
	}{
		"held":      {`SELECT flower_hold(task_flow_id) FROM kr_task_stat`, flow.AnswerTaken, `SELECT flower_resume(task_flow_id) FROM kr_task_stat`},
		"cancelled": {`SELECT flower_cancel(task_flow_id) FROM kr_task_stat`, flow.AnswerLate, ""},
		"skipped":   {`UPDATE kr_task_stat SET exec_status = 9`, "", ""},
		"done":      {`UPDATE kr_task_stat SET exec_status = 3`, "", ""},
		"run again": {`UPDATE kr_task_stat SET exec_status = 2, reason = 'cancelled'; UPDATE kr_task_stat SET exec_status = 0`, "", ""},
		"put off":   {`UPDATE kr_task_stat SET run_after = now() + interval '2 h'`, flow.AnswerTaken, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			register(t, w, def())
			task := asking(t, w, "a")
			mustExec(t, w.psql, c.do)
			got, err := w.Answer(t.Context(), task.TaskKey, "a", `1`)
			if c.want == "" {
				require.ErrorIs(t, err, flow.ErrNotFound)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			if c.want == flow.AnswerTaken {
				if c.after != "" {
					require.Empty(t, claim(t, w, 1))
					mustExec(t, w.psql, c.after)
				}
				require.NotNil(t, claimOne(t, w).Pause.Answer)
			}
			sound(t, w)
		})
	}
}

// Its workflow's limit counts for a task that goes on, and keeps nobody waiting.
func TestCallback_Limit(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "limited", independent(2)...)
	mustExec(t, w.psql, `INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('limited', 1)`)
	registerOf(t, w, "limited")
	task := asking(t, w, "a")
	other := claimOne(t, w)
	require.Equal(t, flow.AnswerTaken, bring(t, w, task, "a", `1`))
	require.Empty(t, claim(t, w, 1))
	finish(t, w, other)
	require.NotNil(t, claimOne(t, w).Pause.Answer)
}

// Of many calls at once one counts, also beside the end of the attempt.
func TestCallback_Once(t *testing.T) {
	t.Parallel()
	w := open(t)
	for range 20 {
		id := register(t, w, def())
		task := claimOne(t, w)
		expect(t, w, task, "a")
		var all sync.WaitGroup
		answers := make([]flow.Answered, 4)
		for i := range answers {
			all.Go(func() { answers[i], _ = w.Answer(t.Context(), task.TaskKey, "a", fmt.Sprint(i)) })
		}
		all.Go(func() {
			_, err := w.Advance(t.Context(), []*flow.Result{paused(task, flow.Pause{Callback: true, After: time.Hour})}, flow.Claim{ID: newID(), Watcher: w.watcher})
			require.NoError(t, err)
		})
		all.Wait()
		taken := -1
		for i, a := range answers {
			if a == flow.AnswerTaken {
				require.Equal(t, -1, taken, "two of them")
				taken = i
			}
		}
		require.Equal(t, 3, strings.Count(fmt.Sprint(answers), string(flow.AnswerRepeated)), answers)
		next := claimOne(t, w)
		require.Equal(t, id, next.Flow)
		require.Equal(t, fmt.Sprint(taken), next.Pause.Answer.Body)
		finish(t, w, next)
	}
	sound(t, w)
}
