package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

const standSQL = `
-- flower: how everything stands
SELECT clock_timestamp() AS as_of,
       coalesce((SELECT sum(workers) FROM kr_watcher WHERE lease_until > clock_timestamp() AND NOT draining), 0)::int AS workers,
       coalesce((SELECT sum(busy) FROM kr_watcher WHERE lease_until > clock_timestamp()), 0)::int AS busy,
       (SELECT count(*) FROM v_running) AS running,
       (SELECT count(*) FROM (SELECT FROM kr_ready LIMIT $1) x) AS queue,
       (SELECT min(flower_ready_since(h.task_flow_id, h.task_exec_seq))
        FROM generate_series(-20, 19) p  -- what is less urgent may wait for long behind the rest
        CROSS JOIN LATERAL (SELECT task_flow_id, task_exec_seq FROM kr_ready WHERE task_priority = p
                            ORDER BY ` + order + ` LIMIT 20) h) AS oldest_ts`

// bucketsSQL sums up what watchers have counted, in buckets whose beginnings are multiples
// of their length.
const bucketsSQL = `
-- flower: buckets
SELECT date_bin(make_interval(secs => $3), tally_ts, 'epoch') AS at, sum(finished) AS finished, sum(failed) AS failed
FROM   kr_tally
WHERE  tally_ts >= $1 AND tally_ts < $2
GROUP  BY 1
ORDER  BY 1`

// Stats returns how everything stands, and how it went within a window that ends now, in
// buckets. There are at most a thousand of these.
func (d *DB) Stats(ctx context.Context, window, bucket time.Duration) (flow.Stats, error) {
	return d.stats(ctx, window, bucket, true)
}

// Throughput is Stats without the counts of flows, which are most of what it takes.
func (d *DB) Throughput(ctx context.Context, window, bucket time.Duration) (flow.Stats, error) {
	return d.stats(ctx, window, bucket, false)
}

func (d *DB) stats(ctx context.Context, window, bucket time.Duration, counted bool) (flow.Stats, error) {
	if bucket < time.Minute || bucket%time.Minute != 0 || window < bucket || window/bucket > 1000 {
		return flow.Stats{}, &flow.InvalidError{
			Subject: fmt.Sprintf("buckets of %s in a window of %s", bucket, window),
			Problem: "a bucket must be whole minutes, and a window 1 to 1000 of them",
		}
	}
	var s flow.Stats
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		var stand struct {
			AsOf     time.Time  `db:"as_of"`
			Workers  int        `db:"workers"`
			Busy     int        `db:"busy"`
			Running  int        `db:"running"`
			Queue    int        `db:"queue"`
			OldestTS *time.Time `db:"oldest_ts"`
		}
		if err := tx.GetContext(ctx, &stand, standSQL, flow.MaxCount+1); err != nil {
			return err
		}
		var counts flow.FlowCounts
		if counted {
			var err error
			if counts, err = countFlows(ctx, tx, flow.Filter{}); err != nil {
				return err
			}
		}
		s = flow.Stats{
			AsOf: stand.AsOf, Flows: counts, Workers: stand.Workers, Busy: stand.Busy, Running: stand.Running,
			Queue: capped(stand.Queue, flow.MaxCount), Bucket: bucket,
			Since: stand.AsOf.Truncate(bucket).Add(bucket - window.Truncate(bucket)),
		}
		if stand.OldestTS != nil {
			s.Oldest = stand.AsOf.Sub(*stand.OldestTS)
		}
		return readBuckets(ctx, tx, &s)
	})
	return s, translate("read statistics", err)
}

func readBuckets(ctx context.Context, tx *sqlx.Tx, s *flow.Stats) error {
	var rows []struct {
		At               time.Time
		Finished, Failed int
	}
	if err := tx.SelectContext(ctx, &rows, bucketsSQL, s.Since, s.AsOf.Add(time.Minute), s.Bucket.Seconds()); err != nil {
		return err
	}
	for at := s.Since; at.Before(s.AsOf); at = at.Add(s.Bucket) {
		b := flow.Bucket{At: at}
		for len(rows) > 0 && !rows[0].At.After(at) {
			if rows[0].At.Equal(at) {
				b.Finished, b.Failed = rows[0].Finished, rows[0].Failed
			}
			rows = rows[1:]
		}
		s.Buckets = append(s.Buckets, b)
	}
	return nil
}

const attentionSQL = `
-- flower: what needs a person
SELECT (SELECT count(*) FROM (SELECT FROM kr_ready LIMIT $1) x) AS can_go,
       NOT EXISTS (SELECT FROM kr_watcher WHERE lease_until > clock_timestamp() AND NOT draining) AS nobody,
       (SELECT count(*) FROM (SELECT FROM kr_task_stat t WHERE ` + failedTask + ` LIMIT $1) x) AS failed,
       (SELECT count(*) FROM (SELECT FROM kr_task_stat WHERE suspended_ts IS NOT NULL AND coalesce(reason, '') = 'lost' LIMIT $1) x) AS lost,
       (SELECT count(*) FROM v_watcher WHERE state = 'dead') AS dead,
       (SELECT count(*) FROM v_watcher WHERE state = 'late') AS late,
       (SELECT count(*) FROM kr_unowned u JOIN kr_task_stat t ON t.task_flow_id = u.task_flow_id AND t.task_exec_seq = u.task_exec_seq
        WHERE t.exec_status = 1) AS unowned`

// Attention returns what needs a person.
func (d *DB) Attention(ctx context.Context) (flow.Attention, error) {
	var row struct {
		CanGo   int  `db:"can_go"`
		Nobody  bool `db:"nobody"`
		Failed  int  `db:"failed"`
		Lost    int  `db:"lost"`
		Dead    int  `db:"dead"`
		Late    int  `db:"late"`
		Unowned int  `db:"unowned"`
	}
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.GetContext(ctx, &row, attentionSQL, flow.MaxCount+1) })
	if err != nil {
		return flow.Attention{}, translate("look what needs a person", err)
	}
	check, err := d.Checked(ctx)
	if err != nil {
		return flow.Attention{}, err
	}
	a := flow.Attention{
		Check: check, NoWatcher: row.Nobody && row.CanGo > 0, CanGo: capped(row.CanGo, flow.MaxCount),
		Failed: capped(row.Failed, flow.MaxCount), Lost: capped(row.Lost, flow.MaxCount), Dead: row.Dead, Late: row.Late, Unowned: row.Unowned,
	}
	if row.CanGo > 0 && !row.Nobody {
		a.Strangers, err = d.Strangers(ctx, nil)
	}
	return a, err
}
