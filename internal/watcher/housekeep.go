package watcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// How often a watcher looks after what concerns all of them.
const (
	strangersEvery = 10 * time.Second
	sweepEvery     = time.Minute
	firstCheck     = 5 * time.Second // after the start; then flow.CheckEvery
	// A claim that was in flight when its watcher was declared dead belongs to nobody. It
	// has come to its end by then, and must not wait for its turn of a minute.
	sweepAfterRescue = 10 * time.Second
	// Promotions are asked for by every retry: one look serves those of a moment.
	promotePause = 200 * time.Millisecond
	// A program must be unknown for this long: a deployment replaces watchers one by
	// one, and the one that has it may be on its way.
	strangerAfter = 10 * time.Second
)

// housekeep lets tasks go that waited for a time, suspends those whose program nobody
// has, repairs what should never be broken, and looks whether anything is, until ctx ends.
func (w *Watcher) housekeep(ctx context.Context) {
	errs := newErrorLog(w.log, "housekeeping failed: trying again", "housekeeping goes on")
	known := map[string]time.Time{} // programs that nobody has, since when
	sweep := time.Now().Add(jitter(sweepEvery))
	check := time.Now().Add(jitter(firstCheck))
	var strangers time.Time
	for {
		next, err := w.promote(ctx)
		if now := time.Now(); err == nil && !now.Before(strangers) {
			err = w.strangers(ctx, known)
			strangers = now.Add(strangersEvery)
		}
		select {
		case <-w.rescued:
			if soon := time.Now().Add(sweepAfterRescue); soon.Before(sweep) {
				sweep = soon
			}
		default:
		}
		if now := time.Now(); err == nil && now.After(sweep) {
			err = w.sweep(ctx)
			// A large table takes long to read: never more than a hundredth of the time.
			sweep = time.Now().Add(max(jitter(sweepEvery), 100*time.Since(now)))
		}
		if now := time.Now(); err == nil && now.After(check) {
			err = w.check(ctx)
			check = time.Now().Add(max(jitter(flow.CheckEvery), flow.CheckShare*time.Since(now)))
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

func (w *Watcher) sweep(ctx context.Context) error {
	swept, err := w.store.Sweep(ctx)
	logRescued(w.log, swept.Rescued)
	if len(swept.Recounted) > 0 || swept.Leftovers > 0 {
		w.log.Warn("the sweep repaired the queue: somebody changed it behind Flower's back, or a watcher died between two statements",
			"component", "watcher", "recounted", len(swept.Recounted), "leftovers", swept.Leftovers)
	}
	for _, k := range swept.Hopeless {
		w.log.Error("task suspended", "component", "watcher", "flow", k.Flow, "seq", k.Seq, "reason", "invalid",
			"error", "what it depends on does not exist, or is itself")
	}
	if len(swept.Rescued) > 0 || len(swept.Recounted) > 0 {
		w.wakeUp()
	}
	return err
}

// check looks whether every rule of the database holds. What does not is swept, and
// looked at once more, so that what is left is what a person must know of.
func (w *Watcher) check(ctx context.Context) error {
	broken, err := w.store.Check(ctx, false)
	if err != nil || len(broken) == 0 {
		return err
	}
	w.logBroken(slog.LevelWarn, "v_invariant is not empty: sweeping", broken)
	if err := w.sweep(ctx); err != nil {
		return err
	}
	broken, err = w.store.Check(ctx, true)
	w.logBroken(slog.LevelError, "v_invariant is not empty after a sweep: SELECT * FROM v_invariant", broken)
	return err
}

func (w *Watcher) logBroken(level slog.Level, msg string, broken []flow.BrokenRule) {
	for _, b := range broken {
		//nolint:sloglint // the two callers have a constant message each
		w.log.Log(context.Background(), level, msg, "component", "watcher", "rule", b.Rule, "rows", b.Rows,
			"flow", b.Key.Flow, "seq", b.Key.Seq, "detail", b.Detail)
	}
}

// jitter spreads d by a fifth to both sides, so that watchers that started together do
// not stay together.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1)
}
