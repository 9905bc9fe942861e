package watcher

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// An idle watcher looks at the queue once each poll interval, give or take a fifth, and
// not always after the same time.
func TestPollInterval(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 0)
		w := start(t, &fakeStore{advance: q.advance}, taking(0))
		pass(time.Hour)
		w.stop()
		calls, _ := q.look()
		require.InDelta(t, 720, len(calls), 50)
		shortest, longest := time.Hour, time.Duration(0)
		for i := range calls[1:] {
			gap := calls[i+1].at.Sub(calls[i].at)
			require.GreaterOrEqual(t, gap, 4*time.Second)
			require.LessOrEqual(t, gap, 6*time.Second)
			shortest, longest = min(shortest, gap), max(longest, gap)
		}
		require.Less(t, shortest, 4500*time.Millisecond, "watchers that start together stay together")
		require.Greater(t, longest, 5500*time.Millisecond)
	})
}

// As long as there is something to do nobody waits for a poll.
func TestLooksAgainAtOnce(t *testing.T) {
	for name, test := range map[string]func(t *testing.T) *queue{
		"more tasks than workers": func(t *testing.T) *queue { return newQueue(t, 3, 100) },
		"a call takes its time": func(t *testing.T) *queue {
			q := newQueue(t, 3, 100)
			q.takes = time.Millisecond
			return q
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := test(t)
				begin := time.Now()
				start(t, &fakeStore{advance: q.advance}, taking(time.Millisecond), workers(3))
				pass(time.Second)
				calls, results := q.look()
				require.Len(t, results, 100)
				require.Less(t, calls[len(calls)-1].at.Sub(begin), 300*time.Millisecond)
			})
		})
	}
}

// Tasks that a finish released and left in the queue are looked for at once, and so are
// whichever there are where nobody has looked since a batch was split.
func TestLooksAgainForQueued(t *testing.T) {
	for name, answer := range map[string]flow.Advanced{"queued": {Queued: 1}, "split": {Split: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var looks times
				start(t, &fakeStore{advance: func([]*flow.Result, flow.Claim) (flow.Advanced, error) {
					looks.note()
					if len(looks.since(time.Now())) < 3 {
						return answer, nil
					}
					return flow.Advanced{}, nil
				}}, taking(0))
				begin := time.Now()
				pass(time.Second)
				require.Equal(t, []time.Duration{0, 0, 0}, looks.since(begin))
			})
		})
	}
}

func TestHintsMakeItLook(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 0)
		store := &fakeStore{advance: q.advance}
		start(t, store, taking(0))
		pass(time.Second)
		store.hints <- struct{}{}
		pass(0)
		calls, _ := q.look()
		require.Len(t, calls, 2)
		require.Equal(t, time.Second, calls[1].at.Sub(calls[0].at))
	})
}

// Whatever programs and the database do, no more tasks are claimed than there are free
// workers: the queue itself looks.
func TestNeverClaimsMoreThanFreeWorkers(t *testing.T) {
	for _, n := range []int{1, 2, 7, 50} {
		t.Run("", func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				const tasks = 3000
				q := newQueue(t, n, tasks)
				q.takes = 2 * time.Millisecond
				start(t, &fakeStore{advance: func(r []*flow.Result, c flow.Claim) (flow.Advanced, error) {
					if rand.IntN(10) == 0 {
						time.Sleep(rand.N(5 * time.Millisecond))
						return flow.Advanced{}, errAway
					}
					return q.advance(r, c)
				}}, fakePrograms(func(ctx context.Context, t flow.Task) (json.RawMessage, error) {
					return taking(rand.N(20*time.Millisecond))(ctx, t)
				}), workers(n))
				pass(time.Hour)
				_, results := q.look()
				requireEachOnce(t, results, tasks)
			})
		})
	}
}

// requireEachOnce: every task from 1 to n has exactly one result.
func requireEachOnce(t *testing.T, results []*flow.Result, n int) {
	t.Helper()
	require.Len(t, results, n)
	seqs := make([]int, n)
	for i, r := range results {
		seqs[i] = r.Task.Seq
	}
	slices.Sort(seqs)
	for i, seq := range seqs {
		if seq != i+1 {
			t.Fatalf("task %d is missing, or task %d has two results", i+1, seq)
		}
	}
}

// While the database is away results are kept, however long that takes, nothing more is
// claimed, and it is asked at growing pauses.
func TestKeepsResultsWhileTheStoreFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 3, 5)
		w := start(t, &fakeStore{advance: q.advance}, taking(10*time.Second), workers(3))
		pass(time.Second)
		q.setFail(errAway)
		pass(time.Hour)
		calls, results := q.look()
		require.Empty(t, results)
		for i, c := range calls[2:] {
			gap := c.at.Sub(calls[1+i].at)
			require.LessOrEqual(t, gap, 1200*time.Millisecond)
			if i > 6 {
				require.GreaterOrEqual(t, gap, 800*time.Millisecond)
			}
		}
		require.Greater(t, len(calls), 3000)
		require.Len(t, w.logs.with("task started"), 3)

		q.setFail(nil)
		pass(20 * time.Second)
		_, results = q.look()
		requireEachOnce(t, results, 5)
		require.Len(t, w.logs.with("task finished"), 5)
	})
}

// After an outage the next one is met as the first one was: by trying again soon.
func TestPauseBeginsAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 0)
		start(t, &fakeStore{advance: q.advance}, taking(0))
		pass(time.Second)
		q.setFail(errAway)
		pass(time.Minute)
		q.setFail(nil)
		pass(time.Minute)
		before, _ := q.look()
		q.setFail(errAway)
		pass(10 * time.Second)
		calls, _ := q.look()
		require.Greater(t, len(calls), len(before)+2)
		failed := calls[len(before):]
		require.LessOrEqual(t, failed[1].at.Sub(failed[0].at), 60*time.Millisecond)
	})
}

// An outage is told at once, after a few seconds, then once a minute, and so is its end.
func TestErrorLog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		log := &logs{}
		errs := newErrorLog(slog.New(log), "it failed", "it works")
		errs.worked()
		for range 2 {
			for range 125 {
				errs.failed(errBug)
				pass(time.Second)
			}
			errs.worked()
			errs.worked()
		}
		failures := log.with("it failed")
		require.Len(t, failures, 6)
		for i, want := range []int64{1, 6, 66, 1, 6, 66} {
			require.Equal(t, want, failures[i].attrs["failures"])
			require.Equal(t, errBug, failures[i].attrs["err"])
		}
		ends := log.with("it works")
		require.Len(t, ends, 2)
		require.EqualValues(t, 125, ends[0].attrs["failures"])
		require.Equal(t, 125*time.Second, ends[0].attrs["after"])
	})
}

// What fails every other time does not flood the log either, and what begins to fail for
// good just after that is told.
func TestErrorLog_Flapping(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		log := &logs{}
		errs := newErrorLog(slog.New(log), "it failed", "it works")
		for range 100 {
			errs.failed(errBug)
			errs.worked()
			pass(100 * time.Millisecond)
		}
		require.Len(t, log.with("it failed"), 10)
		require.Len(t, log.with("it works"), 10)
		for range 20 {
			errs.failed(errBug)
			pass(100 * time.Millisecond)
		}
		require.Len(t, log.with("it failed"), 11)
	})
}

// Two lines for each of the loops that an outage stops, and one when it goes on.
func TestOutageDoesNotFloodTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 3, 3)
		var away value[error]
		w := start(t, &fakeStore{
			advance: q.advance,
			beat:    func(string, []flow.Task) (flow.Pulse, error) { return flow.Pulse{}, away.get() },
			promote: func() (int, time.Duration, error) { return 0, 0, away.get() },
		}, taking(time.Second), workers(3))
		pass(500 * time.Millisecond)
		q.setFail(errAway)
		away.set(errAway)
		pass(50 * time.Second)
		q.setFail(nil)
		away.set(nil)
		pass(5 * time.Second)
		for failing, recovered := range map[string]string{
			"the database did not take results or give tasks: trying again": "the database takes results and gives tasks again",
			"heartbeat failed: trying again":                                "heartbeats go through again",
			"housekeeping failed: trying again":                             "housekeeping goes on",
		} {
			require.Len(t, w.logs.with(failing), 2)
			require.Equal(t, slog.LevelInfo, w.logs.only(t, recovered).level)
		}
	})
}

// A claim whose answer was lost: its tasks are found, and run where a worker is free.
func TestLostAnswerIsAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var lost value[[]flow.Task]
		var asked value[[]string]
		recorded := make(chan *flow.Result, 10)
		w := start(t, &fakeStore{
			advance: losingTasks(&lost, recorded),
			owned: func(watcher string, claims []string) ([]flow.Task, error) {
				asked.set(append([]string{watcher}, claims...))
				return lost.get(), nil
			},
		}, taking(time.Second), workers(3))
		pass(time.Minute)
		require.Len(t, recorded, 2)
		for range 2 {
			require.Equal(t, flow.OutcomeFinished, (<-recorded).Outcome)
		}
		require.Equal(t, []string{w.lease.id(), lost.get()[0].ClaimID}, asked.get())
		require.Len(t, w.logs.with("task started"), 2)
	})
}

// … and what no worker is free for goes back as it was: it has done nothing.
func TestLostAnswerIsHandedBackWithoutAWorker(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls value[int]
		lost := []flow.Task{newTask(1, ""), newTask(2, "")}
		recorded := make(chan *flow.Result, 10)
		w := start(t, &fakeStore{
			advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
				calls.update(func(n int) int { return n + 1 })
				for _, r := range results {
					recorded <- r
				}
				adv := record(results)
				switch calls.get() {
				case 1:
					lost[0].ClaimID, lost[1].ClaimID = c.ID, c.ID
					return flow.Advanced{}, errAway
				case 2:
					adv.Claimed = []flow.Task{newTask(3, c.ID)}
				}
				return adv, nil
			},
			owned: func(string, []string) ([]flow.Task, error) { return lost, nil },
		}, taking(time.Hour))
		pass(time.Minute)
		require.Len(t, w.logs.with("task started"), 2, "two workers: the third task, and one of the lost ones")
		require.Len(t, recorded, 1)
		back := <-recorded
		require.Equal(t, flow.OutcomeNotStarted, back.Outcome)
		require.NotEmpty(t, back.Error)
		w.stop()
	})
}

// losingTasks loses the answer to the first claim, which got two tasks, and hands on what is
// recorded afterwards.
func losingTasks(lost *value[[]flow.Task], recorded chan<- *flow.Result) func([]*flow.Result, flow.Claim) (flow.Advanced, error) {
	return func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
		if lost.get() == nil {
			lost.set([]flow.Task{newTask(1, c.ID), newTask(2, c.ID)})
			return flow.Advanced{}, errAway
		}
		for _, r := range results {
			recorded <- r
		}
		return record(results), nil
	}
}

// losing loses the answer to the first claim, which it notes.
func losing(claim *value[string]) func([]*flow.Result, flow.Claim) (flow.Advanced, error) {
	return func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
		if claim.get() == "" {
			claim.set(c.ID)
			return flow.Advanced{}, errAway
		}
		return record(results), nil
	}
}

// The answer to "what do I own?" is old when it comes: what has been run meanwhile must
// not be run again.
func TestLostAnswerIsNotRunTwice(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var claim value[string]
		w := start(t, &fakeStore{
			advance: losing(&claim),
			owned: func(string, []string) ([]flow.Task, error) {
				owned := []flow.Task{newTask(1, claim.get())} // as it was when this was asked
				time.Sleep(time.Second)                       // a large table takes a while to read
				return owned, nil
			},
		}, taking(10*time.Millisecond))
		pass(time.Minute)
		require.Len(t, w.logs.with("task started"), 1)
		require.Len(t, w.logs.with("task finished"), 1)
	})
}

// A large table takes a while to read, and most of all after an outage: the tasks are found
// all the same. Nobody else would look for them, as long as their watcher lives.
func TestLostAnswerIsFoundHoweverLongThatTakes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var claim value[string]
		w := start(t, &fakeStore{
			advance: losing(&claim),
			owned: func(string, []string) ([]flow.Task, error) {
				time.Sleep(50 * time.Second)
				return []flow.Task{newTask(1, claim.get())}, nil
			},
		}, taking(10*time.Millisecond))
		pass(5 * time.Minute)
		require.Len(t, w.logs.with("task finished"), 1)
	})
}

// … unless others have declared it dead meanwhile, and may run them.
func TestLostAnswerOfAFormerID(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var claim, dead value[string]
		w := start(t, &fakeStore{
			advance: losing(&claim),
			beat: func(watcher string, _ []flow.Task) (flow.Pulse, error) {
				if watcher == dead.get() {
					return flow.Pulse{}, flow.ErrFenced
				}
				return flow.Pulse{}, nil
			},
			owned: func(string, []string) ([]flow.Task, error) {
				owned := []flow.Task{newTask(1, claim.get())} // as it was when this was asked
				time.Sleep(30 * time.Second)
				return owned, nil
			},
		}, taking(time.Second))
		pass(5 * time.Second)
		dead.set(w.lease.id())
		pass(5 * time.Minute)
		require.Empty(t, w.logs.with("task started"))
	})
}

// What keeps it from finding them is told.
func TestLostAnswerThatCannotBeAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var claim value[string]
		var broken value[error]
		broken.set(errBug)
		w := start(t, &fakeStore{
			advance: losing(&claim),
			owned: func(string, []string) ([]flow.Task, error) {
				if err := broken.get(); err != nil {
					return nil, err
				}
				return []flow.Task{newTask(1, claim.get())}, nil
			},
		}, taking(10*time.Millisecond))
		pass(50 * time.Second)
		told := w.logs.with("cannot ask which tasks a claim without an answer has got: trying again")
		require.Len(t, told, 2, "and then once a minute")
		require.Equal(t, errBug, told[0].attrs["err"])
		broken.set(nil)
		pass(5 * time.Second)
		w.logs.only(t, "it is known again which tasks claims without an answer have got")
		w.logs.only(t, "task finished")
	})
}

// An answer may break off after it has told what was claimed: nothing is lost, and
// nothing is run twice.
func TestAnswerThatBreaksOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls value[int]
		var claimed value[[]flow.Task]
		w := start(t, &fakeStore{
			advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
				calls.update(func(n int) int { return n + 1 })
				if calls.get() == 1 {
					claimed.set([]flow.Task{newTask(1, c.ID)})
					return flow.Advanced{Claimed: claimed.get()}, errAway
				}
				return record(results), nil
			},
			owned: func(string, []string) ([]flow.Task, error) { return claimed.get(), nil },
		}, taking(10*time.Millisecond))
		pass(time.Minute)
		require.Len(t, w.logs.with("task started"), 1)
		require.Len(t, w.logs.with("task finished"), 1)
	})
}

// Doubts end: after the statement's own time is over and one more look nobody asks.
func TestDoubtsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var asked times
		q := newQueue(t, 2, 0)
		q.setFail(errAway)
		w := start(t, &fakeStore{
			advance: q.advance,
			owned: func(string, []string) ([]flow.Task, error) {
				asked.note()
				return nil, nil
			},
		}, taking(0))
		pass(10 * time.Millisecond)
		q.setFail(nil)
		begin := time.Now()
		pass(time.Hour)
		looks := asked.since(begin)
		require.GreaterOrEqual(t, len(looks), 5)
		require.LessOrEqual(t, looks[len(looks)-1], 15*time.Second)
		require.Greater(t, looks[len(looks)-1], 9*time.Second)
		w.stop()
	})
}

// A result that the database refuses is one line at info, and nothing else.
func TestRefusedResult(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 1)
		w := start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			adv, err := q.advance(results, c)
			for i := range adv.Verdicts {
				adv.Verdicts[i].Verdict, adv.Verdicts[i].Status = flow.VerdictRefused, 0
			}
			return adv, err
		}}, taking(time.Second))
		pass(time.Minute)
		refused := w.logs.only(t, "late result refused: the task was changed by hand or taken over")
		require.Equal(t, slog.LevelInfo, refused.level)
		require.Equal(t, "f", string(refused.attrs["flow"].(flow.ID)))
		require.Empty(t, w.logs.with("task finished"))
		_, results := q.look()
		require.Len(t, results, 1, "it was given again")
	})
}

// A result whose row somebody has locked is given again, alone, once a second; the
// others are not held up.
func TestRejectedBusy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 20)
		unlocked := time.Now().Add(10 * time.Second)
		var given times
		w := start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			i := slices.IndexFunc(results, func(r *flow.Result) bool { return r.Task.Seq == 1 })
			if i < 0 || time.Now().After(unlocked) {
				return q.advance(results, c)
			}
			given.note()
			others := slices.Delete(slices.Clone(results), i, i+1)
			c.Free = 0 // as when a batch is split
			adv, err := q.advance(others, c)
			adv.Rejected = []flow.Rejected{{Result: results[i], Cause: errors.New("lock timeout"), Busy: true}}
			return adv, err
		}}, taking(100*time.Millisecond))
		begin := time.Now()
		pass(30 * time.Second)
		_, results := q.look()
		requireEachOnce(t, results, 20)
		require.Equal(t, 1, results[len(results)-1].Task.Seq, "the locked one comes last")
		require.Equal(t, flow.OutcomeFinished, results[len(results)-1].Outcome)
		require.LessOrEqual(t, len(given.since(begin)), 11)
		require.GreaterOrEqual(t, len(given.since(begin)), 9)
		require.Empty(t, w.logs.with("a result cannot be recorded as it is"))
	})
}

// While a locked result is given again, which may take as long as a lock is waited for,
// the results of a few others do not wait for many to go with.
func TestRejectedBusyHoldsUpNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const n = 40
		q := newQueue(t, n, n)
		var recorded times
		unlocked := time.Now().Add(100 * time.Second)
		start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			locked := slices.IndexFunc(results, func(r *flow.Result) bool { return r.Task.Seq == 1 })
			if locked < 0 || time.Now().After(unlocked) {
				if len(results) > 0 {
					recorded.note()
				}
				return q.advance(results, c)
			}
			require.Len(t, results, 1)
			time.Sleep(time.Minute)
			return flow.Advanced{Rejected: []flow.Rejected{{Result: results[0], Busy: true, Cause: errBug}}}, nil
		}}, fakePrograms(func(ctx context.Context, t flow.Task) (json.RawMessage, error) {
			switch t.Seq {
			case 1:
				return taking(time.Second)(ctx, t)
			case 2:
				return taking(70*time.Second)(ctx, t) // while the result of 1 is tried again
			}
			return taking(200*time.Second)(ctx, t)
		}), workers(n))
		begin := time.Now()
		pass(80 * time.Second)
		require.Equal(t, []time.Duration{70 * time.Second}, recorded.since(begin))
		pass(10 * time.Minute)
	})
}

// Nor do others whose rows are locked, one after the other, put it off.
func TestRejectedBusyIsNotPutOffByOthers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const n = 100
		q := newQueue(t, n, n)
		var given times
		start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			if len(results) == 0 {
				return q.advance(results, c)
			}
			var adv flow.Advanced
			for _, r := range results {
				if r.Task.Seq == 1 {
					given.note()
				}
				adv.Rejected = append(adv.Rejected, flow.Rejected{Result: r, Busy: true, Cause: errBug})
			}
			return adv, nil
		}}, fakePrograms(func(ctx context.Context, t flow.Task) (json.RawMessage, error) {
			return taking(time.Duration(t.Seq)*time.Second/2)(ctx, t)
		}), workers(n))
		begin := time.Now()
		pass(40 * time.Second)
		require.InDelta(t, 40, len(given.since(begin)), 2, "once a second")
	})
}

// The worker of a result that was locked is not left idle until the next poll.
func TestRejectedBusyFreesItsWorker(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 2)
		var once value[bool]
		var startedAt times
		start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			if len(results) == 1 && !once.get() {
				once.set(true)
				return flow.Advanced{Rejected: []flow.Rejected{{Result: results[0], Busy: true, Cause: errBug}}}, nil
			}
			return q.advance(results, c)
		}}, fakePrograms(func(context.Context, flow.Task) (json.RawMessage, error) {
			startedAt.note()
			return nil, nil
		}), workers(1))
		begin := time.Now()
		pass(time.Minute)
		require.Equal(t, []time.Duration{0, time.Second}, startedAt.since(begin))
	})
}

// A result that the database does not take becomes a failure that says so.
func TestRejectedValue(t *testing.T) {
	for name, test := range map[string]struct {
		program fakePrograms
		want    string
	}{
		"an output": {
			func(context.Context, flow.Task) (json.RawMessage, error) { return json.RawMessage(`1e999999`), nil },
			"its result cannot be recorded: numeric value out of range",
		},
		"an error": {
			func(context.Context, flow.Task) (json.RawMessage, error) { return nil, errBug },
			"its error cannot be recorded; it is in the watcher's log",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := newQueue(t, 2, 1)
				w := start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
					if len(results) > 0 && results[0].Outcome != flow.OutcomeInvalid {
						return flow.Advanced{Rejected: []flow.Rejected{{
							Result: results[0], Cause: errors.New("numeric value out of range"),
						}}}, nil
					}
					return q.advance(results, c)
				}}, test.program)
				pass(time.Minute)
				_, results := q.look()
				require.Len(t, results, 1)
				require.Equal(t, flow.OutcomeInvalid, results[0].Outcome)
				require.Nil(t, results[0].Output)
				require.Equal(t, test.want, results[0].Error)
				require.Equal(t, slog.LevelError, w.logs.only(t, "a result cannot be recorded as it is").level)
				require.Equal(t, test.want, w.logs.only(t, "task suspended").attrs["error"])
			})
		})
	}
}

// Not even that can be recorded: it is tried again, without a flood of calls and lines.
func TestRejectedForGood(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 2, 1)
		var given times
		var broken value[bool]
		broken.set(true)
		w := start(t, &fakeStore{advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			if len(results) > 0 && broken.get() {
				given.note()
				return flow.Advanced{Rejected: []flow.Rejected{{Result: results[0], Cause: errBug}}}, nil
			}
			return q.advance(results, c)
		}}, taking(0))
		begin := time.Now()
		pass(time.Minute)
		require.InDelta(t, 60, len(given.since(begin)), 3)
		require.LessOrEqual(t, len(w.logs.with("a failure cannot be recorded: trying again")), 2)
		broken.set(false)
		pass(5 * time.Second)
		w.logs.only(t, "all failures are recorded")
		_, results := q.look()
		require.Len(t, results, 1)
	})
}

// More results than a call may have go in several: a third of the workers', or maxBatch.
func TestBatchesAreBounded(t *testing.T) {
	for _, test := range []struct{ workers, most int }{{600, 200}, {1500, 500}, {6000, maxBatch}} {
		t.Run(strconv.Itoa(test.workers), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := newQueue(t, test.workers, test.workers)
				q.takes = time.Second // results gather
				start(t, &fakeStore{advance: q.advance}, taking(time.Second), workers(test.workers))
				pass(time.Minute)
				calls, results := q.look()
				requireEachOnce(t, results, test.workers)
				most := 0
				for _, c := range calls {
					most = max(most, c.results)
				}
				require.Equal(t, test.most, most)
			})
		})
	}
}

// Where there are several watchers, each has one call at a time.
func TestCallsWhereItIsCrowded(t *testing.T) {
	for watchers, want := range map[int]int32{1: maxCalls, crowded - 1: maxCalls, crowded: 1, 10: 1} {
		t.Run(strconv.Itoa(watchers), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				q := newQueue(t, 30, 1000)
				q.takes = 10 * time.Millisecond
				var now, most atomic.Int32
				start(t, &fakeStore{
					advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
						most.Store(max(most.Load(), now.Add(1)))
						defer now.Add(-1)
						return q.advance(results, c)
					},
					beat: func(string, []flow.Task) (flow.Pulse, error) { return flow.Pulse{Watchers: watchers}, nil },
				}, taking(15*time.Millisecond), workers(30))
				pass(time.Minute)
				_, results := q.look()
				requireEachOnce(t, results, 1000)
				require.Equal(t, want, most.Load())
			})
		})
	}
}

// However many tasks are given at once, each has a worker of its own at once.
func TestLongTasksBeginTogether(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const n = 500
		var begun atomic.Int32
		q := newQueue(t, n, n)
		start(t, &fakeStore{advance: q.advance}, fakePrograms(func(ctx context.Context, task flow.Task) (json.RawMessage, error) {
			begun.Add(1)
			return taking(time.Hour)(ctx, task)
		}), workers(n))
		pass(time.Millisecond)
		require.EqualValues(t, n, begun.Load())
		pass(2 * time.Hour)
		_, results := q.look()
		requireEachOnce(t, results, n)
	})
}

// Results that come at the same time go in one call.
func TestResultsGoTogether(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 100, 100)
		q.takes = time.Millisecond
		start(t, &fakeStore{advance: q.advance}, taking(time.Second), workers(100))
		pass(time.Minute)
		calls, results := q.look()
		require.Len(t, results, 100)
		with := slices.DeleteFunc(calls, func(c call) bool { return c.results == 0 })
		require.LessOrEqual(t, len(with), 1+maxCalls)
	})
}
