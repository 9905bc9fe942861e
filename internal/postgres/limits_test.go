package postgres

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
)

// limit sets a workflow's limits by hand; 0 is none.
func limit(t *testing.T, w *world, id flow.WorkflowID, flows, tasks int) {
	t.Helper()
	byHand(t, w, `INSERT INTO ms_workflow (task_id, max_running_flows, max_running_tasks) VALUES ($1, nullif($2, 0), nullif($3, 0))
		ON CONFLICT (task_id) DO UPDATE SET max_running_flows = excluded.max_running_flows, max_running_tasks = excluded.max_running_tasks`,
		string(id), flows, tasks)
}

func urgent(d flow.TaskDefinition) flow.TaskDefinition {
	d.Priority = -20
	return d
}

// places names tasks by their flow's place in ids, and their seq.
func places(ids []flow.ID, tasks []flow.Task) []string {
	var keys []string
	for _, t := range tasks {
		keys = append(keys, fmt.Sprintf("%d/%d", slices.Index(ids, t.Flow)+1, t.Seq))
	}
	slices.Sort(keys)
	return keys
}

func registerMany(t *testing.T, w *world, id flow.WorkflowID, n int) []flow.ID {
	t.Helper()
	var ids []flow.ID
	for range n {
		ids = append(ids, registerOf(t, w, id))
	}
	return ids
}

func TestLimits_Tasks(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		define(t, w, "few", def(), def(), def(1, 2))
		limit(t, w, "few", 0, 3)
		ids := registerMany(t, w, "few", 3)
		other := join(t, w, "NoOp")

		mine, others := claim(t, w, 2), claimAs(t, w, other, 10)
		require.Equal(t, []string{"1/1", "1/2", "2/1"}, places(ids, append(slices.Clone(mine), others...)))
		require.Empty(t, claim(t, w, 10))
		require.Equal(t, "limit: workflow few may have 3 running tasks at once",
			value[string](t, w, `SELECT wait_reason || ': ' || why FROM v_why_waiting WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(ids[1])))

		// What is released takes the room before what was registered later.
		finish(t, w, mine...)
		require.Equal(t, []string{"1/3", "2/2"}, places(ids, claimAs(t, w, other, 10)))
		// Whatever ends an attempt makes room.
		require.Equal(t, flow.Suspended, verdict(t, w, ended(others[0], flow.OutcomeFailed)).Status)
		require.Equal(t, []string{"3/1"}, places(ids, claim(t, w, 10)))
	})
}

func TestLimits_Flows(t *testing.T) {
	t.Parallel()
	w := open(t)
	retried := def()
	retried.MaxAttempts, retried.RetryDelay = 2, time.Hour
	define(t, w, "serial", retried, def(1))
	limit(t, w, "serial", 1, 0)
	ids := registerMany(t, w, "serial", 3)

	task := claimOne(t, w)
	require.Equal(t, []string{"1/1"}, places(ids, []flow.Task{task}))
	verdict(t, w, ended(task, flow.OutcomeFailed))
	require.Empty(t, claim(t, w, 10), "a flow that waits for its retry is under way")
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 s' WHERE run_after IS NOT NULL`)
	promoted, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, promoted, "one that is due, and admitted then")
	task = claimOne(t, w)
	require.Equal(t, []string{"1/1"}, places(ids, []flow.Task{task}))

	finish(t, w, task)
	task = claimOne(t, w)
	require.Equal(t, []string{"1/2"}, places(ids, []flow.Task{task}), "a flow under way goes on before the next one begins")
	verdict(t, w, ended(task, flow.OutcomeFailed))
	task = claimOne(t, w)
	require.Equal(t, []string{"2/1"}, places(ids, []flow.Task{task}), "a flow that failed makes way")

	// Its rerun waits for its turn: it was registered first.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status = 2`, string(ids[0]))
	require.Equal(t, "limit: workflow serial may have 1 running flow at once",
		value[string](t, w, `SELECT wait_reason || ': ' || why FROM v_why_waiting WHERE task_flow_id = $1`, string(ids[0])))
	finish(t, w, task)
	task = claimOne(t, w)
	require.Equal(t, []string{"2/2"}, places(ids, []flow.Task{task}))
	finish(t, w, task)
	require.Equal(t, []string{"1/2"}, places(ids, claim(t, w, 10)))
}

// What waits for a limit is in nobody's way, however much of it there is and however
// urgent it is.
func TestLimits_StarveNobody(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "urgent", urgent(def()))
	limit(t, w, "urgent", 0, 1)
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, task_priority)
		SELECT 'urgent ' || n, 1, 'urgent', 1, -20 FROM generate_series(1, 1000) n`)
	id := register(t, w, def(), def())
	require.Len(t, claim(t, w, 10), 2)
	_, _, err := w.Promote(t.Context()) // what was inserted by hand is admitted by housekeeping
	require.NoError(t, err)
	require.Equal(t, "1 1", statuses(t, w, id))
	require.Len(t, claim(t, w, 10), 1)
	require.Equal(t, 0, value[int](t, w, `SELECT count(*) FROM kr_ready`))
}

// One that was admitted and does not run yet makes way for a more urgent one.
func TestLimits_TheMostUrgentGoesFirst(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "mixed", def())
	limit(t, w, "calm", 0, 2)
	byHand(t, w, `UPDATE ms_workflow SET task_id = 'mixed'`)
	ids := registerMany(t, w, "mixed", 4) // the first two are admitted
	byHand(t, w, `UPDATE kr_task_stat SET task_priority = -5 WHERE task_flow_id = $1`, string(ids[3]))
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"4/1"}, places(ids, claim(t, w, 1)))
	require.Equal(t, []string{"1/1"}, places(ids, claim(t, w, 10)), "the second one has made way")

	// One that somebody has locked is waited for by nobody.
	tx := begin(t, w)
	mustExec(t, tx, `SELECT FROM kr_task_stat WHERE task_flow_id = '`+string(ids[1])+`' FOR UPDATE`)
	byHand(t, w, `UPDATE ms_workflow SET max_running_tasks = 3`)
	require.Equal(t, []string{"3/1"}, places(ids, claim(t, w, 10)))
	require.NoError(t, tx.Rollback())
}

func TestLimits_Change(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", def())
	registerMany(t, w, "w", 10)
	running := claim(t, w, 3)
	ready := func() int { return value[int](t, w, `SELECT count(*) FROM kr_ready`) }
	require.Equal(t, 7, ready())

	limit(t, w, "w", 0, 5)
	require.Equal(t, 2, ready(), "what runs already counts")
	limit(t, w, "w", 0, 1)
	require.Zero(t, ready(), "what was admitted and does not run yet is taken back")
	finish(t, w, running[:2]...)
	require.Empty(t, claim(t, w, 10), "one still runs")
	limit(t, w, "w", 0, 4)
	require.Equal(t, 3, ready())
	limit(t, w, "w", 2, 0)
	require.Len(t, claim(t, w, 10), 3, "flows that had begun go on")
	require.Zero(t, ready())
	limit(t, w, "w", 0, 0)
	require.Equal(t, 4, ready())
	limit(t, w, "w", math.MaxInt32, math.MaxInt32)
	require.Equal(t, 4, ready())
	limit(t, w, "w", 1, 1)
	require.Zero(t, ready())
	byHand(t, w, `DELETE FROM ms_workflow`)
	require.Len(t, claim(t, w, 10), 4)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE gate <> 0 AND exec_status IN (0, 1)`)+
		value[int](t, w, `SELECT count(*) FROM kr_flow_slot`))

	_, err := w.psql.Exec(`INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('zero', 0)`)
	require.ErrorContains(t, err, "max_running_tasks is 1 or more")
}

// Whatever a person does to a task gives its room back, or asks for it.
func TestLimits_ChangesByHand(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "one", def(), def(1))
	limit(t, w, "one", 0, 1)
	ids := registerMany(t, w, "one", 4)
	next := func(want ...string) {
		t.Helper()
		_, _, err := w.Promote(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, places(ids, claim(t, w, 10)))
		sound(t, w)
	}
	next("1/1")
	byHand(t, w, `SELECT flower_cancel($1)`, string(ids[0]))
	next("2/1")
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(ids[1]))
	next("3/1")
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(ids[2]))
	next("3/2")
	byHand(t, w, `SELECT flower_hold($1)`, string(ids[3]))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = $1`, string(ids[2]))
	next()
	byHand(t, w, `SELECT flower_resume($1)`, string(ids[3]))
	next("4/1")
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(ids[2]))
	next()
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE exec_status = 1`)
	next() // its program, which was cancelled above, may still be ending
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now()`)
	next("3/1")
}

func TestLimits_RescueMakesRoom(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.OnLost = flow.OnLostSuspend
	define(t, w, "one", d)
	limit(t, w, "one", 1, 1)
	ids := registerMany(t, w, "one", 2)
	dead := join(t, w, "NoOp")
	require.Len(t, claimAs(t, w, dead, 10), 1)
	age(t, w, dead, 11)
	rescueAll(t, w)
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"2/1"}, places(ids, claim(t, w, 10)))
}

// Many watchers and a person at once: never more than the limit runs, and everything
// ends.
func TestLimits_UnderLoad(t *testing.T) {
	t.Parallel()
	w := open(t)
	const flows, most = 60, 4
	define(t, w, "busy", def(), def(1), def(1), def(2, 3))
	define(t, w, "free", def(), def(1))
	limit(t, w, "busy", 3, most)
	registerMany(t, w, "busy", flows)
	registerMany(t, w, "free", flows)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group errgroup.Group
	var over atomic.Int64
	group.Go(func() error { // one snapshot each
		for ctx.Err() == nil {
			var tasks, underWay int64
			if err := w.psql.QueryRow(`SELECT count(*), count(DISTINCT task_flow_id) FROM kr_task_stat
				WHERE task_id = 'busy' AND exec_status = 1`).Scan(&tasks, &underWay); err != nil {
				return err
			}
			if tasks > most || underWay > 3 {
				over.Add(1)
			}
		}
		return nil
	})
	var ended atomic.Int64
	for range 4 {
		d, watcher := another(t, w), join(t, w, "NoOp")
		group.Go(func() error {
			defer stop()
			var results []*flow.Result
			for round := 0; ended.Load() < flows*6; round++ {
				adv, err := d.Advance(ctx, results, flow.Claim{ID: newID(), Watcher: watcher, Free: 5, Programs: programs})
				if ctx.Err() != nil {
					return nil //nolint:nilerr // another one has seen the end
				}
				if err != nil {
					return err
				}
				ended.Add(int64(len(adv.Verdicts)))
				results = finished(adv.Claimed...)
				if round%10 == 0 {
					if _, _, err := d.Promote(ctx); err != nil && ctx.Err() == nil {
						return err
					}
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.Zero(t, over.Load(), "snapshots in which more ran than may")
	require.Equal(t, flows*6, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE exec_status = 3 AND attempt = 1`))
}

// Whoever looks at what a changed limit would do, in a transaction, holds up nobody: not
// those who register its workflow, not results, not other workflows.
func TestLimits_AnUncommittedChangeHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := open(t)
	var log bytes.Buffer // who has waited for that person in vain says so
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	for _, id := range []flow.WorkflowID{"held", "other"} {
		define(t, w, id, def(), def(1))
		limit(t, w, id, 0, 1)
	}
	ids := []flow.ID{registerOf(t, w, "held"), registerOf(t, w, "other")}
	running := claim(t, w, 2)
	require.Equal(t, []string{"1/1", "2/1"}, places(ids, running))

	tx := begin(t, w)
	mustExec(t, tx, `UPDATE ms_workflow SET max_running_tasks = 2 WHERE task_id = 'held'`)
	ids = append(ids, registerOf(t, w, "held"), registerOf(t, w, "other"))
	finish(t, w, running...)
	require.Empty(t, log.String())
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"2/2"}, places(ids, claim(t, w, 10)), "the other workflow goes on")
	require.NoError(t, tx.Commit())
	_, _, err = w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"1/2", "3/1"}, places(ids, claim(t, w, 10)), "as the new limit says")
}

// But those who admit at the same time wait for each other: the first one has not seen what
// the second one brings.
func TestLimits_TwoAdmitAtOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", def())
	limit(t, w, "w", 0, 2)
	first := begin(t, w)
	mustExec(t, first, admitSQL, pq.Array([]string{"w"}))
	second := async(func() error {
		_, err := w.Register(background, flow.Registration{FlowID: "flow", WorkflowID: "w"})
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, first.Commit())
	require.NoError(t, second())
	require.Len(t, claim(t, w, 10), 1)
}

// Every session of psql is a new one, which has never had a limit with room in it.
func TestLimits_LowerThanWhatRuns(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", def())
	limit(t, w, "w", 0, 5)
	registerMany(t, w, "w", 8)
	running := claim(t, w, 10)
	require.Len(t, running, 5)
	for _, change := range []string{
		`UPDATE ms_workflow SET max_running_tasks = 2`,
		`DELETE FROM ms_workflow`,
		`INSERT INTO ms_workflow (task_id, max_running_flows, max_running_tasks) VALUES ('w', 1, 1)`,
	} {
		session, err := sqlx.Connect("postgres", w.psql.DSN)
		require.NoError(t, err)
		_, err = session.Exec(change)
		require.NoError(t, err, change)
		require.NoError(t, session.Close())
		sound(t, w)
	}
	require.Empty(t, claim(t, w, 10))
	finish(t, w, running...)
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Len(t, claim(t, w, 10), 1)
}

// While somebody looks at a first limit without committing it, others register: what has
// not begun by then is under the limit.
func TestLimits_TheFirstOneCountsForWhatCameMeanwhile(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", def())
	tx := begin(t, w)
	mustExec(t, tx, `INSERT INTO ms_workflow (task_id, max_running_flows) VALUES ('w', 1)`)
	registerMany(t, w, "w", 3)
	require.NoError(t, tx.Commit())
	sound(t, w)
	require.Len(t, claim(t, w, 10), 1)
}

func TestLimits_ATaskOfAnotherWorkflow(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "free", def())
	define(t, w, "few", def())
	limit(t, w, "few", 0, 1)
	ids := append(registerMany(t, w, "few", 1), registerMany(t, w, "free", 2)...)
	byHand(t, w, `UPDATE kr_task_stat SET task_id = 'few' WHERE task_flow_id = $1`, string(ids[1]))
	byHand(t, w, `UPDATE kr_task_stat SET task_id = 'free' WHERE task_flow_id = $1`, string(ids[0]))
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"1/1", "2/1", "3/1"}, places(ids, claim(t, w, 10)))
	more := registerOf(t, w, "few")
	require.Empty(t, claim(t, w, 10), "%s has to wait", more)
}
