package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func promote(t *testing.T, w *world) (int, time.Duration) {
	t.Helper()
	n, next, err := w.Promote(t.Context())
	require.NoError(t, err)
	return n, next
}

func sweep(t *testing.T, w *world) flow.Swept {
	t.Helper()
	swept, err := w.Sweep(t.Context())
	require.NoError(t, err)
	return swept
}

func TestPromote(t *testing.T) {
	t.Parallel()
	w := open(t)
	n, next := promote(t, w)
	require.Zero(t, n)
	require.Zero(t, next, "nothing waits for a time")

	id := register(t, w, independent(5)...)
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() + (task_exec_seq - 3) * interval '1 h' WHERE task_flow_id = $1`, string(id))
	require.Empty(t, ready(t, w))
	n, next = promote(t, w)
	require.Equal(t, 3, n, "two are overdue, one is just due")
	require.InDelta(t, time.Hour, next, float64(time.Minute))
	require.Len(t, ready(t, w), 3)
	n, _ = promote(t, w)
	require.Zero(t, n)

	// What was stopped while it waited is nothing to wait for.
	claim(t, w, 3)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1`, string(id))
	require.Equal(t, 5, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE run_after IS NOT NULL`))
	n, next = promote(t, w)
	require.Zero(t, n)
	require.Zero(t, next)
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 s'`)
	n, next = promote(t, w)
	require.Zero(t, n)
	require.Zero(t, next)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE run_after IS NOT NULL`), "nor read again and again")
}

func TestPromote_LeavesLockedTasksAlone(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(2)...)
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 s'`)
	tx := begin(t, w)
	mustExec(t, tx, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1 FOR UPDATE`, string(id))
	n, _ := promote(t, w)
	require.Equal(t, 1, n)
	require.NoError(t, tx.Rollback())
	n, _ = promote(t, w)
	require.Equal(t, 1, n)
}

func TestPromote_ManyAtOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	const n = 1500
	register(t, w, independent(n)...)
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 s'`)
	total := 0
	for range 2 {
		promoted, next := promote(t, w)
		total += promoted
		if total < n {
			require.Equal(t, time.Duration(0), next, "what is overdue is not said; the next call comes soon anyway")
		}
	}
	require.Equal(t, n, total)
	require.Len(t, ready(t, w), n)
}

// However long the history and the queue are, looking for programs that nobody has reads
// the first tasks of the queue.
func TestStrangers_BesideManyRows(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // reading v_invariant takes long here
	behind(t, w, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet, program)
		SELECT 'flow ' || i, 1, 'x', 1, CASE WHEN i < 50000 THEN 3 ELSE 0 END, 0, CASE WHEN i = 50000 THEN 'Unknown' ELSE 'NoOp' END
		FROM generate_series(0, 69999) i`)
	behind(t, w, `INSERT INTO kr_ready SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM kr_task_stat WHERE exec_status = 0`)
	for _, analyzed := range []bool{false, true} {
		if analyzed {
			mustExec(t, w.psql, `ANALYZE`)
		}
		for name, query := range map[string]string{"strangers": strangersSQL, "refuse": refuseSQL} {
			args := []any{pq.Array(programs)}
			if name == "refuse" {
				args = []any{"Unknown", "no watcher has it"}
			}
			var plan []string
			tx := begin(t, w)
			require.NoError(t, tx.Select(&plan, `EXPLAIN (ANALYZE) `+query, args...))
			text := strings.Join(plan, "\n")
			require.NotContains(t, text, "Seq Scan on kr_task_stat", name)
			require.Contains(t, text, "rows=5000", "it has looked that far")
			require.NoError(t, tx.Rollback())
		}
	}
	names, err := w.Strangers(t.Context(), programs)
	require.NoError(t, err)
	require.Equal(t, []string{"Unknown"}, names)
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	w := open(t)
	strangers := func() []string {
		t.Helper()
		names, err := w.Strangers(t.Context(), programs)
		require.NoError(t, err)
		return names
	}
	of := func(program string, after ...int) flow.TaskDefinition {
		d := def(after...)
		d.Program = program
		return d
	}
	id := register(t, w, of("NoOp"), of("Report"), of("Mail"), of("Blocked", 1))
	insert(t, w, "by hand", 0, [2]int{1, 0})
	byHand(t, w, `UPDATE kr_task_stat SET program = NULL WHERE task_flow_id = 'by hand'`)
	require.ElementsMatch(t, []string{"Report", "Mail", ""}, strangers())

	mail := join(t, w, "Mail")
	require.ElementsMatch(t, []string{"Report", ""}, strangers())
	age(t, w, mail, 60)
	require.ElementsMatch(t, []string{"Report", "Mail", ""}, strangers(), "it is dead")

	refuse := func(program, text string) []flow.TaskKey {
		t.Helper()
		keys, err := w.Refuse(t.Context(), program, text)
		require.NoError(t, err)
		sound(t, w)
		return keys
	}
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 2}}, refuse("Report", "no watcher has it"))
	r := look(t, w, id, 2)
	require.Equal(t, 2, r.Status)
	require.Equal(t, "invalid", r.Reason)
	require.Equal(t, "no watcher has it", r.Error)
	require.NotNil(t, r.Suspended)
	require.Equal(t, "0 2 invalid flower-test", value[string](t, w, `SELECT concat_ws(' ', old_status, new_status, 'invalid', application) FROM kr_event
	                                                               WHERE task_exec_seq = 2`))
	require.Equal(t, []flow.TaskKey{{Flow: "by hand", Seq: 1}}, refuse("", "no program"))
	require.Empty(t, refuse("Blocked", "not yet: it may change until it can go"))
	require.Empty(t, refuse("NoOp", "this one is known"))

	join(t, w, "Mail")
	require.Empty(t, refuse("Mail", "a watcher that has it has come meanwhile"))
	require.Empty(t, strangers())

	// It is mended and rerun.
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0, program = 'NoOp' WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
	require.Equal(t, []int{1, 2}, seqsOf(claim(t, w, 9)))
}

// Somebody has switched the triggers off.
func TestSweep_RepairsWhatIsBroken(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(1), def(2, 3), def())
	require.Equal(t, flow.Swept{}, sweep(t, w))
	for name, sql := range map[string]string{
		"unmet too high":             `UPDATE kr_task_stat SET unmet = 1 WHERE task_exec_seq = 1`,
		"unmet too low":              `UPDATE kr_task_stat SET unmet = 0 WHERE task_exec_seq = 2`,
		"unmet negative":             `UPDATE kr_task_stat SET unmet = -1 WHERE task_exec_seq = 2`,
		"unmet unknown":              `UPDATE kr_task_stat SET unmet = NULL WHERE task_exec_seq IN (1, 2, 4)`,
		"entry missing":              `DELETE FROM kr_ready WHERE task_exec_seq = 1`,
		"entry of a blocked task":    `INSERT INTO kr_ready SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM kr_task_stat WHERE task_exec_seq = 4`,
		"entry of no task":           `INSERT INTO kr_ready VALUES (0, now(), 'no such flow', 1)`,
		"entry with another rank":    `UPDATE kr_ready SET task_priority = 7`,
		"a second entry":             `INSERT INTO kr_ready SELECT -20, registered_ts, task_flow_id, task_exec_seq FROM kr_ready`,
		"nothing in the queue":       `TRUNCATE kr_ready`,
		"a finish without a release": `UPDATE kr_task_stat SET exec_status = 3 WHERE task_exec_seq = 1`,
		"a task that is not known": `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, program)
		                             SELECT task_flow_id, 6, 1, 'x', 6, 'NoOp' FROM kr_task_stat WHERE task_exec_seq = 1`,
	} {
		behind(t, w, sql)
		require.NotZero(t, value[int](t, w, `SELECT count(*) FROM v_invariant`), name)
		swept := sweep(t, w)
		require.NotZero(t, int64(len(swept.Recounted))+swept.Leftovers, name)
		sound(t, w)
		require.Equal(t, flow.Swept{}, sweep(t, w), name)
		behind(t, w, `DELETE FROM kr_task_stat WHERE task_exec_seq = 6`)
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_exec_seq = 1 AND exec_status = 3`)
	}
	require.Len(t, run(t, w), 5)
	require.Equal(t, "3 3 3 3 3", statuses(t, w, id))

	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_exec_seq > 1`)
	behind(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_exec_seq = 1`)
	require.ElementsMatch(t, []flow.TaskKey{{Flow: id, Seq: 1}, {Flow: id, Seq: 2}, {Flow: id, Seq: 3}}, sweep(t, w).Recounted)
	require.Len(t, run(t, w), 5)
}

// A person's UPDATE that looks like the end of an attempt is taken for the engine's. What
// depended on it is found by the sweep.
func TestSweep_FindsWhatLooksLikeTheEngine(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	claimOne(t, w)
	_, err := w.psql.Exec(`UPDATE kr_task_stat SET exec_status = 3, watcher_id = NULL, finished_ts = now() WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.NoError(t, err)
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 2}}, sweep(t, w).Recounted)
	require.Equal(t, []int{2}, seqsOf(claim(t, w, 5)))
}

// What can never go is suspended, once whoever inserts it has had the time to insert the
// rest.
func TestSweep_Hopeless(t *testing.T) {
	t.Parallel()
	w := open(t)
	insert(t, w, "missing", 0, [2]int{1, 0}, [2]int{2, 99}, [2]int{3, 2})
	insert(t, w, "cycle", 0, [2]int{1, 0}, [2]int{2, 4}, [2]int{3, 2}, [2]int{4, 3}, [2]int{5, 4})
	insert(t, w, "fine", 0, [2]int{2, 3}, [2]int{3, 0})
	insert(t, w, "running", 1, [2]int{1, 0})
	insert(t, w, "running", 0, [2]int{2, 1})
	require.Empty(t, sweep(t, w).Hopeless, "it has only just been inserted")
	byHand(t, w, `UPDATE kr_task_stat SET registered_ts = registered_ts - interval '61 s'`)
	swept := sweep(t, w)
	sound(t, w)
	require.ElementsMatch(t, []flow.TaskKey{{Flow: "missing", Seq: 2}, {Flow: "cycle", Seq: 2}}, swept.Hopeless)
	require.Equal(t, "0 2 0", statuses(t, w, "missing"))
	require.Equal(t, "invalid", look(t, w, "missing", 2).Reason)
	require.Contains(t, look(t, w, "missing", 2).Error, "task 99, which does not exist")
	require.Contains(t, look(t, w, "cycle", 2).Error, "itself")
	require.Equal(t, flow.Swept{}, sweep(t, w))

	insert(t, w, "missing", 3, [2]int{99, 0})
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE reason = 'invalid' AND task_flow_id = 'missing'`)
	run(t, w)
	require.Equal(t, "3 3 3 3", statuses(t, w, "missing"))
	require.Equal(t, "3 3", statuses(t, w, "fine"))
}

// Flows may be numbered the other way round, and are legal.
func TestSweep_FlowsInReverse(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // v_invariant is asked where it does not take long
	mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, registered_ts)
	                     SELECT 'chain', i, CASE i WHEN 5000 THEN 0 ELSE i + 1 END, 'sample', 1, now() - interval '1 h' FROM generate_series(1, 5000) i`)
	started := time.Now()
	require.Equal(t, flow.Swept{}, sweep(t, w))
	t.Log("swept in", time.Since(started).Round(time.Millisecond))
	require.Less(t, time.Since(started), 10*time.Second)

	mustExec(t, w.psql, `UPDATE kr_task_stat SET depends_task_exec_seq = 4000 WHERE task_exec_seq = 5000`)
	require.Equal(t, []flow.TaskKey{{Flow: "chain", Seq: 4000}}, sweep(t, w).Hopeless)
	require.Equal(t, flow.Swept{}, sweep(t, w))
	sound(t, w)
}

func TestCircular(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		blockedBy map[int][]int64
		want      []int
	}{
		"chain":                      {map[int][]int64{2: {1}, 3: {2}, 1: {9}}, nil},
		"chain in reverse":           {map[int][]int64{1: {2}, 2: {3}, 3: {9}}, nil},
		"two":                        {map[int][]int64{1: {2}, 2: {1}}, []int{1}},
		"a cycle and what follows":   {map[int][]int64{2: {4}, 3: {2}, 4: {3}, 5: {4}, 1: {5}}, []int{2}},
		"two cycles":                 {map[int][]int64{1: {2}, 2: {1}, 7: {9}, 8: {7}, 9: {8}}, []int{1, 7}},
		"a cycle beside a way out":   {map[int][]int64{1: {5, 2}, 2: {1, 6}, 5: {6}, 6: {99}}, []int{1}},
		"a diamond in reverse":       {map[int][]int64{1: {2, 3}, 2: {4}, 3: {4}, 4: {99}}, nil},
		"a parent twice":             {map[int][]int64{1: {2, 2}, 2: {3, 3}, 3: {99}}, nil},
		"what waits for two cycles":  {map[int][]int64{1: {2}, 2: {1}, 3: {4}, 4: {3}, 5: {1, 3}, 6: {5}}, []int{1, 3}},
		"two cycles through a task":  {map[int][]int64{1: {2, 3}, 2: {1}, 3: {1}}, []int{1}},
		"first seen at its far end":  {map[int][]int64{1: {5}, 5: {6}, 6: {7}, 7: {5}}, []int{5}},
		"found by a later walk only": {map[int][]int64{1: {9}, 3: {4}, 4: {3}}, []int{3}},
	} {
		var rows []tangledRow
		for seq := range 100 {
			if parents, blocked := c.blockedBy[seq]; blocked {
				rows = append(rows, tangledRow{keyRow{FlowID: "f", Seq: seq}, parents})
			}
		}
		require.Equal(t, c.want, circular(rows), name)
	}
}

func TestSweep_OneAtATime(t *testing.T) {
	t.Parallel()
	w := open(t)
	const broken = 200
	id := register(t, w, independent(broken)...)
	behind(t, w, `UPDATE kr_task_stat SET unmet = NULL`)
	tx := begin(t, w)
	mustExec(t, tx, `SELECT pg_advisory_xact_lock(hashtextextended('flower sweep', 0))`)
	require.Equal(t, flow.Swept{}, sweep(t, w), "somebody else sweeps")
	require.NoError(t, tx.Rollback())

	other := another(t, w)
	var swept [2]flow.Swept
	var wait [2]func() error
	for i, db := range []*DB{w.DB, other} {
		wait[i] = async(func() (err error) {
			swept[i], err = db.Sweep(background)
			return err
		})
	}
	require.NoError(t, wait[0]())
	require.NoError(t, wait[1]())
	sound(t, w)
	require.GreaterOrEqual(t, len(swept[0].Recounted)+len(swept[1].Recounted), broken)
	require.Len(t, ready(t, w), broken)
	require.Equal(t, broken, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE task_flow_id = $1 AND unmet = 0`, string(id)))
}

// Repairs while the engine works: nothing is released twice, nothing is stranded.
func TestSweep_WhileTasksRun(t *testing.T) {
	t.Parallel()
	w := open(t)
	var defs []flow.TaskDefinition
	for i := range 200 {
		defs = append(defs, def(), def(2*i+1))
	}
	id := register(t, w, defs...)
	other := another(t, w)
	stop := make(chan struct{})
	wait := async(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if _, err := other.Sweep(background); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
		}
	})
	for range 3 {
		var ran []flow.TaskKey
		pgtest.Eventually(t, 2*time.Minute, "all have run", func() bool { // a sweep may have a task locked at the moment
			ran = append(ran, run(t, w)...)
			return len(ran) >= len(defs)
		})
		require.Len(t, ran, len(defs))
		_, err := w.psql.Exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
		require.NoError(t, err)
	}
	close(stop)
	require.NoError(t, wait())
}
