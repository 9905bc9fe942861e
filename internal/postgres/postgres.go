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
// blocked, finished and not yet due tasks cost a claim nothing. A claim begins where the
// last one ended, since what was claimed stays in the index for a while (see front.go). Each task counts what it
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
//	Advance, 200 of a chain         16 a task    2.2 a task    330 a task  17 µs a task
//	Advance, 200 from the queue     20 a task    4.5 a task    470 a task  17 µs a task
//	register, a flow of 3 tasks     24 a flow    14 a flow     1.9 kB      0.04 to 0.4 ms
//	heartbeat                       4            1             81          0.06 ms
//	promote, nothing due            2            0             0           0.02 ms
//	notify                          0            0             0           0.02 ms
//
// A call of Advance has half a millisecond of fixed cost: its sixty plan nodes, and the
// conditions of constraints and triggers, which PostgreSQL parses anew in each statement.
// Constraints take a microsecond a task, and the trigger on exec_status, which never fires
// for the engine but to put back what waits again, nine tenths of one: the old row is read
// for it, and its condition looked at. There is only one, for that reason.
// So results gather while a call is in flight. A change of a task is HOT (no index is
// touched) where its page has room: always in chains; of tasks without any dependents that
// are claimed and finished within milliseconds, page after page, one change in ten is not.
// An idle watcher sends a heartbeat every 2 s, and two statements at each poll.
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
// Those were prototypes; what the first has become does 65,000 with one watcher and with
// four. The last one was faster, at the price of an order that holds only within one watcher
// and of flows that must be handed over when it dies. Finding a finished task by its place in
// the table (ctid) instead of its key saves a look at the index, and with it the pruning that
// keeps changes HOT: half of them were then not, and it was slower. (What is claimed has been
// looked up before, and its page pruned: there it saves two buffers a task.) An index on exec_status or
// watcher_id would find running tasks without reading the table, and end HOT: a quarter more
// WAL on every change, for what happens after a crash.
//
// Registering waits for the disk: a batch takes 0.3 ms and 0.03 for each flow to run, and
// half a millisecond to be flushed. With remembered definitions (see registrar, recall) one
// statement at a time makes 5,200 flows a second with 16 clients and 8,800 with 64; two, each
// with half of all that are asked for, make a seventh more with 16 and as many with 64. Two that
// take whatever is there are level with one: what they save in waiting they lose in smaller
// batches. Two of which each batch read its definitions made 3,600 and 6,400. All of these took
// turns on four lanes; two that keep to two of them (see take) make a sixth more with 16.
//
// # What operators do
//
// An action (Act, ActAll) is one UPDATE which a person may as well write, and which the
// guard, a trigger, sees like anybody else's. Which tasks it changes is worked out by one
// function of the database, for previews and for actions alike; an action has locked the
// whole flow before, in the order of keys, as the engine locks. See act.go, with what it
// costs.
//
// # Definitions
//
// Whoever changes a definition, by hand or by way of EditDefinitions, makes a version of it:
// triggers see to that when the transaction commits. The highest version is therefore that
// of the rows, in any snapshot. Register reads it with the rows, and compares it in the
// statement that makes a flow of them: two buffers for each workflow of a batch.
//
// # Statements of tasks
//
// What tasks of the program SQL run is not ours, and never meets a connection of ours: see
// Statements. A transactional one is the only task that the database records before the
// dispatcher gives its result, which is then recorded already.
package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"golang.org/x/sync/singleflight"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres/pqguard"
)

// DB is Flower's database. Its methods may be called by many goroutines.
type DB struct {
	cfg        Config
	log        *slog.Logger
	net        *network
	pool       *sqlx.DB // whatever is not hot
	reads      *sqlx.DB // lists, and whatever else people look at
	slow       *sqlx.DB // what reads whole tables
	beat       *lanes   // heartbeats alone: they must not wait behind anything else
	engine     *lanes   // the watcher's hot statements
	writer     *lanes   // registrations
	logs       *lanes   // what tasks print: nothing waits behind it
	hints      *notifier
	front      *front
	flows      *registrar
	recall     recall
	tally      *tally
	check      func(w flow.Workflow, request json.RawMessage) error
	maxWaiting int                // flows of one caller; 0 is any number
	looks      singleflight.Group // whether the database can be used
}

// Sizes of the pools, whatever the number of workers or clients. Two lanes are enough
// for the engine: one works while the other's commit is flushed.
const (
	poolConns   = 8
	readConns   = 6
	slowConns   = 4 // sweep, check, rescue, what claims have got: none is to wait for another
	engineLanes = 2
	writerLanes = 4
)

// Open prepares the use of a database. It does not connect: a database that is away is
// met by the first call, with flow.ErrUnavailable.
func Open(cfg Config, log *slog.Logger) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &DB{cfg: cfg, log: log, net: &network{limits: cmp.Or(cfg.limits, usualLimits)}}
	d.net.shut.Store(cfg.AwaitSchema)
	quick, slow, beat := d.net.dialer(d.net.quick), d.net.dialer(d.net.slow), d.net.early(d.net.beat)
	var errs [7]error
	d.pool, errs[0] = d.open(poolConns, quick, sessionSettings...)
	d.slow, errs[1] = d.open(slowConns, slow, slowSettings...)
	d.beat, errs[2] = d.openLanes(1, beat, beatSettings...)
	d.engine, errs[3] = d.openLanes(engineLanes, quick, engineSettings...)
	d.writer, errs[4] = d.openLanes(writerLanes, quick, writerSettings...)
	d.logs, errs[5] = d.openLanes(1, d.net.dialer(d.net.logs), logSettings...)
	d.reads, errs[6] = d.open(readConns, d.net.reader(d.net.quick), readSettings...)
	for _, err := range errs {
		if err != nil { // the others say the same
			return nil, err
		}
	}
	d.hints = newNotifier(func(ctx context.Context, from place) error {
		var sent []string
		return d.writer.selectAll(ctx, &sent, notifySQL, from.hint())
	})
	d.front = newFront()
	d.flows = newRegistrar(d.registerAll)
	d.tally = newTally()
	d.check = func(flow.Workflow, json.RawMessage) error { return nil }
	return d, nil
}

// CheckParameters has Register refuse what check refuses, which gets the workflow and the
// parameters of the request. Call it before Register.
func (d *DB) CheckParameters(check func(w flow.Workflow, request json.RawMessage) error) {
	d.check = check
}

// open makes a pool of at most n connections.
func (d *DB) open(n int, dial dialer, settings ...string) (*sqlx.DB, error) {
	if d.cfg.Pooler {
		settings = nil
	} else {
		settings = slices.Concat(commonSettings, settings)
	}
	cfg, err := pq.NewConfig(d.cfg.dsn(settings...))
	if err != nil {
		// Its text may repeat the connection string, and with it the password.
		return nil, fmt.Errorf("the database's settings cannot be used: %w", redact(err, d.cfg))
	}
	hosts, err := newHosts(d.net, cfg, dial)
	if err != nil {
		return nil, err
	}
	pool := sqlx.NewDb(sql.OpenDB(pqguard.Wrap(hosts)), "postgres")
	pool.SetMaxOpenConns(n)
	pool.SetMaxIdleConns(n)
	pool.SetConnMaxLifetime(5 * time.Minute)
	return pool, nil
}

func (d *DB) openLanes(n int, dial dialer, settings ...string) (*lanes, error) {
	pool, err := d.open(n, dial, settings...)
	if err != nil {
		return nil, err
	}
	return newLanes(pool, n, d.net, !d.cfg.Pooler), nil
}

// Close closes all connections. Nothing may be in flight. That a connection is closed
// already, or that nobody is there to hear of it, is not worth an error.
func (d *DB) Close() error {
	d.flows.close()
	d.hints.close()
	err := errors.Join(d.engine.close(), d.writer.close(), d.beat.close(), d.logs.close(), d.slow.Close(), d.reads.Close(), d.pool.Close())
	if err != nil && broken(err) {
		return nil
	}
	return err
}

// bounded returns when f has ended or ctx has. A context frees no read on a silent
// network: f may go on for as long as such a one can hold it, and nobody looks at what it
// comes to.
func bounded(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// inTx runs f in a transaction, and commits unless f returns an error or panics. f must
// do nothing but SQL. An error of the commit means that the outcome is unknown.
func (d *DB) inTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return d.inTxOf(ctx, d.pool, writableSQL, f)
}

// inSlowTx is inTx for what reads whole tables.
func (d *DB) inSlowTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return d.inTxOf(ctx, d.slow, slowWritableSQL, f)
}

// inLongTx is inSlowTx for what watchers look after by themselves. Nobody waits for it, and
// with a hundred million tasks it reads for minutes: if it were given up, it would be for ever.
func (d *DB) inLongTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return d.inTxOf(ctx, d.slow, longWritableSQL, f)
}

// BeginTx says READ WRITE, and so would write to a database that somebody has made
// read-only (as some providers do when its disk is nearly full).
const writableSQL = `
-- flower: writable?
SELECT NOT current_setting('default_transaction_read_only')::boolean`

// Behind a pooler the role's limit applies, which is for what is quick.
const (
	slowWritableSQL = writableSQL + ` FROM set_config('statement_timeout', '60000', true)`
	longWritableSQL = writableSQL + ` FROM set_config('statement_timeout', '600000', true)`
)

func (d *DB) inTxOf(ctx context.Context, pool *sqlx.DB, beginSQL string, f func(tx *sqlx.Tx) error) error {
	err := runTx(ctx, pool, nil, func(tx *sqlx.Tx) error {
		var writable bool
		if err := tx.GetContext(ctx, &writable, beginSQL); err != nil {
			return err
		}
		if !writable {
			return errReadOnly
		}
		return f(tx)
	})
	if err != nil {
		d.net.leadsAstray(err)
	}
	return err
}

func runTx(ctx context.Context, pool *sqlx.DB, o *sql.TxOptions, f func(tx *sqlx.Tx) error) error {
	tx, err := pool.BeginTxx(ctx, o)
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
