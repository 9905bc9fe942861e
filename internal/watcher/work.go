package watcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Bounds of what is kept of an attempt.
const (
	maxError = 8 << 10
	maxStack = 4 << 10
)

// grace is how long a program may go on after its context has ended, before its worker
// counts as stuck and the task is settled without it.
const grace = 5 * time.Second

// ended is what a worker tells the dispatcher: an attempt ended, or a stuck worker came
// back.
type ended struct {
	result *flow.Result // nil: it was reported before
	free   bool         // the worker can take a task again
}

// worker runs tasks until there are no more. A program may end its goroutine, which is
// this one: another worker takes its place.
func (w *Watcher) worker(tasks <-chan flow.Task, report chan<- ended) {
	whole := false
	defer func() {
		if !whole {
			go w.worker(tasks, report)
		}
	}()
	for t := range tasks {
		w.work(t, report)
	}
	whole = true
}

// work runs one attempt and reports what it came to, once. The worker is stuck for as
// long as the program ignores that its context has ended; the attempt's result is
// reported all the same, by watch.
func (w *Watcher) work(t flow.Task, report chan<- ended) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	w.roster.add(t, cancel)
	if t.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, t.Timeout, errTimeout)
		defer stop()
	}
	w.log.Info("task started", attrs(t)...)
	a := &attempt{begun: time.Now(), over: make(chan struct{}), out: newPrinted(w.shipper, t)}
	unwatch := context.AfterFunc(ctx, func() { w.watch(ctx, t, a, report) })

	// What is left to report where the program ends its goroutine.
	result := flow.Result{Task: t, Outcome: flow.OutcomeFailed, Error: "the program ended its goroutine"}
	defer func() {
		unwatch()
		close(a.over)
		result.Took = time.Since(a.begun)
		reported := a.reported.Swap(true)
		a.out.close()
		if reported {
			report <- ended{free: true}
			return
		}
		w.roster.remove(t)
		report <- ended{result: &result, free: true}
	}()
	result = w.try(ctx, t, a.out)
}

// attempt is one that is being worked on.
type attempt struct {
	begun    time.Time
	out      *printed
	over     chan struct{} // closed when its program has returned
	reported atomic.Bool   // whoever sets it reports
}

// watch makes up the result of an attempt whose program goes on for too long after its
// context has ended. It is told by the context alone, since a program may do nothing but
// compute.
func (w *Watcher) watch(ctx context.Context, t flow.Task, a *attempt, report chan<- ended) {
	select {
	case <-a.over:
		return
	case <-time.After(grace):
	}
	if a.reported.Swap(true) {
		return
	}
	cause, outcome := context.Cause(ctx), flow.OutcomeFailed
	if errors.Is(cause, errTimeout) {
		outcome = flow.OutcomeTimeout
	}
	w.roster.remove(t)
	w.log.Error("a program ignores that it was cancelled: its worker is stuck", attrs(t)...)
	report <- ended{result: &flow.Result{
		Task: t, Outcome: outcome, Took: time.Since(a.begun),
		Error: fmt.Sprintf("%v, and the program went on for %s: it may still be running", cause, grace),
	}}
}

// try runs a task's program once and says what it came to.
func (w *Watcher) try(ctx context.Context, t flow.Task, out *printed) flow.Result {
	output, err := w.call(ctx, t, out)
	result := flow.Result{Task: t}
	if err == nil {
		output, err = checkOutput(output)
	}
	if err == nil {
		result.Outcome, result.Output = flow.OutcomeFinished, output
		return result
	}
	if pause, paused := errors.AsType[*flow.Pause](err); paused {
		if result.Pause, err = checkPause(pause); err == nil {
			result.Outcome = flow.OutcomePaused
			return result
		}
	}
	result.Outcome, result.Error = judge(ctx, t, err)
	return result
}

// call runs the program; a panic is an error like others.
func (w *Watcher) call(ctx context.Context, t flow.Task, out *printed) (output json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := debug.Stack()
			output, err = nil, fmt.Errorf("panic: %v\n%s", p, stack[:min(len(stack), maxStack)])
		}
	}()
	return w.programs.Run(ctx, Attempt{
		Task: t, Log: out.logger(w.log, t), Stdout: &out.stdout, Stderr: &out.stderr,
		Outputs: func(ctx context.Context, seqs ...int) (map[int]json.RawMessage, error) {
			return w.outputs(ctx, t.TaskKey, seqs)
		},
		Flow: func(ctx context.Context) (flow.Flow, error) {
			return untilAnswered(ctx, func() (flow.Flow, error) { return w.store.Registered(ctx, t.TaskKey) })
		},
	})
}

func (w *Watcher) outputs(ctx context.Context, of flow.TaskKey, seqs []int) (map[int]json.RawMessage, error) {
	return untilAnswered(ctx, func() (map[int]json.RawMessage, error) { return w.store.Outputs(ctx, of, seqs) })
}

// untilAnswered asks until there is an answer: that the database is away just now is no reason for a
// task to fail.
func untilAnswered[T any](ctx context.Context, question func() (T, error)) (T, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		found, err := question()
		if !errors.Is(err, flow.ErrUnavailable) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return found, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// judge tells why an attempt did not finish. A program that gave up because its context ended is
// not to blame: the context's cause is.
func judge(ctx context.Context, t flow.Task, err error) (flow.Outcome, string) {
	cause := context.Cause(ctx)
	gaveUp := cause != nil && (errors.Is(err, cause) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
	invalid, isInvalid := errors.AsType[*flow.InvalidError](err)
	skipped, isSkipped := errors.AsType[*flow.SkippedError](err)
	switch {
	case gaveUp && errors.Is(cause, errTimeout):
		return flow.OutcomeTimeout, fmt.Sprintf("it did not end within its timeout of %s", t.Timeout)
	case gaveUp && (errors.Is(cause, errStopped) || errors.Is(cause, flow.ErrFenced)):
		return flow.OutcomeHandedBack, cause.Error()
	case gaveUp:
		return flow.OutcomeFailed, cause.Error()
	case isSkipped:
		return flow.OutcomeSkipped, clean(skipped.Error())
	case isInvalid:
		return flow.OutcomeInvalid, clean(invalid.Error())
	}
	return flow.OutcomeFailed, clean(err.Error())
}

// checkOutput refuses what the database would not take, so that the task's own error
// says so.
func checkOutput(output json.RawMessage) (json.RawMessage, error) {
	switch {
	case output == nil:
		return nil, nil
	case len(output) > flow.MaxOutput:
		return nil, fmt.Errorf("its output has %d bytes, and %d are allowed: store it elsewhere and return where", len(output), flow.MaxOutput)
	case !json.Valid(output):
		return nil, errors.New("its output is not JSON")
	case hasNUL(output):
		return nil, errors.New(`its output contains the character U+0000 (\u0000), which PostgreSQL cannot store`)
	}
	return output, nil
}

// checkPause does the same for a pause.
func checkPause(p *flow.Pause) (*flow.Pause, error) {
	checked := *p
	checked.Approval, checked.Answer = nil, nil
	switch {
	case p.Why != "":
		checked.Why = clean(p.Why)
	case p.Ask:
		checked.Why = "it waits for a person"
	}
	text, err := json.Marshal(checked)
	if err == nil {
		_, err = checkOutput(text)
	}
	if err != nil {
		return nil, fmt.Errorf("the program wants to pause, and cannot: %w", err)
	}
	return &checked, nil
}

// hasNUL reports whether a string in JSON has U+0000 in it. `\\u0000` has not: it is a
// backslash and five letters.
func hasNUL(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++ // the escaped character
		if bytes.HasPrefix(text[i:], []byte("u0000")) {
			return true
		}
	}
	return false
}

// clean makes an error's text fit for the database: valid, without U+0000, not endless.
func clean(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if text == "" {
		return "the program failed without saying why"
	}
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") + " … (cut)"
	}
	return text
}

// attrs names a task in a log line.
func attrs(t flow.Task, more ...any) []any {
	return append([]any{
		"component", "watcher", "flow", t.Flow, "seq", t.Seq, "task", t.WorkflowID, "program", t.Program, "attempt", t.Attempt,
	}, more...)
}
