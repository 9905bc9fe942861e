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
	due    <-chan time.Time // when to ask; nil: nothing is in doubt, or asked for already
	found  chan found
}

// found is what the database says of claims in doubt.
type found struct {
	tasks []flow.Task
	asked time.Time
	err   error
}

type doubt struct {
	claim flow.Claim
	until time.Time // one look after this settles it
}

func newDoubts(w *Watcher) doubts { return doubts{w: w, found: make(chan found, 1)} }

func (d *doubts) add(c flow.Claim) {
	d.claims = append(d.claims, doubt{c, time.Now().Add(doubtFor)})
	if d.due == nil {
		d.due = time.After(time.Second)
	}
}

// ask looks in the database, in a goroutine whose answer comes by found.
func (d *doubts) ask() {
	d.due = nil
	now, watcher := time.Now(), d.w.lease.id()
	// What a watcher owned under a former id, before it was fenced, is with the others.
	d.claims = slices.DeleteFunc(d.claims, func(c doubt) bool { return c.claim.Watcher != watcher })
	if len(d.claims) == 0 {
		return
	}
	ids := make([]string, len(d.claims))
	for i, c := range d.claims {
		ids[i] = c.claim.ID
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), doubtFor)
		defer cancel()
		tasks, err := d.w.store.Owned(ctx, watcher, ids)
		d.found <- found{tasks, now, err}
	}()
}

// settle takes an answer: claims that were asked for late enough are in doubt no more.
func (d *doubts) settle(f found) []flow.Task {
	if f.err == nil {
		d.claims = slices.DeleteFunc(d.claims, func(c doubt) bool { return c.until.Before(f.asked) })
	}
	if len(d.claims) > 0 {
		d.due = time.After(2 * time.Second)
	}
	return f.tasks
}
