package postgres

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxAhead is how far the queue is searched for the tasks of one workflow.
const maxAhead = 5000

const queueSQL = `
-- flower: queue
SELECT r.position, r.task_priority, t.task_id, r.task_flow_id, r.task_exec_seq, coalesce(flower_title(t.description, t.program), '') AS title,
       coalesce(t.program, '') AS program, r.registered_ts, flower_ready_since(r.task_flow_id, r.task_exec_seq) AS ready_since,
       w.wait_reason, coalesce(w.why, '') AS why
FROM   (SELECT row_number() OVER (ORDER BY ` + order + `) AS position, ` + order + `
        FROM (SELECT ` + order + ` FROM kr_ready ORDER BY ` + order + ` LIMIT $3) x) r
CROSS  JOIN LATERAL (SELECT * FROM kr_task_stat s WHERE s.task_flow_id = r.task_flow_id AND s.task_exec_seq = r.task_exec_seq OFFSET 0) t
CROSS  JOIN LATERAL (SELECT * FROM v_why_waiting v WHERE v.task_flow_id = r.task_flow_id AND v.task_exec_seq = r.task_exec_seq OFFSET 0) w
WHERE  $1 = '' OR t.task_id = $1
ORDER  BY r.position
LIMIT  $2`

type queuedRow struct {
	keyRow
	Position     int       `db:"position"`
	Priority     int       `db:"task_priority"`
	WorkflowID   string    `db:"task_id"`
	Title        string    `db:"title"`
	Program      string    `db:"program"`
	RegisteredTS time.Time `db:"registered_ts"`
	ReadySince   time.Time `db:"ready_since"`
	WaitReason   string    `db:"wait_reason"`
	Why          string    `db:"why"`
}

// Queue returns the tasks that go next, at most so many, with the database's time. Of one
// workflow those among the next 5,000.
func (d *DB) Queue(ctx context.Context, workflow flow.WorkflowID, limit int) ([]flow.QueuedTask, time.Time, error) {
	var rows []queuedRow
	var now time.Time
	ahead := limit
	if workflow != "" {
		ahead = maxAhead
	}
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		if err := tx.GetContext(ctx, &now, nowSQL); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &rows, queueSQL, string(workflow), limit, ahead)
	})
	tasks := make([]flow.QueuedTask, len(rows))
	for i, r := range rows {
		tasks[i] = flow.QueuedTask{
			TaskKey: r.key(), Position: r.Position, Priority: r.Priority, WorkflowID: flow.WorkflowID(r.WorkflowID), Title: r.Title,
			Program: r.Program, RegisteredAt: r.RegisteredTS, ReadySince: r.ReadySince, WaitReason: r.WaitReason, Why: r.Why,
		}
	}
	return tasks, now, translate("read the queue", err)
}

const runningTasksSQL = `
-- flower: running
SELECT r.task_flow_id, r.task_exec_seq, r.task_id, coalesce(r.title, '') AS title, coalesce(r.program, '') AS program, r.attempt,
       coalesce(t.watcher_id::text, '') AS watcher_id, coalesce(r.watcher, '') AS watcher, r.started_ts,
       (extract(epoch FROM r.running_for) * 1000000)::bigint AS running_us, (extract(epoch FROM r.heartbeat_age) * 1000000)::bigint AS heartbeat_us,
       coalesce(r.note, '') AS note, (extract(epoch FROM u.p50) * 1000000)::bigint AS p50_us, (extract(epoch FROM u.p95) * 1000000)::bigint AS p95_us
FROM   (SELECT * FROM v_running ORDER BY started_ts LIMIT $1) r
LEFT   JOIN kr_task_stat t ON t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
LEFT   JOIN LATERAL flower_usual(r.task_id, r.task_exec_seq, t.task_seq) u ON true
ORDER  BY r.started_ts, r.task_flow_id, r.task_exec_seq`

type runningRow struct {
	keyRow
	WorkflowID  string     `db:"task_id"`
	Title       string     `db:"title"`
	Program     string     `db:"program"`
	Attempt     int        `db:"attempt"`
	WatcherID   string     `db:"watcher_id"`
	Watcher     string     `db:"watcher"`
	StartedTS   *time.Time `db:"started_ts"`
	RunningUS   *int64     `db:"running_us"`
	HeartbeatUS *int64     `db:"heartbeat_us"`
	Note        string     `db:"note"`
	P50US       *int64     `db:"p50_us"`
	P95US       *int64     `db:"p95_us"`
}

// Running returns the tasks that run, the longest first, at most so many.
func (d *DB) Running(ctx context.Context, limit int) ([]flow.RunningTask, error) {
	var rows []runningRow
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.SelectContext(ctx, &rows, runningTasksSQL, limit) })
	tasks := make([]flow.RunningTask, len(rows))
	for i, r := range rows {
		tasks[i] = flow.RunningTask{
			TaskKey: r.key(), WorkflowID: flow.WorkflowID(r.WorkflowID), Title: r.Title, Program: r.Program, Attempt: r.Attempt,
			WatcherID: r.WatcherID, Watcher: r.Watcher, StartedAt: deref(r.StartedTS), RunningFor: microseconds(r.RunningUS),
			HeartbeatAge: microseconds(r.HeartbeatUS), Odd: r.Note, UsualP50: microseconds(r.P50US), UsualP95: microseconds(r.P95US),
		}
	}
	return tasks, translate("read what runs", err)
}

const watchersSQL = `
-- flower: watchers
SELECT watcher_id::text AS watcher_id, host, pid, version, programs, workers, busy, state, heartbeat_ts,
       (extract(epoch FROM heartbeat_age) * 1000000)::bigint AS heartbeat_us, started_ts
FROM   v_watcher
ORDER  BY started_ts, watcher_id`

// Watchers returns the watchers that have a row, the oldest first.
func (d *DB) Watchers(ctx context.Context) ([]flow.WatcherState, error) {
	var rows []struct {
		ID          string         `db:"watcher_id"`
		Host        string         `db:"host"`
		PID         int            `db:"pid"`
		Version     string         `db:"version"`
		Programs    pq.StringArray `db:"programs"`
		Workers     int            `db:"workers"`
		Busy        int            `db:"busy"`
		State       string         `db:"state"`
		HeartbeatTS time.Time      `db:"heartbeat_ts"`
		HeartbeatUS *int64         `db:"heartbeat_us"`
		StartedTS   time.Time      `db:"started_ts"`
	}
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.SelectContext(ctx, &rows, watchersSQL) })
	watchers := make([]flow.WatcherState, len(rows))
	for i, r := range rows {
		watchers[i] = flow.WatcherState{
			Watcher: flow.Watcher{ID: r.ID, Host: r.Host, PID: r.PID, Version: r.Version, Programs: r.Programs, Workers: r.Workers},
			Busy:    r.Busy, State: r.State, HeartbeatAt: r.HeartbeatTS, HeartbeatAge: microseconds(r.HeartbeatUS), StartedAt: r.StartedTS,
		}
	}
	return watchers, translate("read watchers", err)
}
