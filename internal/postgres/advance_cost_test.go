package postgres

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A claim costs the same whatever waits, has finished, or is for others; also where the
// statement was planned when the tables were empty, as on the first day, and nobody has
// gathered statistics, or those of the few tasks that there were.
func TestAdvance_CostsLittleBesideManyRows(t *testing.T) {
	t.Parallel()
	for name, tasks := range map[string]int{"empty": 0, "few": 8} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openBroken(t) // reading v_invariant takes long here
			if tasks > 0 {
				behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet)
					SELECT 'few', i, 'x', i, 3, 0 FROM generate_series(1, $1) i`, tasks)
				mustExec(t, w.psql, `ANALYZE`)
			}
			advanceBesideManyRows(t, w)
		})
	}
}

func advanceBesideManyRows(t *testing.T, w *world) {
	t.Helper()
	engine, err := w.open(1, w.net.dialer(w.net.quick), engineSettings...)
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
	check("first_day", "first day, without tasks to speak of")
	mustExec(t, engine, `PREPARE second_day AS `+advanceSQL)
	check("second_day", "second day, with no other statistics")
	check("pooled", "second day, with no other statistics, by a pooler")
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
