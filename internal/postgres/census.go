package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// censusSQL counts what is not over. All of it is found by narrow tables and partial
// indexes that have nothing else in them, and each is read up to a limit, however many
// tasks are finished. A flow that is not over has a task that runs, is suspended, is in the
// queue, or waits for a time or a limit: whatever else it has, waits for one of those. Its
// status is that of v_flow.
const censusSQL = `
-- flower: census
WITH running AS MATERIALIZED (
    SELECT task_flow_id FROM v_running LIMIT $1
), queued AS MATERIALIZED (
    SELECT task_flow_id FROM kr_ready LIMIT $1
), delayed AS MATERIALIZED (
    SELECT task_flow_id FROM kr_task_stat WHERE run_after IS NOT NULL AND exec_status = 0 AND unmet = 0 LIMIT $1
), limited AS MATERIALIZED (
    SELECT task_flow_id FROM kr_task_stat WHERE gate > 1 AND gate = 2 AND exec_status = 0 LIMIT $1
), suspended AS MATERIALIZED (
    SELECT task_flow_id, coalesce(reason, '') AS reason FROM kr_task_stat WHERE suspended_ts IS NOT NULL AND exec_status = 2 LIMIT $1
), part AS (
    SELECT task_flow_id, 1 AS rank, false AS can_go FROM running
    UNION ALL SELECT task_flow_id, CASE reason WHEN 'held' THEN 3 WHEN 'cancelled' THEN 4 ELSE 2 END, false FROM suspended
    UNION ALL SELECT task_flow_id, 5, true FROM queued
    UNION ALL SELECT task_flow_id, 5, true FROM delayed
    UNION ALL SELECT task_flow_id, 5, true FROM limited
), flow AS (
    SELECT CASE WHEN rank > 1 AND can_go
                     AND EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = x.task_flow_id
                                 AND (t.exec_status IN (3, 9) OR t.attempt > t.attempt_base)) THEN 1 ELSE rank END AS rank
    FROM   (SELECT task_flow_id, min(rank) AS rank, bool_or(can_go) AS can_go FROM part GROUP BY 1) x
), head AS (  -- of each priority, those among which is the one that has waited longest, or nearly
    SELECT h.task_flow_id, h.task_exec_seq
    FROM   generate_series(-20, 19) p
    CROSS  JOIN LATERAL (SELECT task_flow_id, task_exec_seq FROM kr_ready WHERE task_priority = p
                         ORDER BY task_priority, registered_ts, task_flow_id, task_exec_seq LIMIT 20) h
)
SELECT (SELECT jsonb_build_object('running', count(*) FILTER (WHERE rank = 1), 'failed', count(*) FILTER (WHERE rank = 2),
                                  'held', count(*) FILTER (WHERE rank = 3), 'cancelled', count(*) FILTER (WHERE rank = 4),
                                  'queued', count(*) FILTER (WHERE rank = 5)) FROM flow)::text AS flows,
       (SELECT count(*) FROM queued) AS queued, (SELECT count(*) FROM delayed) AS delayed,
       (SELECT count(*) FROM limited) AS limited, (SELECT count(*) FROM running) AS running,
       (SELECT coalesce(jsonb_object_agg(reason, n), '{}') FROM (SELECT reason, count(*) AS n FROM suspended GROUP BY 1) s)::text AS suspended,
       coalesce((SELECT extract(epoch FROM max(clock_timestamp() - greatest(t.registered_ts, a.ended_ts, d.finished_ts)))
                 FROM   head h
                 JOIN   kr_task_stat t ON t.task_flow_id = h.task_flow_id AND t.task_exec_seq = h.task_exec_seq
                 CROSS  JOIN LATERAL (SELECT max(ended_ts) AS ended_ts FROM kr_task_attempt
                                      WHERE task_flow_id = t.task_flow_id AND task_exec_seq = t.task_exec_seq) a
                 CROSS  JOIN LATERAL (SELECT max(finished_ts) AS finished_ts FROM kr_task_stat
                                      WHERE task_flow_id = t.task_flow_id
                                        AND task_exec_seq = ANY (flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))) d), 0)::float8 AS oldest,
       (SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (SELECT state, count(*) AS n FROM v_watcher GROUP BY 1) w)::text AS watchers,
       coalesce((SELECT sum(workers) FROM kr_watcher WHERE lease_until > clock_timestamp() AND NOT draining), 0)::int AS workers,
       coalesce((SELECT sum(busy) FROM kr_watcher WHERE lease_until > clock_timestamp()), 0)::int AS busy,
       coalesce((SELECT extract(epoch FROM max(clock_timestamp() - heartbeat_ts)) FROM kr_watcher), 0)::float8 AS heartbeat`

type censusRow struct {
	Flows     string  `db:"flows"`
	Queued    int     `db:"queued"`
	Delayed   int     `db:"delayed"`
	Limited   int     `db:"limited"`
	Running   int     `db:"running"`
	Suspended string  `db:"suspended"`
	Oldest    float64 `db:"oldest"` // seconds, as heartbeat
	Watchers  string  `db:"watchers"`
	Workers   int     `db:"workers"`
	Busy      int     `db:"busy"`
	Heartbeat float64 `db:"heartbeat"`
}

// Census counts what is not over.
func (d *DB) Census(ctx context.Context) (flow.Census, error) {
	var row censusRow
	err := runTx(ctx, d.slow, nil, func(tx *sqlx.Tx) error {
		// As with other statements over many rows, the planner had better not compile.
		if _, err := tx.ExecContext(ctx, `SELECT set_config('jit', 'off', true)`); err != nil {
			return err
		}
		return tx.GetContext(ctx, &row, censusSQL, flow.MaxCensus)
	})
	if err != nil {
		return flow.Census{}, translate("count what is not over", err)
	}
	c := flow.Census{
		Queued: row.Queued, Delayed: row.Delayed, Limited: row.Limited, Running: row.Running,
		OldestWait: max(0, seconds(row.Oldest)), Workers: row.Workers, Busy: row.Busy, HeartbeatAge: max(0, seconds(row.Heartbeat)),
	}
	for text, into := range map[string]any{row.Flows: &c.Flows, row.Suspended: &c.Suspended, row.Watchers: &c.Watchers} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return flow.Census{}, fmt.Errorf("read what was counted: %w", err)
		}
	}
	return c, nil
}

// EachPool tells how the connections of each pool are used: how many there are, how many
// are in use, how often since the start somebody had to wait for one, and for how long.
func (d *DB) EachPool(tell func(name string, open, inUse int, waits int64, waited time.Duration)) {
	for _, p := range []struct {
		name string
		pool *sqlx.DB
	}{
		{"general", d.pool},
		{"reads", d.reads},
		{"slow", d.slow},
		{"beat", d.beat.pool},
		{"engine", d.engine.pool},
		{"writer", d.writer.pool},
		{"logs", d.logs.pool},
	} {
		s := p.pool.Stats()
		tell(p.name, s.OpenConnections, s.InUse, s.WaitCount, s.WaitDuration)
	}
}
