package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/watcher"
)

// noOps is programs that do nothing.
type noOps struct {
	each func(flow.Task) // told of each task, if not nil
}

func (noOps) Names() []string { return []string{"NoOp"} }

func (noOps) OffWithout(string) string { return "" }

func (p noOps) Run(_ context.Context, a watcher.Attempt) (json.RawMessage, error) {
	if p.each != nil {
		p.each(a.Task)
	}
	return nil, nil
}

// drained tells when the results of a number of tasks are recorded.
type drained struct {
	left atomic.Int64
	all  chan struct{} // closed with the last one
}

// recording is a watcher's store that counts what is recorded.
type recording struct {
	*postgres.DB
	count *drained
}

func (s recording) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	adv, err := s.DB.Advance(ctx, results, c)
	if n := int64(len(adv.Verdicts)); n > 0 && s.count.left.Add(-n) == 0 {
		close(s.count.all)
	}
	return adv, err
}

// drain has n watchers run all of a number of tasks, and returns tasks a second: from the
// moment when running watchers may claim to that when the last result is recorded.
func (b *bench) drain(ctx context.Context, db *sql.DB, cfg postgres.Config, watchers, tasks int) (rate float64, err error) {
	shut, err := shutQueue(ctx, db)
	if err != nil {
		return 0, err
	}
	defer func() { _ = shut.Rollback() }()
	count := &drained{all: make(chan struct{})}
	count.left.Store(int64(tasks))

	live, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	for i := range watchers {
		open, err := postgres.Open(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return 0, err
		}
		defer func() { _ = open.Close() }()
		w, err := watcher.New(watcher.Config{
			Workers: b.workers, PollInterval: time.Second, ShutdownTimeout: time.Minute, Host: "bench", PID: i,
		}, recording{open, count}, noOps{}, slog.New(slog.DiscardHandler))
		if err != nil {
			return 0, err
		}
		group.Go(func() error { defer stop(); return w.Run(live) })
	}
	if err := awaitClaims(live, db, watchers); err != nil {
		stop()
		return 0, errors.Join(err, group.Wait())
	}
	begun := time.Now()
	if err := shut.Rollback(); err != nil {
		return 0, err
	}
	select {
	case <-count.all:
	case <-live.Done(): // a watcher ended; it says why
	}
	took := time.Since(begun)
	stop()
	return float64(tasks) / took.Seconds(), group.Wait()
}

// shutQueue keeps everybody from claiming until its transaction ends: a watcher's start
// costs some 60 ms, and what is measured is watchers that run.
func shutQueue(ctx context.Context, db *sql.DB) (*sql.Tx, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, "LOCK TABLE kr_ready"); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx, nil
}

// awaitClaims waits until each of n watchers has asked for tasks.
func awaitClaims(ctx context.Context, db *sql.DB, n int) error {
	const askingSQL = `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'kr_ready'::regclass`
	for {
		var asking int
		if err := db.QueryRowContext(ctx, askingSQL).Scan(&asking); err != nil {
			return fmt.Errorf("wait for the watchers: %w", err)
		}
		if asking >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// shape is flows to be run: how many, and the dependencies of their tasks.
type shape struct {
	flows int
	tasks string // SQL: rows of (seq, parents, dependents)
	size  int
}

func independent(n int) shape { return shape{n, `VALUES (1, '{}'::int[], '{}'::int[])`, 1} }

func chains(n int) shape {
	return shape{n, `VALUES (1, '{}'::int[], '{2}'::int[]), (2, '{1}', '{3}'), (3, '{2}', '{}')`, 3}
}

func diamonds(n int) shape {
	return shape{n, `SELECT 1, '{}'::int[], ARRAY(SELECT generate_series(2, 29))
		UNION ALL SELECT s, '{1}', '{30}' FROM generate_series(2, 29) s
		UNION ALL SELECT 30, ARRAY(SELECT generate_series(2, 29)), '{}'`, 30}
}

// fill registers flows as register does, but all at once.
func fill(ctx context.Context, db *sql.DB, s shape) error {
	if _, err := db.ExecContext(ctx, `
		WITH f AS (SELECT n, lpad(to_hex(n), 8, '0') || '-' || substr(gen_random_uuid()::text, 10) AS id FROM generate_series(1, $1) n),
		kf AS (INSERT INTO kr_flow (task_flow_id, task_id) SELECT id, 'bench' FROM f),
		t AS (
			INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, unmet,
				depends_task_exec_seqs, dependents, program, registered_ts)
			SELECT f.id, s.seq, coalesce(s.parents[1], 0), 'bench', s.seq, cardinality(s.parents),
				CASE WHEN cardinality(s.parents) > 1 THEN s.parents END, s.dependents, 'NoOp', now() + f.n * interval '1 ms'
			FROM f, (`+s.tasks+`) AS s(seq, parents, dependents)
			ORDER BY f.n, s.seq
			RETURNING *)
		INSERT INTO kr_ready SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM t WHERE unmet = 0`, s.flows); err != nil {
		return fmt.Errorf("register %d flows: %w", s.flows, err)
	}
	return settleDown(ctx, db)
}

// settleDown lets the server do now what it would do during the measurement.
func settleDown(ctx context.Context, db *sql.DB) error {
	for _, q := range []string{"VACUUM ANALYZE kr_task_stat, kr_ready", "CHECKPOINT"} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// engine measures tasks a second of a shape.
func (b *bench) engine(ctx context.Context, s shape, watchers int, before func(*sql.DB) error) (rate float64, err error) {
	err = b.database(ctx, func(db *sql.DB, cfg postgres.Config) error {
		if before != nil {
			if err := before(db); err != nil {
				return err
			}
		}
		if err := fill(ctx, db, s); err != nil {
			return err
		}
		n := s.flows * s.size
		if rate, err = b.drain(ctx, db, cfg, watchers, n); err != nil {
			return err
		}
		return finished(ctx, db, n)
	})
	return rate, err
}

// finished checks that a measurement did what it claims.
func finished(ctx context.Context, db *sql.DB, want int) error {
	var got, broken int
	if err := db.QueryRowContext(ctx, `SELECT count(*), (SELECT count(*) FROM kr_ready) FROM kr_task_stat
		WHERE task_id = 'bench' AND exec_status = 3 AND attempt = 1`).Scan(&got, &broken); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%d tasks were run once and finished instead of %d", got, want)
	}
	return nil
}

func runIndependent(ctx context.Context, b *bench) error {
	return b.againstFloor(ctx, independent(b.n(60_000)))
}

func runChains(ctx context.Context, b *bench) error {
	return b.againstFloor(ctx, chains(b.n(20_000)))
}

func runDiamonds(ctx context.Context, b *bench) error {
	return b.inTurn("tasks/s", "chains",
		thing{"chains", func() (float64, error) { return b.engine(ctx, chains(b.n(20_000)), 1, nil) }},
		thing{"diamonds", func() (float64, error) { return b.engine(ctx, diamonds(b.n(2_000)), 1, nil) }})
}

func (b *bench) againstFloor(ctx context.Context, s shape) error {
	return b.inTurn("tasks/s", "floor",
		thing{"floor", func() (float64, error) { return b.floor(ctx, s.flows, s.size) }},
		append([]thing{{"one watcher", func() (float64, error) { return b.engine(ctx, s, 1, nil) }}},
			b.peerThings(ctx, s.flows, 1)...)...)
}
