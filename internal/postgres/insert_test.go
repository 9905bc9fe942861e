package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// insert puts tasks into a flow as a person does, with columns of the contract and
// nothing else: pairs of task_exec_seq and depends_task_exec_seq.
func insert(t *testing.T, w *world, id flow.ID, status int, pairs ...[2]int) {
	t.Helper()
	for _, p := range pairs {
		byHand(t, w, `
			INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, task_priority)
			VALUES ($1, $2, $3, 'sample', 1, $4, 10)`, string(id), p[0], p[1], status)
	}
}

func TestInsert_TheContractsColumnsAlone(t *testing.T) {
	t.Parallel()
	w := open(t)
	byHand(t, w, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, task_priority)
		VALUES ('test_flow_1', 1, -1, 'sample', 1, 0, 10), ('test_flow_1', 2, 1, 'sample', 2, 0, 10), ('test_flow_1', 3, 2, 'sample', 3, 0, 10)`)
	r := look(t, w, "test_flow_1", 2)
	require.Equal(t, "Test2", r.Program, "from the definition")
	require.False(t, r.Registered.IsZero())
	require.Equal(t, 1, *r.Unmet)
	require.EqualValues(t, []int64{3}, r.Dependents)
	require.Equal(t, "sample", value[string](t, w, `SELECT task_id FROM kr_flow WHERE task_flow_id = 'test_flow_1'`))
	require.Len(t, run(t, w), 3)
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_event`), "who inserted them, and nothing else")
}

func TestInsert_TakesWhatTheDefinitionSays(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "defined", flow.TaskDefinition{
		Program: "NoOp", Parameters: object(`{"a": 1, "b": 1}`), MaxAttempts: 3, RetryDelay: time.Minute, Timeout: time.Hour,
		OnLost: flow.OnLostSuspend, Description: "its title",
	})
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, parameters) VALUES ('f', 1, 'defined', 1, '{"b": 2}')`)
	r := look(t, w, "f", 1)
	require.Equal(t, "NoOp", r.Program)
	require.JSONEq(t, `{"a": 1, "b": 2}`, r.Parameters)
	require.Equal(t, 3, r.MaxAttempts)
	require.Equal(t, "00:01:00", r.RetryDelay)
	require.Equal(t, "01:00:00", r.Timeout)
	require.Equal(t, "suspend", r.OnLost)
	require.Equal(t, "its title", r.Description)

	// With a program of its own it is left as it is.
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program) VALUES ('f', 2, 'defined', 1, 'Test1')`)
	require.Equal(t, "Test1", look(t, w, "f", 2).Program)
	require.Equal(t, "{}", look(t, w, "f", 2).Parameters)

	// Nobody knows this one.
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq) VALUES ('f', 3, 'unknown', 1)`)
	require.Empty(t, look(t, w, "f", 3).Program)
	require.True(t, look(t, w, "f", 3).Ready, "to be found, and refused, by a watcher")
	require.Equal(t, []int{1, 2}, seqsOf(claim(t, w, 9)))
}

func TestInsert_InAnyOrder(t *testing.T) {
	t.Parallel()
	w := open(t)
	insert(t, w, "child first", 0, [2]int{2, 1})
	require.Equal(t, 1, *look(t, w, "child first", 2).Unmet)
	require.Empty(t, claim(t, w, 5), "half of a flow must not run")
	insert(t, w, "child first", 0, [2]int{1, 0})
	require.Len(t, run(t, w), 2)

	insert(t, w, "parent finished", 0, [2]int{3, 1}, [2]int{2, 1})
	insert(t, w, "parent finished", 3, [2]int{1, 0})
	require.Equal(t, []int{2, 3}, seqsOf(claim(t, w, 5)))

	insert(t, w, "every state", 3, [2]int{1, 0})
	insert(t, w, "every state", 9, [2]int{2, 0})
	insert(t, w, "every state", 1, [2]int{3, 0})
	insert(t, w, "every state", 2, [2]int{4, 0})
	for parent := 1; parent <= 4; parent++ {
		insert(t, w, "every state", 0, [2]int{10 + parent, parent})
	}
	require.Equal(t, []int{11, 12}, seqsOf(claim(t, w, 5)))
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM v_failed WHERE task_flow_id = 'every state'`), "who looks for failures finds it")
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = 'every state' AND task_exec_seq = 3`)
	require.Equal(t, []int{13}, seqsOf(claim(t, w, 5)))

	// Several parents, of which some come later, and twice.
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq)
	              VALUES ('join', 9, 1, '{1,2,3,2}', 'sample', 1)`)
	require.Equal(t, 3, *look(t, w, "join", 9).Unmet)
	insert(t, w, "join", 3, [2]int{2, 0}, [2]int{1, 2})
	require.Equal(t, 1, *look(t, w, "join", 9).Unmet)
	insert(t, w, "join", 0, [2]int{3, 1})
	require.Equal(t, []int{3}, seqsOf(claim(t, w, 5)))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = 'join' AND task_exec_seq = 3`)
	require.Equal(t, []int{9}, seqsOf(claim(t, w, 5)))

	// A cycle waits for ever, and harms nobody.
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq)
	              VALUES ('cycle', 1, 2, 'sample', 1), ('cycle', 2, 1, 'sample', 1)`)
	require.Empty(t, claim(t, w, 5))

	e := refused(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ('self', 1, 1, 'sample', 1)`)
	require.Equal(t, "a task does not depend on itself", e.Constraint)
}

func TestInsert_AFurtherTaskOfARegisteredFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	finish(t, w, claimOne(t, w))
	insert(t, w, id, 0, [2]int{3, 1}, [2]int{4, 2})
	require.Equal(t, []int{2, 3}, seqsOf(claim(t, w, 5)))
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_flow`))
}

// Two sessions insert a task and what it depends on, and neither sees the other.
func TestInsert_ParentAndChildAtOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	const sql = `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status)
	             VALUES ($1, $2, $3, 'sample', 1, $4)`
	for i, c := range []struct{ first, second [3]int }{
		{[3]int{1, 0, 3}, [3]int{2, 1, 0}},
		{[3]int{2, 1, 0}, [3]int{1, 0, 3}},
	} {
		id := fmt.Sprint("flow ", i)
		tx := begin(t, w)
		mustExec(t, tx, sql, id, c.first[0], c.first[1], c.first[2])
		wait := async(func() error {
			_, err := w.psql.Exec(sql, id, c.second[0], c.second[1], c.second[2])
			return err
		})
		awaitBlocked(t, w, 1)
		// Another flow does not wait.
		byHand(t, w, sql, id+" other", 1, 0, 3)
		require.NoError(t, tx.Commit())
		require.NoError(t, wait())
		sound(t, w)
		require.True(t, look(t, w, flow.ID(id), 2).Ready)
	}
}

// A dependency is changed to a task that somebody else is just inserting.
func TestInsert_AParentWhileAChildIsTiedToIt(t *testing.T) {
	t.Parallel()
	w := open(t)
	insert(t, w, "f", 0, [2]int{1, 0}, [2]int{2, 1})
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE kr_task_stat SET depends_task_exec_seq = 3 WHERE task_flow_id = 'f' AND task_exec_seq = 2`)
	wait := async(func() error {
		_, err := w.psql.Exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status) VALUES ('f', 3, 'sample', 1, 3)`)
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	sound(t, w)
	require.True(t, look(t, w, "f", 2).Ready)
}

// A task is inserted while what it depends on is just finishing; the other order is in
// TestAdvance_CountsAChildInsertedMeanwhile.
func TestInsert_AChildWhileItsParentFinishes(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	task := claimOne(t, w)
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE kr_task_stat SET exec_status = 3, finished_ts = clock_timestamp(), watcher_id = NULL
	                 WHERE task_flow_id = $1 AND task_exec_seq = 1 AND claim_id = $2`, string(id), task.ClaimID) // as the engine does
	wait := async(func() error {
		_, err := w.psql.Exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ($1, 2, 1, 'sample', 1)`, string(id))
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	sound(t, w)
	require.True(t, look(t, w, id, 2).Ready)
}

func TestInsert_ManyRowsAtOnce(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // v_invariant is asked where it does not take long
	for _, c := range []struct {
		name, sql string
		ready     int
	}{
		{"a chain of 10,000", `SELECT 'chain', i, i - 1, NULL::int[], 'sample', 1, 0 FROM generate_series(1, 10000) i`, 1},
		{"a fan of 10,000", `SELECT 'fan', i, least(i - 1, 1), NULL, 'sample', 1, 0 FROM generate_series(1, 10000) i`, 1},
		{"a join of 10,000, finished", `SELECT 'join', i, CASE i WHEN 10000 THEN 1 ELSE 0 END, CASE i WHEN 10000 THEN ARRAY(SELECT generate_series(1, 9999)) END,
		                               'sample', 1, CASE i WHEN 10000 THEN 0 ELSE 3 END FROM generate_series(1, 10000) i`, 1},
		{"layers of 100", `SELECT 'layers', i, CASE WHEN i <= 100 THEN 0 ELSE (i - 1) / 100 * 100 - 99 END,
		                   CASE WHEN i > 100 THEN ARRAY(SELECT (i - 1) / 100 * 100 - 100 + generate_series(1, 100)) END, 'sample', 1, 0
		                   FROM generate_series(1, 2000) i`, 100},
		{"1,500 flows", `SELECT 'flow ' || i, 1, 0, NULL, 'sample', 1, 0 FROM generate_series(1, 1500) i`, 1500},
	} {
		started := time.Now()
		tx := begin(t, w)
		mustExec(t, tx, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq, exec_status) `+c.sql)
		var locks int
		require.NoError(t, tx.Get(&locks, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`))
		require.LessOrEqual(t, locks, 1001, "the server has room for some thousands")
		require.NoError(t, tx.Commit())
		took := time.Since(started)
		t.Logf("%s: inserted in %s", c.name, took.Round(time.Millisecond))
		require.Less(t, took, 2*time.Minute, c.name) // hours, if a row cost more the more there are
		require.Equal(t, c.ready, value[int](t, w, `SELECT count(*) FROM kr_ready`))
		started = time.Now()
		mustExec(t, w.psql, `DELETE FROM kr_task_stat`)
		t.Logf("%s: deleted in %s", c.name, time.Since(started).Round(time.Millisecond))
		require.Zero(t, value[int](t, w, `SELECT (SELECT count(*) FROM kr_ready) + (SELECT count(*) FROM kr_flow)`))
	}
}

// A script inserts one row after the other.
func TestInsert_RowByRow(t *testing.T) {
	t.Parallel()
	w := open(t)
	const n = 200
	started := time.Now()
	tx := begin(t, w)
	for i := 1; i <= n; i++ {
		mustExec(t, tx, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ('f', $1, $2, 'sample', 1)`, i, i-1)
	}
	require.NoError(t, tx.Commit())
	t.Logf("%d rows in %s", n, time.Since(started).Round(time.Millisecond))
	require.Len(t, ready(t, w), 1)
}

func TestDelete(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(2), def(1, 2))
	del := func(seq int) {
		t.Helper()
		byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
	}
	finish(t, w, claimOne(t, w))
	del(3)
	require.EqualValues(t, []int64{4}, look(t, w, id, 2).Dependents)
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 2}}, ready(t, w))

	del(1) // it was satisfied; what depended on it waits for it from now on
	require.Equal(t, 1, *look(t, w, id, 2).Unmet)
	require.Equal(t, 2, *look(t, w, id, 4).Unmet)
	require.Empty(t, claim(t, w, 5))
	insert(t, w, id, 9, [2]int{1, 0}) // and is put back
	require.Equal(t, 1, *look(t, w, id, 4).Unmet)
	require.Equal(t, []int{2}, seqsOf(claim(t, w, 5)))

	del(2) // running
	require.Equal(t, 1, *look(t, w, id, 4).Unmet)
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	require.Zero(t, value[int](t, w, `SELECT (SELECT count(*) FROM kr_flow) + (SELECT count(*) FROM kr_ready) + (SELECT count(*) FROM kr_task_attempt)`))
}

func TestDelete_AFlowBesideAnother(t *testing.T) {
	t.Parallel()
	w := open(t)
	a, b := register(t, w, def(), def(1)), register(t, w, def(), def(1))
	verdict(t, w, ended(claim(t, w, 1)[0], flow.OutcomeFailed))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2`)
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(a))
	require.Equal(t, "0 0", statuses(t, w, b))
	require.Equal(t, []string{string(b)}, []string{value[string](t, w, `SELECT string_agg(task_flow_id, ',') FROM kr_flow`)})
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_task_attempt`))
	require.Equal(t, "rerun delete", value[string](t, w, `SELECT string_agg(coalesce(kind, 'rerun'), ' ' ORDER BY event_id) FROM kr_event`), "who did what is never deleted")
	require.Len(t, run(t, w), 2)
}

// A child is deleted while its parent finishes: they lock in opposite directions, and
// both must come to an end.
func TestDelete_AChildWhileItsParentFinishes(t *testing.T) {
	t.Parallel()
	w := open(t)
	for range 5 {
		id := register(t, w, def(), def(1), def(1))
		task := claimOne(t, w)
		wait := async(func() error {
			_, err := w.psql.Exec(`DELETE FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
			return err
		})
		adv := advance(t, w, finished(task), flow.Claim{})
		if err := wait(); err != nil {
			require.ErrorContains(t, err, "deadlock", "the person has to do it again")
		}
		for len(adv.Rejected) > 0 {
			require.True(t, adv.Rejected[0].Busy)
			adv = advance(t, w, finished(task), flow.Claim{})
		}
		sound(t, w)
		require.Equal(t, 3, look(t, w, id, 1).Status)
		require.True(t, look(t, w, id, 3).Ready)
		byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	}
}

// What kr_flow says of a flow can be deleted, and the flow is there as long as its tasks.
func TestDelete_OfFlowsWhatWasKeptOfThem(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := []flow.ID{register(t, w, chain(2)...), register(t, w, chain(2)...), "by hand"}
	insert(t, w, ids[2], 0, [2]int{1, 0}, [2]int{2, 1})
	see := func(what string) {
		t.Helper()
		for _, id := range ids {
			s, err := w.Flow(t.Context(), id)
			require.NoError(t, err, what)
			require.Len(t, s.Tasks, 2)
			require.Empty(t, s.RegisteredBy)
			require.Equal(t, look(t, w, id, 1).Registered.UnixMicro(), s.RegisteredAt.UnixMicro())
		}
		page, err := w.Flows(t.Context(), flow.Filter{}, flow.Position{}, 10)
		require.NoError(t, err)
		require.Len(t, page.Flows, len(ids), what)
	}
	byHand(t, w, `UPDATE ms_task_definition SET description = 'of another version'`)
	byHand(t, w, `UPDATE kr_flow SET parent_flow_id = $2, parent_exec_seq = 1 WHERE task_flow_id = $1`, string(ids[0]), string(ids[1]))
	byHand(t, w, `UPDATE kr_flow SET workflow_version = NULL WHERE task_flow_id = $1`, string(ids[2]))
	const origin = `SELECT string_agg(concat_ws(' ', task_flow_id, workflow_version, parent_flow_id, parent_exec_seq), ', ' ORDER BY task_flow_id) FROM kr_flow`
	before := value[string](t, w, origin)
	byHand(t, w, `UPDATE kr_flow SET registered_by = 'somebody', note = 'a secret'`)
	byHand(t, w, `DELETE FROM kr_flow WHERE task_flow_id = $1`, string(ids[0]))
	byHand(t, w, `DELETE FROM kr_flow`)
	see("after a DELETE")
	require.Equal(t, before, value[string](t, w, origin), "what it was made of, and by which task")
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_flow WHERE note IS NOT NULL`))
	byHand(t, w, `TRUNCATE kr_flow`)
	see("after a TRUNCATE")
	require.Zero(t, value[int](t, w, `SELECT count(workflow_version) FROM kr_flow`), "nobody knows any more")

	// From a backup, with all of Flower's columns.
	tx := begin(t, w)
	mustExec(t, tx, `CREATE TEMP TABLE backup ON COMMIT DROP AS SELECT * FROM kr_task_stat WHERE task_flow_id = 'by hand'`)
	mustExec(t, tx, `DELETE FROM kr_task_stat WHERE task_flow_id = 'by hand'`)
	mustExec(t, tx, `INSERT INTO kr_task_stat SELECT * FROM backup`)
	require.NoError(t, tx.Commit())
	_, err := w.Sweep(t.Context())
	require.NoError(t, err)
	see("after a sweep")

	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(ids[0]))
	require.Equal(t, 2, value[int](t, w, `SELECT count(*) FROM kr_flow`), "with its tasks it goes")
	byHand(t, w, `TRUNCATE kr_task_stat`)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_flow`))
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, independent(3)...)
	task := claim(t, w, 1)[0]
	byHand(t, w, `SELECT set_config('flower.reason', 'a fresh start', true); TRUNCATE kr_task_stat`)
	require.Zero(t, value[int](t, w, `SELECT (SELECT count(*) FROM kr_flow) + (SELECT count(*) FROM kr_ready) + (SELECT count(*) FROM kr_task_attempt)`))
	require.Equal(t, fmt.Sprintf(`%s delete a fresh start {"flows": [1, null], "task_id": [[%q], null]}`, task.Flow, task.WorkflowID),
		value[string](t, w, `SELECT concat_ws(' ', task_flow_id, kind, note, change) FROM kr_event`), "written down, as a DELETE is")
	byHand(t, w, `TRUNCATE kr_task_stat`)
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_event`), "of nothing")
	require.Len(t, beat(t, w, w.watcher, task).Revoked, 1)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, ended(task, flow.OutcomeFinished)).Verdict)
	register(t, w, def())
	claimOne(t, w)
}

// 10,000 failures are rerun in one UPDATE, and whole flows are skipped.
func TestEdit_TenThousandRows(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // v_invariant is asked where it does not take long
	register(t, w, independent(flow.MaxTasks)...)
	for len(claim(t, w, 2500)) > 0 {
	}
	behind(t, w, `UPDATE kr_task_stat SET exec_status = 2, reason = 'failed', suspended_ts = now(), watcher_id = NULL`)
	edit := func(what, sql string, rows int) {
		t.Helper()
		started := time.Now()
		result, err := w.psql.Exec(sql)
		require.NoError(t, err)
		n, err := result.RowsAffected()
		require.NoError(t, err)
		require.EqualValues(t, rows, n)
		took := time.Since(started)
		t.Logf("%s: %s", what, took.Round(time.Millisecond))
		require.Less(t, took, 2*time.Minute, "a row costs more the more there are")
	}
	edit("2 to 0", `UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2`, flow.MaxTasks)
	require.Equal(t, flow.MaxTasks, value[int](t, w, `SELECT count(*) FROM kr_ready`))
	require.Equal(t, flow.MaxTasks, value[int](t, w, `SELECT count(*) FROM kr_task_attempt`))
	sound(t, w)
	mustExec(t, w.psql, `DELETE FROM kr_task_stat`)

	const n = 2000
	mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq)
	                     SELECT 'chain', i, i - 1, 'sample', 1 FROM generate_series(1, $1) i`, n)
	edit("a chain to 9", `UPDATE kr_task_stat SET exec_status = 9`, n)
	edit("and back to 0", `UPDATE kr_task_stat SET exec_status = 0`, n)
	edit("with another priority", `UPDATE kr_task_stat SET task_priority = 3`, n)
	sound(t, w)
	mustExec(t, w.psql, `DELETE FROM kr_task_stat`)

	mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq)
	                     SELECT 'join', i, CASE i WHEN $1 THEN 1 ELSE 0 END, CASE i WHEN $1 THEN ARRAY(SELECT generate_series(1, $1 - 1)) END, 'sample', 1
	                     FROM generate_series(1, $1) i`, n)
	edit("a join to 9", fmt.Sprintf(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_exec_seq < %d`, n), n-1)
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_ready`))
}
