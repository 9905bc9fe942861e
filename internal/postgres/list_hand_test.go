package postgres

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A flow whose rows were inserted one by one has several times of registration. It is listed
// once all the same.
func TestFlows_OfRowsInsertedOneByOne(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, row := range []string{"'two', 1", "'one', 1", "'two', 2"} {
		byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason, program)
		              VALUES (`+row+`, 0, 'by hand', 1, 2, 'failed', 'NoOp')`)
	}
	failed := flow.Filter{Status: []string{flow.FlowFailed}}
	for limit := 1; limit <= 3; limit++ {
		require.Equal(t, []string{"one", "two"}, paged(t, w, failed, limit), "as in the list of all, %d a page", limit)
	}
}

// oddFlows makes flows of up to four tasks, each of which was registered at a moment of its
// own, some at the same, and which may be the first, or the last, of the flow.
func oddFlows(t *testing.T, w *world, rnd *rand.Rand, n int) {
	t.Helper()
	states := []string{"2failed", "2failed", "2invalid", "2timeout", "2", "2held", "2held", "2cancelled", "1", "3", "0"}
	var flows, tasks []string
	var seqs, ages []int
	for f := range n {
		kinds := [][]string{states, states, {"2held", "2cancelled"}, {"0", "0r"}}[rnd.IntN(4)]
		for s := range 1 + rnd.IntN(4) {
			flows, seqs = append(flows, fmt.Sprintf("flow %d", f)), append(seqs, s+1)
			tasks, ages = append(tasks, kinds[rnd.IntN(len(kinds))]), append(ages, rnd.IntN(n))
		}
	}
	behind(t, w, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason, error, registered_ts,
		                          started_ts, finished_ts, suspended_ts, run_after, attempt, unmet, program, watcher_id, claim_id)
		SELECT flow, seq, 0, CASE WHEN flow LIKE '%7' THEN 'other' ELSE 'w' END, seq, st, nullif(rtrim(substr(task, 2), 'r'), ''),
		       CASE WHEN st = 2 THEN 'no answer from flow ' || seq END, now() - age * interval '1 s',
		       CASE WHEN st IN (1, 2, 3) THEN now() END, CASE WHEN st = 3 THEN now() END, CASE WHEN st = 2 THEN now() END,
		       CASE WHEN task = '0r' THEN now() + interval '1 h' END, (st <> 0)::int, 0, 'NoOp',
		       CASE WHEN st = 1 THEN gen_random_uuid() END, CASE WHEN st = 1 THEN gen_random_uuid() END
		FROM   unnest($1::text[], $2::int[], $3::text[], $4::int[]) AS g(flow, seq, task, age), LATERAL (SELECT left(task, 1)::smallint AS st) x`,
		pq.Array(flows), pq.Array(seqs), pq.Array(tasks), pq.Array(ages))
	behind(t, w, `INSERT INTO kr_flow (task_flow_id, task_id, registered_ts) SELECT task_flow_id, task_id, registered_ts FROM kr_task_stat WHERE task_exec_seq = 1`)
	behind(t, w, `INSERT INTO kr_ready SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM kr_task_stat WHERE exec_status = 0 AND run_after IS NULL`)
	mustExec(t, w.psql, `ANALYZE`)
}

// Whatever the moments of a flow's tasks, each list has every flow that it should have, once,
// and the same order in pages of any size.
func TestFlows_OfTasksRegisteredApart(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	oddFlows(t, w, rnd, 800)
	fingerprint := value[string](t, w, `SELECT flower_fingerprint('no answer from flow 1')`)
	filters := []flow.Filter{
		{},
		{Fingerprint: fingerprint},
		{Fingerprint: fingerprint, WorkflowID: "w"},
		{Group: &flow.FailureKey{Fingerprint: fingerprint, WorkflowID: "w", TaskSeq: 2, Program: "NoOp", Reason: flow.ReasonFailed}},
		{Text: "flow 1"}, // in ids and in errors
		{Text: "no answer"},
		{Text: "othe"},
		{Text: "flow 1", Status: []string{flow.FlowCancelled}},
	}
	for _, workflow := range []flow.WorkflowID{"", "w"} { // so many that they are no short cut
		for _, reason := range []flow.Reason{flow.ReasonInvalid, flow.ReasonFailed, flow.ReasonHeld} {
			filters = append(filters, flow.Filter{Reason: reason, WorkflowID: workflow})
		}
		for i, status := range flow.FlowStatuses {
			filters = append(filters, flow.Filter{Status: []string{status}, WorkflowID: workflow})
			if i > 0 { // one pair at a time, since there are many
				other := flow.FlowStatuses[rnd.IntN(i)]
				filters = append(filters, flow.Filter{Status: []string{status, other}, WorkflowID: workflow})
			}
		}
	}
	for _, f := range filters {
		name := fmt.Sprintf("%+v", f)
		whole := pagedFlows(t, w, f, 1000)
		require.True(t, slices.IsSortedFunc(whole, func(a, b flow.Summary) int { return compare(a.Position, b.Position) }), name)
		var ids []string
		for _, s := range whole {
			ids = append(ids, string(s.ID))
		}
		require.ElementsMatch(t, expected(t, w, f), ids, name)
		limit := 1 + len(ids)/20 + rnd.IntN(40)
		require.Equal(t, ids, paged(t, w, f, limit), "%s, %d a page", name, limit)
		n, err := w.Count(t.Context(), f)
		require.NoError(t, err)
		require.LessOrEqual(t, n.N, len(ids), name)
		require.True(t, n.N == len(ids) || n.More, name) // it ends after a while, as a page does
	}
}
