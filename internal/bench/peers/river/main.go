// River measures the queue River as the bench asks: it prepares a workload in an empty
// database, times it, and prints a number: tasks or flows a second.
//
//	river WORKLOAD COUNT CLIENTS    the database by PGHOST, PGPORT, PGUSER, PGDATABASE
//
// The workloads are W1, W2 and, for there are three ways to register a flow of 3 jobs:
//
//	W3        one by one, in a transaction
//	W3many    all at once
//	W3first   the first alone, of a chain whose jobs insert each other
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

func main() {
	rate, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
	fmt.Println(rate)
}

// Step is a job: one of a chain of Of.
type Step struct {
	N, Of int
}

// Kind names the job to River.
func (Step) Kind() string { return "step" }

type worker struct {
	river.WorkerDefaults[Step]
	pool   *pgxpool.Pool
	left   *atomic.Int64
	done   chan struct{}
	client *river.Client[pgx.Tx]
}

// Work does nothing; in a chain it completes its job and inserts the next one in one
// transaction, which is River's way not to lose a link.
func (w *worker) Work(ctx context.Context, job *river.Job[Step]) error {
	if job.Args.Of > 1 {
		err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			if job.Args.N < job.Args.Of {
				if _, err := w.client.InsertTx(ctx, tx, Step{N: job.Args.N + 1, Of: job.Args.Of}, nil); err != nil {
					return err
				}
			}
			_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
			return err
		})
		if err != nil {
			return err
		}
	}
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
	return nil
}

func run(ctx context.Context, args []string) (float64, error) {
	if len(args) != 3 {
		return 0, errors.New("usage: river W1|W2|W3|W3many|W3first COUNT CLIENTS")
	}
	count, err1 := strconv.Atoi(args[1])
	clients, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	cfg, err := pgxpool.ParseConfig("")
	if err != nil {
		return 0, err
	}
	cfg.MaxConns = int32(max(clients, 16))
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return 0, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return 0, err
	}
	size := map[string]int{"W1": 1, "W2": 3, "W3": 3, "W3many": 3, "W3first": 3}[args[0]]
	if size == 0 {
		return 0, fmt.Errorf("no workload %q", args[0])
	}
	w := &worker{pool: pool, left: new(atomic.Int64), done: make(chan struct{})}
	w.left.Store(int64(count * size))
	workers := river.NewWorkers()
	river.AddWorker(workers, w)
	client, err := river.NewClient(driver, &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}},
		FetchCooldown: 2 * time.Millisecond, // as low as serves it best
		Workers:       workers,
		Logger:        slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, err
	}
	w.client = client
	switch args[0] {
	case "W3":
		return inserts(count, clients, func() error { return insertEach(ctx, pool, client) })
	case "W3many":
		return inserts(count, clients, func() error {
			_, err := client.InsertMany(ctx, []river.InsertManyParams{{Args: Step{1, 3}}, {Args: Step{2, 3}}, {Args: Step{3, 3}}})
			return err
		})
	case "W3first":
		return inserts(count, clients, func() error {
			_, err := client.Insert(ctx, Step{1, 3}, nil)
			return err
		})
	}
	return work(ctx, client, w, count, size)
}

func work(ctx context.Context, client *river.Client[pgx.Tx], w *worker, count, size int) (float64, error) {
	for left := count; left > 0; left -= min(left, 5000) {
		params := make([]river.InsertManyParams, min(left, 5000))
		for i := range params {
			params[i] = river.InsertManyParams{Args: Step{N: 1, Of: size}}
		}
		if _, err := client.InsertManyFast(ctx, params); err != nil {
			return 0, err
		}
	}
	if _, err := w.pool.Exec(ctx, "VACUUM ANALYZE river_job"); err != nil {
		return 0, err
	}
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	begun := time.Now() // as for our watchers, the start does not count
	<-w.done
	if err := client.Stop(ctx); err != nil { // what is done is recorded
		return 0, err
	}
	return float64(count*size) / time.Since(begun).Seconds(), nil
}

func insertEach(ctx context.Context, pool *pgxpool.Pool, client *river.Client[pgx.Tx]) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		for n := range 3 {
			if _, err := client.InsertTx(ctx, tx, Step{n + 1, 3}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// inserts counts flows a second, each inserted by insert.
func inserts(count, clients int, insert func() error) (float64, error) {
	var left atomic.Int64
	left.Store(int64(count))
	errs := make(chan error, clients)
	var group sync.WaitGroup
	begun := time.Now()
	for range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := insert(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	took := time.Since(begun)
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(count) / took.Seconds(), nil
	}
}
