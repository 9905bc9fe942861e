package watcher

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// How lines are written. Whoever looks is no more than a second behind.
const (
	shipEvery = 500 * time.Millisecond
	shipPause = 5 * time.Millisecond // at least, although somebody waits
	shipCost  = 256 << 10            // of one call, which takes some 50 ms then
	shipShare = shipCost / 8         // of one attempt in a call: those that print little do not wait behind the others
	lastShip  = 2 * time.Second      // for what is left at the end
)

// maxHeld bounds the memory of all logs together, while the database is slow or away.
const maxHeld = 32 << 20

// shipper writes the logs of all attempts, one call at a time, beside everything else that
// a watcher does: nobody who prints waits for it, and no result for longer than
// resultWait. When the database is slow or away it keeps what memory allows for, of each
// attempt the same share at the most, and the gap in a log tells what was dropped.
type shipper struct {
	store   Logs
	log     *slog.Logger
	most    int           // of cost
	wake    chan struct{} // of capacity 1: the queue is not empty
	soon    chan struct{} // of capacity 1: somebody waits
	late    atomic.Bool   // results have waited in vain: they had better not wait now
	errs    *errorLog     // belongs to run, as does refused
	refused *errorLog

	mu      sync.Mutex // guards what follows, and all logs
	queue   []*attemptLog
	held    map[*attemptLog]struct{} // those with lines in memory, or not written
	cost    int                      // of held
	dropped int64                    // lines for which there was no memory, since that was last logged
}

func newShipper(store Logs, log *slog.Logger) *shipper {
	return &shipper{
		store: store, log: log, most: maxHeld, held: make(map[*attemptLog]struct{}),
		errs:    newErrorLog(log, "what tasks print cannot be kept: trying again", "what tasks print is kept again"),
		refused: newErrorLog(log, "the database refuses what a task has printed: it is dropped", "the database takes again what tasks print"),
		wake:    make(chan struct{}, 1), soon: make(chan struct{}, 1),
	}
}

// take takes a line of an attempt.
func (s *shipper) take(a *attemptLog, l flow.LogLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold(a)
	before := a.cost
	a.add(l)
	s.cost += a.cost - before
	s.enqueue(a)
	if s.cost > s.most {
		s.shed()
	}
}

// end tells that there will be no more lines; true: all are written, else they are when
// a.written is closed.
func (s *shipper) end(a *attemptLog) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, held := s.held[a]; !held {
		return true
	}
	before := a.cost
	a.finish()
	s.cost += a.cost - before
	a.written = make(chan struct{})
	if s.done(a) {
		return true
	}
	s.enqueue(a)
	signal(s.soon)
	return false
}

// hold remembers an attempt that has lines. The caller holds mu, as for what follows.
func (s *shipper) hold(a *attemptLog) {
	if _, held := s.held[a]; !held {
		s.held[a] = struct{}{}
		s.cost += a.cost
	}
}

// done forgets an attempt that has ended and is written.
func (s *shipper) done(a *attemptLog) bool {
	if _, held := s.held[a]; !held || !a.ended || a.due() {
		return false
	}
	delete(s.held, a)
	s.cost -= a.cost
	close(a.written)
	return true
}

func (s *shipper) enqueue(a *attemptLog) {
	if !a.queued {
		a.queued = true
		s.queue = append(s.queue, a)
		signal(s.wake)
	}
}

// shed makes room. Whoever holds more than its share, which is that of half the memory,
// gives the rest up. When there are too many to have one at all, those that have ended go.
func (s *shipper) shed() {
	share := s.most / 2 / len(s.held)
	for a := range s.held {
		before, missing := a.cost, a.gap.missing()
		a.shrink(share)
		s.cost += a.cost - before
		s.dropped += a.gap.missing() - missing
	}
	if s.cost <= s.most/2 {
		return
	}
	for a := range s.held {
		if a.ended {
			a.marked = a.gap
			s.done(a)
		}
	}
	s.queue = slices.DeleteFunc(s.queue, func(a *attemptLog) bool { return a.ended && !a.due() })
}

// run writes what there is until ctx ends, and then once more.
func (s *shipper) run(ctx context.Context) {
	var pause time.Duration // after an error, growing
	for {
		select {
		case <-ctx.Done():
		case <-s.wake:
		}
		if !rest(ctx, shipEvery, shipPause, s.soon) || !rest(ctx, pause, pause, nil) {
			break
		}
		if err := s.round(ctx); err != nil && ctx.Err() == nil {
			s.errs.failed(err)
			pause = min(max(2*pause, 50*time.Millisecond), 2*time.Second)
			continue
		}
		pause = 0
		s.errs.worked()
		s.late.Store(false)
		s.report()
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastShip)
	defer cancel()
	for s.waiting() > 0 {
		if err := s.round(ending); err != nil {
			s.log.Error("what tasks have printed last is not kept", "component", "watcher", "tasks", s.waiting(), "err", err)
			return
		}
	}
}

// waiting counts the attempts in the queue.
func (s *shipper) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// report logs that lines were dropped.
func (s *shipper) report() {
	s.mu.Lock()
	n := s.dropped
	s.dropped = 0
	s.mu.Unlock()
	if n > 0 {
		s.log.Warn("what tasks print comes faster than the database takes it: some of it was dropped", "component", "watcher", "lines", n)
	}
}

// round writes what was due when it began, and all of what has ended. What comes
// meanwhile is for the next round: somebody who prints without end must not keep it going.
func (s *shipper) round(ctx context.Context) error {
	s.mu.Lock()
	work := s.queue
	s.queue = nil
	s.mu.Unlock()
	for len(work) > 0 {
		parcels, left := s.load(work)
		err := context.Cause(ctx)
		if err == nil {
			err = s.send(ctx, parcels)
		}
		if err != nil {
			s.giveBack(parcels, left)
			return err
		}
		work = append(left, s.unload(parcels)...)
	}
	return nil
}

// load packs a call's worth of work, and returns what is left of it.
func (s *shipper) load(work []*attemptLog) (parcels []parcel, left []*attemptLog) {
	s.mu.Lock()
	defer s.mu.Unlock()
	room, share := shipCost, max(shipShare, shipCost/len(work))
	for i, a := range work {
		if room <= 0 {
			return parcels, work[i:]
		}
		a.queued = false
		switch {
		case !a.due(): // it was shed
			continue
		case len(a.head) == 0 && !a.ended && time.Since(a.liveAt) < shipEvery:
			s.enqueue(a) // the round was made for others
			continue
		}
		a.queued = true
		p := a.pack(min(room, share))
		for _, l := range p.part.Lines {
			room -= costOf(l)
		}
		parcels = append(parcels, p)
	}
	return parcels, nil
}

// giveBack puts into the queue again what could not be written.
func (s *shipper) giveBack(parcels []parcel, left []*attemptLog) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parcels {
		s.queue = append(s.queue, p.of)
	}
	s.queue = append(s.queue, left...)
	signal(s.wake)
}

// unload settles what was written, and returns those of which more is due at once.
func (s *shipper) unload(parcels []parcel) (more []*attemptLog) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parcels {
		a := p.of
		before := a.cost
		a.settle(p)
		if _, held := s.held[a]; held { // it was not shed meanwhile
			s.cost += a.cost - before
		}
		a.queued = false
		switch {
		case s.done(a) || !a.due():
		case p.more || a.ended:
			a.queued = true
			more = append(more, a)
		default:
			s.enqueue(a)
		}
	}
	return more
}

// send writes parcels. If the database refuses them, rather than being away, they are
// sent one by one, so that one costs the others nothing; what is refused alone is dropped.
func (s *shipper) send(ctx context.Context, parcels []parcel) error {
	if len(parcels) == 0 {
		return nil
	}
	parts := make([]flow.LogPart, len(parcels))
	for i, p := range parcels {
		parts[i] = p.part
	}
	err := s.store.KeepLog(ctx, parts)
	switch {
	case err == nil || errors.Is(err, flow.ErrUnavailable) || ctx.Err() != nil:
		return err
	case len(parcels) == 1:
		s.refused.failed(err)
		return nil
	}
	for i := range parcels {
		if err := s.send(ctx, parcels[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}
