package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

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
	require.True(t, adv.Split)
	require.Len(t, adv.Verdicts, 200)
	require.NoError(t, tx.Rollback())
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

// meanwhile has something happen between the snapshot of a call that finishes a task and
// claims, and what the call does. It returns false where the machine was held up for longer
// than the engine waits for the task, which the test has locked.
func meanwhile(t *testing.T, w *world, task flow.Task, free int, happen func()) (adv flow.Advanced, ok bool) {
	t.Helper()
	tx := begin(t, w)
	mustExec(t, tx, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2 FOR UPDATE`, string(task.Flow), task.Seq)
	wait := async(func() (err error) {
		adv, err = w.Advance(background, finished(task), flow.Claim{ID: newID(), Watcher: w.watcher, Free: free, Programs: programs})
		return err
	})
	awaitBlocked(t, w, 1)
	happen()
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	return adv, len(adv.Rejected) == 0
}

// A dependent that was changed by hand after the snapshot is counted down all the same, once,
// and goes or not as its newest version says.
func TestAdvance_ADependentChangesMeanwhile(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		var id flow.ID
		adv, ok := flow.Advanced{}, false
		for !ok {
			byHand(t, w, `DELETE FROM kr_task_stat`)
			id = register(t, w, def(), def(1), def(1), def(1), def(1), def(1))
			adv, ok = meanwhile(t, w, claimOne(t, w), 9, func() {
				for seq, set := range map[int]string{
					2: `parameters = '{"changed": true}'`, 3: `exec_status = 2`, 4: `exec_status = 9`, 5: `run_after = now() + interval '1 h'`,
				} {
					byHand(t, w, `UPDATE kr_task_stat SET `+set+` WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
				}
			})
		}
		require.Equal(t, []int{6}, seqsOf(adv.Claimed))
		require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 2}}, ready(t, w))
		require.Zero(t, value[int](t, w, `SELECT sum(unmet) FROM kr_task_stat WHERE task_flow_id = $1`, string(id)))
		changed := claimOne(t, w)
		require.JSONEq(t, `{"changed": true}`, string(changed.Parameters))
		finish(t, w, changed, adv.Claimed[0])
		require.Equal(t, "3 3 2 9 0 3", statuses(t, w, id))
		sound(t, w)
	})
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
			require.NoError(t, w.Leave(t.Context(), watcher, false))
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
