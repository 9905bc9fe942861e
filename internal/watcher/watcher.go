// Package watcher runs tasks: it polls the database for tasks that can go, claims as
// many as it has free workers, runs their programs, and records how they ended.
//
// # Parts
//
// The dispatcher (dispatch.go) is one goroutine that owns the pool: which workers are
// free, which results wait to be recorded. Workers (work.go) run one task at a time and
// never touch the database. The lease (lease.go) has a goroutine of its own, so that
// nothing that a task or a statement does makes its watcher look dead; so have the
// housekeeping (housekeep.go), what reads everything (sweep.go), and the shipper (ship.go),
// which takes what tasks print to the database, and for which nobody else waits.
//
// # What it relies on
//
// The database is the only truth. A watcher remembers nothing that it could not lose:
// when it is killed, others take its tasks back after their lease. Polling finds
// everything; notifications and what a finish releases only make it faster.
//
// There are two contexts. The one given to Run stops claiming; the other stops work, and
// ends only when the time for a clean end is over. Recording a result uses neither: a
// result is kept until it was recorded or refused.
package watcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/flow"
)

// Queue is where tasks come from and results go to.
type Queue interface {
	// Advance records results, releases what depends on finished tasks, and claims up
	// to c.Free tasks. After an error nothing is known: the results must be given again,
	// and Owned tells what the claim has got.
	Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error)

	// Owned returns the running tasks that a watcher claimed with the given claims.
	Owned(ctx context.Context, watcher string, claims []string) ([]flow.Task, error)

	// Outputs returns what tasks that a task comes after have returned, by the task_seq
	// of their definition.
	Outputs(ctx context.Context, of flow.TaskKey, seqs []int) (map[int]json.RawMessage, error)

	// Registered returns how a task's flow was registered.
	Registered(ctx context.Context, of flow.TaskKey) (flow.Flow, error)

	// Listen returns a channel of hints that it is worth looking, until ctx ends.
	Listen(ctx context.Context) <-chan struct{}
}

// Leases tell living watchers from dead ones.
type Leases interface {
	Join(ctx context.Context, w flow.Watcher) error
	// Beat renews the lease. flow.ErrFenced: it was too late, others have taken over.
	Beat(ctx context.Context, watcher string, running []flow.Task) (flow.Pulse, error)
	// Rescue takes over from the dead; tell hears of it, some tasks each time.
	Rescue(ctx context.Context, watcher string, tell func([]flow.Rescued)) error
	Drain(ctx context.Context, watcher string) error
	// Leave ends the lease. behind: there may be tasks that others are to rescue.
	Leave(ctx context.Context, watcher string, behind bool) error
}

// Upkeep is what any watcher may do for all of them.
type Upkeep interface {
	// Promote lets tasks go that waited for a time, and says in how long the next one
	// is due; 0 is none.
	Promote(ctx context.Context) (promoted int, next time.Duration, err error)
	// Strangers returns programs of ready tasks that no living watcher has.
	Strangers(ctx context.Context, programs []string) ([]string, error)
	// Refuse suspends the ready tasks of such a program.
	Refuse(ctx context.Context, program, text string) ([]flow.TaskKey, error)
	// Sweep repairs what should never be broken.
	Sweep(ctx context.Context) (flow.Swept, error)
	// Check looks whether every rule of the database holds, unless somebody did a moment
	// ago and it need not be anew, and returns the rules that it found broken.
	Check(ctx context.Context, anew bool) ([]flow.BrokenRule, error)
	// Checked returns what the last Check found, whoever made it.
	Checked(ctx context.Context) (flow.Check, error)
}

// Logs is where the logs of attempts are kept.
type Logs interface {
	// KeepLog writes parts of them, at most one of each attempt. After an error it is
	// unknown whether it did: it may be called with the same lines again. An error other
	// than flow.ErrUnavailable is a refusal.
	KeepLog(ctx context.Context, parts []flow.LogPart) error
}

// Store is the database, as a watcher needs it.
type Store interface {
	Queue
	Leases
	Upkeep
	Logs
}

// Programs is what tasks can run. What Run returns, logs and prints is stored and shown, and
// must have no secrets in it. A *flow.SkippedError is no failure.
type Programs interface {
	Names() []string
	// OffWithout returns the setting that would give the watcher a program that it has
	// not; empty: none would.
	OffWithout(name string) string
	Run(ctx context.Context, a Attempt) (output json.RawMessage, err error)
}

// Attempt is what a program gets for one attempt at a task.
type Attempt struct {
	Task           flow.Task
	Log            *slog.Logger
	Stdout, Stderr io.Writer // what the work prints, line by line
	Outputs        func(ctx context.Context, seqs ...int) (map[int]json.RawMessage, error)
	Flow           func(ctx context.Context) (flow.Flow, error) // how it was registered
}

// Meter counts what a watcher does. Its methods return at once.
type Meter interface {
	Claimed(program string)
	// Ended: an attempt has, and that is recorded.
	Ended(program string, outcome flow.Outcome, took time.Duration)
	Refused() // a result that came too late
	Rescued(tasks int)
}

type noMeter struct{}

func (noMeter) Claimed(string)                            {}
func (noMeter) Ended(string, flow.Outcome, time.Duration) {}
func (noMeter) Refused()                                  {}
func (noMeter) Rescued(int)                               {}

// Config says how a watcher works.
type Config struct {
	Workers         int           // tasks at a time
	PollInterval    time.Duration // between looks at the queue, when nothing else wakes it
	ShutdownTimeout time.Duration // for running tasks to end, before they are cancelled
	Host            string        // where it runs, for people
	PID             int
	Version         string
	Meter           Meter // nil: nobody counts
}

// Validate names the setting that cannot work, and its limits.
func (c Config) Validate() error {
	switch {
	case c.Workers < 1 || c.Workers > 10_000:
		return fmt.Errorf("workers (-workers, WORKER_COUNT) is %d: must be from 1 to 10000", c.Workers)
	case c.PollInterval < 10*time.Millisecond || c.PollInterval > time.Hour:
		return fmt.Errorf("poll interval (-poll-interval, POLLING_INTERVAL_SECOND) is %s: must be from 10ms to 1h", c.PollInterval)
	case c.ShutdownTimeout < 0:
		return fmt.Errorf("shutdown timeout (-shutdown-timeout) is %s: must not be negative", c.ShutdownTimeout)
	}
	return nil
}

// Watcher runs tasks. Make one with New, call Run once.
type Watcher struct {
	cfg      Config
	store    Store
	programs Programs
	log      *slog.Logger
	lease    *lease
	roster   *roster
	shipper  *shipper
	wake     chan struct{} // of capacity 1: look at the queue
	putOff   chan struct{} // of capacity 1: a task has got a time to wait for
	rescued  chan struct{} // of capacity 1: watchers were declared dead
}

// New makes a watcher.
func New(cfg Config, store Store, programs Programs, log *slog.Logger) (*Watcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Meter == nil {
		cfg.Meter = noMeter{}
	}
	w := &Watcher{
		cfg: cfg, store: store, programs: programs, log: log,
		roster: newRoster(), shipper: newShipper(store, log), wake: make(chan struct{}, 1), putOff: make(chan struct{}, 1),
		rescued: make(chan struct{}, 1),
	}
	w.lease = newLease(w)
	return w, nil
}

// Why a program's context ended.
var (
	errStopped = flow.ErrShutdown
	errRevoked = errors.New("the task was changed by hand, or taken over, while it ran")
	errTimeout = errors.New("the task's timeout is over")
)

// Run works until ctx ends, then claims nothing more, lets running tasks end for
// cfg.ShutdownTimeout, cancels what is left and hands it back. It returns nil after a
// clean end, and an error if it cannot begin or if results were lost.
func (w *Watcher) Run(ctx context.Context) error {
	if err := w.lease.join(ctx, false); err != nil {
		return err
	}
	// Heartbeats and housekeeping go on until the last result is recorded.
	live, end := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { w.lease.keep(live) })
	background.Go(func() { w.lease.drain(ctx, live) })
	background.Go(func() { w.housekeep(live) })
	background.Go(func() { w.sweeps(live) })
	background.Go(func() { w.checks(live) })
	background.Go(func() { w.hints(live) })
	background.Go(func() { w.shipper.run(live) })

	w.log.Info("watching task...", "component", "watcher", "watcher", w.lease.id(), "workers", w.cfg.Workers,
		"poll_interval", w.cfg.PollInterval, "programs", w.programs.Names())
	d := newDispatcher(w)
	err := d.run(ctx)
	if err == nil {
		d.doubts.handBack()
	}

	end()
	background.Wait()
	return errors.Join(err, w.lease.leave(err != nil || len(d.doubts.claims) > 0))
}

// Pulse returns how many workers there are, how many of them run a task, and when the last
// heartbeat went through; zero if none has.
func (w *Watcher) Pulse() (workers, busy int, renewed time.Time) {
	if at := w.lease.renewed.Load(); at != nil {
		renewed = *at
	}
	return w.cfg.Workers, w.roster.size(), renewed
}

// hints turns hints of the database into wake-ups, and into a heartbeat, which finds
// out about claims that were revoked.
func (w *Watcher) hints(ctx context.Context) {
	hints := w.store.Listen(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hints:
			w.wakeUp()
			signal(w.putOff)
			w.lease.beatSoon()
		}
	}
}

// wakeUp makes the dispatcher look at the queue.
func (w *Watcher) wakeUp() { signal(w.wake) }

// signal sends to a channel of capacity 1: several signals before it is read are one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// rest waits for a pause; a signal on soon ends it, but not before the least time is
// over. It returns false when ctx has ended.
func rest(ctx context.Context, pause, least time.Duration, soon <-chan struct{}) bool {
	least = min(least, pause)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(least):
	}
	select {
	case <-ctx.Done():
		return false
	case <-soon:
	case <-time.After(pause - least):
	}
	return true
}

// newID returns a random id that was never used before: of a watcher or of a claim.
func newID() string { return uuid.NewString() }
