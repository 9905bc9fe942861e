package postgres

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// Of those that are claimed at once the most urgent ones start first, wherever in the table
// they are.
func TestAdvance_ASetStartsInTheDocumentedOrder(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		const n = 20
		id := register(t, w, independent(n)...)
		byHand(t, w, `UPDATE kr_task_stat SET task_priority = 19 - task_exec_seq WHERE task_flow_id = $1`, string(id))
		tasks := claim(t, w, n)
		require.Len(t, tasks, n)
		for i, task := range tasks {
			require.Equal(t, n-i, task.Seq)
		}
		require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_task_stat a JOIN kr_task_stat b USING (task_flow_id)
			WHERE task_flow_id = $1 AND a.task_priority < b.task_priority AND a.started_ts > b.started_ts`, string(id)))
	})
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
