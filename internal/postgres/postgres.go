// Package postgres has every SQL statement of Flower and every transaction. It keeps
// the two tables that are the product's contract, kr_task_stat and ms_task_definition,
// and knows how they are named; the other rooms speak of flows and tasks.
//
// # Rules
//
// One exported method is one transaction. Every change of state is one guarded
// statement, safe to repeat. READ COMMITTED everywhere, and only the database's clock.
// A write never goes through a pool alone: when an answer is lost, lib/pq reports a bad
// connection and database/sql runs the statement again on another one. Writes go
// through a transaction or a pinned connection (see lanes), and their ids are made
// before the call, so that an unknown outcome can be asked for.
//
// # How runnable tasks are found
//
// kr_ready has what can be claimed now, in the order of claims, and nothing else:
// blocked, finished and not yet due tasks cost a claim nothing. Each task counts what it
// still waits for in unmet, and knows its dependents. Advance, the one hot statement,
// records a batch of finished tasks, counts their dependents down, claims those that
// can go for the workers that are free, and fills up from the queue.
//
// A counter is changed relatively, under the row's own lock, and the decision is made
// on the row's newest version: two last parents that finish at once can then not each
// miss the other. People who change rows by hand are served by triggers, which do the
// same (see the migrations). What waits for its workflow's limit waits outside the queue,
// at a gate in its own row (see limits.go).
//
// # What the hot statements cost
//
// Each is one round trip and one commit. Buffers are pages looked at in memory. Measured
// with PostgreSQL 15 and 36-character ids; WAL without the page images that follow a
// checkpoint.
//
//	                                buffers      WAL records   WAL bytes   time
//	Advance, nothing to do          12           0             0           0.1 ms
//	Advance, 200 of a chain         18 a task    2.2 a task    330 a task  21 µs a task
//	Advance, 200 from the queue     25 a task    4.4 a task    470 a task  23 µs a task
//	register, a flow of 3 tasks     18 a flow    12 a flow     1.7 kB      0.1 to 0.4 ms
//	heartbeat                       4            1             81          0.06 ms
//	promote, nothing due            2            0             0           0.02 ms
//	notify                          0            0             0           0.02 ms
//
// A call of Advance has half a millisecond of fixed cost: its sixty plan nodes, and the
// conditions of constraints and triggers, which PostgreSQL parses anew in each statement.
// So results gather while a call is in flight. Every change of a task is HOT (no index is
// touched). An idle watcher sends a heartbeat every 2 s, and two statements at each poll.
//
// # Why in this way
//
// Other ways were measured beside it, on one machine, in tasks a second through chains of
// three, durable, in batches of 200, with one and with four watchers:
//
//	a narrow queue, dependents claimed by the finishing statement   40,000   38,000
//	the same, every dependent by way of the queue                   37,000   24,000 to 33,000
//	a column "ready" with a partial index, dependents claimed       35,000   33,000
//	a column kept by a row trigger                                  18,000
//	a self-join at the claim                                        26,000   (430 to 840 behind 300,000 blocked tasks)
//	flows owned by a watcher, what is ready in its memory           45,000   41,000 to 63,000
//
// The last one is faster, at the price of an order that holds only within one watcher and
// of flows that must be handed over when it dies. An index on exec_status or watcher_id
// would find running tasks without reading the table, and end HOT: a quarter more WAL on
// every change, for what happens after a crash.
package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres/pqguard"
	"github.com/d-tsuji/flower/migrations"
)

// DB is Flower's database. Its methods may be called by many goroutines.
type DB struct {
	cfg    Config
	log    *slog.Logger
	pool   *sqlx.DB // whatever is not hot
	slow   *sqlx.DB // what reads whole tables
	beat   *lanes   // heartbeats alone: they must not wait behind anything else
	engine *lanes   // the watcher's hot statements
	writer *lanes   // registrations
	hints  *notifier
	flows  *registrar
	check  func(w flow.Workflow, request json.RawMessage) error
}

// Sizes of the pools, whatever the number of workers or clients. Two lanes are enough
// for the engine: one works while the other's commit is flushed.
const (
	poolConns   = 8
	slowConns   = 3 // sweep, rescue, leave: none is to wait for another
	engineLanes = 2
	writerLanes = 4
)

// Open prepares the use of a database. It does not connect: a database that is away is
// met by the first call, with flow.ErrUnavailable.
func Open(cfg Config, log *slog.Logger) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &DB{cfg: cfg, log: log}
	var errs [5]error
	d.pool, errs[0] = d.open(poolConns, ioTimeout, cfg.sessionSettings()...)
	d.slow, errs[4] = d.open(slowConns, slowTimeout, cfg.slowSettings()...)
	d.beat, errs[1] = d.openLanes(1, cfg.beatSettings()...)
	d.engine, errs[2] = d.openLanes(engineLanes, cfg.engineSettings()...)
	d.writer, errs[3] = d.openLanes(writerLanes, cfg.sessionSettings()...)
	for _, err := range errs {
		if err != nil { // the others say the same
			return nil, err
		}
	}
	d.hints = newNotifier(func(ctx context.Context) error {
		var sent []string
		return d.writer.selectAll(ctx, &sent, notifySQL)
	})
	d.flows = newRegistrar(d.registerAll)
	d.check = func(flow.Workflow, json.RawMessage) error { return nil }
	return d, nil
}

// CheckParameters has Register refuse what check refuses, which gets the workflow and the
// parameters of the request. Call it before Register.
func (d *DB) CheckParameters(check func(w flow.Workflow, request json.RawMessage) error) {
	d.check = check
}

// open makes a pool of at most n connections, on which nothing may take longer than
// patience; 0 is for ever.
func (d *DB) open(n int, patience time.Duration, settings ...string) (*sqlx.DB, error) {
	c, err := pq.NewConnector(d.cfg.dsn(settings...))
	if err != nil {
		// Its text may repeat the connection string, and with it the password.
		return nil, fmt.Errorf("the database's settings cannot be used: %w", redact(err, d.cfg))
	}
	c.Dialer(dialer{patience})
	pool := sqlx.NewDb(sql.OpenDB(pqguard.Wrap(c)), "postgres")
	pool.SetMaxOpenConns(n)
	pool.SetMaxIdleConns(n)
	pool.SetConnMaxLifetime(5 * time.Minute)
	return pool, nil
}

func (d *DB) openLanes(n int, settings ...string) (*lanes, error) {
	pool, err := d.open(n, ioTimeout, settings...)
	if err != nil {
		return nil, err
	}
	return newLanes(pool, n, !d.cfg.Pooler), nil
}

// Close closes all connections. Nothing may be in flight.
func (d *DB) Close() error {
	d.flows.close()
	d.hints.close()
	return errors.Join(d.engine.close(), d.writer.close(), d.beat.close(), d.slow.Close(), d.pool.Close())
}

// Migrate brings the schema up to date. It waits for a database that is away, with a
// log line now and then, until ctx ends.
func (d *DB) Migrate(ctx context.Context) error {
	// A migration may take longer than any statement of ours.
	pool, err := d.open(2, 0, "statement_timeout=0", "lock_timeout=0")
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	return d.untilAvailable(ctx, func() error { return migrations.Up(ctx, pool.DB, d.log) })
}

// WaitReady waits until the database can be used: it answers, and its schema is not
// older than this program needs.
func (d *DB) WaitReady(ctx context.Context) error {
	return d.untilAvailable(ctx, func() error { return d.Ready(ctx) })
}

// untilAvailable repeats f while the database is away, at growing pauses.
func (d *DB) untilAvailable(ctx context.Context, f func() error) error {
	pause := 50 * time.Millisecond
	var said time.Time
	for {
		err := f()
		if err == nil || !unavailable(err) {
			return err
		}
		if time.Since(said) > 5*time.Second {
			d.log.Info("waiting for the database", "err", redact(err, d.cfg))
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", err)
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// ErrSchemaOld means that the database was not migrated for this program.
var ErrSchemaOld = errors.New("the database's schema is too old for this program")

const schemaVersionSQL = `
-- flower: schema version
SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`

// Ready reports why the database cannot be used just now; nil means that it can.
func (d *DB) Ready(ctx context.Context) error {
	need, err := migrations.Latest()
	if err != nil {
		return err
	}
	var have int64
	switch err := d.pool.GetContext(ctx, &have, schemaVersionSQL); {
	case undefinedTable(err), err == nil && have < need:
		// Whoever starts first migrates, so that waiting can help.
		return fmt.Errorf("%w: it has version %d, and %d is needed: start register, which migrates it", ErrSchemaOld, have, need)
	case err != nil:
		return translate("ask for the schema's version", err)
	}
	return nil
}

// inTx runs f in a transaction, and commits unless f returns an error or panics. f must
// do nothing but SQL. An error of the commit means that the outcome is unknown.
func (d *DB) inTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return inTxOf(ctx, d.pool, f)
}

func inTxOf(ctx context.Context, pool *sqlx.DB, f func(tx *sqlx.Tx) error) error {
	tx, err := pool.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
