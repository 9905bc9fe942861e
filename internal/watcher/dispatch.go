package watcher

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Calls of the store at a time: while one waits for its commit to reach the disk,
// another one works. Meanwhile results gather, and go together in the next call.
const maxCalls = 2

// crowded is how many watchers are too many for each to have two calls: more calls than the
// server has processors take longer beside each other than one after the other.
const crowded = 3

// A call takes a third of the workers' results, so that there is as much for the call beside
// it, and as much in the workers' hands. If one took whatever is there, the other would find
// nothing when it comes back, and wait until all of that was worked off.
const (
	minBatch = 100  // or a third, if that is more: fewer cost hardly less
	maxBatch = 1000 // ends well before the statement's time is over
)

// never is more results than there can be.
const never = math.MaxInt

// maxPause is the longest one between calls that fail: with the time that a new connection
// may take, 3 s, work goes on within 5 s of the database's return.
const maxPause = time.Second

// afterCancel is how long cancelled programs have to return at a shutdown.
const afterCancel = 2 * time.Second

// dispatcher feeds the pool. All its fields belong to the goroutine of run.
type dispatcher struct {
	w       *Watcher
	outbox  *outbox     // to the workers: a free one is counted first
	inbox   *inbox      // from the workers
	answers chan answer // from calls of the store

	free     int                   // workers with neither a task nor an unrecorded result
	tasks    []flow.Task           // to be handed out
	taken    []ended               // reports that were taken last
	open     int                   // attempts that are ours and not recorded
	results  []*flow.Result        // to be recorded
	locked   []*flow.Result        // somebody holds their rows: tried again after a while
	unfree   map[*flow.Result]bool // results with which no worker becomes free
	calls    int                   // in flight
	aside    int                   // of these, with locked results: they may take long, and nobody waits for them
	look     bool                  // there may be something in the queue
	stopping bool
	doubts   doubts
	errs     *errorLog // of calls
	stuck    *errorLog // of results that cannot be recorded in any form

	pause    time.Duration    // after an error, growing
	resume   <-chan time.Time // nil: calls may be made
	unlocked <-chan time.Time // when locked is tried again
}

// answer is what came of a call.
type answer struct {
	results []*flow.Result
	claim   flow.Claim
	aside   bool
	adv     flow.Advanced
	err     error
}

func newDispatcher(w *Watcher) *dispatcher {
	n := w.cfg.Workers
	return &dispatcher{
		w: w, free: n, look: true,
		outbox: newOutbox(), inbox: newInbox(), answers: make(chan answer, maxCalls),
		unfree: make(map[*flow.Result]bool), doubts: newDoubts(w),
		errs: newErrorLog(w.log, "the database did not take results or give tasks: trying again",
			"the database takes results and gives tasks again"),
		stuck: newErrorLog(w.log, "a failure cannot be recorded: trying again", "all failures are recorded"),
	}
}

// run claims, hands out and records until ctx ends and everything is recorded, or the
// time for that is over.
func (d *dispatcher) run(ctx context.Context) error {
	for i := range d.w.cfg.Workers {
		d.w.log.Info(fmt.Sprintf("starting worker: %d", i+1), "component", "dispatcher", "worker", i+1)
		go d.w.worker(d.outbox, d.inbox)
	}
	defer d.outbox.close()

	poll := time.NewTimer(jitter(d.w.cfg.PollInterval))
	defer poll.Stop()
	stop := ctx.Done()
	var deadline <-chan time.Time
	cancelled := false
	for !d.idle() {
		d.handOut()
		d.collect()
		d.call()
		d.inbox.ask(max(d.wanted()-len(d.results), 1))
		select {
		case <-d.inbox.full:
		case a := <-d.answers:
			d.settle(a)
		case f := <-d.doubts.found:
			for _, t := range d.doubts.settle(f) {
				d.take(t)
			}
		case <-d.doubts.due:
			d.doubts.ask()
		case <-d.w.wake:
			d.look = true
		case <-poll.C:
			d.look = true
			poll.Reset(jitter(d.w.cfg.PollInterval))
		case <-d.resume:
			d.resume = nil
		case <-d.unlocked:
			d.unlocked = nil
		case <-stop:
			stop, deadline = nil, time.After(d.w.cfg.ShutdownTimeout)
			d.stop()
		case <-deadline:
			if cancelled {
				return fmt.Errorf("%d tasks were not recorded in time: others will run them again", d.open)
			}
			cancelled, deadline = true, time.After(afterCancel+time.Second)
			d.cancel()
		}
	}
	return nil
}

// idle reports whether there is nothing left to do after stop.
func (d *dispatcher) idle() bool { return d.stopping && d.calls == 0 && d.open == 0 }

// stop claims nothing more. The database is told, too: see lease.drain.
func (d *dispatcher) stop() {
	d.stopping = true
	d.w.log.Info("stopping: waiting for running tasks; a second signal ends at once", "component", "watcher", "running", d.open,
		"timeout", d.w.cfg.ShutdownTimeout)
}

func (d *dispatcher) cancel() {
	n := d.w.roster.cancelAll(func(flow.Task) bool { return true }, errStopped)
	d.w.log.Warn("the time for running tasks is over: cancelled, to be run elsewhere", "component", "watcher", "cancelled", n)
}

// collect takes what workers have reported.
func (d *dispatcher) collect() {
	d.taken = d.inbox.take(d.taken)
	for _, e := range d.taken {
		if e.result == nil {
			d.free++ // a stuck worker is back; its result was taken before
			continue
		}
		d.results = append(d.results, e.result)
		if !e.free {
			d.unfree[e.result] = true
		}
	}
}

// wanted is how many results make a call, beside those that are in flight.
func (d *dispatcher) wanted() int {
	switch {
	case d.resume != nil || d.calls == maxCalls:
		return never
	case d.calls == d.aside:
		return 0
	case d.w.lease.watchers.Load() >= crowded:
		return never
	}
	return d.w.cfg.Workers / 4
}

// call gives the store what there is to do, if there is anything and a call is allowed.
// A call costs about a millisecond whatever it carries: the first one goes at once, a
// second one beside it only with a good part of what the pool can yield.
// The workers of the results are free as soon as these are recorded, so that the same
// call claims for them.
func (d *dispatcher) call() {
	if d.resume != nil || d.calls == maxCalls {
		return
	}
	if len(d.locked) > 0 && d.unlocked == nil && d.aside == 0 {
		batch := d.locked
		d.locked = nil
		d.aside++
		d.send(batch, 0, true) // alone: they would hold up the others again
		return
	}
	look := d.look && d.free > 0 && !d.stopping
	n := min(len(d.results), max(minBatch, d.w.cfg.Workers/3), maxBatch)
	if n == 0 && !look || n < d.wanted() {
		return // nothing to do; or so little that it had better go with what the call in flight sets free
	}
	batch := d.results[:n:n]
	d.results = d.results[n:]
	free := 0
	if !d.stopping {
		free = d.free + d.workersOf(batch)
		d.free = 0
	}
	d.look = false
	d.send(batch, free, false)
}

// workersOf counts the workers that are free once results are recorded.
func (d *dispatcher) workersOf(results []*flow.Result) int {
	n := len(results)
	for _, r := range results {
		if d.unfree[r] {
			n--
		}
	}
	return n
}

func (d *dispatcher) send(batch []*flow.Result, free int, aside bool) {
	claim := flow.Claim{ID: newID(), Watcher: d.w.lease.id(), Free: free, Programs: d.w.programs.Names()}
	d.calls++
	go func() {
		// Not the context of run: what ended must be recorded after a stop, too. The
		// store's own limits end a call.
		adv, err := d.w.store.Advance(context.Background(), batch, claim)
		d.answers <- answer{batch, claim, aside, adv, err}
	}()
}

// settle takes an answer of the store.
func (d *dispatcher) settle(a answer) {
	d.calls--
	if a.aside {
		d.aside--
	}
	if a.claim.Free > 0 {
		d.free += a.claim.Free - d.workersOf(a.results) // those that were free before
	}
	for _, j := range a.adv.Verdicts {
		d.recorded(j)
	}
	for _, r := range a.adv.Rejected {
		d.rejected(r)
	}
	for _, t := range a.adv.Claimed {
		d.take(t)
	}
	if a.err != nil {
		d.failed(a)
		return
	}
	d.pause = 0
	d.errs.worked()
	if len(d.locked) == 0 && d.aside == 0 {
		d.stuck.worked()
	}
	// As many as asked for, or nobody has looked: there may be more. Some were left in the queue: there are.
	// Workers became free for which the call did not claim: there may be.
	if a.claim.Free > 0 && (len(a.adv.Claimed) == a.claim.Free || a.adv.Queued > 0 || a.adv.Split) ||
		len(a.adv.Rejected) > 0 || a.claim.Free < len(a.adv.Verdicts) {
		d.look = true
	}
}

// failed keeps what a failed call did not settle, and waits before the next one.
func (d *dispatcher) failed(a answer) {
	settled := make(map[*flow.Result]bool, len(a.adv.Verdicts)+len(a.adv.Rejected))
	for _, j := range a.adv.Verdicts {
		settled[j.Result] = true
	}
	for _, r := range a.adv.Rejected {
		settled[r.Result] = true
	}
	for _, r := range a.results {
		if !settled[r] {
			d.results = append(d.results, r)
		}
	}
	if a.claim.Free > 0 {
		d.doubts.add(a.claim, a.adv.Claimed)
		d.look = true
	}
	d.errs.failed(a.err)
	d.pause = min(max(2*d.pause, 50*time.Millisecond), maxPause)
	d.resume = time.After(jitter(d.pause))
}

// take gives a task that is ours to a worker. It goes back as it was where no worker is
// free, since the answer of its claim was lost, and at a shutdown.
func (d *dispatcher) take(t flow.Task) {
	d.open++
	if d.free == 0 || d.stopping {
		r := &flow.Result{Task: t, Outcome: flow.OutcomeNotStarted, Error: "its watcher had no worker for it"}
		d.unfree[r] = true
		d.results = append(d.results, r)
		return
	}
	d.free--
	d.w.cfg.Meter.Claimed(t.Program)
	d.tasks = append(d.tasks, t)
}

// handOut gives workers what was taken for them.
func (d *dispatcher) handOut() {
	d.outbox.give(d.tasks)
	clear(d.tasks)
	d.tasks = d.tasks[:0]
}

// recorded ends an attempt: its worker is free, and the log has its line.
func (d *dispatcher) recorded(j flow.Judged) {
	d.open--
	if !d.unfree[j.Result] {
		d.free++
	}
	delete(d.unfree, j.Result)
	if !j.RunNext.IsZero() {
		signal(d.w.putOff)
	}
	if j.Verdict == flow.VerdictRefused {
		d.w.cfg.Meter.Refused()
	} else {
		d.w.cfg.Meter.Ended(j.Result.Task.Program, j.Result.Outcome, j.Result.Took)
	}
	d.w.logVerdict(j)
}

// rejected keeps a result that could not be recorded while others were: as it is, if
// its row is locked or nothing simpler can be said, else as the failure that it now is.
func (d *dispatcher) rejected(r flow.Rejected) {
	if r.Busy || r.Result.Outcome == flow.OutcomeInvalid {
		if !r.Busy {
			d.stuck.failed(r.Cause)
		}
		d.locked = append(d.locked, r.Result)
		if d.unlocked == nil { // what comes later puts off nobody
			d.unlocked = time.After(time.Second)
		}
		return
	}
	failure := *r.Result
	d.w.log.Error("a result cannot be recorded as it is", attrs(failure.Task, "err", r.Cause)...)
	text := fmt.Sprintf("its result cannot be recorded: %v", r.Cause)
	if failure.Outcome != flow.OutcomeFinished && failure.Outcome != flow.OutcomePaused {
		text = "its error cannot be recorded; it is in the watcher's log"
	}
	failure.Outcome, failure.Output, failure.Error = flow.OutcomeInvalid, nil, clean(text)
	d.results = append(d.results, &failure)
	if d.unfree[r.Result] {
		delete(d.unfree, r.Result)
		d.unfree[&failure] = true
	}
}

func keyOf(t flow.Task) attemptKey { return attemptKey{t.TaskKey, t.ClaimID} }
