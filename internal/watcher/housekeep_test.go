package watcher

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A task whose program no watcher has is suspended when nobody has had it for 10 s, and
// not before: in a deployment the one that has it may be on its way.
func TestStrangers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var unknown value[[]string]
		refused := make(chan string, 10)
		w := start(t, &fakeStore{
			strangers: func([]string) ([]string, error) { return unknown.get(), nil },
			refuse: func(program, text string) ([]flow.TaskKey, error) {
				refused <- program
				refused <- text
				unknown.set(nil)
				return []flow.TaskKey{{Flow: "f", Seq: 3}}, nil
			},
		}, taking(0))
		pass(30 * time.Second)
		unknown.set([]string{"Gone"})
		pass(10*time.Second - time.Millisecond)
		require.Empty(t, refused)
		pass(20 * time.Second)
		require.Len(t, refused, 2)
		require.Equal(t, "Gone", <-refused)
		require.Equal(t, `no watcher has a program "Gone"; this one has: Fake`, <-refused)
		ln := w.logs.only(t, "task suspended")
		require.Equal(t, slog.LevelError, ln.level)
		require.Equal(t, "invalid", ln.attrs["reason"])
	})
}

// A program that comes back in time starts anew.
func TestStrangersThatComeBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		looks := 0
		var refused value[bool]
		start(t, &fakeStore{
			strangers: func([]string) ([]string, error) {
				looks++
				if looks%2 == 0 {
					return nil, nil
				}
				return []string{"Flaky"}, nil
			},
			refuse: func(string, string) ([]flow.TaskKey, error) {
				refused.set(true)
				return nil, nil
			},
		}, taking(0))
		pass(10 * time.Minute)
		require.False(t, refused.get())
	})
}

// A program that is only off says how to have it.
func TestStrangersThatAreOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var text value[string]
		start(t, &fakeStore{
			strangers: func([]string) ([]string, error) { return []string{"Guarded"}, nil },
			refuse: func(_, why string) ([]flow.TaskKey, error) {
				text.set(why)
				return nil, nil
			},
		}, taking(0))
		pass(time.Minute)
		require.Equal(t, `no watcher may run the program "Guarded": start one with -allow-guarded`, text.get())
	})
}

// A row inserted by hand for which there is no definition has no program at all.
func TestNoProgram(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var text value[string]
		start(t, &fakeStore{
			strangers: func([]string) ([]string, error) { return []string{""}, nil },
			refuse: func(_, why string) ([]flow.TaskKey, error) {
				text.set(why)
				return nil, nil
			},
		}, taking(0))
		pass(time.Minute)
		require.Contains(t, text.get(), "the task has no program")
	})
}

// A task that waits for a time goes when it has come, not with the next poll.
func TestPromotes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 0)
		due := time.Now().Add(31 * time.Minute)
		var promotedAt, startedAt times
		start(t, &fakeStore{
			advance: func(r []*flow.Result, c flow.Claim) (flow.Advanced, error) {
				adv, err := q.advance(r, c)
				if len(adv.Claimed) > 0 {
					startedAt.note()
				}
				return adv, err
			},
			promote: func() (int, time.Duration, error) {
				q.mu.Lock()
				defer q.mu.Unlock()
				switch wait := time.Until(due); {
				case wait > 0:
					return 0, wait, nil
				case q.given+q.waiting > 0:
					return 0, 0, nil
				}
				promotedAt.note()
				q.waiting++
				return 1, 0, nil
			},
		}, taking(0), func(c *Config) { c.PollInterval = time.Hour })
		pass(2 * time.Hour)
		require.Equal(t, []time.Duration{0}, promotedAt.since(due))
		require.Equal(t, []time.Duration{0}, startedAt.since(due))
	})
}

// A retry that is put off by a moment is noticed at once, not with the next poll.
func TestPromotesWhatWasPutOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var due value[time.Time]
		var promotedAt times
		q := newQueue(t, 2, 1)
		start(t, &fakeStore{
			advance: func(r []*flow.Result, c flow.Claim) (flow.Advanced, error) {
				adv, err := q.advance(r, c)
				for i := range adv.Verdicts {
					adv.Verdicts[i].Status, adv.Verdicts[i].RunNext = flow.Waiting, time.Now().Add(time.Second)
					due.set(adv.Verdicts[i].RunNext)
				}
				return adv, err
			},
			promote: func() (int, time.Duration, error) {
				at := due.get()
				switch wait := time.Until(at); {
				case at.IsZero():
					return 0, 0, nil
				case wait > 0:
					return 0, wait, nil
				}
				promotedAt.note()
				due.set(time.Time{})
				return 1, 0, nil
			},
		}, returning("", errBug), func(c *Config) { c.PollInterval = time.Hour })
		begin := time.Now()
		pass(time.Minute)
		require.Equal(t, []time.Duration{time.Second}, promotedAt.since(begin))
	})
}

// A sweep reads the whole table: once a minute, and less often where it takes long.
func TestSweeps(t *testing.T) {
	for name, test := range map[string]struct{ poll, takes, least, most time.Duration }{
		"quick":                {5 * time.Second, 0, 48 * time.Second, 78 * time.Second},
		"slow":                 {5 * time.Second, 2 * time.Second, 200 * time.Second, 210 * time.Second},
		"whatever the poll is": {time.Hour, 0, 48 * time.Second, 84 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var sweeps times
				start(t, &fakeStore{sweep: func() (flow.Swept, error) {
					sweeps.note()
					time.Sleep(test.takes)
					return flow.Swept{}, nil
				}}, taking(0), func(c *Config) { c.PollInterval = test.poll })
				begin := time.Now()
				pass(time.Hour)
				at := sweeps.since(begin)
				require.Greater(t, len(at), 10)
				for i := range at[1:] {
					require.GreaterOrEqual(t, at[i+1]-at[i], test.least)
					require.LessOrEqual(t, at[i+1]-at[i], test.most)
				}
			})
		})
	}
}

// A rescue is followed by a sweep.
func TestSweepAfterARescue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var sweeps times
		var dead value[bool]
		start(t, &fakeStore{
			beat: func(string, []flow.Task) (flow.Pulse, error) { return flow.Pulse{Rescue: dead.get()}, nil },
			rescue: func(string) ([]flow.Rescued, error) {
				dead.set(false)
				return nil, nil
			},
			sweep: func() (flow.Swept, error) {
				sweeps.note()
				return flow.Swept{}, nil
			},
		}, taking(0))
		pass(3 * time.Second)
		dead.set(true)
		begin := time.Now()
		pass(25 * time.Second)
		at := sweeps.since(begin)
		require.Len(t, at, 1)
		require.Greater(t, at[0], 10*time.Second)
	})
}

// What waits for a time does not wait for a sweep or a check that reads a large table.
func TestPromotesWhileItSweeps(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var promotions times
		start(t, &fakeStore{
			sweep:   func() (flow.Swept, error) { time.Sleep(time.Minute); return flow.Swept{}, nil },
			check:   func(bool) ([]flow.BrokenRule, error) { time.Sleep(time.Minute); return nil, nil },
			promote: func() (int, time.Duration, error) { promotions.note(); return 0, 0, nil },
		}, taking(0))
		begin := time.Now()
		pass(5 * time.Minute)
		at := promotions.since(begin)
		for i := range at[1:] {
			require.LessOrEqual(t, at[i+1]-at[i], 6*time.Second)
		}
	})
}

// What a sweep lets go is looked for at once, and not only with the next poll.
func TestSweepWakes(t *testing.T) {
	for name, swept := range map[string]flow.Swept{
		"recounted": {Recounted: []flow.TaskKey{{Flow: "f", Seq: 1}}},
		"rescued":   {Rescued: []flow.Rescued{{Key: flow.TaskKey{Flow: "f", Seq: 2}, Watcher: "gone"}}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := newQueue(t, 2, 0)
				w := start(t, &fakeStore{advance: q.advance, sweep: func() (flow.Swept, error) {
					q.mu.Lock()
					defer q.mu.Unlock()
					q.waiting = 1
					return swept, nil
				}}, taking(0), func(c *Config) { c.PollInterval = time.Hour })
				pass(sweepEvery + sweepEvery/4)
				require.Len(t, w.logs.with("task finished"), 1)
			})
		})
	}
}

// What a sweep repaired is said, and looked for.
func TestSweepRepairs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 0)
		w := start(t, &fakeStore{advance: q.advance, sweep: func() (flow.Swept, error) {
			q.mu.Lock()
			defer q.mu.Unlock()
			if q.given > 0 {
				return flow.Swept{}, nil
			}
			q.waiting = 1
			return flow.Swept{
				Recounted: []flow.TaskKey{{Flow: "f", Seq: 1}}, Leftovers: 2,
				Rescued: []flow.Rescued{{Key: flow.TaskKey{Flow: "f", Seq: 2}, Watcher: "gone"}},
			}, nil
		}}, taking(0), func(c *Config) { c.PollInterval = 50 * time.Second })
		pass(10 * time.Minute)
		require.Len(t, w.logs.with("task finished"), 1)
		w.logs.only(t, "task rescued")
		repaired := w.logs.only(t, "the sweep repaired the queue: somebody changed it behind Flower's back, or a watcher died between two statements")
		require.EqualValues(t, 1, repaired.attrs["recounted"])
		require.EqualValues(t, 2, repaired.attrs["leftovers"])
	})
}

// Rules that do not hold are looked for once a minute, and less often where that takes
// long; what is found is swept at once, and what is left is said.
func TestChecks(t *testing.T) {
	for name, test := range map[string]struct{ takes, least, most time.Duration }{
		"quick": {0, 48 * time.Second, 78 * time.Second},
		"slow":  {4 * time.Second, 200 * time.Second, 216 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var checks times
				w := start(t, &fakeStore{check: func(anew bool) ([]flow.BrokenRule, error) {
					require.False(t, anew)
					checks.note()
					time.Sleep(test.takes)
					return nil, nil
				}}, taking(0))
				begin := time.Now()
				pass(time.Hour)
				at := checks.since(begin)
				require.Greater(t, len(at), 10)
				for i := range at[1:] {
					require.GreaterOrEqual(t, at[i+1]-at[i], test.least)
					require.LessOrEqual(t, at[i+1]-at[i], test.most)
				}
				require.Empty(t, w.logs.with("v_invariant is not empty: sweeping"))
			})
		})
	}
}

func TestChecksRepair(t *testing.T) {
	for name, repairs := range map[string]bool{"the sweep repairs it": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				rule := flow.BrokenRule{Rule: "owned means running", Rows: 3, Key: flow.TaskKey{Flow: "f", Seq: 2}, Detail: "exec_status is 3"}
				var did value[[]string]
				note := func(what string) { did.update(func(all []string) []string { return append(all, what) }) }
				w := start(t, &fakeStore{
					check: func(anew bool) ([]flow.BrokenRule, error) {
						note(map[bool]string{false: "check", true: "check anew"}[anew])
						if anew && repairs {
							return nil, nil
						}
						return []flow.BrokenRule{rule}, nil
					},
					sweep: func() (flow.Swept, error) {
						note("sweep")
						return flow.Swept{}, nil
					},
				}, taking(0))
				pass(80 * time.Second)
				found := w.logs.with("v_invariant is not empty: sweeping")
				require.NotEmpty(t, found)
				require.Equal(t, slog.LevelWarn, found[0].level)
				require.Equal(t, map[string]any{
					"component": "watcher", "rule": "owned means running", "rows": int64(3),
					"flow": flow.ID("f"), "seq": int64(2), "detail": "exec_status is 3",
				}, found[0].attrs)
				left := w.logs.with("v_invariant is not empty after a sweep: SELECT * FROM v_invariant")
				if repairs {
					require.Empty(t, left)
				} else {
					require.Equal(t, slog.LevelError, left[0].level)
				}
				order := did.get()
				first := slices.Index(order, "check")
				require.Equal(t, []string{"check", "sweep", "check anew"}, order[first:first+3])
			})
		})
	}
}

// An idle watcher is a light load: beside its heartbeats it sends less than a statement a
// second.
func TestIdleIsCheap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var statements value[int]
		send := func(n int) { statements.update(func(old int) int { return old + n }) }
		start(t, &fakeStore{
			advance: func(r []*flow.Result, _ flow.Claim) (flow.Advanced, error) {
				send(1)
				return record(r), nil
			},
			promote:   func() (int, time.Duration, error) { send(1); return 0, 0, nil },
			strangers: func([]string) ([]string, error) { send(1); return nil, nil },
			sweep:     func() (flow.Swept, error) { send(8); return flow.Swept{}, nil },                   //  with BEGIN and COMMIT
			check:     func(bool) ([]flow.BrokenRule, error) { send(5); return []flow.BrokenRule{}, nil }, // the same
		}, taking(0))
		pass(time.Hour)
		t.Logf("%d statements in an hour", statements.get())
		require.Less(t, statements.get(), 3600)
	})
}

func TestHousekeepingErrors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var away value[bool]
		away.set(true)
		var promotions times
		w := start(t, &fakeStore{promote: func() (int, time.Duration, error) {
			promotions.note()
			if away.get() {
				return 0, 0, errAway
			}
			return 0, 0, nil
		}}, taking(0))
		begin := time.Now()
		pass(50 * time.Second)
		require.Greater(t, len(promotions.since(begin)), 40, "tasks that are due go on soon after an outage")
		require.Len(t, w.logs.with("housekeeping failed: trying again"), 2)
		away.set(false)
		pass(2 * time.Second)
		w.logs.only(t, "housekeeping goes on")
	})
}
