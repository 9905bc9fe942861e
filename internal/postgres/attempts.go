package postgres

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// attemptsSQL puts the superseded attempts and the present one together. A task that was
// set back waits for its next attempt: then the last one is among the superseded ones.
const attemptsSQL = `
-- flower: attempts
SELECT attempt, true AS current, exec_status, coalesce(reason, '') AS reason, coalesce(error, '') AS error, output::text AS output,
       coalesce(watcher_id::text, '') AS watcher_id, started_ts, coalesce(finished_ts, suspended_ts) AS ended_ts
FROM   kr_task_stat t
WHERE  task_flow_id = $1 AND task_exec_seq = $2 AND attempt > 0 AND exec_status <> 0
       AND NOT EXISTS (SELECT FROM kr_task_attempt a WHERE a.task_flow_id = t.task_flow_id
                       AND a.task_exec_seq = t.task_exec_seq AND a.attempt = t.attempt)
UNION  ALL
SELECT attempt, false, exec_status, coalesce(reason, ''), coalesce(error, ''), output::text,
       coalesce(watcher_id::text, ''), started_ts, ended_ts
FROM   kr_task_attempt
WHERE  task_flow_id = $1 AND task_exec_seq = $2
ORDER  BY attempt DESC
LIMIT  1000`

const taskExistsSQL = `
-- flower: does a task exist?
SELECT EXISTS (SELECT FROM kr_task_stat WHERE task_flow_id = $1) AS flow,
       EXISTS (SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2) AS task`

type attemptRow struct {
	Attempt   int        `db:"attempt"`
	Current   bool       `db:"current"`
	Status    int16      `db:"exec_status"`
	Reason    string     `db:"reason"`
	Error     string     `db:"error"`
	Output    *string    `db:"output"`
	WatcherID string     `db:"watcher_id"`
	StartedTS *time.Time `db:"started_ts"`
	EndedTS   *time.Time `db:"ended_ts"`
}

// Attempts returns the tries at a task, the latest first, at most a thousand.
// flow.ErrNotFound: there is no such flow; flow.ErrNoTask: the flow has no such task.
func (d *DB) Attempts(ctx context.Context, key flow.TaskKey) ([]flow.Attempt, error) {
	doing := fmt.Sprintf("read the attempts of task %s", key)
	var rows []attemptRow
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		if err := exists(ctx, tx, key); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &rows, attemptsSQL, string(key.Flow), key.Seq)
	})
	attempts := make([]flow.Attempt, len(rows))
	for i, r := range rows {
		attempts[i] = flow.Attempt{
			TaskKey: key, Number: r.Attempt, Current: r.Current, Status: flow.Status(r.Status), Reason: flow.Reason(r.Reason),
			Error: r.Error, Output: rawJSON(r.Output), WatcherID: r.WatcherID, StartedAt: deref(r.StartedTS), EndedAt: deref(r.EndedTS),
		}
	}
	return attempts, translate(doing, err)
}

func exists(ctx context.Context, tx *sqlx.Tx, key flow.TaskKey) error {
	var found struct{ Flow, Task bool }
	if err := tx.GetContext(ctx, &found, taskExistsSQL, string(key.Flow), key.Seq); err != nil {
		return err
	}
	switch {
	case !found.Flow:
		return flow.ErrNotFound
	case !found.Task:
		return flow.ErrNoTask
	}
	return nil
}

// logAttemptSQL finds the attempt that a reader of the log means who names none, and
// whether it runs.
const logAttemptSQL = `
-- flower: whose log
SELECT a AS attempt, t.attempt AS latest, t.exec_status = 1 AND t.attempt = a AS running
FROM   kr_task_stat t
CROSS  JOIN LATERAL (SELECT CASE WHEN $3 > 0 THEN $3 WHEN t.exec_status = 1 THEN t.attempt
                            ELSE coalesce((SELECT max(attempt) FROM kr_task_log l WHERE l.task_flow_id = t.task_flow_id
                                           AND l.task_exec_seq = t.task_exec_seq), t.attempt) END) x(a)
WHERE  t.task_flow_id = $1 AND t.task_exec_seq = $2`

// logSQL reads lines after or before one, or the last ones.
func logSQL(forward bool) string {
	compared, order := "<", "DESC"
	if forward {
		compared, order = ">", "ASC"
	}
	return `
-- flower: read log
SELECT line_no, line_ts, stream, text FROM kr_task_log
WHERE  task_flow_id = $1 AND task_exec_seq = $2 AND attempt = $3
       AND line_no ` + compared + ` $4 AND ($5 = '' OR text ILIKE $5)
ORDER  BY line_no ` + order + `, claim_id
LIMIT  $6`
}

type logRow struct {
	No     int64     `db:"line_no"`
	At     time.Time `db:"line_ts"`
	Stream string    `db:"stream"`
	Text   string    `db:"text"`
}

// Log returns lines of the log of an attempt. Errors are as of Attempts.
func (d *DB) Log(ctx context.Context, f flow.LogFilter) (flow.LogPage, error) {
	var whose struct {
		Attempt, Latest int
		Running         bool
	}
	var rows []logRow
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		if err := exists(ctx, tx, f.TaskKey); err != nil {
			return err
		}
		if err := tx.GetContext(ctx, &whose, logAttemptSQL, string(f.Flow), f.Seq, f.Attempt); err != nil {
			return err
		}
		edge := cmp.Or(f.Before, math.MaxInt64)
		if f.After != nil {
			edge = *f.After
		}
		pattern := ""
		if f.Text != "" {
			pattern = likeAnywhere(f.Text)
		}
		return tx.SelectContext(ctx, &rows, logSQL(f.After != nil),
			string(f.Flow), f.Seq, whose.Attempt, edge, pattern, f.Limit+1) // one more tells whether there are more
	})
	page := flow.LogPage{Attempt: whose.Attempt, Latest: whose.Latest, Running: whose.Running}
	more := len(rows) > f.Limit
	rows = rows[:min(len(rows), f.Limit)]
	for _, r := range rows {
		page.Lines = append(page.Lines, flow.LogLine{No: r.No, At: r.At, Stream: flow.Stream(r.Stream), Text: r.Text})
	}
	if page.More = more; f.After == nil {
		slices.Reverse(page.Lines)
	}
	return page, translate(fmt.Sprintf("read the log of task %s", f.TaskKey), err)
}
