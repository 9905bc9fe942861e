package watcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Sweeps and checks read everything, which may take a minute on a large table, so each has
// a goroutine of its own: what housekeep does must not wait for them.
const (
	sweepEvery = time.Minute
	sweepShare = 100             // they take no more than a hundredth of the time
	firstCheck = 5 * time.Second // after the start; then flow.CheckEvery and flow.CheckShare
	// A claim that was in flight when its watcher was declared dead belongs to nobody. It
	// has come to its end by then, and must not wait for the sweep of the next minute.
	sweepAfterRescue = 10 * time.Second
)

func (w *Watcher) sweeps(ctx context.Context) {
	repeat(ctx, w.rescued, sweepEvery, sweepEvery, sweepShare, func() {
		if err := w.sweep(ctx); err != nil && ctx.Err() == nil {
			w.log.Error("sweep failed: trying again later", "component", "watcher", "err", err)
		}
	})
}

func (w *Watcher) checks(ctx context.Context) {
	repeat(ctx, nil, firstCheck, flow.CheckEvery, flow.CheckShare, func() {
		if err := w.check(ctx); err != nil && ctx.Err() == nil {
			w.log.Error("check of v_invariant failed: trying again later", "component", "watcher", "err", err)
		}
	})
}

// repeat calls f until ctx ends, with pauses, so that it takes one part in share of the
// time at most; after a rescue soon.
func repeat(ctx context.Context, rescued <-chan struct{}, first, every time.Duration, share int, f func()) {
	for pause := jitter(first); ; {
		due := time.After(pause)
		select {
		case <-ctx.Done():
			return
		case <-due:
		case <-rescued:
			select {
			case <-ctx.Done():
				return
			case <-due:
			case <-time.After(sweepAfterRescue):
			}
		}
		begin := time.Now()
		f()
		pause = max(jitter(every), time.Duration(share)*time.Since(begin))
	}
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
