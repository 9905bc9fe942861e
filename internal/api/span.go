package api

import (
	"cmp"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// firstFailure returns the task that failed first, or nil. What a person stopped has
// not failed.
func firstFailure(s flow.State) *flow.TaskState {
	var failed []*flow.TaskState
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.Failing() {
			failed = append(failed, t)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return slices.MinFunc(failed, func(a, b *flow.TaskState) int {
		return cmp.Or(a.SuspendedAt.Compare(b.SuspendedAt), cmp.Compare(a.Seq, b.Seq))
	})
}

// runningUntil returns now for a task that runs: its duration grows.
func runningUntil(t flow.TaskState, now time.Time) time.Time {
	if t.Status == flow.Running {
		return now
	}
	return time.Time{}
}

// duration is the time from started to ended, or to now if it has not ended; zero and
// false where that is not known.
func duration(started, ended, now time.Time) (time.Duration, bool) {
	if ended.IsZero() {
		ended = now
	}
	if started.IsZero() || ended.IsZero() {
		return 0, false
	}
	return max(ended.Sub(started), 0), true
}

func milliseconds(started, ended, now time.Time) *int64 {
	d, known := duration(started, ended, now)
	if !known {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}
