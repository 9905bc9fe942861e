package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// The primary key has it in this order. Whoever made a task run again by hand has left an
// event; a retry leaves none.
const supersededSQL = `
-- flower: superseded attempts
SELECT a.task_exec_seq, a.attempt, a.exec_status, coalesce(a.reason, '') AS reason, a.started_ts, a.ended_ts,
       (SELECT min(e.event_ts) FROM kr_event e
        WHERE  e.task_flow_id = a.task_flow_id AND e.task_exec_seq = a.task_exec_seq
               AND e.new_status = 0 AND e.event_ts >= a.ended_ts) AS again_ts
FROM   kr_task_attempt a
WHERE  a.task_flow_id = $1
ORDER  BY a.task_exec_seq, a.attempt
LIMIT  10000`

type supersededRow struct {
	Seq       int        `db:"task_exec_seq"`
	Attempt   int        `db:"attempt"`
	Status    int16      `db:"exec_status"`
	Reason    string     `db:"reason"`
	StartedTS *time.Time `db:"started_ts"`
	EndedTS   *time.Time `db:"ended_ts"`
	AgainTS   *time.Time `db:"again_ts"`
}

// Superseded returns the attempts at all tasks of a flow that later ones followed, by
// task and number, without errors and output; none if there is no such flow.
func (d *DB) Superseded(ctx context.Context, id flow.ID) ([]flow.Attempt, error) {
	var rows []supersededRow
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.SelectContext(ctx, &rows, supersededSQL, string(id)) })
	if err != nil {
		return nil, translate(fmt.Sprintf("read the superseded attempts of flow %q", id), err)
	}
	attempts := make([]flow.Attempt, len(rows))
	for i, r := range rows {
		attempts[i] = flow.Attempt{
			TaskKey: flow.TaskKey{Flow: id, Seq: r.Seq}, Number: r.Attempt, Status: flow.Status(r.Status), Reason: flow.Reason(r.Reason),
			StartedAt: deref(r.StartedTS), EndedAt: deref(r.EndedTS), AgainAt: deref(r.AgainTS),
		}
	}
	return attempts, nil
}
