package postgres

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Whoever frees a running task by hand empties watcher_id, too, as the engine does.
func TestEdit_OfARunningTaskThatAlsoFreesItsWatcher(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, c := range []struct {
		set, want string // what the row, its events and its dependent are then
	}{
		{"exec_status = 2", "2 cancelled suspended=true finished=false events=1->2 next=0/1"},
		{"exec_status = 2, reason = 'held'", "2 held suspended=true finished=false events=1->2 next=0/1"},
		{"exec_status = 3", "3 - suspended=false finished=true events=1->3 next=0/0"},
		{"exec_status = 9", "9 - suspended=false finished=false events=1->9 next=0/0"},
		{"exec_status = 0", "0 - suspended=false finished=false events=1->0 next=0/1"},
	} {
		id := register(t, w, def(), def(1))
		task := claimOne(t, w)
		byHand(t, w, `UPDATE kr_task_stat SET `+c.set+`, watcher_id = NULL WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
		require.Equal(t, c.want, value[string](t, w, `
			SELECT format('%s %s suspended=%s finished=%s events=%s next=%s', t.exec_status, coalesce(t.reason, '-'),
			              (t.suspended_ts IS NOT NULL)::text, (t.finished_ts IS NOT NULL)::text,
			              (SELECT string_agg(format('%s->%s', old_status, new_status), ',') FROM kr_event e WHERE e.task_flow_id = t.task_flow_id),
			              (SELECT format('%s/%s', n.exec_status, n.unmet) FROM kr_task_stat n WHERE n.task_flow_id = t.task_flow_id AND n.task_exec_seq = 2))
			FROM kr_task_stat t WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id)), c.set)
		require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, flow.OutcomeFinished)).Verdict, c.set)
		byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	}
}

// A flow that was deleted comes back from a copy of its rows, as it was.
func TestInsert_AFlowFromACopyOfItsRows(t *testing.T) {
	t.Parallel()
	w := open(t)
	failed := register(t, w, def(), def(1))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	waiting := register(t, w, def(), def(1))
	const show = `SELECT concat_ws(' ', f.status, (SELECT count(*) FROM v_failed x WHERE x.task_flow_id = f.task_flow_id),
		(SELECT count(*) FROM kr_ready r WHERE r.task_flow_id = f.task_flow_id)) FROM v_flow f WHERE task_flow_id = $1`
	for _, id := range []flow.ID{failed, waiting} {
		before := value[string](t, w, show, string(id))
		copied := begin(t, w)
		mustExec(t, copied, `CREATE TEMP TABLE copy ON COMMIT DROP AS SELECT * FROM kr_task_stat WHERE task_flow_id = '`+string(id)+`'`)
		mustExec(t, copied, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
		mustExec(t, copied, `INSERT INTO kr_task_stat SELECT * FROM copy`)
		require.NoError(t, copied.Commit())
		sound(t, w)
		require.Equal(t, before, value[string](t, w, show, string(id)))
	}
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status = 2`, string(failed))
	require.Len(t, run(t, w), 4)
}

// So does a task of a flow that is still there: what it depends on knows it again, and what
// depends on it goes on.
func TestInsert_ATaskFromACopyOfItsRow(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(2))
	for range 2 {
		finish(t, w, claimOne(t, w))
	}
	mustExec(t, w.psql, `CREATE TABLE copy AS SELECT * FROM kr_task_stat WHERE task_exec_seq = 2`)
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_exec_seq = 2`)
	require.Empty(t, ready(t, w))
	byHand(t, w, `INSERT INTO kr_task_stat SELECT * FROM copy`)
	sound(t, w)
	require.EqualValues(t, []int64{2}, look(t, w, id, 1).Dependents)
	require.Equal(t, []int{3}, seqsOf(claim(t, w, 5)))
}

// A value that cannot be counted on, or has no end, harms nobody: it is refused.
func TestInsert_ValuesThatCannotBe(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(1, 2))
	for statement, want := range map[string]string{
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, attempt) VALUES ('f', 1, 0, 'sample', 1, 2147483647)`:        "leaves no room to count",
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, run_after) VALUES ('f', 1, 0, 'sample', 1, 'infinity')`:      "kr_task_times_are_finite",
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, registered_ts) VALUES ('f', 1, 0, 'sample', 1, '-infinity')`: "kr_task_times_are_finite",
		`UPDATE kr_task_stat SET run_after = 'infinity'`:    "kr_task_times_are_finite",
		`UPDATE kr_task_stat SET exec_status = 4`:           "exec_status is 0, 1, 2, 3 or 9",
		`UPDATE kr_task_stat SET task_priority = 20`:        "task_priority is from -20 to 19",
		`UPDATE kr_task_stat SET reason = 'why not'`:        "reason is failed, timeout, lost, invalid, cancelled or held",
		`UPDATE kr_task_stat SET started_ts = '-infinity'`:  "kr_task_times_are_finite",
		`UPDATE kr_task_stat SET finished_ts = 'infinity'`:  "kr_task_times_are_finite",
		`UPDATE kr_task_stat SET suspended_ts = 'infinity'`: "kr_task_times_are_finite",
		`UPDATE kr_flow SET task_flow_id = 'another'`:       "a flow keeps its task_flow_id",
		`UPDATE kr_watcher SET lease_until = 'infinity'`:    "kr_watcher_times_are_finite",
		`INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts) VALUES ('f', 1, 1, 2, 'infinity')`: "kr_task_attempt_times_are_finite",
		`UPDATE kr_flow SET registered_ts = 'infinity'`:                                                                     "kr_flow_time_is_finite",
		`UPDATE kr_task_stat SET depends_task_exec_seqs = '[0:1]={2,1}', depends_task_exec_seq = 1 WHERE task_exec_seq = 3`: "depends_task_exec_seq is the first of depends_task_exec_seqs",
		`UPDATE ms_task_definition SET depends_task_seqs = '[2:2]={1}' WHERE task_id = 'sample' AND task_seq = 3`:           "depends_task_seqs is written like {1,2}",
	} {
		require.ErrorContains(t, refused(t, w, statement), want, statement)
	}
	byHand(t, w, `UPDATE kr_task_stat SET lost_count = 2147483647, failed_count = 2147483647, max_attempts = 2147483647 WHERE task_flow_id = $1`, string(id))
	require.Equal(t, flow.Suspended, verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed)).Status)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status = 2`, string(id))
	byHand(t, w, `UPDATE kr_task_stat SET lost_count = 2147483647 WHERE task_flow_id = $1`, string(id))
	dead := join(t, w, "NoOp")
	require.Len(t, claimAs(t, w, dead, 1), 1)
	age(t, w, dead, 11)
	rescueAll(t, w)
	require.Equal(t, "lost", value[string](t, w, `SELECT reason FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id)))
}

// A task that is inserted as running has begun: whoever is told that it runs is told since
// when.
func TestInsert_ARunningTaskHasBegun(t *testing.T) {
	t.Parallel()
	w := open(t)
	insert(t, w, "f", 1, [2]int{1, 0})
	insert(t, w, "f", 3, [2]int{2, 0})
	require.ErrorContains(t, refused(t, w, `SELECT flower_rerun('f', NULL, 'all')`), "is running, since 20")
}

// Where a person and the engine wait for each other, the engine gives way: it does the
// same again by itself, and a person would read "deadlock detected".
func TestAdvance_GivesWayToAPerson(t *testing.T) {
	t.Parallel()
	w := open(t)
	for lost := 0; lost < 5; { // a machine that is held up for half a second can turn it round
		id := register(t, w, def(), def(1), def(1))
		task := claimOne(t, w)
		brief, person := begin(t, w), begin(t, w)
		const touch = `UPDATE kr_task_stat SET task_priority = 1 WHERE task_flow_id = $1 AND task_exec_seq = $2`
		mustExec(t, brief, touch, string(id), 2)
		mustExec(t, person, touch, string(id), 3)
		var adv flow.Advanced
		engine, update := make(chan error, 1), make(chan error, 1)
		blocked := func(n int) (all bool) { // unless the engine has given up already
			pgtest.Eventually(t, soon, fmt.Sprintf("%d wait", n), func() bool {
				all = value[int](t, w, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == n
				return all || len(engine) > 0
			})
			return all
		}
		go func() { // it has task 1, and waits for 2
			var err error
			adv, err = w.Advance(background, finished(task), flow.Claim{ID: newID(), Watcher: w.watcher, Programs: programs})
			engine <- err
		}()
		met := blocked(1)
		go func() {
			_, err := person.Exec(touch, string(id), 1)
			update <- err
		}()
		met = met && blocked(2)
		require.NoError(t, brief.Commit()) // the engine has 2, too, and waits for the person
		err := <-update
		if err == nil {
			require.NoError(t, person.Commit())
		} else {
			require.NoError(t, person.Rollback())
		}
		require.NoError(t, <-engine)
		for len(adv.Rejected) > 0 {
			require.True(t, adv.Rejected[0].Busy)
			adv = advance(t, w, finished(task), flow.Claim{})
		}
		sound(t, w)
		require.Equal(t, "3 0 0", statuses(t, w, id))
		switch {
		case err != nil:
			lost++
			t.Log(err)
		case met:
			return
		}
		byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	}
	t.Error("it was the person each time")
}
