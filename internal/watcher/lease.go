package watcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Times of the lease, of which the database counts the other half (postgres, lease.go).
const (
	heartbeat = 2 * time.Second
	beatPause = 100 * time.Millisecond // at least, between heartbeats that somebody asked for
	// A watcher that could not renew its lease for this long stops, by its own clock,
	// what must not run twice: in two more seconds others may take over.
	fenceAfter = 8 * time.Second
)

// lastWords is how long a watcher tries to tell the others that it stops: long enough for a
// connection past a host that is dead.
const lastWords = 5 * time.Second

// lease keeps a watcher alive in the eyes of the others.
type lease struct {
	w        *Watcher
	ident    atomic.Pointer[string]    // its present id; another one after it was fenced
	watchers atomic.Int64              // how many there are, with the last heartbeat
	renewed  atomic.Pointer[time.Time] // when the lease was last renewed; nil is never. For health checks
	soon     chan struct{}             // of capacity 1: beat now

	rescuing atomic.Bool    // one at a time
	rescues  sync.WaitGroup // what keep has begun
	errs     *errorLog      // of rescues; whoever rescues has it
}

func newLease(w *Watcher) *lease {
	l := &lease{
		w: w, soon: make(chan struct{}, 1),
		errs: newErrorLog(w.log, "rescue failed: trying again", "a rescue went through again"),
	}
	l.renew()
	return l
}

func (l *lease) id() string { return *l.ident.Load() }

func (l *lease) renew() {
	id := newID()
	l.ident.Store(&id)
}

// beatSoon asks for a heartbeat before its time.
func (l *lease) beatSoon() { signal(l.soon) }

// join makes the watcher known, however long the database is away; insist: and whatever else
// is in the way.
func (l *lease) join(ctx context.Context, insist bool) error {
	c := l.w.cfg
	errs := newErrorLog(l.w.log, "cannot join: trying again", "joined")
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := l.w.store.Join(ctx, flow.Watcher{
			ID: l.id(), Host: c.Host, PID: c.PID, Version: c.Version, Programs: l.w.programs.Names(), Workers: c.Workers,
		})
		if err == nil {
			l.renewed.Store(new(time.Now()))
			errs.worked()
			return nil
		}
		if !insist && !errors.Is(err, flow.ErrUnavailable) {
			return err
		}
		errs.failed(err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("join: %w", context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// keep sends heartbeats until ctx ends.
func (l *lease) keep(ctx context.Context) {
	errs := newErrorLog(l.w.log, "heartbeat failed: trying again", "heartbeats go through again")
	// By a timer, since a heartbeat may wait for its answer for longer than that.
	fence := time.AfterFunc(fenceAfter, l.fence)
	defer fence.Stop()
	defer l.rescues.Wait()
	failing := false
	for pause := time.Duration(0); rest(ctx, pause, beatPause, l.soon); {
		sent := time.Now()
		pulse, err := l.w.store.Beat(ctx, l.id(), l.w.roster.tasks())
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			fence.Reset(fenceAfter - time.Since(sent))
			pause = heartbeat
			l.renewed.Store(&sent)
			errs.worked()
			l.watchers.Store(int64(pulse.Watchers))
			l.obey(ctx, pulse)
			if failing { // meanwhile the lease may have ended, and claims have got nothing
				l.w.wakeUp()
			}
			failing = false
		case errors.Is(err, flow.ErrFenced):
			l.startAgain(ctx)
			fence.Reset(fenceAfter)
			pause = heartbeat
		default:
			failing = true
			errs.failed(err)
			pause = 250 * time.Millisecond
		}
	}
}

// obey does what the database told with a heartbeat.
func (l *lease) obey(ctx context.Context, pulse flow.Pulse) {
	for _, t := range pulse.Revoked {
		l.w.roster.cancel(t, errRevoked)
	}
	// Beside the heartbeats: a rescue may read a large table, and the one who does it must
	// not look dead meanwhile.
	if pulse.Rescue && l.rescuing.CompareAndSwap(false, true) {
		l.rescues.Go(func() {
			defer l.rescuing.Store(false)
			l.rescue(ctx)
		})
	}
}

func (l *lease) rescue(ctx context.Context) {
	err := l.w.store.Rescue(ctx, l.id(), func(rescued []flow.Rescued) {
		l.w.cfg.Meter.Rescued(len(rescued))
		logRescued(l.w.log, rescued)
		l.w.wakeUp()
	})
	signal(l.w.rescued) // of a rescue that has failed, too: the sweep finds the rest
	if err != nil {
		l.errs.failed(err)
		return
	}
	l.errs.worked()
}

// fence stops what must not run twice, since nobody knows whether others already run it.
// The rest runs on: an outage that everybody sees must not cost everybody's work, and
// the claim's fence decides about each result.
func (l *lease) fence() {
	n := l.w.roster.cancelAll(func(t flow.Task) bool { return t.OnLost == flow.OnLostSuspend }, flow.ErrFenced)
	l.w.log.Warn("no heartbeat went through: the lease is about to end", "component", "watcher",
		"watcher", l.id(), "for", fenceAfter, "cancelled", n)
}

// startAgain goes on under a new id after others have declared this watcher dead. What
// runs is cancelled: its results would be refused. It has joined before, so that what keeps it
// from doing so now is told, and tried again: what is at work here must come to its end.
func (l *lease) startAgain(ctx context.Context) {
	n := l.w.roster.cancelAll(func(flow.Task) bool { return true }, flow.ErrFenced)
	old := l.id()
	l.renew()
	l.w.log.Error("declared dead by the others: starting again under a new id", "component", "watcher",
		"old", old, "watcher", l.id(), "cancelled", n)
	if err := l.join(ctx, true); err == nil {
		l.w.wakeUp()
	}
}

// drain tells the database, as soon as stop has ended, that this watcher claims nothing more,
// so that a claim in flight gets nothing; it may not hear of it. Nothing is left to tell when
// live has ended.
func (l *lease) drain(stop, live context.Context) {
	select {
	case <-stop.Done():
	case <-live.Done():
		return
	}
	ctx, cancel := context.WithTimeout(live, lastWords)
	defer cancel()
	if err := l.w.store.Drain(ctx, l.id()); err != nil && live.Err() == nil {
		l.w.log.Warn("the database does not know that this watcher stops", "component", "watcher", "err", err)
	}
}

// leave says that this watcher has ended, so that others take what is left at once. It says
// whether there may be something: to look would be to read the whole table, which may take
// longer than anybody waits for the end.
func (l *lease) leave(behind bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	return l.w.store.Leave(ctx, l.id(), behind)
}

func logRescued(log *slog.Logger, rescued []flow.Rescued) {
	for _, r := range rescued {
		log.Warn("task rescued", "component", "watcher", "flow", r.Key.Flow, "seq", r.Key.Seq,
			"lost_by", r.Watcher, "status", r.Status)
	}
}
