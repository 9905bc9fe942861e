package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestSettle_TheLastAttemptSuspends(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, outcome := range []flow.Outcome{flow.OutcomeFailed, flow.OutcomeTimeout, flow.OutcomeInvalid} {
		id := register(t, w, def(), def(1))
		task := claimOne(t, w)
		j := verdict(t, w, ended(task, outcome))
		require.Equal(t, flow.Suspended, j.Status)
		require.True(t, j.RunNext.IsZero())
		r := look(t, w, id, 1)
		require.Equal(t, 2, r.Status)
		require.Equal(t, string(outcome), r.Reason)
		require.Equal(t, "it is "+string(outcome), r.Error)
		require.Equal(t, 1, r.Failed)
		require.Empty(t, r.Watcher)
		require.NotNil(t, r.Started)
		require.NotNil(t, r.Suspended)
		require.Nil(t, r.Finished)
		require.Nil(t, r.RunAfter)
		require.Empty(t, r.Attempts, "it stays in its row")
		require.Equal(t, "2 0", statuses(t, w, id), "what depends on it waits")
		sound(t, w)
	}
	require.Empty(t, claim(t, w, 5))
}

func TestSettle_AttemptsThatAreLeftAreTried(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts, d.RetryDelay = 3, 10*time.Second
	id := register(t, w, d)
	for attempt, outcome := range []flow.Outcome{flow.OutcomeFailed, flow.OutcomeTimeout} {
		task := claimOne(t, w)
		require.Equal(t, attempt+1, task.Attempt)
		require.Zero(t, task.AttemptBase, "the idempotency key stays the same")
		j := verdict(t, w, ended(task, outcome))
		require.Equal(t, flow.Waiting, j.Status)
		r := look(t, w, id, 1)
		require.Equal(t, 0, r.Status)
		require.Equal(t, attempt+1, r.Failed)
		require.False(t, r.Ready)
		require.Nil(t, r.Started)
		require.Nil(t, r.Suspended)
		require.Empty(t, r.Reason)
		require.Equal(t, "it is "+string(outcome), r.Error, "people want to know why it waits")
		require.WithinDuration(t, *r.RunAfter, j.RunNext, time.Millisecond)
		want := (10 * time.Second << attempt).Seconds()
		require.InDelta(t, want, *r.RunIn, want*0.06+3, "doubled each time, spread by a tenth")
		require.Len(t, r.Attempts, attempt+1)
		require.Equal(t, fmt.Sprintf("%d: 2 %s it is %s", attempt+1, outcome, outcome), r.Attempts[attempt])
		sound(t, w)
		require.Empty(t, claim(t, w, 5))
		byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, string(id))
	}
	require.Equal(t, flow.Suspended, verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed)).Status)
	require.Len(t, look(t, w, id, 1).Attempts, 2)

	// A reset by hand gives all attempts back, and another idempotency key.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
	r := look(t, w, id, 1)
	require.Zero(t, r.Failed)
	require.Equal(t, 3, r.AttemptBase)
	require.Equal(t, "3: 2 failed it is failed", r.Attempts[2])
	task := claimOne(t, w)
	require.Equal(t, 4, task.Attempt)
	require.Equal(t, 3, task.AttemptBase)
	require.Equal(t, flow.Waiting, verdict(t, w, ended(task, flow.OutcomeFailed)).Status)
}

func TestSettle_RetryDelays(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, c := range []struct {
		delay  time.Duration
		failed int // before
		want   time.Duration
	}{
		{10 * time.Second, 0, 10 * time.Second},
		{10 * time.Second, 1, 20 * time.Second},
		{10 * time.Second, 5, 320 * time.Second},
		{10 * time.Second, 9, time.Hour}, // 5,120 s, capped
		{10 * time.Second, 1000, time.Hour},
		{3 * time.Hour, 0, 3 * time.Hour}, // a person's own delay is no shorter for the cap
		{3 * time.Hour, 4, 3 * time.Hour},
	} {
		t.Run(fmt.Sprint(c.delay, c.failed), func(t *testing.T) {
			d := def()
			d.MaxAttempts, d.RetryDelay = 10_000, c.delay
			id := register(t, w, d)
			task := claimOne(t, w)
			byHand(t, w, `UPDATE kr_task_stat SET failed_count = $2 WHERE task_flow_id = $1`, string(id), c.failed)
			verdict(t, w, ended(task, flow.OutcomeFailed))
			require.InDelta(t, c.want.Seconds(), *look(t, w, id, 1).RunIn, c.want.Seconds()*0.06+3)
		})
	}
	d := def()
	d.MaxAttempts = 2
	id := register(t, w, d)
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.True(t, look(t, w, id, 1).Ready, "no delay: at once")

	// Longer than PostgreSQL's times last: the error was lost with it.
	id = register(t, w, d)
	byHand(t, w, `UPDATE kr_task_stat SET max_attempts = 100, failed_count = 50, retry_delay = '178000000 years' WHERE task_flow_id = $1`, string(id))
	var later flow.Task
	for _, task := range claim(t, w, 5) {
		if task.Flow == id {
			later = task
		}
	}
	verdict(t, w, ended(later, flow.OutcomeFailed))
	require.Equal(t, "0 it is failed t", value[string](t, w, `SELECT concat_ws(' ', exec_status, error, run_after > now() + interval '90 years') FROM kr_task_stat WHERE task_flow_id = $1`, string(id)))
}

func TestSettle_InvalidIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 5
	register(t, w, d)
	require.Equal(t, flow.Suspended, verdict(t, w, ended(claimOne(t, w), flow.OutcomeInvalid)).Status)
}

// At a shutdown a watcher gives back what it has stopped.
func TestSettle_HandedBack(t *testing.T) {
	t.Parallel()
	w := open(t)
	rerun, stop := def(), def()
	stop.OnLost = flow.OnLostSuspend
	for _, c := range []struct {
		def     flow.TaskDefinition
		outcome flow.Outcome
		status  flow.Status
	}{
		{rerun, flow.OutcomeHandedBack, flow.Waiting},
		{stop, flow.OutcomeHandedBack, flow.Suspended}, // it had started, and must not run twice
		{rerun, flow.OutcomeNotStarted, flow.Waiting},
		{stop, flow.OutcomeNotStarted, flow.Waiting},
	} {
		t.Run(fmt.Sprint(c.def.OnLost, c.outcome), func(t *testing.T) {
			id := register(t, w, c.def)
			require.Equal(t, c.status, verdict(t, w, ended(claimOne(t, w), c.outcome)).Status)
			r := look(t, w, id, 1)
			require.Zero(t, r.Failed)
			require.Zero(t, r.Lost)
			require.Nil(t, r.RunAfter)
			if c.status == flow.Suspended {
				require.Equal(t, "lost", r.Reason)
				require.NotEmpty(t, r.Error)
				return
			}
			require.True(t, r.Ready, "at once")
			require.Len(t, r.Attempts, 1)
			task := claimOne(t, w)
			require.Equal(t, 2, task.Attempt)
			require.Equal(t, flow.Suspended, verdict(t, w, ended(task, flow.OutcomeFailed)).Status,
				"its one attempt was not spent by the first")
		})
	}
}

// What an operator allows while the task runs counts when it ends.
func TestSettle_DecidesOnTheNewestVersion(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	task := claimOne(t, w)
	byHand(t, w, `UPDATE kr_task_stat SET max_attempts = 2 WHERE task_flow_id = $1`, string(id))
	require.Equal(t, flow.Waiting, verdict(t, w, ended(task, flow.OutcomeFailed)).Status)

	task = claimOne(t, w)
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE kr_task_stat SET max_attempts = 3, on_lost = 'suspend' WHERE task_flow_id = $1`, string(id))
	var adv flow.Advanced
	wait := async(func() (err error) {
		adv, err = w.Advance(background, []*flow.Result{ended(task, flow.OutcomeFailed)}, flow.Claim{})
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	require.Len(t, adv.Verdicts, 1)
	require.Equal(t, flow.Waiting, adv.Verdicts[0].Status)
}

// One call with results of every kind.
func TestSettle_AMixedBatch(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, append(independent(6), def(1), def(2))...)
	tasks := claim(t, w, 6)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), tasks[5].Seq)
	want := map[int]string{}
	var results []*flow.Result
	for i, task := range tasks {
		outcome := []flow.Outcome{
			flow.OutcomeFinished, flow.OutcomeFailed, flow.OutcomeTimeout, flow.OutcomeInvalid, flow.OutcomeHandedBack, flow.OutcomeFinished,
		}[i]
		want[task.Seq] = []string{"finished", "suspended", "suspended", "suspended", "waiting", "refused"}[i]
		results = append(results, ended(task, outcome))
	}
	adv := advance(t, w, results, flow.Claim{Free: 1})
	require.Empty(t, adv.Rejected)
	require.Len(t, adv.Verdicts, 6)
	got := map[int]string{}
	for _, j := range adv.Verdicts {
		got[j.Result.Task.Seq] = j.Status.String()
		if j.Verdict == flow.VerdictRefused {
			got[j.Result.Task.Seq] = "refused"
		}
	}
	require.Equal(t, want, got)
	require.Len(t, adv.Claimed, 1)
	sound(t, w)
}

// Where a flow is held, what would wait again is held.
func TestSettle_HeldInsteadOfTriedAgain(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 3
	id := register(t, w, d, d, d, d)
	tasks := claim(t, w, 4)
	byHand(t, w, `SELECT flower_hold($1, 'later')`, string(id))
	require.Equal(t, "1 1 1 1", statuses(t, w, id))
	outcomes := []flow.Outcome{flow.OutcomeFinished, flow.OutcomeFailed, flow.OutcomeHandedBack, flow.OutcomeInvalid}
	for i, outcome := range outcomes {
		j := verdict(t, w, ended(tasks[i], outcome))
		require.Equal(t, flow.VerdictRecorded, j.Verdict)
		r := look(t, w, id, tasks[i].Seq)
		require.Equal(t, []string{"", "held", "held", "invalid"}[i], r.Reason)
		require.Equal(t, flow.VerdictRecorded, verdict(t, w, ended(tasks[i], outcome)).Verdict, "repeated")
		sound(t, w)
	}
	byHand(t, w, `SELECT flower_resume($1)`, string(id))
	require.Len(t, claim(t, w, 9), 2)
}

// What fails, waits or is tried again costs the same whatever is beside it, also where the
// statement was planned with empty tables.
func TestSettle_CostsLittleBesideManyRows(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // reading v_invariant takes long here
	engine, err := w.open(1, w.net.dialer(w.net.quick), engineSettings...)
	require.NoError(t, err)
	defer func() { require.NoError(t, engine.Close()) }()
	mustExec(t, engine, `PREPARE settle AS `+settleSQL)
	mustExec(t, engine, `EXECUTE settle('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')`)
	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet)
		SELECT 'f' || n, 1, 'w', 1, 3, 0 FROM generate_series(1, 50000) n`)
	register(t, w, independent(3)...)
	keys := newKeys(sorted(finished(claim(t, w, 3)...)))

	for _, when := range []string{"without statistics", "with statistics"} {
		tx, err := engine.Beginx()
		require.NoError(t, err)
		var plan string
		require.NoError(t, tx.Get(&plan, fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
			EXECUTE settle('{%s}', '{1,2,3}', '{%s}', '{failed,failed,failed}', '{a,b,c}', '{}', '{}', '{}')`,
			strings.Join(keys.flows, ","), strings.Join(keys.claims, ","))))
		require.NoError(t, tx.Rollback())
		buffers := buffersIn(t, plan)
		t.Logf("%s: %d buffers for 3 attempts", when, buffers)
		require.Less(t, buffers, 300, when)
		mustExec(t, engine, `ANALYZE`)
	}
}
