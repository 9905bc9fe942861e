package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/watcher"
)

const (
	steadyRate = 10               // flows a second, of three tasks each: 2.6 million tasks a day
	steadyKeep = 30 * time.Second // what finished longer ago is deleted
)

// timed is a store that notes how long its calls take.
type timed struct {
	*postgres.DB
	mu    sync.Mutex
	calls []time.Duration
}

func (s *timed) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	begun := time.Now()
	adv, err := s.DB.Advance(ctx, results, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, time.Since(begun))
	return adv, err
}

// p99 returns that of the calls since it was last asked.
func (s *timed) p99() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.calls)
	var p time.Duration
	if n := len(s.calls); n > 0 {
		p = s.calls[n*99/100]
	}
	s.calls = nil
	return p
}

// runSteady runs for an hour, and then for half an hour beside a transaction that keeps
// the server from removing what is dead. It compares the second minute with the last one.
func runSteady(ctx context.Context, b *bench) error {
	clean, held := max(3, b.n(60)), max(3, b.n(30)) // minutes
	return b.database(ctx, func(db *sql.DB, cfg postgres.Config) error {
		if _, err := db.ExecContext(ctx, defineSQL); err != nil {
			return err
		}
		open, err := postgres.Open(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer func() { _ = open.Close() }()
		store := &timed{DB: open}
		w, err := watcher.New(watcher.Config{Workers: 20, PollInterval: time.Second, ShutdownTimeout: time.Minute, Host: "bench"},
			store, noOps{}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		live, stop := context.WithCancel(ctx)
		defer stop()
		var group errgroup.Group
		group.Go(func() error { return w.Run(live) })
		group.Go(func() error { return b.steadyLoad(live, open) })
		group.Go(func() error { return steadyRetention(live, db) })

		first, last, err := steadyMinutes(ctx, db, store, clean)
		if err != nil {
			return err
		}
		b.reportGrowth("after the hour", first, last)
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "SELECT FROM kr_flow LIMIT 1"); err != nil {
			return err
		}
		_, beside, err := steadyMinutes(ctx, db, store, held)
		if err != nil {
			return err
		}
		b.report(figure{Name: "claim p99, a transaction held open", Value: ms(beside.p99), Unit: "ms", Of: "clean", Ratio: ms(beside.p99) / ms(first.p99)})
		if err := tx.Rollback(); err != nil {
			return err
		}
		stop()
		return group.Wait()
	})
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// steadyLoad registers flows at an even pace.
func (b *bench) steadyLoad(ctx context.Context, store *postgres.DB) error {
	tick := time.NewTicker(time.Second / steadyRate)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		if _, err := store.Register(ctx, flow.Registration{FlowID: flow.ID(id.String()), WorkflowID: "three"}); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// steadyRetention deletes what has finished, so that nothing but the engine's own traces
// can grow.
func steadyRetention(ctx context.Context, db *sql.DB) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Second):
		}
		if _, err := db.ExecContext(ctx, `DELETE FROM kr_task_stat t USING kr_flow f
			WHERE t.task_flow_id = f.task_flow_id AND f.registered_ts < now() - $1 * interval '1 s' AND t.exec_status = 3`,
			steadyKeep.Seconds()); err != nil && ctx.Err() == nil {
			return fmt.Errorf("delete what has finished: %w", err)
		}
	}
}

// minute is what stood at the end of one.
type minute struct {
	heap       uint64
	goroutines int
	tasks      int64 // bytes of kr_task_stat with its indexes
	queue      int64 // of kr_ready
	p99        time.Duration
}

// steadyMinutes lets minutes pass, and returns the second and the last one of them.
func steadyMinutes(ctx context.Context, db *sql.DB, store *timed, n int) (second, last minute, err error) {
	store.p99()
	for i := range n {
		select {
		case <-ctx.Done():
			return second, last, ctx.Err()
		case <-time.After(time.Minute):
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		last = minute{heap: m.HeapAlloc, goroutines: runtime.NumGoroutine(), p99: store.p99()}
		if err := db.QueryRowContext(ctx, `SELECT pg_total_relation_size('kr_task_stat'), pg_total_relation_size('kr_ready')`).
			Scan(&last.tasks, &last.queue); err != nil {
			return second, last, fmt.Errorf("measure the tables: %w", err)
		}
		fmt.Printf("  minute %3d: heap %5.1f MB, %d goroutines, kr_task_stat %6.1f MB, kr_ready %6.2f MB, call p99 %.2f ms\n",
			i+1, mb(last.heap), last.goroutines, mb(last.tasks), mb(last.queue), ms(last.p99))
		if i == 1 {
			second = last
		}
	}
	return second, last, nil
}

func mb[T int64 | uint64](n T) float64 { return float64(n) / (1 << 20) }

func (b *bench) reportGrowth(when string, first, last minute) {
	compare := func(name string, before, after float64, unit string) {
		b.report(figure{Name: name + " " + when, Value: after, Unit: unit, Of: "the second minute", Ratio: after / before})
	}
	compare("heap", mb(first.heap), mb(last.heap), "MB")
	compare("goroutines", float64(first.goroutines), float64(last.goroutines), "")
	compare("kr_task_stat", mb(first.tasks), mb(last.tasks), "MB")
	compare("kr_ready", mb(first.queue), mb(last.queue), "MB")
	compare("claim p99", ms(first.p99), ms(last.p99), "ms")
}
