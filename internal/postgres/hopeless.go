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

// circular returns the first task of each cycle among the blocked tasks of a flow. From
// each task it walks to one that blocks it; a walk that comes to where an earlier one has
// been ends there. (With several cycles through a task it finds one; the next sweep finds
// the next.)
func circular(rows []tangledRow) []int {
	blockedBy := make(map[int]int, len(rows)) // any one of them
	blocked := make(map[int]bool, len(rows))
	for _, r := range rows {
		blocked[r.Seq] = true
	}
	free := unblocked(rows, blocked)
	for _, r := range rows {
		for _, p := range r.Parents {
			if p := int(p); blocked[p] && !free[p] {
				blockedBy[r.Seq] = p
			}
		}
	}
	var found []int
	walkOf := make(map[int]int, len(rows)) // the walk that has been there first
	for _, r := range rows {
		for seq := r.Seq; ; {
			next, more := blockedBy[seq]
			if first, been := walkOf[seq]; been || !more {
				if been && first == r.Seq {
					found = append(found, smallest(seq, blockedBy))
				}
				break
			}
			walkOf[seq] = r.Seq
			seq = next
		}
	}
	return found
}

// unblocked returns the blocked tasks that will go in time: whatever blocks them does.
func unblocked(rows []tangledRow, blocked map[int]bool) map[int]bool {
	unmet := make(map[int]int, len(rows))
	dependents := make(map[int][]int, len(rows))
	var free []int
	for _, r := range rows {
		for _, p := range slices.Compact(slices.Sorted(slices.Values(r.Parents))) {
			if blocked[int(p)] {
				unmet[r.Seq]++
				dependents[int(p)] = append(dependents[int(p)], r.Seq)
			}
		}
		if unmet[r.Seq] == 0 {
			free = append(free, r.Seq)
		}
	}
	done := make(map[int]bool, len(rows))
	for len(free) > 0 {
		seq := free[len(free)-1]
		free = free[:len(free)-1]
		done[seq] = true
		for _, d := range dependents[seq] {
			if unmet[d]--; unmet[d] == 0 {
				free = append(free, d)
			}
		}
	}
	return done
}

// smallest returns the smallest task of the cycle that seq is on.
func smallest(seq int, blockedBy map[int]int) int {
	least := seq
	for next := blockedBy[seq]; next != seq; next = blockedBy[next] {
		least = min(least, next)
	}
	return least
}
