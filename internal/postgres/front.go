package postgres

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// place is one in the queue: what the order of claims goes by.
type place struct {
	priority   int
	registered time.Time
	flow       string
	seq        int
}

func (p place) before(q place) bool {
	return cmp.Or(cmp.Compare(p.priority, q.priority), p.registered.Compare(q.registered),
		cmp.Compare(p.flow, q.flow), cmp.Compare(p.seq, q.seq)) < 0
}

func earlier(p, q place) place {
	if q.before(p) {
		return q
	}
	return p
}

// Before and after everything in the queue.
var (
	beginning = place{priority: math.MinInt}
	end       = place{priority: math.MaxInt}
)

// front is how far a watcher has claimed the queue. What was claimed stays in the queue's
// index until the table is vacuumed, which a transaction that somebody forgot puts off for
// hours; a claim that begins at the beginning goes past all of it, and past what the call
// beside it is just taking. So it begins where the last one ended, and passes over what
// somebody is deleting.
//
// What enters the queue before that place is told by hints, with the place or without one;
// a deletion that is rolled back by nobody, and a lock that is given up only by actions. So a
// claim looks at the whole queue every now and then, and always while hints do not arrive.
type front struct {
	every time.Duration // such a look, or less often where it takes more than a part in wholeShare

	mu      sync.Mutex
	hinted  bool // hints arrive
	at      place
	calls   map[*start]bool // in flight
	wholeAt time.Time       // the last look at the whole queue
	dear    time.Duration   // what that took
	wholes  int             // such looks since one was rolled back
}

const (
	wholeEvery = 100 * time.Millisecond
	wholeShare = 20
	// One look in so many tries what looks deleted, too: each such row costs a try at its
	// task's lock, and next to none of them will be back.
	deletedEvery = 50
)

func newFront() *front { return &front{every: wholeEvery, at: beginning, calls: map[*start]bool{}} }

// start is where a claim begins.
type start struct {
	from    place
	whole   bool
	deleted bool  // try what looks deleted
	least   place // that was told of since then: the claim may not have seen what is there
	begun   time.Time
}

// start begins a claim for so many workers; for none it looks nowhere.
func (f *front) start(free int) *start {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &start{from: f.at, least: end, begun: time.Now()}
	if free > 0 && (!f.hinted || s.begun.Sub(f.wholeAt) >= max(f.every, wholeShare*f.dear)) {
		s.from, s.whole, f.wholeAt = beginning, true, s.begun
		s.deleted = !f.hinted || f.wholes%deletedEvery == 0
		f.wholes++
	}
	f.calls[s] = true
	return s
}

// ended tells that a claim has left nothing before p, or has found nothing, if p is the
// beginning. One that has held what is at p, and not claimed it, has kept it from others.
func (f *front) ended(s *start, p place, held bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.calls, s)
	if s.whole {
		f.dear = time.Since(s.begun)
	}
	if !f.hinted {
		return
	}
	if to := earlier(p, s.least); f.at.before(to) {
		f.at = to
	}
	if held {
		f.goBack(p)
	}
}

// failed tells that a claim may have given back what it held, which others have passed over,
// and what it has deleted.
func (f *front) failed(s *start) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.calls, s)
	f.goBack(s.from)
	f.wholeAt, f.wholes = time.Time{}, 0
}

// back tells that something entered the queue, or was set free there, at p or behind it.
func (f *front) back(p place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.goBack(p)
}

func (f *front) goBack(p place) {
	f.at = earlier(f.at, p)
	for s := range f.calls {
		s.least = earlier(s.least, p)
	}
}

// hear tells whether hints arrive from now on.
func (f *front) hear(hinted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hinted, f.wholes = hinted, 0
	f.goBack(beginning)
}

// entered tells this process and the others that something has entered the queue, at p or behind it.
func (d *DB) entered(p place) {
	d.front.back(p)
	d.hints.notify(p)
}

// firstOf is the place of the first task, at most, of new flows.
func firstOf(rows []flowRow, batch []*registration, plans map[flow.WorkflowID]plan) place {
	first := place{priority: math.MaxInt}
	for _, r := range rows {
		if !r.Replayed && (first.registered.IsZero() || r.RegisteredTS.Before(first.registered)) {
			first.registered = r.RegisteredTS
		}
	}
	for _, r := range batch {
		if p := r.request.Priority; p != nil {
			first.priority = min(first.priority, *p)
			continue
		}
		for _, t := range plans[r.request.WorkflowID].tasks {
			first.priority = min(first.priority, t.Priority)
		}
	}
	return first
}

// timeLayout is how a timestamp is written as PostgreSQL understands and writes them, in UTC.
const timeLayout = "2006-01-02 15:04:05.999999Z07"

// hint writes a place for a notification: whose priority and time tell enough.
func (p place) hint() string {
	if p == beginning {
		return ""
	}
	return fmt.Sprintf("%d %s", p.priority, p.registered.UTC().Format(timeLayout))
}

// readHint reads a notification, which anybody may have sent: whatever it does not
// understand may be anywhere.
func readHint(text string) place {
	priority, registered, _ := strings.Cut(text, " ")
	p, err := strconv.Atoi(priority)
	if err != nil {
		return beginning
	}
	return readPlace(p, registered, "", 0)
}

// readPlace makes a place of a row's columns; of one with a time that is none (people write
// infinity) it makes the beginning.
func readPlace(priority int, registered, flow string, seq int) place {
	at, err := time.Parse(timeLayout, registered)
	if err != nil || at.UTC().Year() < 1 { // PostgreSQL has no year 0
		return beginning
	}
	return place{priority, at.UTC(), flow, seq}
}

// args are the place for a statement.
func (s *start) args() []any {
	registered := "-infinity"
	if s.from != beginning {
		registered = s.from.registered.Format(timeLayout)
	}
	return []any{max(s.from.priority, math.MinInt32), registered, s.from.flow, s.from.seq, s.deleted}
}
