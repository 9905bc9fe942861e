package postgres

import (
	"context"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// Of rows put in by hand, some can never go: they depend on a task that does not exist,
// or, directly or not, on themselves. The sweep suspends them, after a minute, since rows
// may come one by one.

// hopelessSQL suspends tasks that wait for one that does not exist, and those given by
// their keys, which are on a cycle.
const hopelessSQL = `
-- flower: hopeless
WITH hopeless AS MATERIALIZED (
    SELECT t.task_flow_id, t.task_exec_seq,
           format('it depends on task %s, which does not exist: insert it, or change what this one depends on', min(d)) AS error
    FROM   kr_task_stat t, unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
    WHERE  t.exec_status = 0 AND t.unmet > 0 AND t.registered_ts < now() - interval '1 minute'
           AND NOT EXISTS (SELECT FROM kr_task_stat p WHERE p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d)
    GROUP  BY 1, 2
    UNION  ALL
    SELECT flow, seq, 'it depends on itself, by way of others: change what it depends on'
    FROM   unnest($1::text[], $2::int[]) AS c(flow, seq)
), held AS MATERIALIZED (
    SELECT t.task_flow_id, t.task_exec_seq, h.error
    FROM   kr_task_stat t
    JOIN   hopeless h ON h.task_flow_id = t.task_flow_id AND h.task_exec_seq = t.task_exec_seq
    WHERE  t.exec_status = 0 AND t.unmet > 0
    ORDER  BY 1, 2
    LIMIT  1000
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE kr_task_stat t
SET    exec_status = 2, reason = 'invalid', error = h.error
FROM   held h
WHERE  t.task_flow_id = h.task_flow_id AND t.task_exec_seq = h.task_exec_seq
RETURNING t.task_flow_id, t.task_exec_seq`

func suspendHopeless(ctx context.Context, tx *sqlx.Tx, circular []flow.TaskKey) ([]flow.TaskKey, error) {
	flows, seqs := keyColumns(circular)
	var rows []keyRow
	err := tx.SelectContext(ctx, &rows, hopelessSQL, flows, seqs)
	return taskKeys(rows), err
}

// tangledSQL reads what is blocked in flows that may have a cycle. Registered flows number
// a task after what it depends on, so that only rows put in by hand the other way round
// can close one. A hundred flows at a time, by chance, so that none is left out for ever.
const tangledSQL = `
-- flower: tangled
WITH suspect AS MATERIALIZED (
    SELECT DISTINCT t.task_flow_id
    FROM   kr_task_stat t, unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
    WHERE  t.exec_status = 0 AND t.unmet > 0 AND t.registered_ts < now() - interval '1 minute' AND d > t.task_exec_seq
)
SELECT t.task_flow_id, t.task_exec_seq, flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs) AS parents
FROM   (SELECT task_flow_id FROM suspect ORDER BY random() LIMIT 100) s
JOIN   kr_task_stat t ON t.task_flow_id = s.task_flow_id
WHERE  t.exec_status = 0 AND t.unmet > 0
ORDER  BY 1, 2`

type tangledRow struct {
	keyRow
	Parents pq.Int64Array `db:"parents"`
}

// findCircular returns a task of each cycle that it finds.
func findCircular(ctx context.Context, tx *sqlx.Tx) ([]flow.TaskKey, error) {
	var rows []tangledRow
	if err := tx.SelectContext(ctx, &rows, tangledSQL); err != nil {
		return nil, err
	}
	var keys []flow.TaskKey
	for len(rows) > 0 {
		id := rows[0].FlowID
		n := slices.IndexFunc(rows, func(r tangledRow) bool { return r.FlowID != id })
		if n < 0 {
			n = len(rows)
		}
		for _, seq := range circular(rows[:n]) {
			keys = append(keys, flow.TaskKey{Flow: flow.ID(id), Seq: seq})
		}
		rows = rows[n:]
	}
	return keys, nil
}

// circular returns the first task of each cycle among the blocked tasks of a flow. (Of
// cycles that share tasks it finds one; the next sweep finds the next.)
func circular(rows []tangledRow) []int {
	blocked := make(map[int64]bool, len(rows))
	for _, r := range rows {
		blocked[int64(r.Seq)] = true
	}
	var w flow.Workflow
	for _, r := range rows {
		t := flow.TaskDefinition{Seq: r.Seq, DependsOn: []int{}}
		for _, p := range r.Parents {
			if blocked[p] {
				t.DependsOn = append(t.DependsOn, int(p))
			}
		}
		w.Tasks = append(w.Tasks, t)
	}
	var first []int
	for _, cycle := range w.Cycles() {
		first = append(first, slices.Min(cycle))
	}
	return first
}
