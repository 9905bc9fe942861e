package watcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

// worker runs tasks until there are no more. A program may end its goroutine, which is
// this one: another worker takes its place.
func (w *Watcher) worker(tasks *outbox, report *inbox) {
	whole := false
	defer func() {
		if !whole {
			go w.worker(tasks, report)
		}
	}()
	for {
		t, ok := tasks.take()
		if !ok {
			break
		}
		w.work(t, report)
	}
	whole = true
}

// work runs one attempt and reports what it came to, once. The worker is stuck for as
// long as the program ignores that its context has ended; the attempt's result is
// reported all the same, by giveUp.
func (w *Watcher) work(t flow.Task, report *inbox) {
	a := &attempt{w: w, begun: time.Now(), report: report}
	// What is left to report where the program ends its goroutine.
	a.result = flow.Result{Task: t, Outcome: flow.OutcomeFailed, Error: "the program ended its goroutine"}
	a.out.open(w.shipper, &a.result.Task)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	a.cancel = cancel
	w.roster.add(a)
	if t.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, t.Timeout, errTimeout)
		defer stop()
		late := time.AfterFunc(t.Timeout+grace, func() { a.giveUp(errTimeout) })
		defer late.Stop()
	}
	if w.log.Enabled(ctx, slog.LevelInfo) { // or its attributes are made for nothing
		w.log.Info("task started", attrs(t)...)
	}
	defer a.close()
	a.try(ctx)
}

// attempt is one that is being worked on.
type attempt struct {
	w        *Watcher
	begun    time.Time
	cancel   context.CancelCauseFunc
	out      printed
	result   flow.Result // of the worker alone until it is reported, but for its Task, which never changes
	report   *inbox
	reported atomic.Bool // whoever sets it reports
}

// close reports the result, and that the worker can take a task again.
func (a *attempt) close() {
	a.result.Took = time.Since(a.begun)
	reported := a.reported.Swap(true)
	a.out.close()
	if reported {
		a.report.put(ended{free: true})
		return
	}
	a.w.roster.remove(a)
	a.report.put(ended{result: &a.result, free: true})
}

// end ends the attempt's context. Its program has some time left to return.
func (a *attempt) end(cause error) {
	a.cancel(cause)
	time.AfterFunc(grace, func() { a.giveUp(cause) })
}

// giveUp makes up the result of an attempt whose program goes on for too long after its
// context has ended. It is told by the context alone, since a program may do nothing but
// compute.
func (a *attempt) giveUp(cause error) {
	if a.reported.Swap(true) {
		return
	}
	a.w.roster.remove(a)
	a.w.log.Error("a program ignores that it was cancelled: its worker is stuck", attrs(a.result.Task)...)
	a.report.put(ended{result: &flow.Result{
		Task: a.result.Task, Outcome: outcomeOf(cause), Took: time.Since(a.begun),
		Error: fmt.Sprintf("%v, and the program went on for %s: it may still be running", cause, grace),
	}})
}

// try runs the task's program once and notes what it came to.
func (a *attempt) try(ctx context.Context) {
	output, err := a.call(ctx)
	if err == nil {
		output, err = checkOutput(output)
	}
	r := &a.result
	if err == nil {
		r.Outcome, r.Error, r.Output = flow.OutcomeFinished, "", output
		return
	}
	if pause, paused := errors.AsType[*flow.Pause](err); paused {
		if r.Pause, err = checkPause(pause); err == nil {
			r.Outcome, r.Error = flow.OutcomePaused, ""
			return
		}
	}
	r.Outcome, r.Error = judge(ctx, r.Task, err)
}

// call runs the program; a panic is an error like others.
func (a *attempt) call(ctx context.Context) (output json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := debug.Stack()
			output, err = nil, fmt.Errorf("panic: %v\n%s", p, stack[:min(len(stack), maxStack)])
		}
	}()
	w, t := a.w, &a.result.Task
	return w.programs.Run(ctx, Attempt{
		Task: *t, Log: a.out.logger(w.log), Stdout: &a.out.stdout, Stderr: &a.out.stderr,
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
	case gaveUp:
		return outcomeOf(cause), cause.Error()
	case isSkipped:
		return flow.OutcomeSkipped, clean(skipped.Error())
	case isInvalid:
		return flow.OutcomeInvalid, clean(invalid.Error())
	}
	return flow.OutcomeFailed, clean(err.Error())
}

// outcomeOf tells what becomes of an attempt whose context has ended. One that was stopped
// since it must not run twice is no failure, after which it may be tried again.
func outcomeOf(cause error) flow.Outcome {
	switch {
	case errors.Is(cause, errTimeout):
		return flow.OutcomeTimeout
	case errors.Is(cause, errStopped), errors.Is(cause, flow.ErrFenced):
		return flow.OutcomeHandedBack
	}
	return flow.OutcomeFailed
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
