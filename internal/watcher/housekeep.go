package watcher

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// How often a watcher looks after what concerns all of them.
const (
	strangersEvery = 10 * time.Second
	// Promotions are asked for by every retry: one look serves those of a moment.
	promotePause = 200 * time.Millisecond
	// A program must be unknown for this long: a deployment replaces watchers one by
	// one, and the one that has it may be on its way.
	strangerAfter = 10 * time.Second
)

// housekeep lets tasks go that waited for a time, and suspends those whose program nobody
// has, until ctx ends.
func (w *Watcher) housekeep(ctx context.Context) {
	errs := newErrorLog(w.log, "housekeeping failed: trying again", "housekeeping goes on")
	known := map[string]time.Time{} // programs that nobody has, since when
	var strangers time.Time
	for {
		next, err := w.promote(ctx)
		if now := time.Now(); err == nil && !now.Before(strangers) {
			err = w.strangers(ctx, known)
			strangers = now.Add(strangersEvery)
		}
		pause := jitter(min(w.cfg.PollInterval, strangersEvery))
		switch {
		case err == nil:
			errs.worked()
		case ctx.Err() == nil:
			errs.failed(err)
			pause = min(pause, jitter(maxPause))
		}
		if next > 0 {
			pause = min(pause, next)
		}
		// Soon, when something was put off to a time that is not known here yet.
		if !rest(ctx, pause, promotePause, w.putOff) {
			return
		}
	}
}

func (w *Watcher) promote(ctx context.Context) (next time.Duration, err error) {
	promoted, next, err := w.store.Promote(ctx)
	if promoted > 0 {
		w.wakeUp()
	}
	return next, err
}

// strangers suspends tasks whose program no watcher has had for strangerAfter.
func (w *Watcher) strangers(ctx context.Context, since map[string]time.Time) error {
	programs, err := w.store.Strangers(ctx, w.programs.Names())
	if err != nil {
		return err
	}
	unknown := make(map[string]bool, len(programs))
	for _, p := range programs {
		unknown[p] = true
		if _, seen := since[p]; !seen {
			since[p] = time.Now()
		}
	}
	var errs []error
	for p, first := range since {
		if !unknown[p] {
			delete(since, p)
			continue
		}
		if time.Since(first) >= strangerAfter {
			errs = append(errs, w.refuse(ctx, p))
		}
	}
	return errors.Join(errs...)
}

func (w *Watcher) refuse(ctx context.Context, program string) error {
	text := fmt.Sprintf("no watcher has a program %q; this one has: %s", program, strings.Join(w.programs.Names(), ", "))
	setting := w.programs.OffWithout(program)
	switch {
	case setting != "":
		text = fmt.Sprintf("no watcher may run the program %q: start one with %s", program, setting)
	case program == "":
		text = "the task has no program, and its definition was not found when the row was inserted"
	}
	keys, err := w.store.Refuse(ctx, program, text)
	for _, k := range keys {
		w.log.Error("task suspended", "component", "watcher", "flow", k.Flow, "seq", k.Seq, "program", program,
			"reason", "invalid", "error", text)
	}
	return err
}

// jitter spreads d by a fifth to both sides, so that watchers that started together do
// not stay together.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1)
}
