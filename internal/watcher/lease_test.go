package watcher

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A program that tells how its context ended.
func telling(causes chan<- error) fakePrograms {
	return func(ctx context.Context, t flow.Task) (json.RawMessage, error) {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}
}

func TestHeartbeats(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var beats times
		q := newQueue(t, 3, 2)
		var running value[int]
		w := start(t, &fakeStore{advance: q.advance, beat: func(_ string, tasks []flow.Task) (flow.Pulse, error) {
			beats.note()
			running.set(len(tasks))
			return flow.Pulse{}, nil
		}}, taking(90*time.Second), workers(3))
		begin := time.Now()
		pass(time.Minute)
		require.Len(t, beats.since(begin), 31)
		require.Equal(t, 2, running.get(), "it says what it runs")
		w.stop()
		pass(40 * time.Second)
		require.NoError(t, w.ended(t))
		require.Greater(t, len(beats.since(begin)), 40, "heartbeats go on while it drains")
	})
}

func TestPulse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var away value[bool]
		w := start(t, &fakeStore{beat: func(string, []flow.Task) (flow.Pulse, error) {
			if away.get() {
				return flow.Pulse{}, errAway
			}
			return flow.Pulse{}, nil
		}}, taking(0))
		pass(5 * time.Second)
		away.set(true)
		pass(7 * time.Second)
		workers, busy, renewed := w.Pulse()
		require.Equal(t, 2, workers)
		require.Zero(t, busy)
		require.Equal(t, 8*time.Second, time.Since(renewed), "that of second 4 went through")
	})
}

// How long ago that was is told by a clock that nobody sets.
func TestPulse_IsMonotonic(t *testing.T) {
	t.Parallel()
	w, err := New(Config{Workers: 1, PollInterval: time.Second}, &fakeStore{}, taking(0), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, w.lease.join(t.Context(), false))
	_, _, renewed := w.Pulse()
	require.Contains(t, renewed.String(), " m=")
}

// Hints ask for heartbeats, which find out about revoked claims; a storm of them does not
// make a storm of heartbeats.
func TestHintsMakeItBeat(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var beats times
		store := &fakeStore{beat: func(string, []flow.Task) (flow.Pulse, error) {
			beats.note()
			return flow.Pulse{}, nil
		}}
		start(t, store, taking(0))
		pass(500 * time.Millisecond)
		begin := time.Now()
		store.hints <- struct{}{}
		pass(0)
		require.Equal(t, []time.Duration{0}, beats.since(begin)[1:])
		for range 100 {
			store.hints <- struct{}{}
			pass(10 * time.Millisecond)
		}
		require.LessOrEqual(t, len(beats.since(begin)), 13)
	})
}

// What somebody changed by hand is cancelled, with a cause that says so; its result is
// still given, and the worker is free again.
func TestRevoked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 2)
		var revoke value[bool]
		causes := make(chan error, 2)
		w := start(t, &fakeStore{
			advance: q.advance,
			beat: func(_ string, tasks []flow.Task) (flow.Pulse, error) {
				var p flow.Pulse
				if revoke.get() {
					for _, task := range tasks {
						p.Revoked = append(p.Revoked, flow.Task{TaskKey: task.TaskKey, ClaimID: task.ClaimID})
					}
				}
				return p, nil
			},
		}, telling(causes), workers(1))
		pass(10 * time.Second)
		require.Empty(t, causes)
		revoke.set(true)
		pass(2 * time.Second)
		require.Equal(t, errRevoked, <-causes)
		revoke.set(false)
		_, results := q.look()
		require.Len(t, results, 1)
		require.Equal(t, flow.OutcomeFailed, results[0].Outcome)
		require.Equal(t, errRevoked.Error(), results[0].Error)
		require.Len(t, w.logs.with("task started"), 2, "its worker took the next task")
	})
}

// Another attempt at the same task, under another claim, is not meant.
func TestRevokedClaimIsTheOneThatIsMeant(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 1)
		causes := make(chan error, 1)
		w := start(t, &fakeStore{
			advance: q.advance,
			beat: func(string, []flow.Task) (flow.Pulse, error) {
				return flow.Pulse{Revoked: []flow.Task{newTask(1, "an older claim"), newTask(7, "whatever")}}, nil
			},
		}, telling(causes), workers(1))
		pass(time.Minute)
		require.Empty(t, causes)
		require.Len(t, w.logs.with("task started"), 1)
	})
}

// A watcher that others have declared dead: everything is cancelled, and it goes on under
// a new id.
func TestFenced(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 2)
		q.change = func(task *flow.Task) { task.OnLost = []flow.OnLost{flow.OnLostRerun, flow.OnLostSuspend}[task.Seq%2] }
		causes := make(chan error, 2)
		var joined value[[]string]
		var dead value[string]
		w := start(t, &fakeStore{
			advance: q.advance,
			join: func(w flow.Watcher) error {
				joined.update(func(ids []string) []string { return append(ids, w.ID) })
				return nil
			},
			beat: func(watcher string, _ []flow.Task) (flow.Pulse, error) {
				if watcher == dead.get() {
					return flow.Pulse{}, flow.ErrFenced
				}
				return flow.Pulse{}, nil
			},
		}, telling(causes))
		pass(10 * time.Second)
		old := w.lease.id()
		dead.set(old)
		pass(2 * time.Second)
		for range 2 {
			require.ErrorIs(t, <-causes, flow.ErrFenced)
		}
		require.NotEqual(t, old, w.lease.id())
		require.Equal(t, []string{old, w.lease.id()}, joined.get())
		_, results := q.look()
		require.Len(t, results, 2)
		for _, r := range results {
			require.Equal(t, flow.OutcomeHandedBack, r.Outcome)
		}
		q.mu.Lock()
		q.waiting = 1
		q.mu.Unlock()
		pass(6 * time.Second)
		require.Len(t, w.logs.with("task started"), 3, "it works on")
		calls, _ := q.look()
		require.Equal(t, w.lease.id(), calls[len(calls)-1].watcher)
		require.Equal(t, slog.LevelError, w.logs.only(t, "declared dead by the others: starting again under a new id").level)
	})
}

// Fenced while the database is away: it joins when that is back.
func TestFencedAndAway(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var away value[bool]
		var joined value[int]
		var dead value[string]
		w := start(t, &fakeStore{
			join: func(flow.Watcher) error {
				if away.get() {
					return errAway
				}
				joined.update(func(n int) int { return n + 1 })
				return nil
			},
			beat: func(watcher string, _ []flow.Task) (flow.Pulse, error) {
				if watcher == dead.get() {
					away.set(true)
					return flow.Pulse{}, flow.ErrFenced
				}
				return flow.Pulse{}, nil
			},
		}, taking(0))
		pass(5 * time.Second)
		dead.set(w.lease.id())
		pass(time.Minute)
		require.Equal(t, 1, joined.get())
		require.Len(t, w.logs.with("cannot join: trying again"), 2)
		away.set(false)
		pass(2 * time.Second)
		require.Equal(t, 2, joined.get())
	})
}

// Fenced, and the database does not take it again: the log says why, and it goes on trying.
func TestFencedAndRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		refused := errors.New("permission denied for table kr_watcher")
		var refuses value[bool]
		var known value[string]
		w := start(t, &fakeStore{
			join: func(w flow.Watcher) error {
				if refuses.get() {
					return refused
				}
				known.set(w.ID)
				return nil
			},
			beat: func(watcher string, _ []flow.Task) (flow.Pulse, error) {
				if watcher != known.get() {
					return flow.Pulse{}, flow.ErrFenced
				}
				return flow.Pulse{}, nil
			},
		}, taking(0))
		pass(5 * time.Second)
		refuses.set(true)
		known.set("")
		pass(50 * time.Second)
		w.logs.only(t, "declared dead by the others: starting again under a new id")
		told := w.logs.with("cannot join: trying again")
		require.Len(t, told, 2, "and then once a minute")
		require.Equal(t, refused, told[0].attrs["err"])
		refuses.set(false)
		pass(2 * time.Second)
		require.Equal(t, w.lease.id(), known.get())
	})
}

// A watcher that cannot renew its lease stops what must not run twice 8 s after the last
// heartbeat that went through, and nothing else, be the heartbeats refused or unanswered.
func TestSelfFence(t *testing.T) {
	for name, fail := range map[string]func(){
		"heartbeats fail":      func() {},
		"a heartbeat hangs":    func() { time.Sleep(12 * time.Second) },
		"they fail after 3 s":  func() { time.Sleep(3 * time.Second) },
		"they fail after 1 ms": func() { time.Sleep(time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := newQueue(t, 2, 2)
				q.change = func(task *flow.Task) {
					if task.Seq == 1 {
						task.OnLost = flow.OnLostSuspend
					}
				}
				type end struct {
					seq   int
					cause error
					at    time.Time
				}
				ends := make(chan end, 2)
				var away value[bool]
				w := start(t, &fakeStore{
					advance: q.advance,
					beat: func(string, []flow.Task) (flow.Pulse, error) {
						if away.get() {
							fail()
							return flow.Pulse{}, errAway
						}
						return flow.Pulse{}, nil
					},
				}, fakePrograms(func(ctx context.Context, task flow.Task) (json.RawMessage, error) {
					<-ctx.Done()
					ends <- end{task.Seq, context.Cause(ctx), time.Now()}
					return nil, ctx.Err()
				}))
				begin := time.Now()
				pass(10*time.Second + time.Millisecond) // the last good heartbeat was sent at 10 s
				away.set(true)
				pass(7998 * time.Millisecond)
				require.Empty(t, ends)
				pass(time.Millisecond)
				require.Len(t, ends, 1)
				e := <-ends
				require.Equal(t, 1, e.seq)
				require.ErrorIs(t, e.cause, flow.ErrFenced)
				require.Equal(t, 18*time.Second, e.at.Sub(begin))
				pass(time.Hour)
				require.Empty(t, ends, "a failover must not cost everybody's work")
				_, results := q.look()
				require.Len(t, results, 1)
				require.Equal(t, flow.OutcomeHandedBack, results[0].Outcome)
				require.EqualValues(t, 1, w.logs.only(t, "no heartbeat went through: the lease is about to end").attrs["cancelled"])

				away.set(false)
				pass(time.Minute)
				away.set(true)
				pass(time.Minute)
				require.Len(t, w.logs.with("no heartbeat went through: the lease is about to end"), 2, "armed again")
			})
		})
	}
}

// A program that must not run twice and ignores that it was stopped has not failed: it would
// be tried again where its task allows that, beside itself.
func TestSelfFence_Ignored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 1)
		q.change = func(task *flow.Task) { task.OnLost = flow.OnLostSuspend }
		var away value[bool]
		free := make(chan struct{})
		start(t, &fakeStore{
			advance: q.advance,
			beat: func(string, []flow.Task) (flow.Pulse, error) {
				if away.get() {
					return flow.Pulse{}, errAway
				}
				return flow.Pulse{}, nil
			},
		}, fakePrograms(func(context.Context, flow.Task) (json.RawMessage, error) {
			<-free
			return nil, nil
		}), workers(1))
		pass(time.Second)
		away.set(true)
		pass(time.Minute)
		_, results := q.look()
		require.Len(t, results, 1)
		require.Equal(t, flow.OutcomeHandedBack, results[0].Outcome)
		require.Equal(t, flow.ErrFenced.Error()+", and the program went on for 5s: it may still be running", results[0].Error)
		close(free)
	})
}

// While its lease had ended a watcher's claims got nothing: it looks again when its
// heartbeats go through again, and does not wait for the next poll.
func TestLooksAgainAfterAnOutageOfHeartbeats(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var away value[bool]
		var claims times
		start(t, &fakeStore{
			advance: func([]*flow.Result, flow.Claim) (flow.Advanced, error) {
				claims.note()
				return flow.Advanced{}, nil
			},
			beat: func(string, []flow.Task) (flow.Pulse, error) {
				if away.get() {
					return flow.Pulse{}, errAway
				}
				return flow.Pulse{}, nil
			},
		}, taking(0), func(c *Config) { c.PollInterval = time.Hour })
		away.set(true)
		pass(20 * time.Second)
		before := len(claims.since(time.Now()))
		away.set(false)
		pass(time.Second)
		require.Len(t, claims.since(time.Now()), before+1)
	})
}

func TestHeartbeatErrorsAreLoggedOnceAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var beats times
		w := start(t, &fakeStore{beat: func(string, []flow.Task) (flow.Pulse, error) {
			beats.note()
			return flow.Pulse{}, errAway
		}}, taking(0))
		begin := time.Now()
		pass(100 * time.Second)
		require.Greater(t, len(beats.since(begin)), 300, "it tries again soon")
		require.Len(t, w.logs.with("heartbeat failed: trying again"), 3)
	})
}

// It rescues when the database says so, and looks at the queue then.
func TestRescue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 0)
		var pulse value[flow.Pulse]
		var by value[string]
		w := start(t, &fakeStore{
			advance: q.advance,
			beat:    func(string, []flow.Task) (flow.Pulse, error) { return pulse.get(), nil },
			rescue: func(watcher string) ([]flow.Rescued, error) {
				by.set(watcher)
				pulse.set(flow.Pulse{})
				q.mu.Lock()
				q.waiting = 1
				q.mu.Unlock()
				return []flow.Rescued{{Key: flow.TaskKey{Flow: "f", Seq: 1}, Watcher: "gone"}}, nil
			},
		}, taking(0), func(c *Config) { c.PollInterval = time.Hour })
		pass(5 * time.Second)
		require.Empty(t, by.get())
		pulse.set(flow.Pulse{Rescue: true})
		pass(2 * time.Second)
		require.Equal(t, w.lease.id(), by.get())
		require.Equal(t, "gone", w.logs.only(t, "task rescued").attrs["lost_by"])
		require.Len(t, w.logs.with("task finished"), 1)
	})
}

// A rescue reads a whole table: its watcher lives on meanwhile, and does not begin another.
func TestRescueTakesLong(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var beats, rescues times
		start(t, &fakeStore{
			beat: func(string, []flow.Task) (flow.Pulse, error) {
				beats.note()
				return flow.Pulse{Rescue: true}, nil
			},
			rescue: func(string) ([]flow.Rescued, error) {
				rescues.note()
				time.Sleep(29 * time.Second)
				return nil, nil
			},
		}, taking(0))
		begin := time.Now()
		pass(25 * time.Second)
		require.Len(t, beats.since(begin), 13)
		require.Len(t, rescues.since(begin), 1)
		pass(10 * time.Second)
		require.Len(t, rescues.since(begin), 2)
	})
}

// What a watcher has told of is rescued even if the rest is not found in time.
func TestRescueFailsHalfway(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 0)
		var pulse value[flow.Pulse]
		w := start(t, &fakeStore{
			advance: q.advance,
			beat:    func(string, []flow.Task) (flow.Pulse, error) { return pulse.get(), nil },
			rescue: func(string) ([]flow.Rescued, error) {
				pulse.set(flow.Pulse{})
				q.mu.Lock()
				q.waiting = 1
				q.mu.Unlock()
				return []flow.Rescued{{Key: flow.TaskKey{Flow: "f", Seq: 1}, Watcher: "gone"}}, errAway
			},
		}, taking(0), func(c *Config) { c.PollInterval = time.Hour })
		pass(5 * time.Second)
		pulse.set(flow.Pulse{Rescue: true})
		pass(2 * time.Second)
		require.Equal(t, "gone", w.logs.only(t, "task rescued").attrs["lost_by"])
		require.Len(t, w.logs.with("rescue failed: trying again"), 1)
		require.Len(t, w.logs.with("task finished"), 1)
	})
}

func TestRescueFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var tries times
		start(t, &fakeStore{
			beat: func(string, []flow.Task) (flow.Pulse, error) { return flow.Pulse{Rescue: true}, nil },
			rescue: func(string) ([]flow.Rescued, error) {
				tries.note()
				return nil, errAway
			},
		}, taking(0))
		begin := time.Now()
		pass(9 * time.Second)
		require.Len(t, tries.since(begin), 5, "with each heartbeat")
	})
}

// A watcher waits for its database for as long as it takes …
func TestJoinWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var away value[bool]
		away.set(true)
		var tries times
		q := newQueue(t, 2, 1)
		w := start(t, &fakeStore{advance: q.advance, join: func(w flow.Watcher) error {
			tries.note()
			if away.get() {
				return errAway
			}
			require.Equal(t, []string{"Fake"}, w.Programs)
			require.Equal(t, 2, w.Workers)
			return nil
		}}, taking(0))
		begin := time.Now()
		pass(time.Hour)
		calls, _ := q.look()
		require.Empty(t, calls)
		require.InDelta(t, 3600, len(tries.since(begin)), 10)
		require.LessOrEqual(t, len(w.logs.with("cannot join: trying again")), 62)
		away.set(false)
		pass(2 * time.Second)
		require.Len(t, w.logs.with("task finished"), 1)
	})
}

// … unless it is told to stop meanwhile …
func TestJoinEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := start(t, &fakeStore{join: func(flow.Watcher) error { return errAway }}, taking(0))
		pass(time.Minute)
		w.stop()
		require.ErrorIs(t, w.ended(t), context.Canceled)
	})
}

// … or something is wrong for good.
func TestJoinFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		broken := errors.New("permission denied for table kr_watcher")
		w := start(t, &fakeStore{join: func(flow.Watcher) error { return broken }}, taking(0))
		require.ErrorIs(t, w.ended(t), broken)
	})
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	good := Config{Workers: 1, PollInterval: time.Second}
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*Config){
		"WORKER_COUNT":            func(c *Config) { c.Workers = 0 },
		"must be from 1 to 10000": func(c *Config) { c.Workers = 10_001 },
		"POLLING_INTERVAL_SECOND": func(c *Config) { c.PollInterval = time.Millisecond },
		"must be from 10ms to 1h": func(c *Config) { c.PollInterval = 2 * time.Hour },
		"-shutdown-timeout":       func(c *Config) { c.ShutdownTimeout = -1 },
	} {
		c := good
		change(&c)
		require.ErrorContains(t, c.Validate(), want)
		_, err := New(c, &fakeStore{}, taking(0), slog.New(slog.DiscardHandler))
		require.Error(t, err)
	}
}

// The original's words, which operators know.
func TestWordsOfTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := start(t, &fakeStore{}, taking(0), workers(5))
		pass(time.Second)
		for i := 1; i <= 5; i++ {
			require.Equal(t, "dispatcher", w.logs.only(t, "starting worker: "+strconv.Itoa(i)).attrs["component"])
		}
		require.Equal(t, "watcher", w.logs.only(t, "watching task...").attrs["component"])
	})
}
