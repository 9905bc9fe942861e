package main

import (
	"context"
	"database/sql"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/watcher"
)

// runHistory measures whether what is finished, and what is blocked, costs anything.
func runHistory(ctx context.Context, b *bench) error {
	for _, s := range []struct {
		name string
		shape
	}{{"independent", independent(b.n(60_000))}, {"chains", chains(b.n(20_000))}} {
		err := b.inTurn("tasks/s", "clean",
			thing{s.name + ", clean", func() (float64, error) { return b.engine(ctx, s.shape, 1, nil) }},
			thing{s.name + ", with a history", func() (float64, error) { return b.engine(ctx, s.shape, 1, b.history(ctx)) }},
			thing{s.name + ", with a backlog", func() (float64, error) { return b.engine(ctx, s.shape, 1, b.backlog(ctx)) }})
		if err != nil {
			return err
		}
	}
	return nil
}

// pastFlows makes what kr_flow has of n flows or a few more. As in a dump it comes first, so
// that nothing looks at how their tasks hang together.
func pastFlows(ctx context.Context, db *sql.DB, workflow string, n int) error {
	_, err := db.ExecContext(ctx, `
		INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
		SELECT $1 || '-' || lpad(i::text, 31, '0'), $1, now() - interval '1 day' FROM generate_series(0, $2) i`, workflow, n)
	return err
}

// history makes 3 million finished tasks.
func (b *bench) history(ctx context.Context) func(*sql.DB) error {
	return func(db *sql.DB) error {
		if err := pastFlows(ctx, db, "past", b.n(3_000_000)/3); err != nil {
			return err
		}
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
		if err := pastFlows(ctx, db, "held", b.n(300_000)/300); err != nil {
			return err
		}
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

// runWatchers takes three seconds' work, of which the start of 8 sessions, each of which
// makes its plan and touches the server's memory for the first time, is not much.
func runWatchers(ctx context.Context, b *bench) error {
	s := chains(b.n(60_000))
	return b.inTurn("tasks/s", "one watcher",
		thing{"1 watcher", func() (float64, error) { return b.engine(ctx, s, 1, nil) }},
		thing{"4 watchers", func() (float64, error) { return b.engine(ctx, s, 4, nil) }})
}

// counted is a store that counts what an idle watcher asks it for: one statement each.
type counted struct {
	*postgres.DB
	beats, others atomic.Int64
}

func (s *counted) Beat(ctx context.Context, watcher string, running []flow.Task) (flow.Pulse, error) {
	s.beats.Add(1)
	return s.DB.Beat(ctx, watcher, running)
}

func (s *counted) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	s.others.Add(1)
	return s.DB.Advance(ctx, results, c)
}

func (s *counted) Promote(ctx context.Context) (int, time.Duration, error) {
	s.others.Add(1)
	return s.DB.Promote(ctx)
}

func (s *counted) Strangers(ctx context.Context, programs []string) ([]string, error) {
	s.others.Add(1)
	return s.DB.Strangers(ctx, programs)
}

func (s *counted) Sweep(ctx context.Context) (flow.Swept, error) {
	s.others.Add(7) // in one transaction
	return s.DB.Sweep(ctx)
}

// runIdle measures what a watcher without tasks costs: statements, and processor time of
// this process.
func runIdle(ctx context.Context, b *bench) error {
	return b.database(ctx, func(_ *sql.DB, cfg postgres.Config) error {
		open, err := postgres.Open(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer func() { _ = open.Close() }()
		store := &counted{DB: open}
		one, err := watcher.New(watcher.Config{Workers: 5, PollInterval: 5 * time.Second, ShutdownTimeout: time.Second, Host: "bench"},
			store, noOps{}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		live, stop := context.WithCancel(ctx)
		defer stop()
		var group errgroup.Group
		group.Go(func() error { return one.Run(live) })

		wait := func(d time.Duration) { <-time.After(d) }
		wait(3 * time.Second) // it joins
		span := time.Duration(b.n(120)) * time.Second
		beats, others, cpu := store.beats.Load(), store.others.Load(), processorTime()
		wait(span)
		b.report(figure{Name: "heartbeats", Value: float64(store.beats.Load()-beats) / span.Seconds(), Unit: "1/s"})
		b.report(figure{Name: "other statements", Value: float64(store.others.Load()-others) / span.Seconds(), Unit: "1/s"})
		b.report(figure{Name: "processor", Value: 100 * (processorTime() - cpu).Seconds() / span.Seconds(), Unit: "% core"})
		stop()
		return group.Wait()
	})
}

func processorTime() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use) // fails for no process that asks for itself
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// runGuard measures what the triggers for changes by hand cost the engine, which never
// makes them fire: their conditions are looked at for each row.
func runGuard(ctx context.Context, b *bench) error {
	s := chains(b.n(20_000))
	return b.inTurn("tasks/s", "without",
		thing{"without triggers", func() (float64, error) {
			return b.engine(ctx, s, 1, func(db *sql.DB) error {
				_, err := db.ExecContext(ctx, `ALTER TABLE kr_task_stat DISABLE TRIGGER USER`)
				return err
			})
		}},
		thing{"with triggers", func() (float64, error) { return b.engine(ctx, s, 1, nil) }})
}
