package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// promoteSQL lets tasks go whose time has come; the trigger kr_task_requeued puts them
// into the queue. The index holds only rows that wait for a time, and those of a task
// that was stopped meanwhile, which are taken out of it, too. One that also waits for the
// end of a flow is put off until that flow has become a tenth older, which costs nothing
// where nobody waits. now() is when the statement began; of clock_timestamp(), which may
// be another one for each row, no index can be asked: 40 ms instead of 1 where 100,000 wait.
const promoteSQL = `
-- flower: promote
WITH due AS MATERIALIZED (
    SELECT task_flow_id, task_exec_seq FROM kr_task_stat
    WHERE  run_after <= now()
    ORDER  BY run_after
    LIMIT  1000
    FOR NO KEY UPDATE SKIP LOCKED
), promoted AS (
    UPDATE kr_task_stat t
    SET    run_after = CASE WHEN t.exec_status = 0 AND t.pause ? 'flow' AND flower_ended(t.pause->>'flow') IS NULL
                            THEN clock_timestamp() + least(interval '10 s', greatest(interval '0.5 s', (
                                 SELECT clock_timestamp() - k.registered_ts FROM kr_flow k WHERE k.task_flow_id = t.pause->>'flow') / 10)) END
    FROM   due WHERE t.task_flow_id = due.task_flow_id AND t.task_exec_seq = due.task_exec_seq
    RETURNING t.exec_status, t.run_after
), next AS (
    SELECT run_after FROM promoted  -- of which the rest of this statement sees what was before
    UNION ALL
    (SELECT run_after FROM kr_task_stat WHERE run_after > now() AND exec_status = 0 ORDER BY run_after LIMIT 1)
)
SELECT (SELECT count(*) FROM promoted WHERE exec_status = 0 AND run_after IS NULL) AS promoted,
       (SELECT ceil(extract(epoch FROM min(run_after) - clock_timestamp()) * 1000)::bigint FROM next) AS next_ms,
       EXISTS (SELECT FROM ms_workflow) AS limits`

type promotedRow struct {
	Promoted int    `db:"promoted"`
	NextMS   *int64 `db:"next_ms"`
	Limits   bool   `db:"limits"` // there may be some
}

// Promote puts tasks into the queue whose run_after has passed, or for which their
// workflow's limit has room. It returns how many, and in how long the next one is due; 0:
// none waits for a time.
func (d *DB) Promote(ctx context.Context) (promoted int, next time.Duration, err error) {
	var rows []promotedRow
	if err := d.writer.selectAll(ctx, &rows, promoteSQL); err != nil {
		return 0, 0, translate("promote tasks that are due", err)
	}
	d.writeTally(ctx, false)
	r := rows[0]
	if r.Promoted > 0 {
		d.entered(beginning)
	}
	if r.NextMS != nil {
		next = max(time.Duration(*r.NextMS)*time.Millisecond, time.Millisecond)
	}
	if !r.Limits {
		return r.Promoted, next, nil
	}
	admitted, err := d.admitWaiting(ctx)
	return r.Promoted + admitted, next, err
}

const ownedSQL = `
-- flower: owned
SELECT ` + taskColumns + `, t.claim_id::text AS claim_id
FROM   kr_task_stat t
WHERE  t.exec_status = 1 AND t.watcher_id = $1::uuid AND t.claim_id = ANY ($2::text[]::uuid[])`

// Owned returns the running tasks of a watcher under claims whose answer was lost. It
// reads the whole table: for after an outage.
func (d *DB) Owned(ctx context.Context, watcher string, claims []string) ([]flow.Task, error) {
	var rows []taskRow
	err := d.inLongTx(ctx, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &rows, ownedSQL, watcher, claims)
	})
	if err != nil {
		return nil, translate("look for tasks of unanswered claims", err)
	}
	tasks := make([]flow.Task, len(rows))
	for i, r := range rows {
		if tasks[i], err = r.task(); err != nil {
			return nil, fmt.Errorf("read a task of an unanswered claim: %w", err)
		}
	}
	return tasks, nil
}

// firstTasks are the tasks that go first, with their programs. Not all of the queue: whatever
// nobody can run is among the first of them once the others are taken, and joining a long
// queue with a long history took a second of every ten. OFFSET: whatever PostgreSQL thinks of
// the tables' sizes, it goes along the queue, and from there to the tasks.
const firstTasks = `
    (SELECT ` + order + ` FROM kr_ready ORDER BY ` + order + ` LIMIT 5000) r
    CROSS  JOIN LATERAL (SELECT s.program FROM kr_task_stat s
                         WHERE s.task_flow_id = r.task_flow_id AND s.task_exec_seq = r.task_exec_seq OFFSET 0) t`

const strangersSQL = `
-- flower: strangers
SELECT DISTINCT coalesce(t.program, '')
FROM   ` + firstTasks + `
WHERE  (t.program = ANY ($1::text[])) IS NOT TRUE
       AND NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND t.program = ANY (w.programs))`

// Strangers returns programs of tasks that could go but for that no watcher has them.
// "" is a task without any program.
func (d *DB) Strangers(ctx context.Context, programs []string) ([]string, error) {
	var rows []string
	err := d.pool.SelectContext(ctx, &rows, strangersSQL, programs)
	return rows, translate("look for programs that no watcher has", err)
}

const refuseSQL = `
-- flower: refuse
WITH near AS MATERIALIZED (
    SELECT r.task_flow_id, r.task_exec_seq
    FROM   ` + firstTasks + `
    WHERE  coalesce(t.program, '') = $1
           AND NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND $1 = ANY (w.programs))
    ORDER  BY 1, 2
    LIMIT  1000
), stray AS MATERIALIZED (
    SELECT t.place
    FROM   near n
    CROSS  JOIN LATERAL (
        SELECT t.ctid AS place FROM kr_task_stat t
        WHERE  t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq
               AND t.exec_status = 0 AND coalesce(t.program, '') = $1
        FOR NO KEY UPDATE SKIP LOCKED) t
)
UPDATE kr_task_stat t
SET    exec_status = 2, reason = 'invalid', error = $2
WHERE  t.ctid = ANY (ARRAY(SELECT place FROM stray))  -- locked; one that had just changed is not found, and met again
RETURNING t.task_flow_id, t.task_exec_seq`

// Refuse suspends tasks whose program no watcher has, as invalid, with a text that says
// what to do. The same trigger that serves a change by hand does the rest.
func (d *DB) Refuse(ctx context.Context, program, text string) ([]flow.TaskKey, error) {
	var rows []keyRow
	err := d.inTx(ctx, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &rows, refuseSQL, program, text)
	})
	return taskKeys(rows), translate(fmt.Sprintf("suspend tasks of unknown program %q", program), err)
}

// staleSQL finds tasks of which the engine's bookkeeping is not the truth: there are
// none unless somebody switched triggers off, or a watcher died between two statements.
const staleSQL = `
-- flower: stale
SELECT t.task_flow_id, t.task_exec_seq
FROM   kr_task_stat t
LEFT   JOIN ms_workflow w ON w.task_id = t.task_id AND coalesce(w.max_running_flows, w.max_running_tasks) IS NOT NULL
WHERE  t.exec_status NOT IN (0, 1) AND t.gate > 1
       OR t.exec_status = 0
       AND (t.unmet IS DISTINCT FROM flower_unmet(t.task_flow_id, flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))
            OR t.gate NOT BETWEEN (CASE WHEN w.task_id IS NULL THEN 0 WHEN t.unmet = 0 AND t.run_after IS NULL THEN 2 ELSE 1 END)
                          AND (CASE WHEN w.task_id IS NULL THEN 0 WHEN t.unmet = 0 AND t.run_after IS NULL THEN 3 ELSE 1 END)
            OR (t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3))
               IS DISTINCT FROM EXISTS (SELECT FROM kr_ready r WHERE r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
                                        AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq))
LIMIT  1000`

const leftoverSQL = `
-- flower: leftovers
DELETE FROM kr_ready r
WHERE  NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
                   AND t.exec_status = 0 AND t.task_priority = r.task_priority AND t.registered_ts = r.registered_ts)`

// Sweep looks at everything and repairs what it finds: tasks of watchers that have no
// row any more, and bookkeeping that is not the truth. One watcher at a time does it;
// the others return at once.
func (d *DB) Sweep(ctx context.Context) (flow.Swept, error) {
	var swept flow.Swept
	err := d.inLongTx(ctx, func(tx *sqlx.Tx) error {
		var mine bool
		if err := tx.GetContext(ctx, &mine, `
-- flower: one sweeper
SELECT pg_try_advisory_xact_lock(hashtextextended('flower sweep', 0))`); err != nil || !mine {
			return err
		}
		// What reads everything comes first, so that nothing is locked for long.
		var stale []keyRow
		if err := tx.SelectContext(ctx, &stale, staleSQL); err != nil {
			return err
		}
		swept.Recounted = taskKeys(stale)
		circular, err := findCircular(ctx, tx)
		if err != nil {
			return err
		}
		if swept.Rescued, err = rescue(ctx, tx, rescueStraySQL); err != nil {
			return err
		}
		leftovers, err := tx.ExecContext(ctx, leftoverSQL)
		if err != nil {
			return err
		}
		if swept.Leftovers, err = leftovers.RowsAffected(); err != nil {
			return err
		}
		swept.Hopeless, err = suspendHopeless(ctx, tx, circular)
		return err
	})
	if err != nil {
		return flow.Swept{}, translate("sweep", err)
	}
	if len(swept.Rescued) > 0 {
		d.entered(beginning)
	}
	// A transaction each, so that no lock is held for long. A task that changed since it
	// was read is counted anew from what it is now.
	for i, key := range swept.Recounted {
		if err := d.recount(ctx, []flow.TaskKey{key}); err != nil {
			swept.Recounted = swept.Recounted[:i]
			return swept, err
		}
	}
	return swept, nil
}
