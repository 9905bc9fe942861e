package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestAdvance_ClaimsInTheDocumentedOrder(t *testing.T) {
	t.Parallel()
	both(t, claimsInTheDocumentedOrder)
}

func claimsInTheDocumentedOrder(t *testing.T, w *world) {
	t.Helper()
	// flow, seq, priority, registered so many seconds ago; listed in the order of claims
	want := []string{"c/1", "a/3", "b/1", "b/2", "b/10", "a/1", "a/2", "d/1"}
	byHand(t, w, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program, task_priority, registered_ts)
		SELECT f, s, 'x', s, 'NoOp', p, now() - ago * interval '1 s'
		FROM (VALUES ('d', 1, 19, 99), ('a', 2, 10, 1), ('a', 1, 10, 1), ('b', 10, 10, 2), ('b', 2, 10, 2), ('b', 1, 10, 2),
		             ('c', 1, -20, 0), ('a', 3, 9, 0)) v(f, s, p, ago)`)
	var order []string
	for _, key := range run(t, w) {
		order = append(order, key.String())
	}
	require.Equal(t, want, order)
}

func TestAdvance_ClaimsASetInTheDocumentedOrder(t *testing.T) {
	t.Parallel()
	w := open(t)
	late, early := register(t, w, def(), def(), def()), register(t, w, def(), def(), def())
	byHand(t, w, `UPDATE kr_task_stat SET registered_ts = registered_ts - interval '1 h' WHERE task_flow_id = $1`, string(early))
	require.Equal(t, []flow.TaskKey{{Flow: early, Seq: 1}, {Flow: early, Seq: 2}}, keysOf(claim(t, w, 2)))
	require.ElementsMatch(t, []flow.TaskKey{{Flow: early, Seq: 3}, {Flow: late, Seq: 1}, {Flow: late, Seq: 2}}, keysOf(claim(t, w, 3)))
	require.Equal(t, []flow.TaskKey{{Flow: late, Seq: 3}}, keysOf(claim(t, w, 3)))
	require.Empty(t, claim(t, w, 3))
}

func TestAdvance_AClaimIsWritten(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	adv := advance(t, w, nil, flow.Claim{ID: "6b1f6f3e-5f0c-4a53-9d0a-0d4d7ff5a001", Free: 1})
	require.Len(t, adv.Claimed, 1)
	r := look(t, w, id, 1)
	require.Equal(t, 1, r.Status)
	require.Equal(t, 1, r.Attempt)
	require.Equal(t, w.watcher, r.Watcher)
	require.Equal(t, "6b1f6f3e-5f0c-4a53-9d0a-0d4d7ff5a001", r.Claim)
	require.NotNil(t, r.Started)
	require.False(t, r.Ready)
	sound(t, w)

	verdict(t, w, &flow.Result{Task: adv.Claimed[0], Outcome: flow.OutcomeFinished, Output: object(`{"a": [1, "ü"]}`)})
	r = look(t, w, id, 1)
	require.Equal(t, 3, r.Status)
	require.JSONEq(t, `{"a": [1, "ü"]}`, r.Output)
	require.Empty(t, r.Watcher)
	require.NotNil(t, r.Finished)
	require.Nil(t, r.Suspended)
	require.Empty(t, r.Attempts)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`), "nobody did anything by hand")
}

// One task releases 28, and three workers are free.
func TestAdvance_NeverClaimsMoreThanFree(t *testing.T) {
	t.Parallel()
	both(t, neverClaimsMoreThanFree)
}

func neverClaimsMoreThanFree(t *testing.T, w *world) {
	t.Helper()
	defs := []flow.TaskDefinition{def()}
	var leaves []int
	for i := range 28 {
		defs = append(defs, def(1))
		leaves = append(leaves, i+2)
	}
	register(t, w, append(defs, def(leaves...))...)
	root := claimOne(t, w)

	adv := advance(t, w, finished(root), flow.Claim{Free: 3})
	require.Equal(t, []int{2, 3, 4}, seqsOf(adv.Claimed))
	require.Equal(t, 25, adv.Queued)
	sound(t, w)
	running := adv.Claimed
	for n := 0; len(running) > 0; n++ {
		require.Less(t, n, 100)
		require.LessOrEqual(t, len(running), 3)
		adv = advance(t, w, finished(running[0]), flow.Claim{Free: 1})
		require.LessOrEqual(t, len(adv.Claimed), 1)
		running = append(running[1:], adv.Claimed...)
	}
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE exec_status <> 3`))
}

func TestAdvance_ClaimsOnlyProgramsOfTheWatcher(t *testing.T) {
	t.Parallel()
	w := open(t)
	other, mine := def(), def()
	other.Program, other.Priority = "Report", -20
	child := def(2)
	child.Program = "Report"
	id := register(t, w, other, mine, child)
	task := claimOne(t, w)
	require.Equal(t, 2, task.Seq)

	adv := advance(t, w, finished(task), flow.Claim{Free: 5})
	require.Empty(t, adv.Claimed)
	require.Equal(t, 1, adv.Queued)
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 1}, {Flow: id, Seq: 3}}, ready(t, w))

	byHand(t, w, `UPDATE kr_task_stat SET program = NULL WHERE task_exec_seq = 3`)
	adv = advance(t, w, nil, flow.Claim{Watcher: join(t, w, "Report"), Free: 5, Programs: []string{"Report"}})
	require.Equal(t, []int{1}, seqsOf(adv.Claimed))
	require.Empty(t, advance(t, w, nil, flow.Claim{Free: 5, Programs: []string{}}).Claimed, "no programs")
}

// What a finished task releases may be claimed in the same breath, but not before what
// stands in the queue and comes first.
func TestAdvance_ReleasedTasksDoNotOvertakeTheQueue(t *testing.T) {
	t.Parallel()
	both(t, releasedTasksDoNotOvertakeTheQueue)
}

func releasedTasksDoNotOvertakeTheQueue(t *testing.T, w *world) {
	t.Helper()
	for name, c := range map[string]struct {
		queued   int // priority of a task that is in the queue; what is released has 0
		earlier  bool
		overtake bool
	}{
		"the queue has a more urgent task":        {queued: -1},
		"the queue has a less urgent task":        {queued: 1, overtake: true},
		"equals: the queue's flow is the earlier": {earlier: true},
		"equals: the queue's flow is the later":   {overtake: true},
	} {
		t.Run(name, func(t *testing.T) {
			id := register(t, w, def(), def(1))
			parent := claimOne(t, w)
			d := def()
			d.Priority = c.queued
			other := register(t, w, d)
			if c.earlier {
				byHand(t, w, `UPDATE kr_task_stat SET registered_ts = registered_ts - interval '1 h' WHERE task_flow_id = $1`, string(other))
			}
			adv := advance(t, w, finished(parent), flow.Claim{Free: 1})
			require.Len(t, adv.Claimed, 1)
			if c.overtake {
				require.Equal(t, flow.TaskKey{Flow: id, Seq: 2}, adv.Claimed[0].TaskKey)
				require.Zero(t, adv.Queued)
			} else {
				require.Equal(t, flow.TaskKey{Flow: other, Seq: 1}, adv.Claimed[0].TaskKey)
				require.Equal(t, 1, adv.Queued)
			}
			sound(t, w)
			finish(t, w, adv.Claimed...)
			finish(t, w, claimOne(t, w))
		})
	}
}

// With several free workers the best of both are taken, in whatever mixture.
func TestAdvance_TakesTheBestOfReleasedAndQueued(t *testing.T) {
	t.Parallel()
	both(t, takesTheBestOfReleasedAndQueued)
}

func takesTheBestOfReleasedAndQueued(t *testing.T, w *world) {
	t.Helper()
	for _, c := range []struct {
		released, queued []int // priorities
		free             int
		want             []int // priorities; nil: fewer than could be are taken, the rest with the next look
	}{
		{[]int{1, 2, 3}, []int{0, 4}, 3, nil},
		{[]int{1, 2, 3}, []int{4, 5}, 3, []int{1, 2, 3}},
		{[]int{4, 5}, []int{1, 2, 3}, 3, nil},
		{[]int{1, 4}, []int{2, 3}, 3, nil},
		{[]int{1}, []int{}, 3, []int{1}},
		{[]int{5}, []int{1}, 3, []int{1, 5}},
		{[]int{}, []int{1, 2, 3, 4}, 3, []int{1, 2, 3}},
	} {
		t.Run(fmt.Sprint(c.released, c.queued, c.free), func(t *testing.T) {
			defs := []flow.TaskDefinition{def()}
			for _, p := range c.released {
				d := def(1)
				d.Priority = p
				defs = append(defs, d)
			}
			register(t, w, defs...)
			parent := claimOne(t, w)
			if len(c.queued) > 0 {
				defs = nil
				for _, p := range c.queued {
					d := def()
					d.Priority = p
					defs = append(defs, d)
				}
				register(t, w, defs...)
			}
			adv := advance(t, w, finished(parent), flow.Claim{Free: c.free})
			sound(t, w)
			got := priorities(t, w, adv.Claimed)
			require.LessOrEqual(t, len(got), c.free)
			if c.want != nil {
				require.Equal(t, c.want, got)
			}
			// Whatever was taken, nothing better was left.
			best := value[int](t, w, `SELECT coalesce(min(task_priority), 99) FROM kr_ready`)
			require.NotEmpty(t, got)
			require.LessOrEqual(t, got[len(got)-1], best)
			if len(got) < c.free && best != 99 {
				require.Positive(t, adv.Queued, "fewer than asked for, and something left: the watcher must be told to look again")
			}
			finish(t, w, adv.Claimed...)
			run(t, w)
		})
	}
}

func priorities(t *testing.T, w *world, tasks []flow.Task) []int {
	t.Helper()
	var all []int
	ids := make([]string, len(tasks))
	for i, task := range tasks {
		ids[i] = task.TaskKey.String()
	}
	require.NoError(t, w.psql.Select(&all, `SELECT task_priority FROM kr_task_stat WHERE task_flow_id || '/' || task_exec_seq = ANY ($1)
	                                        ORDER BY 1`, pq.Array(ids)))
	return all
}

func TestAdvance_ManyClaimersShareNoTask(t *testing.T) {
	t.Parallel()
	both(t, manyClaimersShareNoTask)
}

func manyClaimersShareNoTask(t *testing.T, w *world) {
	t.Helper()
	const tasks, claimers, processes = 2000, 20, 5
	register(t, w, independent(tasks)...)
	dbs := []*DB{w.DB}
	for len(dbs) < processes {
		dbs = append(dbs, another(t, w))
	}
	var (
		group errgroup.Group
		mu    sync.Mutex
		total atomic.Int32
		owner = map[flow.TaskKey]string{}
	)
	for i := range claimers {
		watcher := join(t, w, programs...)
		group.Go(func() error {
			for deadline := time.Now().Add(10 * time.Second); total.Load() < tasks; {
				if time.Now().After(deadline) {
					return fmt.Errorf("only %d tasks were claimed", total.Load())
				}
				adv, err := dbs[i%processes].Advance(background, nil, flow.Claim{ID: newID(), Watcher: watcher, Free: 7, Programs: programs})
				if err != nil {
					return err
				}
				mu.Lock()
				for _, task := range adv.Claimed {
					if before, twice := owner[task.TaskKey]; twice {
						mu.Unlock()
						return fmt.Errorf("task %s claimed by %s and by %s", task.TaskKey, before, watcher)
					}
					owner[task.TaskKey] = watcher
				}
				mu.Unlock()
				total.Add(int32(len(adv.Claimed)))
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.Len(t, owner, tasks)
	for key, watcher := range owner {
		if key.Seq%100 == 1 {
			require.Equal(t, watcher, look(t, w, key.Flow, key.Seq).Watcher)
		}
	}
	require.Equal(t, tasks, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE exec_status = 1 AND attempt = 1`))
}

// independent makes n definitions that depend on nothing.
func independent(n int) []flow.TaskDefinition {
	defs := make([]flow.TaskDefinition, n)
	for i := range defs {
		defs[i] = def()
	}
	return defs
}

func TestAdvance_LeavesLockedTasksAlone(t *testing.T) {
	t.Parallel()
	both(t, leavesLockedTasksAlone)
}

func leavesLockedTasksAlone(t *testing.T, w *world) {
	t.Helper()
	id := register(t, w, independent(3)...)
	tx := begin(t, w)
	mustExec(t, tx, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1 FOR UPDATE`, string(id))
	require.Equal(t, []int{2}, seqsOf(claim(t, w, 1)))
	require.Equal(t, []int{3}, seqsOf(claim(t, w, 5)))
	require.NoError(t, tx.Rollback())
	require.Equal(t, []int{1}, seqsOf(claim(t, w, 5)))
}

// The heart of the matter: under READ COMMITTED neither of two last parents sees that
// the other one finishes.
func TestAdvance_TwoLastParentsAtOnceReleaseTheChildOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	const rounds = 1000
	var defs []flow.TaskDefinition
	for i := range rounds {
		defs = append(defs, def(), def(), def(3*i+1, 3*i+2))
	}
	id := register(t, w, defs...)
	parents := map[int]flow.Task{}
	for _, task := range claim(t, w, 3*rounds) {
		parents[task.Seq] = task // numbered as they were defined
	}
	require.Len(t, parents, 2*rounds)

	dbs := [2]*DB{w.DB, another(t, w)}
	claimed := map[int]int{}
	for i := range rounds {
		var wait [2]func() error
		var adv [2]flow.Advanced
		start := make(chan struct{})
		for j, db := range dbs {
			parent := parents[3*i+1+j]
			wait[j] = async(func() (err error) {
				<-start
				// Half of them for a free worker, half of them for the queue.
				adv[j], err = db.Advance(background, finished(parent), flow.Claim{ID: newID(), Watcher: w.watcher, Free: i % 2, Programs: programs})
				return err
			})
		}
		close(start)
		for j := range dbs {
			require.NoError(t, wait[j]())
			for _, task := range adv[j].Claimed {
				claimed[task.Seq]++
			}
		}
	}
	for seq, n := range claimed {
		require.Equal(t, 1, n, "task %d", seq)
	}
	require.Equal(t, rounds, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE task_flow_id = $1 AND unmet = 0 AND cardinality(depends_task_exec_seqs) = 2`, string(id)))
	require.Equal(t, rounds, value[int](t, w, `SELECT count(*) FROM kr_ready`)+len(claimed), "each child is claimed or in the queue")
	sound(t, w)
	require.Len(t, run(t, w), value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE exec_status = 3`)-2*rounds)
}

func TestAdvance_OneBatchWithBothParents(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, free := range []int{0, 1, 5} {
		id := register(t, w, def(), def(), def(1, 2), def(1, 2, 3))
		adv := advance(t, w, finished(claim(t, w, 2)...), flow.Claim{Free: free})
		require.Len(t, adv.Claimed, min(free, 1))
		require.Equal(t, 1-min(free, 1), adv.Queued)
		require.Zero(t, *look(t, w, id, 3).Unmet)
		require.Equal(t, 1, *look(t, w, id, 4).Unmet)
		sound(t, w)
		finish(t, w, adv.Claimed...)
		run(t, w)
		require.Equal(t, "3 3 3 3", statuses(t, w, id))
	}
}

// Finished and ignored tasks are never run, stopped ones only count what they wait for.
func TestAdvance_ReleasesWhatWaitsOnly(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(1), def(1), def(1))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() + interval '1 h' WHERE task_flow_id = $1 AND task_exec_seq = 4`, string(id))
	adv := advance(t, w, finished(claimOne(t, w)), flow.Claim{Free: 9})
	require.Equal(t, []int{5}, seqsOf(adv.Claimed))
	require.Equal(t, "3 9 2 0 1", statuses(t, w, id))
	require.Zero(t, adv.Queued)
	sound(t, w)

	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status IN (2, 9)`, string(id))
	require.Equal(t, []int{2, 3}, seqsOf(claim(t, w, 9)))
}

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
	rescued, err := w.Rescue(t.Context(), w.watcher)
	require.NoError(t, err)
	require.Len(t, rescued, 2)
	require.Equal(t, "0 2", statuses(t, w, id))
	for _, task := range tasks {
		for _, outcome := range []flow.Outcome{flow.OutcomeFinished, flow.OutcomeFailed, flow.OutcomeTimeout, flow.OutcomeInvalid} {
			require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, outcome)).Verdict, "%d %s", task.Seq, outcome)
		}
	}
	require.Equal(t, "0 2", statuses(t, w, id))
}

func TestAdvance_ALockedTaskDoesNotStallItsBatch(t *testing.T) {
	t.Parallel()
	w := open(t)
	for name, lock := range map[string]string{
		"the task":       `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq IN (3, 4) FOR UPDATE`,
		"its dependents": `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq IN (13, 14) FOR UPDATE`,
	} {
		t.Run(name, func(t *testing.T) {
			defs := independent(10)
			for i := range 10 {
				defs = append(defs, def(i+1))
			}
			id := register(t, w, defs...)
			tasks := claim(t, w, 10)
			require.Len(t, tasks, 10)
			tx := begin(t, w)
			mustExec(t, tx, lock, string(id))

			results := finished(tasks...)
			for i, r := range results {
				if r.Task.Seq%2 == 0 && (name == "the task" || r.Task.Seq != 4) { // every kind of result
					results[i].Outcome, results[i].Error = flow.OutcomeFailed, "no"
				}
			}
			started := time.Now()
			adv := record(t, w, results...)
			took := time.Since(started)
			t.Log("recorded beside locked ones in", took.Round(time.Millisecond))
			require.Less(t, took, 5*time.Second, "the engine's lock_timeout for each of the two statements, and a little")
			var busy []int
			for _, r := range adv.Rejected {
				require.True(t, r.Busy)
				require.Error(t, r.Cause)
				busy = append(busy, r.Result.Task.Seq)
			}
			require.ElementsMatch(t, []int{3, 4}, busy)
			require.Len(t, adv.Verdicts, 8)
			require.NoError(t, tx.Rollback())

			// Given again, as they are.
			var again []*flow.Result
			for _, r := range adv.Rejected {
				again = append(again, r.Result)
			}
			adv = record(t, w, again...)
			require.Empty(t, adv.Rejected)
			require.Len(t, adv.Verdicts, 2)
			sound(t, w)
			byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(id))
		})
	}
}

// A person has locked half of the tasks that run: one wait for all of them.
func TestAdvance_ManyLockedTasksCostOneWait(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(400)...)
	tasks := claim(t, w, 400)
	tx := begin(t, w)
	mustExec(t, tx, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq % 2 = 0 FOR UPDATE`, string(id))
	started := time.Now()
	adv := record(t, w, finished(tasks...)...)
	require.Less(t, time.Since(started), 5*time.Second)
	require.Len(t, adv.Rejected, 200)
	require.Len(t, adv.Verdicts, 200)
	require.NoError(t, tx.Rollback())
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

// A child that is inserted by hand while its parent's finish waits for the parent's row
// is not in the snapshot of that finish.
func TestAdvance_CountsAChildInsertedMeanwhile(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	parent := claimOne(t, w)
	tx := begin(t, w)
	mustExec(t, tx, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, program)
	                 VALUES ($1, 3, 1, 'x', 3, 'NoOp')`, string(id))
	var adv flow.Advanced
	wait := async(func() (err error) {
		adv, err = w.Advance(background, finished(parent), flow.Claim{ID: newID(), Watcher: w.watcher, Free: 1, Programs: programs})
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	require.Equal(t, []int{2}, seqsOf(adv.Claimed))
	require.True(t, look(t, w, id, 3).Ready)
	sound(t, w)
	require.Equal(t, []int{3}, seqsOf(claim(t, w, 5)))
}

// A change by hand and the finish of another parent meet at the child.
func TestAdvance_MeetsAChangeByHand(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, undo := range []bool{false, true} {
		id := register(t, w, def(), def(), def(1, 2))
		tasks := claim(t, w, 2)
		finish(t, w, tasks[1])
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), tasks[1].Seq)
		tx := begin(t, w)
		mustExec(t, tx, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), tasks[1].Seq)
		var adv flow.Advanced
		wait := async(func() (err error) {
			adv, err = w.Advance(background, finished(tasks[0]), flow.Claim{ID: newID(), Watcher: w.watcher, Free: 1, Programs: programs})
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
		if !undo {
			require.Len(t, append(adv.Claimed, claim(t, w, 1)...), 1, "released once, by one of the two ways")
		}
		byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	}
}

func TestAdvance_AFencedWatcherClaimsNothing(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def())
	running := claim(t, w, 1)
	for name, make := range map[string]func() string{
		"without a row": newID,
		"draining": func() string {
			watcher := join(t, w, programs...)
			require.NoError(t, w.Drain(t.Context(), watcher))
			return watcher
		},
		"with an expired lease": func() string {
			watcher := join(t, w, programs...)
			byHand(t, w, `UPDATE kr_watcher SET lease_until = clock_timestamp() - interval '1 ms' WHERE watcher_id = $1`, watcher)
			return watcher
		},
		"that left": func() string {
			watcher := join(t, w, programs...)
			require.NoError(t, w.Leave(t.Context(), watcher))
			return watcher
		},
	} {
		watcher := make()
		require.Empty(t, claimAs(t, w, watcher, 5), name)
		// Nor directly, what its own result has released; the result counts.
		adv := advance(t, w, finished(running...), flow.Claim{Watcher: watcher, Free: 5})
		require.Empty(t, adv.Claimed, name)
		require.Equal(t, flow.VerdictRecorded, adv.Verdicts[0].Verdict, name)
		require.Equal(t, "3 0 0", statuses(t, w, id), name)
		sound(t, w)
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
		running = claim(t, w, 1)
		require.Equal(t, []int{1}, seqsOf(running))
	}
}

func TestAdvance_NothingToDo(t *testing.T) {
	t.Parallel()
	w := open(t)
	require.Equal(t, flow.Advanced{}, advance(t, w, nil, flow.Claim{}))
	require.Equal(t, flow.Advanced{}, advance(t, w, nil, flow.Claim{Free: 3}))
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

// A claim costs the same whatever waits, has finished, or is for others; also where the
// statement was planned when the tables were empty, as on the first day, and nobody has
// gathered statistics.
func TestAdvance_CostsLittleBesideManyRows(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // reading v_invariant takes long here
	engine, err := w.open(1, w.net.dialer(w.net.quick), w.cfg.engineSettings()...)
	require.NoError(t, err)
	defer func() { require.NoError(t, engine.Close()) }()
	// Behind a pooler there are no settings, and no prepared statements: planned each time.
	pooled, err := w.open(1, w.net.dialer(w.net.quick))
	require.NoError(t, err)
	defer func() { require.NoError(t, pooled.Close()) }()
	mustExec(t, pooled, `SET plan_cache_mode = force_custom_plan`)
	mustExec(t, pooled, `PREPARE pooled AS `+advancePooledSQL)
	mustExec(t, engine, `PREPARE first_day AS `+advanceSQL)
	mustExec(t, engine, `EXECUTE first_day('{}', '{}', '{}', '{}', gen_random_uuid(), gen_random_uuid(), 5, '{NoOp}', '{}', 0, '-infinity', '', 0, true)`)

	behind(t, w, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, unmet, program, dependents)
		SELECT 'flow ' || i / 100, i % 100 + 1, i % 100, 'x', i % 100 + 1, CASE WHEN i < 50000 THEN 3 ELSE 0 END,
		       CASE WHEN i < 50000 THEN 0 ELSE 1 END, 'NoOp', CASE WHEN i % 100 < 99 THEN ARRAY[i % 100 + 2] ELSE '{}' END
		FROM generate_series(0, 149999) i`)
	register(t, w, independent(1000)...)
	id := register(t, w, def(), def(), def(), def(1, 2, 3), def(1), def(2), def(3))
	_, err = w.psql.Exec(`UPDATE kr_task_stat SET task_priority = -5 WHERE task_flow_id = $1 AND task_exec_seq <= 3`, string(id))
	require.NoError(t, err)
	tasks := claim(t, w, 3)
	require.Equal(t, []int{1, 2, 3}, seqsOf(tasks))

	check := func(statement, when string) {
		session := engine
		if statement == "pooled" {
			session = pooled
		}
		buffers := buffersOf(t, w, session, statement, tasks, 5, &start{from: beginning, deleted: true})
		t.Logf("planned on the %s: %d buffers to finish 3 tasks and claim 5", when, buffers)
		require.Less(t, buffers, 500, when)
	}
	check("first_day", "first day, with empty tables")
	mustExec(t, engine, `PREPARE second_day AS `+advanceSQL)
	check("second_day", "second day, without statistics")
	check("pooled", "second day, without statistics, by a pooler")
	mustExec(t, engine, `ANALYZE`)
	check("second_day", "third day, with statistics")
	check("pooled", "third day, with statistics, by a pooler")
}

// buffersOf returns how many buffers a prepared advanceSQL touches, and undoes what it
// did.
func buffersOf(t *testing.T, w *world, engine *sqlx.DB, statement string, tasks []flow.Task, free int, from *start) int {
	t.Helper()
	tx, err := engine.Beginx()
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback()) }()
	keys := newKeys(finished(tasks...))
	quote := func(array any) string {
		text, err := pq.Array(array).Value()
		require.NoError(t, err)
		return pq.QuoteLiteral(text.(string))
	}
	begins := ""
	if statement != "pooled" {
		a := from.args()
		begins = fmt.Sprintf(", %d, '%s', '%s', %d, %t", a...)
	}
	var plan string
	require.NoError(t, tx.Get(&plan, fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE %s(%s, %s, %s, %s, %s, %s, %d, %s, %s%s)`,
		statement, quote(keys.flows), quote(keys.seqs), quote(keys.claims), quote(make([]*string, len(tasks))),
		pq.QuoteLiteral(w.watcher), pq.QuoteLiteral(newID()), free, quote(programs), quote(make([]*string, len(tasks))), begins)))
	return buffersIn(t, plan)
}

// buffersIn returns how many buffers a plan in JSON says that it has touched.
func buffersIn(t *testing.T, plan string) int {
	t.Helper()
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(plan), &plans))
	// A node's figures have those of its children; the answer reads every part.
	return plans[0].Plan.Hit + plans[0].Plan.Read
}

// A flow of 10,000 tasks, as wide as it can be.
func TestAdvance_TenThousandDependents(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // reading v_invariant takes long here
	defs := []flow.TaskDefinition{def()}
	for range flow.MaxTasks - 1 {
		defs = append(defs, def(1))
	}
	define(t, w, "wide", defs...)
	started := time.Now()
	id := registerOf(t, w, "wide")
	t.Log("registered in", time.Since(started).Round(time.Millisecond))
	root := claimOne(t, w)
	started = time.Now()
	adv := advance(t, w, finished(root), flow.Claim{Free: 10})
	t.Log("released in", time.Since(started).Round(time.Millisecond))
	require.Less(t, time.Since(started), 8*time.Second)
	require.Len(t, adv.Claimed, 10)
	require.Equal(t, flow.MaxTasks-11, adv.Queued)
	require.Equal(t, flow.MaxTasks-11, value[int](t, w, `SELECT count(*) FROM kr_ready WHERE task_flow_id = $1`, string(id)))
}
