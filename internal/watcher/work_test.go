package watcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// runOnce has a watcher run one task, and returns what it reported.
func runOnce(t *testing.T, program fakePrograms, change ...func(*flow.Task)) *flow.Result {
	t.Helper()
	q := newQueue(t, 1, 1)
	q.change = func(task *flow.Task) {
		for _, c := range change {
			c(task)
		}
	}
	start(t, &fakeStore{advance: q.advance}, program, workers(1))
	for range 3600 {
		pass(time.Second)
		if _, results := q.look(); len(results) > 0 {
			return results[0]
		}
	}
	require.FailNow(t, "no result within an hour")
	return nil
}

func returning(output string, err error) fakePrograms {
	return func(context.Context, flow.Task) (json.RawMessage, error) {
		if output == "" {
			return nil, err
		}
		return json.RawMessage(output), err
	}
}

func withTimeout(d time.Duration) func(*flow.Task) {
	return func(t *flow.Task) { t.Timeout = d }
}

// Whatever a program does, its attempt has a result that the database can take.
func TestOutcomes(t *testing.T) {
	invalid := &flow.InvalidError{Subject: `parameter "URL"`, Problem: "is missing"}
	long := strings.Repeat("é", maxError)
	for name, test := range map[string]struct {
		program fakePrograms
		outcome flow.Outcome
		want    string // of the error, a part of it; or the output
	}{
		"nothing":           {returning("", nil), flow.OutcomeFinished, ""},
		"an output":         {returning(`{"n": 1}`, nil), flow.OutcomeFinished, `{"n": 1}`},
		"the largest":       {returning(`"`+strings.Repeat("x", flow.MaxOutput-2)+`"`, nil), flow.OutcomeFinished, `"`},
		"one byte more":     {returning(`"`+strings.Repeat("x", flow.MaxOutput-1)+`"`, nil), flow.OutcomeFailed, "its output has 65537 bytes, and 65536 are allowed"},
		"no JSON":           {returning(`{"n": `, nil), flow.OutcomeFailed, "its output is not JSON"},
		"two values":        {returning(`{} {}`, nil), flow.OutcomeFailed, "its output is not JSON"},
		"an empty output":   {func(context.Context, flow.Task) (json.RawMessage, error) { return json.RawMessage{}, nil }, flow.OutcomeFailed, "its output is not JSON"},
		"U+0000":            {returning(`{"a": "x\u0000"}`, nil), flow.OutcomeFailed, "U+0000"},
		"U+0000 as a key":   {returning(`{"\\\u0000": 1}`, nil), flow.OutcomeFailed, "U+0000"},
		"a word for U+0000": {returning(`"\\u0000"`, nil), flow.OutcomeFinished, `"\\u0000"`},
		"an error":          {returning("", errBug), flow.OutcomeFailed, "the program has a bug"},
		"an error beats an output": {
			returning(`{}`, errBug), flow.OutcomeFailed, "the program has a bug",
		},
		"an error without a text": {returning("", errors.New("")), flow.OutcomeFailed, "the program failed without saying why"},
		"U+0000 in an error":      {returning("", errors.New("a\x00b")), flow.OutcomeFailed, "a\uFFFDb"},
		"no UTF-8 in an error":    {returning("", errors.New("a\xffb")), flow.OutcomeFailed, "a\uFFFDb"},
		"a long error":            {returning("", errors.New(long)), flow.OutcomeFailed, "é … (cut)"},
		"a wrong parameter":       {returning("", fmt.Errorf("prepare: %w", invalid)), flow.OutcomeInvalid, `parameter "URL": is missing`},
		"it speaks of a timeout of its own": {
			returning("", context.DeadlineExceeded), flow.OutcomeFailed, "context deadline exceeded",
		},
		"a panic": {
			func(context.Context, flow.Task) (json.RawMessage, error) { panic("out of cheese") },
			flow.OutcomeFailed, "panic: out of cheese\ngoroutine ",
		},
		"a panic with an error": {
			func(context.Context, flow.Task) (json.RawMessage, error) { panic(errBug) },
			flow.OutcomeFailed, "panic: the program has a bug\n",
		},
		"the end of its goroutine": {
			func(context.Context, flow.Task) (json.RawMessage, error) {
				runtime.Goexit()
				return nil, nil
			},
			flow.OutcomeFailed, "the program ended its goroutine",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := runOnce(t, test.program)
				require.Equal(t, test.outcome, r.Outcome, r.Error)
				if test.outcome == flow.OutcomeFinished {
					require.Empty(t, r.Error)
					require.Equal(t, test.want == "", r.Output == nil)
					require.Contains(t, string(r.Output), test.want)
					return
				}
				require.Nil(t, r.Output)
				require.Contains(t, r.Error, test.want)
				require.LessOrEqual(t, len(r.Error), maxError+len(" … (cut)"))
				require.True(t, utf8.ValidString(r.Error))
				require.NotContains(t, r.Error, "\x00")
			})
		})
	}
}

// A panic's stack leads to the line of the program.
func TestPanicHasItsStack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var parameters map[string]string
		r := runOnce(t, func(context.Context, flow.Task) (json.RawMessage, error) {
			parameters["a"] = "b"
			return nil, nil
		})
		require.Contains(t, r.Error, "panic: assignment to entry in nil map")
		require.Contains(t, r.Error, "work_test.go:")
	})
}

func TestTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var cause value[error]
		r := runOnce(t, func(ctx context.Context, _ flow.Task) (json.RawMessage, error) {
			<-ctx.Done()
			cause.set(context.Cause(ctx))
			return nil, ctx.Err()
		}, withTimeout(90*time.Second))
		require.Equal(t, flow.OutcomeTimeout, r.Outcome)
		require.Equal(t, "it did not end within its timeout of 1m30s", r.Error)
		require.Equal(t, 90*time.Second, r.Took)
		require.Equal(t, errTimeout, cause.get())
	})
}

// What a program did counts, although it was late with it.
func TestTimeoutDoesNotHideWhatHappened(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want flow.Outcome
	}{
		"finished": {nil, flow.OutcomeFinished},
		"failed":   {errBug, flow.OutcomeFailed},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := runOnce(t, func(ctx context.Context, _ flow.Task) (json.RawMessage, error) {
					<-ctx.Done()
					return nil, test.err
				}, withTimeout(time.Second))
				require.Equal(t, test.want, r.Outcome)
			})
		})
	}
}

// A program without a timeout may take as long as it likes.
func TestNoTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := runOnce(t, taking(59*time.Minute))
		require.Equal(t, flow.OutcomeFinished, r.Outcome)
		require.Equal(t, 59*time.Minute, r.Took)
	})
}

// A program that ignores the end of its context: its task is settled without it, its
// worker is gone until it returns, and then works again.
func TestStuckWorker(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 1)
		q.change = func(task *flow.Task) {
			if task.Seq == 1 {
				task.Timeout = 10 * time.Second
			}
		}
		free := make(chan struct{})
		begin := time.Now()
		w := start(t, &fakeStore{advance: q.advance}, fakePrograms(func(_ context.Context, task flow.Task) (json.RawMessage, error) {
			if task.Seq == 1 {
				<-free
			}
			return nil, nil
		}), workers(1))
		pass(15*time.Second + time.Millisecond)
		_, results := q.look()
		require.Len(t, results, 1)
		require.Equal(t, flow.OutcomeTimeout, results[0].Outcome)
		require.Equal(t, "the task's timeout is over, and the program went on for 5s: it may still be running", results[0].Error)
		require.Equal(t, 15*time.Second, results[0].Took)
		w.logs.only(t, "a program ignores that it was cancelled: its worker is stuck")

		q.mu.Lock()
		q.waiting = 5
		q.mu.Unlock()
		pass(time.Hour)
		require.Len(t, w.logs.with("task started"), 1, "there is no free worker")

		close(free)
		pass(10 * time.Second) // the next poll
		require.Len(t, w.logs.with("task started"), 6)
		calls, results := q.look()
		requireEachOnce(t, results, 6)
		for _, c := range calls[1:] {
			if c.at.Before(begin.Add(time.Hour)) {
				require.Zero(t, c.free)
			}
		}
	})
}

// … and so it is when the result that was made up for it cannot be recorded as it is.
func TestStuckWorkerWithARejectedResult(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 1)
		q.change = withTimeout(time.Second)
		free := make(chan struct{})
		w := start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			if len(results) > 0 && results[0].Outcome == flow.OutcomeTimeout {
				return flow.Advanced{Rejected: []flow.Rejected{{Result: results[0], Cause: errors.New("bad")}}}, nil
			}
			return q.advance(results, c)
		}}, fakePrograms(func(context.Context, flow.Task) (json.RawMessage, error) {
			<-free
			return nil, nil
		}), workers(1))
		pass(time.Minute)
		_, results := q.look()
		require.Len(t, results, 1)
		require.Equal(t, flow.OutcomeInvalid, results[0].Outcome)

		q.mu.Lock()
		q.waiting = 1
		q.mu.Unlock()
		pass(time.Minute)
		require.Len(t, w.logs.with("task started"), 1, "there is no free worker")
		_, results = q.look()
		require.Len(t, results, 1, "nothing was claimed for it")
		close(free)
		pass(time.Minute)
		_, results = q.look()
		require.Len(t, results, 2)
	})
}

// … and a watcher whose only worker is stuck ends all the same.
func TestStuckWorkerDoesNotHoldUpTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 1)
		q.change = withTimeout(time.Second)
		free := make(chan struct{})
		w := start(t, &fakeStore{advance: q.advance}, fakePrograms(func(context.Context, flow.Task) (json.RawMessage, error) {
			<-free
			return nil, nil
		}), workers(1))
		pass(10 * time.Second)
		w.stop()
		begin := time.Now()
		require.NoError(t, w.ended(t))
		require.Zero(t, time.Since(begin))
		close(free)
		synctest.Wait()
	})
}

func TestHasNUL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`"\u0000"`: true, `"a\\\u0000"`: true, `"\\u0000"`: false, `"\u00001"`: true, `"\n\u00e9"`: false, `"u0000"`: false,
		`{"\u0000":1}`: true, `"\\"`: false, `"\\\\"`: false, `1`: false,
	} {
		require.True(t, json.Valid([]byte(text)), text)
		require.Equal(t, want, hasNUL([]byte(text)), text)
	}
}
