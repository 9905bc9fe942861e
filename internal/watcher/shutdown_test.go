package watcher

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// Told to stop, a watcher claims nothing more, lets what runs end, records it, and says
// that it has gone.
func TestDrains(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 10)
		drained, left := make(chan string, 1), make(chan string, 1)
		store := &fakeStore{
			advance: q.advance,
			drain: func(_ context.Context, watcher string) error {
				drained <- watcher
				return nil
			},
			leave: func(watcher string, behind bool) error {
				if !behind {
					left <- watcher
				}
				return nil
			},
		}
		w := start(t, store, taking(10*time.Second))
		pass(5 * time.Second)
		w.stop()
		pass(0)
		require.Equal(t, w.lease.id(), <-drained)
		store.hints <- struct{}{} // whatever wakes it
		begin := time.Now()
		require.NoError(t, w.ended(t))
		require.Equal(t, 5*time.Second, time.Since(begin))
		require.Equal(t, w.lease.id(), <-left)
		calls, results := q.look()
		requireEachOnce(t, results, 2)
		for _, c := range calls[1:] {
			require.Zero(t, c.free)
		}
		for _, r := range results {
			require.Equal(t, flow.OutcomeFinished, r.Outcome)
		}
	})
}

func TestIdleWatcherEndsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := start(t, &fakeStore{}, taking(0))
		pass(time.Second)
		begin := time.Now()
		w.stop()
		require.NoError(t, w.ended(t))
		require.Zero(t, time.Since(begin))
	})
}

// What still runs when the time for that is over is cancelled and handed back.
func TestDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 2)
		causes := make(chan error, 2)
		w := start(t, &fakeStore{advance: q.advance}, telling(causes))
		pass(time.Second)
		w.stop()
		begin := time.Now()
		require.NoError(t, w.ended(t))
		require.Equal(t, 25*time.Second, time.Since(begin))
		require.Equal(t, errStopped, <-causes)
		_, results := q.look()
		require.Len(t, results, 2)
		for _, r := range results {
			require.Equal(t, flow.OutcomeHandedBack, r.Outcome)
			require.Equal(t, errStopped.Error(), r.Error)
		}
		require.Len(t, w.logs.with("the time for running tasks is over: cancelled, to be run elsewhere"), 1)
	})
}

// What is handed back although somebody holds it has not failed, and nobody is to be woken
// up for it; nor for what would be tried again.
func TestHeldIsNoFailure(t *testing.T) {
	t.Parallel()
	log := &logs{}
	w, err := New(Config{Workers: 1, PollInterval: time.Second}, &fakeStore{}, taking(0), slog.New(log))
	require.NoError(t, err)
	for _, outcome := range []flow.Outcome{flow.OutcomeHandedBack, flow.OutcomeTimeout} {
		w.logVerdict(flow.Judged{
			Result:  &flow.Result{Task: newTask(1, "c"), Outcome: outcome, Error: "it was stopped"},
			Verdict: flow.VerdictRecorded, Status: flow.Suspended, Held: true,
		})
	}
	require.Empty(t, log.with("task suspended"))
	for text, level := range map[string]slog.Level{
		"task handed back": slog.LevelInfo, "attempt failed: the task will be tried again": slog.LevelWarn,
	} {
		line := log.only(t, text)
		require.Equal(t, level, line.level)
		require.Equal(t, true, line.attrs["held"])
	}
}

// A program that finished although it was cancelled has finished.
func TestDeadlineDoesNotHideWhatHappened(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 1)
		w := start(t, &fakeStore{advance: q.advance}, fakePrograms(func(ctx context.Context, _ flow.Task) (json.RawMessage, error) {
			<-ctx.Done()
			return nil, nil
		}), workers(1))
		pass(time.Second)
		w.stop()
		require.NoError(t, w.ended(t))
		_, results := q.look()
		require.Equal(t, flow.OutcomeFinished, results[0].Outcome)
	})
}

// A claim that was in flight when it was told to stop: what it got goes back, as it was.
func TestClaimInFlightAtTheEnd(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"with time": 25 * time.Second, "without": 0} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := newQueue(t, 3, 3)
				q.takes = time.Second
				w := start(t, &fakeStore{advance: q.advance}, taking(time.Hour), workers(3), shutdownTimeout(timeout))
				pass(500 * time.Millisecond)
				w.stop()
				begin := time.Now()
				require.NoError(t, w.ended(t))
				require.Equal(t, 1500*time.Millisecond, time.Since(begin))
				_, results := q.look()
				requireEachOnce(t, results, 3)
				for _, r := range results {
					require.Equal(t, flow.OutcomeNotStarted, r.Outcome)
				}
				require.Empty(t, w.logs.with("task started"))
			})
		})
	}
}

// Without a database a watcher ends in a bounded time, too.
func TestEndsWithoutTheStore(t *testing.T) {
	for name, takes := range map[string]time.Duration{"calls fail": 0, "calls hang": 12 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := newQueue(t, 2, 2)
				var away value[bool]
				call := func() error {
					if !away.get() {
						return nil
					}
					time.Sleep(takes)
					return errAway
				}
				w := start(t, &fakeStore{
					advance: func(r []*flow.Result, c flow.Claim) (flow.Advanced, error) {
						if err := call(); err != nil {
							return flow.Advanced{}, err
						}
						return q.advance(r, c)
					},
					beat:    func(string, []flow.Task) (flow.Pulse, error) { return flow.Pulse{}, call() },
					drain:   func(context.Context, string) error { return call() },
					promote: func() (int, time.Duration, error) { return 0, 0, call() },
					leave:   func(string, bool) error { return call() },
				}, taking(time.Second))
				pass(500 * time.Millisecond)
				away.set(true)
				w.stop()
				begin := time.Now()
				require.ErrorContains(t, w.ended(t), "2 tasks were not recorded in time: others will run them again")
				require.GreaterOrEqual(t, time.Since(begin), 28*time.Second)
				require.LessOrEqual(t, time.Since(begin), 28*time.Second+2*takes)
				pass(time.Minute) // calls that hang come back
			})
		})
	}
}

// A program that ignores its end cannot keep a watcher: its task stays with its claim,
// for others to rescue, and is not reported as anything.
func TestEndsWithoutTheProgram(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 2)
		var left value[bool]
		free := make(chan struct{})
		w := start(t, &fakeStore{advance: q.advance, leave: func(_ string, behind bool) error {
			left.set(behind)
			return nil
		}}, fakePrograms(func(ctx context.Context, task flow.Task) (json.RawMessage, error) {
			if task.Seq == 1 {
				<-free
				return nil, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		pass(time.Second)
		w.stop()
		begin := time.Now()
		require.EqualError(t, w.ended(t), "1 tasks were not recorded in time: others will run them again")
		require.Equal(t, 28*time.Second, time.Since(begin))
		_, results := q.look()
		require.Len(t, results, 1)
		require.Equal(t, 2, results[0].Task.Seq)
		require.True(t, left.get(), "others are told that there is something to rescue")
		close(free)
		synctest.Wait()
	})
}

// A claim without an answer may have got what nobody has looked for yet.
func TestLeavesInDoubt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var claim value[string]
		var left value[bool]
		w := start(t, &fakeStore{
			advance: losing(&claim),
			leave: func(_ string, behind bool) error {
				left.set(behind)
				return nil
			},
		}, taking(0))
		pass(100 * time.Millisecond)
		w.stop()
		require.NoError(t, w.ended(t))
		require.True(t, left.get(), "others are told that there may be something to rescue")
	})
}

// … which is known to have begun nowhere: it goes back, and is no loss of anybody's.
func TestHandsBackWhatIsInDoubt(t *testing.T) {
	for name, away := range map[string]error{"there": nil, "away": errAway} {
		t.Run("the database is "+name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var lost value[[]flow.Task]
				recorded := make(chan *flow.Result, 10)
				var left value[bool]
				w := start(t, &fakeStore{
					advance: losingTasks(&lost, recorded),
					owned:   func(string, []string) ([]flow.Task, error) { return lost.get(), away },
					leave: func(_ string, behind bool) error {
						left.set(behind)
						return nil
					},
				}, taking(time.Second))
				pass(100 * time.Millisecond)
				begin := time.Now()
				w.stop()
				require.NoError(t, w.ended(t))
				require.Zero(t, time.Since(begin))
				require.True(t, left.get(), "what comes later is rescued")
				require.Empty(t, w.logs.with("task started"))
				if away != nil {
					require.Empty(t, recorded)
					w.logs.only(t, "tasks of claims without an answer were not handed back: others will take them for lost")
					return
				}
				require.Len(t, recorded, 2)
				for range 2 {
					require.Equal(t, flow.OutcomeNotStarted, (<-recorded).Outcome)
				}
			})
		})
	}
}

// The database does not hear that it stops: it stops all the same.
func TestDrainFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 2)
		w := start(t, &fakeStore{advance: q.advance, drain: func(context.Context, string) error { return errAway }}, taking(10*time.Second))
		pass(time.Second)
		w.stop()
		require.NoError(t, w.ended(t))
		_, results := q.look()
		requireEachOnce(t, results, 2)
		require.Len(t, w.logs.with("the database does not know that this watcher stops"), 1)
	})
}

// What it tells the database at a stop does not outlive it: whoever has run it closes the
// database then.
func TestDrainEndsWithTheWatcher(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var drains, left value[bool]
		w := start(t, &fakeStore{drain: func(ctx context.Context, _ string) error {
			drains.set(true)
			<-ctx.Done()
			defer drains.set(false)
			return ctx.Err()
		}, leave: func(string, bool) error {
			left.set(true)
			return nil
		}}, taking(0))
		pass(time.Second)
		begin := time.Now()
		w.stop()
		require.NoError(t, w.ended(t))
		require.Zero(t, time.Since(begin), "nobody waits for the answer")
		require.False(t, drains.get())
		require.True(t, left.get())
		require.Empty(t, w.logs.with("the database does not know that this watcher stops"), "it has left")
	})
}
