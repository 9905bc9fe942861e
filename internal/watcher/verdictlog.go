package watcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// logVerdict writes the one line of a change of state.
func (w *Watcher) logVerdict(j flow.Judged) {
	r := j.Result
	took := r.Took.Round(time.Millisecond)
	switch {
	case j.Verdict == flow.VerdictRefused:
		w.log.Info("late result refused: the task was changed by hand or taken over", attrs(r.Task, "outcome", r.Outcome, "took", took)...)
	case j.Status == flow.Finished:
		if w.log.Enabled(context.Background(), slog.LevelInfo) { // or its attributes are made for nothing
			w.log.Info("task finished", attrs(r.Task, "took", took)...)
		}
	case j.Status == flow.Ignored:
		w.log.Info("task skipped", attrs(r.Task, "why", r.Error)...)
	case r.Outcome == flow.OutcomePaused && r.Pause.Ask:
		w.log.Info("task asks a person", attrs(r.Task, "took", took, "message", r.Pause.Why)...)
	case r.Outcome == flow.OutcomePaused:
		w.log.Info("task paused", attrs(r.Task, append([]any{"took", took, "why", r.Pause.Why}, next(j)...)...)...)
	case j.Status == flow.Suspended && !j.Held:
		reason := string(r.Outcome)
		if r.Outcome == flow.OutcomeHandedBack {
			reason = string(flow.ReasonLost)
		}
		w.log.Error("task suspended", attrs(r.Task, "took", took, "reason", reason, "error", r.Error)...)
	case r.Outcome == flow.OutcomeHandedBack, r.Outcome == flow.OutcomeNotStarted:
		w.log.Info("task handed back", attrs(r.Task, append([]any{"took", took}, next(j)...)...)...)
	default:
		w.log.Warn("attempt failed: the task will be tried again", attrs(r.Task,
			append([]any{"took", took, "reason", r.Outcome, "error", r.Error}, next(j)...)...)...)
	}
}

// next says when a task is run again, unless that is at once.
func next(j flow.Judged) []any {
	switch {
	case j.Held:
		return []any{"held", true}
	case j.RunNext.IsZero():
		return nil
	}
	return []any{"run_after", j.RunNext}
}

// attrs names a task in a log line.
func attrs(t flow.Task, more ...any) []any {
	return append([]any{
		"component", "watcher", "flow", t.Flow, "seq", t.Seq, "task", t.WorkflowID, "program", t.Program, "attempt", t.Attempt,
	}, more...)
}
