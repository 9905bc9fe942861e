package postgres

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
)

// wishes are rows that a person has in mind for kr_task_stat: a made-up flow of 8 tasks at
// most, in no order, some of which depend on what is not there.
const wishesSQL = `
CREATE TABLE wish (n serial, flow text, seq int, parents int[], status int, priority int, later boolean, workflow text, PRIMARY KEY (flow, seq))`

// fromWishes inserts those of the numbers, into flows of a name that begins so.
const fromWishes = `
INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, exec_status, task_priority, run_after, task_id, task_seq)
SELECT $1 || flow, seq, coalesce(parents[1], 0), CASE WHEN cardinality(parents) > 1 THEN parents END, status, priority,
       CASE WHEN later THEN now() + interval '1 h' END, workflow, 1
FROM   wish WHERE n = ANY ($2) ORDER BY n`

// sameSQL is what Flower has made of the rows of some flows, as one text each.
const sameSQL = `
SELECT coalesce(string_agg(concat_ws(' ', substr(t.task_flow_id, 3), t.task_exec_seq, t.unmet,
                                     (SELECT array_agg(d ORDER BY d) FROM unnest(t.dependents) d), t.gate, t.program, t.exec_status,
                                     t.started_ts IS NOT NULL, t.finished_ts IS NOT NULL, t.suspended_ts IS NOT NULL, r.task_exec_seq IS NOT NULL,
                                     (SELECT f.task_id FROM kr_flow f WHERE f.task_flow_id = t.task_flow_id)),
                           E'\n' ORDER BY t.task_flow_id, t.task_exec_seq), '')
FROM   kr_task_stat t
LEFT   JOIN kr_ready r USING (task_priority, registered_ts, task_flow_id, task_exec_seq)
WHERE  t.task_flow_id LIKE $1 || '%'`

func makeWishes(t *testing.T, w *world) (numbers []int64) {
	t.Helper()
	mustExec(t, w.psql, wishesSQL)
	for f := range 60 {
		size := 1 + rand.IntN(8)
		workflow := []string{"sample", "limited"}[rand.IntN(2)]
		for _, i := range rand.Perm(size) {
			parents := []int64{}
			for range rand.IntN(4) {
				if p := int64(1 + rand.IntN(9)); p != int64(i+1) {
					parents = append(parents, p)
				}
			}
			n := value[int64](t, w, `INSERT INTO wish (flow, seq, parents, status, priority, later, workflow) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING n`,
				string(rune('A'+f)), i+1, pq.Array(parents), []int{0, 0, 0, 1, 2, 3, 9}[rand.IntN(7)], rand.IntN(3), rand.IntN(8) == 0, workflow)
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// Many rows are tied together otherwise than few, and to the same end.
func TestInsert_ManyAsOneByOne(t *testing.T) {
	t.Parallel()
	w := open(t)
	byHand(t, w, `INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('limited', 2)`)
	byHand(t, w, `INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('limited', 1, 'NoOp')`)
	numbers := makeWishes(t, w)
	require.Greater(t, len(numbers), 150)
	insert := func(name string, numbers ...int64) { byHand(t, w, fromWishes, name, pq.Array(numbers)) }
	got := func(name string) string { return value[string](t, w, sameSQL, name) }

	for _, n := range numbers {
		insert("1 ", n)
	}
	insert("2 ", numbers...)
	require.Equal(t, got("1 "), got("2 "), "all at once")

	rand.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
	insert("3 ", numbers[:40]...)
	insert("3 ", numbers[40:]...)
	require.Equal(t, got("1 "), got("3 "), "some of a flow first")
	require.Empty(t, value[string](t, w, `SELECT coalesce(string_agg(concat_ws(' ', rule, task_flow_id, task_exec_seq, detail), E'\n'), '') FROM v_invariant`))
}

// A copy of many rows that were deleted is put back, whole.
func TestInsert_ManyRestored(t *testing.T) {
	t.Parallel()
	w := open(t)
	byHand(t, w, `INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('limited', 2)`)
	byHand(t, w, fromWishes, "1 ", pq.Array(makeWishes(t, w)))
	// As if they had been registered earlier.
	byHand(t, w, `UPDATE kr_task_stat SET registered_ts = $1`, time.Now().Add(-time.Hour))
	before := value[string](t, w, sameSQL, "1 ")
	mustExec(t, w.psql, `CREATE TABLE copy AS SELECT * FROM kr_task_stat`)
	byHand(t, w, `DELETE FROM kr_task_stat`)
	require.Empty(t, value[string](t, w, sameSQL, "1 "))
	byHand(t, w, `INSERT INTO kr_task_stat SELECT * FROM copy`)
	require.Equal(t, before, value[string](t, w, sameSQL, "1 "))
	require.Equal(t, value[int](t, w, `SELECT count(DISTINCT task_flow_id) FROM copy`), value[int](t, w, `SELECT count(*) FROM kr_flow`))
}
