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

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// printer is a program that prints.
type printer func(ctx context.Context, a Attempt) error

func (printer) Names() []string { return []string{"Fake"} }

func (printer) OffWithout(string) string { return "" }

func (f printer) Run(ctx context.Context, a Attempt) (json.RawMessage, error) { return nil, f(ctx, a) }

// logStore is a store with tasks and a table of logs.
type logStore struct {
	fakeStore
	logTable
	q *queue
	// before is asked before lines are kept, after when they are.
	before, after value[func() error]
}

func newLogStore(t *testing.T, workers, waiting int) *logStore {
	s := &logStore{q: newQueue(t, workers, waiting)}
	s.advance = s.q.advance
	s.keepLog = func(parts []flow.LogPart) error {
		if f := s.before.get(); f != nil {
			if err := f(); err != nil {
				return err
			}
		}
		if err := s.keep(parts); err != nil {
			return err
		}
		if f := s.after.get(); f != nil {
			return f()
		}
		return nil
	}
	return s
}

func (s *logStore) recorded() int {
	_, results := s.q.look()
	return len(results)
}

// logOf returns the log of the only attempt.
func (s *logStore) logOf(t *testing.T) []string {
	t.Helper()
	s.logTable.mu.Lock()
	defer s.logTable.mu.Unlock()
	require.Len(t, s.lines, 1)
	for _, of := range s.lines {
		table := &logTable{lines: map[string]map[int64]flow.LogLine{attemptOf(newAttemptLog(newTask(1, "")).key): of}}
		return table.of(newTask(1, ""))
	}
	return nil
}

// What is printed is there within a second, while the task runs.
func TestShip_Live(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newLogStore(t, 1, 1)
		start(t, &s.fakeStore, printer(func(ctx context.Context, a Attempt) error {
			for i := 1; i <= 10; i++ {
				fmt.Fprintf(a.Stdout, "line %d\n", i)
				time.Sleep(2 * time.Second)
			}
			return nil
		}), workers(1))
		pass(0)
		for i := 1; i <= 10; i++ {
			pass(time.Second)
			whole(t, s.logOf(t), i)
			require.Zero(t, s.recorded())
			pass(time.Second)
		}
		_, _, calls := s.count()
		require.Equal(t, 10, calls)
	})
}

// A task that prints nothing costs nothing.
func TestShip_Nothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newLogStore(t, 3, 30)
		w := start(t, &s.fakeStore, taking(time.Second), workers(3))
		pass(time.Minute)
		require.Equal(t, 30, s.recorded())
		w.stop()
		require.NoError(t, w.ended(t))
		_, _, calls := s.count()
		require.Zero(t, calls)
		require.Empty(t, w.shipper.held)
	})
}

// Whoever sees that a task has ended finds its last lines. Lines of many tasks go
// together.
func TestShip_LinesBeforeTheResult(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const n = 20
		s := newLogStore(t, n, n)
		s.before.set(func() error { time.Sleep(50 * time.Millisecond); return nil })
		s.q.takes = time.Millisecond
		var seen value[int]
		s.advance = func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
			for _, r := range results {
				seen.update(func(n int) int { return n + 1 })
				require.Equal(t, []string{"1: the only line", "2: without an end"}, s.of(r.Task))
				require.Zero(t, r.Took, "the wait for its log is no work")
			}
			return s.q.advance(results, c)
		}
		start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
			fmt.Fprint(a.Stdout, "the only line\nwithout an end")
			return nil
		}), workers(n))
		pass(time.Second)
		require.Equal(t, n, seen.get())
		_, _, calls := s.count()
		require.LessOrEqual(t, calls, 2)
	})
}

// … but a database that is slow with logs holds up no result for longer than a moment,
// and none after the first ones.
func TestShip_ResultsDoNotWaitForLong(t *testing.T) {
	for name, slow := range map[string]func() error{
		"slow": func() error { time.Sleep(10 * time.Second); return nil },
		"away": func() error { return errAway },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s := newLogStore(t, 2, 2)
				s.before.set(slow)
				begin := time.Now()
				w := start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
					fmt.Fprintln(a.Stdout, "line 1")
					return nil
				}))
				pass(resultWait - time.Millisecond)
				require.Zero(t, s.recorded())
				pass(2 * time.Millisecond)
				require.Equal(t, 2, s.recorded())

				s.q.mu.Lock()
				s.q.waiting = 100
				s.q.mu.Unlock()
				w.wakeUp()
				pass(time.Millisecond)
				require.Equal(t, 102, s.recorded(), "the next ones do not wait")
				require.Less(t, time.Since(begin), 200*time.Millisecond)

				// When the database is back, all is written, and results wait again.
				s.before.set(nil)
				pass(20 * time.Second)
				lines, _, _ := s.count()
				require.Equal(t, 102, lines)
				require.Empty(t, w.shipper.held)
				require.Zero(t, w.shipper.cost)
				require.False(t, w.shipper.late.Load())
			})
		})
	}
}

// An answer that is lost, and a call that fails: no line is lost, and none is there twice.
func TestShip_LostAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newLogStore(t, 1, 1)
		everyOther := func() func() error {
			fails := false
			return func() error {
				if fails = !fails; fails {
					return errAway
				}
				return nil
			}
		}
		s.before.set(everyOther())
		s.after.set(everyOther())
		w := start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
			for i := 1; i <= 3000; i++ {
				fmt.Fprintf(a.Stdout, "line %d\n", i)
				time.Sleep(time.Millisecond)
			}
			return nil
		}), workers(1))
		pass(time.Minute)
		require.Zero(t, whole(t, s.logOf(t), 3000))
		require.NotEmpty(t, w.logs.with("what tasks print cannot be kept: trying again"))
		require.Empty(t, w.shipper.held)
	})
}

// Lines that the database does not take, for whatever reason, cost the others nothing.
func TestShip_Refused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newLogStore(t, 3, 3)
		keep := s.keepLog
		s.keepLog = func(parts []flow.LogPart) error {
			for _, p := range parts {
				for _, l := range p.Lines {
					if strings.HasPrefix(l.Text, "bad") {
						return errors.New("it has no such character")
					}
				}
			}
			return keep(parts)
		}
		w := start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
			if a.Task.Seq == 2 {
				fmt.Fprintln(a.Stdout, "bad")
				time.Sleep(time.Second)
			}
			fmt.Fprintln(a.Stdout, "good")
			return nil
		}), workers(3))
		pass(time.Minute)
		require.Equal(t, 3, s.recorded())
		lines, _, _ := s.count()
		require.Equal(t, 3, lines)
		w.logs.only(t, "the database refuses what a task has printed: it is dropped")
		require.Empty(t, w.shipper.held)
	})
}

// At its end a watcher writes what is left; but not for ever.
func TestShip_AtTheEnd(t *testing.T) {
	for name, away := range map[string]bool{"there": false, "away": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s := newLogStore(t, 1, 1)
				s.before.set(func() error { return errAway })
				w := start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
					fmt.Fprintln(a.Stdout, "line 1")
					return nil
				}), workers(1))
				pass(10 * time.Second)
				if !away {
					s.before.set(nil)
				}
				w.stop()
				begin := time.Now()
				require.NoError(t, w.ended(t))
				require.LessOrEqual(t, time.Since(begin), lastShip)
				if !away {
					whole(t, s.logOf(t), 1)
					return
				}
				require.EqualValues(t, 1, w.logs.only(t, "what tasks have printed last is not kept").attrs["tasks"])
			})
		})
	}
}

// A task that prints without end while others come and go: the table and the database's
// work are bounded, and the others are not held up.
func TestShip_Flood(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newLogStore(t, 2, 2)
		s.before.set(func() error { time.Sleep(5 * time.Millisecond); return nil })
		stop := make(chan struct{})
		start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
			if a.Task.Seq > 1 { // the others
				fmt.Fprintln(a.Stdout, "line 1")
				time.Sleep(100 * time.Millisecond)
				return nil
			}
			for i := 1; ; i++ {
				fmt.Fprintf(a.Stdout, "line %d\n", i)
				select {
				case <-stop:
					return nil
				default:
				}
				if i%10 == 0 {
					time.Sleep(time.Millisecond) // 10,000 lines a second
				}
			}
		}))
		others := 1
		for range 100 {
			pass(100 * time.Millisecond)
			s.q.mu.Lock()
			s.q.waiting++
			s.q.mu.Unlock()
			s.hints <- struct{}{}
		}
		others += 100
		pass(time.Second)
		require.Equal(t, others, s.recorded())
		lines, added, _ := s.count()
		require.LessOrEqual(t, lines, keepLines+keepLines+1+others)
		require.LessOrEqual(t, added, keepLines+others+(liveLines+1)*(2*11+2), "twice a second so many lines and a mark")
		close(stop)
		pass(time.Second)
		lines, _, _ = s.count()
		require.Equal(t, keepLines+1+keepLines+others, lines)
	})
}

// While the database is away, memory is bounded, whatever is printed: those who print
// little lose nothing, the others have a beginning and an end.
func TestShip_MemoryIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const loud, quiet, most = 8, 20, 2 << 20
		s := newLogStore(t, loud+quiet, loud+quiet)
		s.before.set(func() error { return errAway })
		w := start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
			n := 100
			if a.Task.Seq <= loud {
				n = 11_000
			}
			for i := 1; i <= n; i++ {
				fmt.Fprintf(a.Stdout, "line %d\n", i)
				if i%100 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			return nil
		}), workers(loud+quiet))
		w.shipper.mu.Lock()
		w.shipper.most = most
		w.shipper.mu.Unlock()
		for range 300 {
			pass(time.Millisecond)
			w.shipper.mu.Lock()
			require.LessOrEqual(t, w.shipper.cost, most)
			w.shipper.mu.Unlock()
		}
		require.Equal(t, loud+quiet, s.recorded())
		s.before.set(nil)
		pass(10 * time.Second)
		for _, r := range s.q.results {
			lines := s.of(r.Task)
			if r.Task.Seq > loud {
				require.Zero(t, whole(t, lines, 100))
				continue
			}
			require.Greater(t, whole(t, lines, 11_000), 1000)
			require.Equal(t, "1: line 1", lines[0])
			require.Greater(t, len(lines), 1000)
		}
		require.NotEmpty(t, w.logs.with("what tasks print comes faster than the database takes it: some of it was dropped"))
		require.Empty(t, w.shipper.held)
		require.Zero(t, w.shipper.cost)
	})
}

// When so many tasks have ended that not even the marks have room, they go.
func TestShip_TooManyTasks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newShipper(&fakeStore{keepLog: func([]flow.LogPart) error { return errAway }}, nil)
		s.most = 1 << 20
		for i := range 2 * s.most / attemptCost {
			a := newAttemptLog(newTask(i+1, "c"))
			s.take(a, flow.LogLine{Text: "line"})
			require.False(t, s.end(a))
			require.LessOrEqual(t, s.cost, s.most)
		}
		require.LessOrEqual(t, len(s.queue), s.most/attemptCost)
		require.Equal(t, len(s.queue), len(s.held))
	})
}

// Whatever is printed, memory stays within a few megabytes.
func TestShip_Masses(t *testing.T) {
	// Not in parallel: it looks at the memory of the process.
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 26
		s := newLogStore(t, 1, 1)
		chunk := []byte(strings.Repeat(strings.Repeat("x", 79)+"\n", 400))
		var before, after runtime.MemStats
		start(t, &s.fakeStore, printer(func(_ context.Context, a Attempt) error {
			runtime.GC()
			runtime.ReadMemStats(&before)
			for range size / len(chunk) {
				_, _ = a.Stdout.Write(chunk)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			return nil
		}), workers(1))
		pass(10 * time.Second)
		require.Equal(t, 1, s.recorded())
		require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(4<<20))
		lines, _, _ := s.count()
		require.Equal(t, 2*keepLines+1, lines)
	})
}
