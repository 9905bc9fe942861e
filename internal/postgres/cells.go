package postgres

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// Each flow's tasks by the primary key. Parameters, errors and outputs may be long, and
// are left where they are. The first line of a description is enough for a title.
const cellsSQL = `
-- flower: tasks of flows, for a grid
SELECT t.task_flow_id, t.task_exec_seq, t.task_seq, t.exec_status, coalesce(t.reason, '') AS reason,
       left(coalesce(t.description, ''), 200) AS description, coalesce(t.program, '') AS program,
       t.started_ts, t.finished_ts, t.suspended_ts, coalesce(f.failed, 0) AS failed
FROM   unnest($1::text[]) AS want (id)
       CROSS JOIN LATERAL (SELECT s.task_flow_id, s.task_exec_seq, s.task_seq, s.exec_status, s.reason, s.description, s.program, s.attempt,
                                  s.started_ts, s.finished_ts, s.suspended_ts
                           FROM kr_task_stat s WHERE s.task_flow_id = want.id ORDER BY s.task_exec_seq LIMIT $2) t
       LEFT  JOIN LATERAL (SELECT count(*) AS failed FROM kr_task_attempt a
                           WHERE a.task_flow_id = t.task_flow_id AND a.task_exec_seq = t.task_exec_seq
                                 AND a.exec_status = 2 AND coalesce(a.reason, 'failed') NOT IN ('held', 'cancelled')) f
             ON t.attempt > 1
ORDER  BY t.task_flow_id, t.task_exec_seq`

type cellRow struct {
	FlowID      string     `db:"task_flow_id"`
	Seq         int        `db:"task_exec_seq"`
	TaskSeq     int        `db:"task_seq"`
	Status      int16      `db:"exec_status"`
	Reason      string     `db:"reason"`
	Description string     `db:"description"`
	Program     string     `db:"program"`
	StartedTS   *time.Time `db:"started_ts"`
	FinishedTS  *time.Time `db:"finished_ts"`
	SuspendedTS *time.Time `db:"suspended_ts"`
	Failed      int        `db:"failed"`
}

// Cells returns how the tasks of some flows stand, with what a small picture of each
// needs: the first most tasks of each flow.
func (d *DB) Cells(ctx context.Context, flows []flow.ID, most int) (map[flow.ID][]flow.TaskState, error) {
	var rows []cellRow
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.SelectContext(ctx, &rows, cellsSQL, flows, most) })
	if err != nil {
		return nil, translate("read the tasks of flows", err)
	}
	cells := make(map[flow.ID][]flow.TaskState, len(flows))
	for _, r := range rows {
		id := flow.ID(r.FlowID)
		cells[id] = append(cells[id], flow.TaskState{
			TaskKey: flow.TaskKey{Flow: id, Seq: r.Seq}, TaskSeq: r.TaskSeq, Status: flow.Status(r.Status), Reason: flow.Reason(r.Reason),
			Description: r.Description, Program: r.Program, Failed: r.Failed,
			StartedAt: deref(r.StartedTS), FinishedAt: deref(r.FinishedTS), SuspendedAt: deref(r.SuspendedTS),
		})
	}
	return cells, nil
}
