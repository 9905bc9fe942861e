package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/watcher"
)

// runHistory measures whether what is finished, and what is blocked, costs anything.
func runHistory(ctx context.Context, b *bench) error {
	for _, s := range []struct {
		name string
		shape
	}{{"independent", independent(b.n(60_000))}, {"chains", chains(b.n(20_000))}} {
		_, err := b.inTurn("tasks/s", "clean",
			thing{s.name + ", clean", func() (float64, error) { return b.engine(ctx, s.shape, 1, nil) }},
			thing{s.name + ", with a history", func() (float64, error) { return b.engine(ctx, s.shape, 1, b.history(ctx)) }},
			thing{s.name + ", with a backlog", func() (float64, error) { return b.engine(ctx, s.shape, 1, b.backlog(ctx)) }})
		if err != nil {
			return err
		}
	}
	return nil
}

// history makes 3 million finished tasks.
func (b *bench) history(ctx context.Context) func(*sql.DB) error {
	return func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, `
			INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet, program, attempt,
				registered_ts, started_ts, finished_ts)
			SELECT 'past-' || lpad((i / 3)::text, 31, '0'), i % 3 + 1, 'past', i % 3 + 1, 3, 0, 'NoOp', 1, now() - interval '1 day',
				now() - interval '1 day', now() - interval '1 day'
			FROM generate_series(0, $1) i`, b.n(3_000_000)-1)
		return err
	}
}

// backlog makes 300,000 tasks that wait behind tasks that are held.
func (b *bench) backlog(ctx context.Context) func(*sql.DB) error {
	return func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, `
			INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, unmet,
				dependents, program, registered_ts, suspended_ts, reason, task_priority)
			SELECT 'held-' || lpad((i / 300)::text, 31, '0'), i % 300 + 1, i % 300, 'held', i % 300 + 1,
				CASE i % 300 WHEN 0 THEN 2 ELSE 0 END, CASE i % 300 WHEN 0 THEN 0 ELSE 1 END,
				CASE i % 300 WHEN 299 THEN '{}' ELSE ARRAY[i % 300 + 2] END, 'NoOp', now() - interval '1 day',
				CASE i % 300 WHEN 0 THEN now() END, CASE i % 300 WHEN 0 THEN 'held' END, -20
			FROM generate_series(0, $1) i`, b.n(300_000)-1)
		return err
	}
}

func runWatchers(ctx context.Context, b *bench) error {
	s := chains(b.n(20_000))
	_, err := b.inTurn("tasks/s", "one watcher",
		thing{"1 watcher", func() (float64, error) { return b.engine(ctx, s, 1, nil) }},
		thing{"4 watchers", func() (float64, error) { return b.engine(ctx, s, 4, nil) }})
	return err
}

// runIdle measures what a watcher without tasks costs: statements, as the server counts
// its transactions, and processor time of this process.
func runIdle(ctx context.Context, b *bench) error {
	return b.database(ctx, func(db *sql.DB, cfg postgres.Config) error {
		store, err := postgres.Open(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer func() { _ = store.Close() }()
		one, err := watcher.New(watcher.Config{Workers: 5, PollInterval: 5 * time.Second, ShutdownTimeout: time.Second, Host: "bench"},
			store, newCounting(-1), slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		live, stop := context.WithCancel(ctx)
		defer stop()
		var group errgroup.Group
		group.Go(func() error { return one.Run(live) })

		wait := func(d time.Duration) { <-time.After(d) }
		wait(3 * time.Second) // it joins
		span := time.Duration(b.n(30)) * time.Second
		before, cpu, err := counts(ctx, db)
		if err != nil {
			return err
		}
		wait(span)
		after, cpuAfter, err := counts(ctx, db)
		if err != nil {
			return err
		}
		b.report(figure{Name: "transactions, heartbeats included", Value: float64(after-before) / span.Seconds(), Unit: "1/s"})
		b.report(figure{Name: "processor", Value: 100 * (cpuAfter - cpu).Seconds() / span.Seconds(), Unit: "% core"})
		stop()
		return group.Wait()
	})
}

func counts(ctx context.Context, db *sql.DB) (transactions int64, cpu time.Duration, err error) {
	if _, err := db.ExecContext(ctx, `SELECT pg_stat_force_next_flush()`); err != nil {
		return 0, 0, err
	}
	if err := db.QueryRowContext(ctx, `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`).
		Scan(&transactions); err != nil {
		return 0, 0, fmt.Errorf("count transactions: %w", err)
	}
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0, 0, fmt.Errorf("count processor time: %w", err)
	}
	return transactions, time.Duration(use.Utime.Nano() + use.Stime.Nano()), nil
}

// runGuard measures what the triggers for changes by hand cost the engine, which never
// makes them fire: their conditions are looked at for each row.
func runGuard(ctx context.Context, b *bench) error {
	s := chains(b.n(20_000))
	_, err := b.inTurn("tasks/s", "without",
		thing{"without triggers", func() (float64, error) {
			return b.engine(ctx, s, 1, func(db *sql.DB) error {
				_, err := db.ExecContext(ctx, `ALTER TABLE kr_task_stat DISABLE TRIGGER USER`)
				return err
			})
		}},
		thing{"with triggers", func() (float64, error) { return b.engine(ctx, s, 1, nil) }})
	return err
}
