package watcher

import (
	"context"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// doubtFor is how long a claim without an answer stays in doubt: the call may still be
// at work in the server, until its statement_timeout.
const doubtFor = 10 * time.Second

// doubts are claims whose answer was lost: the tasks that they may have got are looked
// for, since nobody would run them. The fields belong to the dispatcher's goroutine.
type doubts struct {
	w      *Watcher
	claims []doubt
	taken  map[attemptKey]bool // what these claims have got, as far as it is known
	due    <-chan time.Time    // when to ask; nil: nothing is in doubt, or asked for already
	asking bool
	found  chan found
	errs   *errorLog
}

// found is what the database says of claims in doubt.
type found struct {
	watcher string
	tasks   []flow.Task
	asked   time.Time
	err     error
}

type doubt struct {
	claim flow.Claim
	until time.Time // one look after this settles it
}

func newDoubts(w *Watcher) doubts {
	return doubts{
		w: w, taken: make(map[attemptKey]bool), found: make(chan found, 1),
		errs: newErrorLog(w.log, "cannot ask which tasks a claim without an answer has got: trying again",
			"it is known again which tasks claims without an answer have got"),
	}
}

// add puts a claim in doubt, of which an answer that broke off has told some tasks.
func (d *doubts) add(c flow.Claim, told []flow.Task) {
	d.claims = append(d.claims, doubt{c, time.Now().Add(doubtFor)})
	for _, t := range told {
		d.taken[keyOf(t)] = true
	}
	if d.due == nil && !d.asking {
		d.due = time.After(time.Second)
	}
}

// ask looks in the database, in a goroutine whose answer comes by found.
func (d *doubts) ask() {
	d.due = nil
	now, watcher := time.Now(), d.w.lease.id()
	ids := d.of(watcher)
	if len(ids) == 0 {
		clear(d.taken)
		return
	}
	d.asking = true
	go func() {
		// The store's own limits end a call. It reads a whole table, which may take long just
		// after an outage, and there is nobody else who would find the tasks.
		tasks, err := d.w.store.Owned(context.Background(), watcher, ids)
		d.found <- found{watcher, tasks, now, err}
	}()
}

// of returns the claims of a watcher that are in doubt, and forgets all others: what it owned
// under a former id, before it was fenced, is with the others.
func (d *doubts) of(watcher string) []string {
	d.claims = slices.DeleteFunc(d.claims, func(c doubt) bool { return c.claim.Watcher != watcher })
	ids := make([]string, len(d.claims))
	for i, c := range d.claims {
		ids[i] = c.claim.ID
	}
	return ids
}

// handBack looks once more at the end, when everything else is recorded: what claims in doubt
// have got by now nobody has begun, and it goes back as it was. What comes later, or cannot
// be asked for, is the others' to find: they must take it for lost.
func (d *doubts) handBack() {
	watcher := d.w.lease.id()
	ids := d.of(watcher)
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	tasks, err := d.w.store.Owned(ctx, watcher, ids)
	if err == nil && len(tasks) > 0 {
		back := make([]*flow.Result, len(tasks))
		for i, t := range tasks {
			back[i] = &flow.Result{Task: t, Outcome: flow.OutcomeNotStarted, Error: "its watcher stopped before it knew of it"}
		}
		var adv flow.Advanced
		adv, err = d.w.store.Advance(ctx, back, flow.Claim{ID: newID(), Watcher: watcher, Programs: d.w.programs.Names()})
		for _, j := range adv.Verdicts {
			d.w.logVerdict(j)
		}
	}
	if err != nil {
		d.w.log.Warn("tasks of claims without an answer were not handed back: others will take them for lost", "component", "watcher", "err", err)
	}
}

// settle takes an answer, and returns the tasks that nobody has taken care of. An answer
// is old when it comes: a task that it has may have run to its end meanwhile, and must
// not be run again, nor what others have taken over since. Claims that were asked for late
// enough are in doubt no more.
func (d *doubts) settle(f found) []flow.Task {
	d.asking = false
	ours := f.watcher == d.w.lease.id()
	var fresh []flow.Task
	for _, t := range f.tasks {
		if key := keyOf(t); ours && !d.taken[key] {
			d.taken[key] = true
			fresh = append(fresh, t)
		}
	}
	if f.err != nil {
		d.errs.failed(f.err)
	} else {
		d.errs.worked()
		d.claims = slices.DeleteFunc(d.claims, func(c doubt) bool { return c.until.Before(f.asked) })
	}
	if len(d.claims) > 0 {
		d.due = time.After(2 * time.Second)
	} else {
		clear(d.taken)
	}
	return fresh
}
