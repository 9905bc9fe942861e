package postgres

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// Times of the lease; the database compares them with its own clock alone. Watchers send
// a heartbeat every 2 s. One that comes late makes its watcher unstable for a lease, in
// which it declares nobody dead: after an outage, everybody was late. A lease is longer
// than late, a heartbeat and the longest reconnect (3 s) together, or a short outage that
// one watcher sees costs it its tasks.
const (
	leaseSQL = `interval '10 s'`
	lateSQL  = `interval '4 s'`
)

const joinSQL = `
-- flower: join
INSERT INTO kr_watcher (watcher_id, host, pid, version, programs, workers, lease_until)
VALUES ($1::uuid, $2, $3, $4, $5::text[], $6, clock_timestamp() + ` + leaseSQL + `)
ON CONFLICT DO NOTHING
RETURNING watcher_id::text`

// Join makes a watcher known. From now on it must send heartbeats.
func (d *DB) Join(ctx context.Context, w flow.Watcher) error {
	var rows []string
	err := d.beat.selectAll(ctx, &rows, joinSQL, w.ID, w.Host, w.PID, w.Version, w.Programs, w.Workers)
	return translate("join as a watcher", err)
}

const drainSQL = `
-- flower: drain
UPDATE kr_watcher SET draining = true WHERE watcher_id = $1::uuid RETURNING watcher_id::text`

// Drain makes the database refuse further claims of a watcher.
func (d *DB) Drain(ctx context.Context, watcher string) error {
	var rows []string
	return translate("drain", d.beat.selectAll(ctx, &rows, drainSQL, watcher))
}

const leaveSQL = `
-- flower: leave
DELETE FROM kr_watcher WHERE watcher_id = $1::uuid`

// leaveBehindSQL ends the lease of a watcher that leaves tasks behind: its row goes when they
// were rescued.
const leaveBehindSQL = `
-- flower: leave tasks behind
UPDATE kr_watcher SET lease_until = clock_timestamp(), draining = true WHERE watcher_id = $1::uuid`

// Leave says that a watcher has ended. What it leaves behind is rescued with the next
// heartbeat of another one. (Who leaves something behind without saying so leaves it to the
// sweep.) It returns when ctx ends.
func (d *DB) Leave(ctx context.Context, watcher string, behind bool) error {
	leave := leaveSQL
	if behind {
		leave = leaveBehindSQL
	}
	err := bounded(ctx, func() error {
		d.writeTally(ctx, true)
		return d.inTx(ctx, func(tx *sqlx.Tx) error {
			_, err := tx.ExecContext(ctx, leave, watcher)
			return err
		})
	})
	return translate("leave", err)
}

// heartbeatSQL never brings back a row that was deleted: the watcher was declared dead,
// and what it runs may be running elsewhere. After the clock was set back a watcher is as
// unstable as after an outage, and a lease that ends later than any can calls for a
// rescue, which clamps it: or nobody would be declared dead for as long as that was.
const heartbeatSQL = `
-- flower: heartbeat
WITH beat AS (
    UPDATE kr_watcher
    SET    stable_since = CASE WHEN clock_timestamp() - heartbeat_ts > ` + lateSQL + ` OR heartbeat_ts > clock_timestamp()
                             THEN clock_timestamp() ELSE stable_since END,
           heartbeat_ts = clock_timestamp(), lease_until = clock_timestamp() + ` + leaseSQL + `, busy = $2,
           running_flow_ids = $3::text[]::varchar[], running_exec_seqs = $4::int[]  -- for v_running
    WHERE  watcher_id = $1::uuid
    RETURNING stable_since < clock_timestamp() - ` + leaseSQL + ` AS stable
)
SELECT 'alive' AS kind, '' AS task_flow_id, 0 AS task_exec_seq, '' AS claim_id,
       stable AND EXISTS (SELECT FROM kr_watcher WHERE watcher_id <> $1::uuid AND (lease_until < clock_timestamp()
                          OR lease_until > clock_timestamp() + 2 * ` + leaseSQL + `)) AS rescue,
       (SELECT count(*) FROM kr_watcher WHERE lease_until > clock_timestamp() AND NOT draining) AS watchers
FROM   beat
UNION ALL
SELECT 'revoked', g.flow, g.seq, g.claim::text, false, 0
FROM   unnest($3::text[], $4::int[], $5::text[]::uuid[]) AS g(flow, seq, claim)
WHERE  NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = g.flow AND t.task_exec_seq = g.seq
                   AND t.exec_status = 1 AND t.claim_id = g.claim)`

type beatRow struct {
	Kind     string `db:"kind"`
	FlowID   string `db:"task_flow_id"`
	Seq      int    `db:"task_exec_seq"`
	ClaimID  string `db:"claim_id"`
	Rescue   bool   `db:"rescue"`
	Watchers int    `db:"watchers"`
}

// Beat renews a watcher's lease and says which of the tasks that it runs are no longer
// its own. flow.ErrFenced: it was declared dead.
func (d *DB) Beat(ctx context.Context, watcher string, running []flow.Task) (flow.Pulse, error) {
	results := make([]*flow.Result, len(running))
	for i, t := range running {
		results[i] = &flow.Result{Task: t}
	}
	k := newKeys(results)
	var rows []beatRow
	if err := d.beat.selectAll(ctx, &rows, heartbeatSQL, watcher, len(running), k.flows, k.seqs, k.claims); err != nil {
		return flow.Pulse{}, translate("heartbeat", err)
	}
	var pulse flow.Pulse
	alive := false
	for _, r := range rows {
		if r.Kind == "alive" {
			alive, pulse.Rescue, pulse.Watchers = true, r.Rescue, r.Watchers
			continue
		}
		pulse.Revoked = append(pulse.Revoked, flow.Task{
			TaskKey: flow.TaskKey{Flow: flow.ID(r.FlowID), Seq: r.Seq}, ClaimID: r.ClaimID,
		})
	}
	if !alive {
		return flow.Pulse{}, fmt.Errorf("heartbeat: %w", flow.ErrFenced)
	}
	return pulse, nil
}

// clampSQL brings back a lease that a clock set back would keep for hours.
const clampSQL = `
-- flower: clamp leases
UPDATE kr_watcher SET lease_until = clock_timestamp() + ` + leaseSQL + `
WHERE  lease_until > clock_timestamp() + 2 * ` + leaseSQL

// expiredSQL locks the watchers to be declared dead. A heartbeat of one of them waits,
// and then finds its row gone.
const expiredSQL = `
-- flower: expired watchers
SELECT watcher_id::text FROM kr_watcher
WHERE  lease_until < clock_timestamp() AND watcher_id <> $1::uuid
FOR UPDATE SKIP LOCKED`

// listedSQL finds by key what watchers have said that they run: whatever they began before
// their last heartbeat. OFFSET: from there to the tasks, whatever PostgreSQL thinks of the sizes.
const listedSQL = `
    SELECT t.task_flow_id, t.task_exec_seq, t.claim_id, concat(w.host, ':', w.pid, ' (', w.watcher_id, ')') AS watcher
    FROM   kr_watcher w, unnest(w.running_flow_ids, w.running_exec_seqs) r(flow, seq)
    CROSS  JOIN LATERAL (SELECT * FROM kr_task_stat WHERE task_flow_id = r.flow AND task_exec_seq = r.seq OFFSET 0) t
    WHERE  w.watcher_id = ANY ($1::text[]::uuid[]) AND t.exec_status = 1 AND t.watcher_id = w.watcher_id`

// straySQL finds, by reading the whole table, the tasks of watchers that have no row.
const straySQL = `
    SELECT task_flow_id, task_exec_seq, claim_id, watcher_id::text AS watcher FROM kr_task_stat t
    WHERE  exec_status = 1 AND watcher_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM kr_watcher w WHERE w.watcher_id = t.watcher_id)`

// rescueText takes tasks back from watchers that are gone. The lost are read without
// locks and changed only where the claim is still the one that was read, or a task that
// a live watcher has just claimed or finished would be taken away. A task that somebody
// has locked is left for the next round.
func rescueText(lost string) string {
	return `
-- flower: rescue
WITH lost AS MATERIALIZED (` + lost + `
), held AS MATERIALIZED (
    SELECT t.task_flow_id, t.task_exec_seq, t.attempt, t.started_ts, t.watcher_id, l.watcher, t.claim_id, least(t.lost_count, 1000) + 1 AS losses,
           t.on_lost = 'rerun' AND t.lost_count < 2 AND NOT t.hold AS again,
           t.on_lost = 'rerun' AND t.lost_count < 2 AND t.hold AS hold
    FROM   lost l
    JOIN   kr_task_stat t ON t.task_flow_id = l.task_flow_id AND t.task_exec_seq = l.task_exec_seq
    WHERE  t.exec_status = 1 AND t.claim_id = l.claim_id AND t.watcher_id IS NOT NULL
    ORDER  BY t.task_flow_id, t.task_exec_seq
    LIMIT  1000
    FOR NO KEY UPDATE OF t SKIP LOCKED
), kept AS (
    INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts,
                                 watcher_id, claim_id, reason, error)
    SELECT task_flow_id, task_exec_seq, attempt, 1, started_ts, clock_timestamp(), watcher_id, claim_id, 'lost',
           format('its watcher %s vanished', watcher)
    FROM   held WHERE again
    ON CONFLICT DO NOTHING
)
UPDATE kr_task_stat t
SET    exec_status  = CASE WHEN h.again THEN 0 ELSE 2 END,
       watcher_id   = NULL,
       gate         = least(t.gate, 1),
       lost_count   = h.losses,
       -- a task with two losses behind it may be what kills its watchers: give it time
       run_after    = CASE WHEN h.again AND h.losses > 1 THEN clock_timestamp() + ` + leaseSQL + ` END,
       began_ts     = CASE WHEN h.again OR h.hold THEN t.began_ts END,
       started_ts   = CASE WHEN h.again THEN NULL WHEN h.hold THEN t.started_ts ELSE coalesce(t.began_ts, t.started_ts) END,
       suspended_ts = CASE WHEN h.again THEN NULL ELSE clock_timestamp() END,
       reason       = CASE WHEN h.again THEN NULL WHEN h.hold THEN 'held' ELSE 'lost' END,
       error        = format('its watcher %s vanished while attempt %s ran (loss %s)%s', h.watcher, h.attempt, h.losses,
                             CASE WHEN h.again OR h.hold THEN '' WHEN h.losses > 2 THEN ': it may be what ends its watchers; look before you set it to 0'
                                  ELSE ': on_lost is "suspend", so look what it has done before you set it to 0' END)
FROM   held h
WHERE  t.task_flow_id = h.task_flow_id AND t.task_exec_seq = h.task_exec_seq
RETURNING t.task_flow_id, t.task_exec_seq, t.exec_status, h.watcher_id::text AS watcher_id`
}

var (
	rescueListedSQL = rescueText(listedSQL)
	rescueStraySQL  = rescueText(straySQL)
)

type rescuedRow struct {
	keyRow
	Status  int16  `db:"exec_status"`
	Watcher string `db:"watcher_id"`
}

// Rescue declares watchers dead whose lease has ended, and takes back their tasks: to
// be run again, or suspended where they must not run twice or were lost three times.
// Only a watcher whose Pulse said so may call it. tell hears at once of what was rescued, some
// tasks each time: first goes, by key, what they have said that they run. The rest is found by
// reading the whole table, which takes long if that is large; if it fails, the sweep does it.
func (d *DB) Rescue(ctx context.Context, watcher string, tell func([]flow.Rescued)) error {
	var rescued []flow.Rescued
	var dead []string
	err := d.inTx(ctx, func(tx *sqlx.Tx) (err error) {
		dead, rescued, err = rescueExpired(ctx, tx, watcher)
		return err
	})
	if err != nil {
		return translate("rescue tasks of vanished watchers", err)
	}
	if len(dead) == 0 {
		return nil
	}
	over := func() {
		if len(rescued) > 0 {
			d.entered(beginning)
			tell(rescued)
		}
	}
	over()
	err = d.inLongTx(ctx, func(tx *sqlx.Tx) (err error) {
		rescued, err = rescue(ctx, tx, rescueStraySQL)
		return err
	})
	if err != nil {
		return translate("rescue what vanished watchers have begun last", err)
	}
	over()
	return nil
}

// rescueExpired declares watchers dead, and takes back what they have said that they run.
func rescueExpired(ctx context.Context, tx *sqlx.Tx, watcher string) (dead []string, rescued []flow.Rescued, err error) {
	if _, err = tx.ExecContext(ctx, clampSQL); err != nil {
		return nil, nil, fmt.Errorf("clamp leases: %w", err)
	}
	if err = tx.SelectContext(ctx, &dead, expiredSQL, watcher); err != nil || len(dead) == 0 {
		return nil, nil, err
	}
	if rescued, err = rescue(ctx, tx, rescueListedSQL, dead); err != nil {
		return nil, nil, err
	}
	// Gone before the table is read: who is back meanwhile starts again under a new id at once.
	_, err = tx.ExecContext(ctx, `DELETE FROM kr_watcher WHERE watcher_id = ANY ($1::text[]::uuid[])`, dead)
	return dead, rescued, err
}

// rescue takes back what query finds.
func rescue(ctx context.Context, tx *sqlx.Tx, query string, args ...any) ([]flow.Rescued, error) {
	var rescued []flow.Rescued
	for {
		var rows []rescuedRow
		if err := tx.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, err
		}
		for _, r := range rows {
			rescued = append(rescued, flow.Rescued{Key: r.key(), Watcher: r.Watcher, Status: flow.Status(r.Status)})
		}
		if len(rows) < 1000 {
			return rescued, nil
		}
	}
}
