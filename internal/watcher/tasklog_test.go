package watcher

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// logTable is kr_task_log. It does what the database does with the parts that it is given.
type logTable struct {
	mu    sync.Mutex
	lines map[string]map[int64]flow.LogLine // by attempt and number; guarded by mu
	added int                               // guarded by mu
	calls int                               // guarded by mu
}

func attemptOf(p flow.LogPart) string {
	return fmt.Sprintf("%s %d %s", p.TaskKey, p.Attempt, p.ClaimID)
}

func (k *logTable) keep(parts []flow.LogPart) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.lines == nil {
		k.lines = map[string]map[int64]flow.LogLine{}
	}
	for _, p := range parts {
		of := k.lines[attemptOf(p)]
		if of == nil {
			of = map[int64]flow.LogLine{}
			k.lines[attemptOf(p)] = of
		}
		if p.GoneTo > 0 {
			for no := range of {
				if p.GoneFrom <= no && no <= p.GoneTo {
					delete(of, no)
				}
			}
		}
		seen := map[int64]bool{}
		for _, l := range p.Lines {
			if seen[l.No] {
				return fmt.Errorf("line %d twice in one call: ON CONFLICT DO UPDATE cannot do that", l.No)
			}
			seen[l.No] = true
			if _, there := of[l.No]; !there || l.Stream == flow.StreamFlower {
				of[l.No] = l
				k.added++
			}
		}
	}
	return nil
}

// of returns the lines of an attempt, in order: "1: text".
func (k *logTable) of(t flow.Task) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	of := k.lines[attemptOf(newAttemptLog(t).key)]
	var lines []string
	for _, no := range slices.Sorted(maps.Keys(of)) {
		lines = append(lines, fmt.Sprintf("%d: %s", no, of[no].Text))
	}
	return lines
}

// count returns how many lines there are of all attempts, and how many were ever added, in
// how many calls.
func (k *logTable) count() (lines, added, calls int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, of := range k.lines {
		lines += len(of)
	}
	return lines, k.added, k.calls
}

// whole asserts that a log is what it should be: a beginning, an end, and between them a
// mark with the number of what is missing, if anything is.
func whole(t *testing.T, lines []string, printed int) (missing int) {
	t.Helper()
	next := 1
	for i, l := range lines {
		var no, n int
		if _, err := fmt.Sscanf(l, "%d: … %d lines are not kept …", &no, &n); err == nil {
			require.Zero(t, missing, "a second gap at %q", l)
			require.Equal(t, next, no)
			missing, next = n, no+n
			continue
		}
		if want := fmt.Sprintf("%d: line %d", next, next); l != want {
			require.Equal(t, want, l, "line %d of %d", i+1, len(lines))
		}
		next++
	}
	require.Equal(t, printed, next-1)
	return missing
}

// print adds lines that say their numbers.
func (a *attemptLog) print(n int) {
	for range n {
		a.add(flow.LogLine{Stream: flow.StreamStdout, Text: fmt.Sprintf("line %d", a.last+1)})
	}
}

// write has the table keep what is due, as often as there is something.
func (a *attemptLog) write(t *testing.T, table *logTable) {
	t.Helper()
	for i := 0; a.due(); i++ {
		require.Less(t, i, 1000, "it does not come to an end")
		p := a.pack(shipShare)
		require.NoError(t, table.keep([]flow.LogPart{p.part}))
		a.settle(p)
	}
}

func TestAttemptLog_BeginningAndEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ printed, kept int }{
		{0, 0},
		{1, 1},
		{keepLines, keepLines},
		{keepLines + 1, keepLines + 1},
		{2 * keepLines, 2 * keepLines},
		{2*keepLines + 1, 2*keepLines + 1}, // one is missing: the mark takes its place
		{2*keepLines + 7, 2*keepLines + 1},
		{20 * keepLines, 2*keepLines + 1},
	} {
		t.Run(fmt.Sprint(test.printed), func(t *testing.T) {
			t.Parallel()
			a, table := newAttemptLog(newTask(1, "c")), &logTable{}
			a.print(test.printed)
			a.finish()
			a.write(t, table)
			lines := table.of(newTask(1, "c"))
			require.Len(t, lines, test.kept)
			require.Equal(t, max(0, test.printed-2*keepLines), whole(t, lines, test.printed))
			require.Equal(t, attemptCost, a.cost, "nothing is left in memory")
		})
	}
}

// The bounds are of bytes, too.
func TestAttemptLog_LongLines(t *testing.T) {
	t.Parallel()
	a, table := newAttemptLog(newTask(1, "c")), &logTable{}
	long := strings.Repeat("x", maxLine)
	for range 1000 {
		a.add(flow.LogLine{Text: long})
		require.LessOrEqual(t, a.cost, 2*keepBytes+300*lineCost+attemptCost)
	}
	a.finish()
	a.write(t, table)
	lines := table.of(newTask(1, "c"))
	require.Len(t, lines, 2*keepBytes/maxLine+1)
	require.Equal(t, "65: … 872 lines are not kept …", lines[64])
}

// While the attempt runs its newest lines are there, and what is there is bounded.
func TestAttemptLog_Live(t *testing.T) {
	t.Parallel()
	a, table := newAttemptLog(newTask(1, "c")), &logTable{}
	for range 30 {
		a.print(1000)
		a.write(t, table)
		lines := table.of(newTask(1, "c"))
		require.Equal(t, fmt.Sprintf("%d: line %d", a.last, a.last), lines[len(lines)-1])
		require.LessOrEqual(t, len(lines), 2*keepLines+1)
	}
	lines, added, _ := table.count()
	require.Equal(t, keepLines+1+keepLines/1000*liveLines, lines, "the head, the mark, the newest of each of the last writes")
	require.LessOrEqual(t, added, keepLines+25*(liveLines+1))
	a.finish()
	a.write(t, table)
	require.Equal(t, 30_000-2*keepLines, whole(t, table.of(newTask(1, "c")), 30_000))
}

// Whatever a slow one has printed is there already at its end.
func TestAttemptLog_LiveAndSlow(t *testing.T) {
	t.Parallel()
	a, table := newAttemptLog(newTask(1, "c")), &logTable{}
	a.print(keepLines)
	for range 30 {
		a.print(liveLines)
		a.write(t, table)
	}
	whole(t, table.of(newTask(1, "c")), keepLines+30*liveLines)
	a.finish()
	require.False(t, a.due())
}

// For want of memory, lines go from the middle.
func TestAttemptLog_Shrinks(t *testing.T) {
	t.Parallel()
	a, table := newAttemptLog(newTask(1, "c")), &logTable{}
	a.print(1000)
	a.shrink(attemptCost + 300*(lineCost+len("line 1000")))
	require.LessOrEqual(t, len(a.head)+len(a.tail), 300)
	require.GreaterOrEqual(t, len(a.head), 100)
	require.GreaterOrEqual(t, len(a.tail), 100)
	a.print(10)
	a.shrink(0)
	require.Equal(t, attemptCost, a.cost)
	a.print(5)
	a.finish()
	a.write(t, table)
	require.Equal(t, []string{
		"1: … 1010 lines are not kept …", "1011: line 1011", "1012: line 1012", "1013: line 1013", "1014: line 1014", "1015: line 1015",
	}, table.of(newTask(1, "c")))
}

// The gap has grown at its beginning, when it was marked before: the new mark tells.
func TestAttemptLog_HeadShrinksAfterTheMark(t *testing.T) {
	t.Parallel()
	a, table := newAttemptLog(newTask(1, "c")), &logTable{}
	a.print(1000)
	a.shrink(a.cost / 2)
	p := a.pack(1)
	require.NoError(t, table.keep([]flow.LogPart{p.part}))
	a.settle(p)
	require.False(t, a.markDue())
	a.cutHead(len(a.head) / 2)
	a.finish()
	a.write(t, table)
	require.Greater(t, whole(t, table.of(newTask(1, "c")), 1000), 500)
}

// Whatever happens in whatever order, the log ends up as a beginning, an end, and a mark
// between them that tells the truth. Calls fail, before or after the database has done
// what it was asked for.
func TestAttemptLog_AtRandom(t *testing.T) {
	t.Parallel()
	for range 8 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			a, table := newAttemptLog(newTask(1, "c")), &logTable{}
			for range r.IntN(60) {
				switch r.IntN(5) {
				case 0, 1:
					a.print(1 + r.IntN([]int{10, 300, 9000}[r.IntN(3)]))
				case 2:
					if r.IntN(4) == 0 {
						a.shrink(r.IntN(200_000))
					}
				default:
					if !a.due() {
						continue
					}
					p := a.pack(1 + r.IntN(shipShare))
					if r.IntN(3) == 0 {
						a.print(r.IntN(2000)) // while the call is under way
					}
					if r.IntN(6) == 0 {
						a.shrink(r.IntN(200_000))
					}
					fails := r.IntN(3)
					if fails != 1 {
						require.NoError(t, table.keep([]flow.LogPart{p.part}))
					}
					if fails == 0 {
						a.settle(p)
					}
				}
				cost := attemptCost
				for _, l := range append(append([]flow.LogLine{}, a.head...), a.tail...) {
					cost += costOf(l)
				}
				require.Equal(t, cost, a.cost)
			}
			a.finish()
			if r.IntN(2) == 0 && a.due() {
				p := a.pack(shipShare)
				a.shrink(r.IntN(100_000))
				require.NoError(t, table.keep([]flow.LogPart{p.part}))
				a.settle(p)
			}
			a.write(t, table)
			lines := table.of(newTask(1, "c"))
			require.LessOrEqual(t, len(lines), 2*keepLines+1)
			require.EqualValues(t, a.gap.missing(), whole(t, lines, int(a.last)))
			require.Equal(t, attemptCost, a.cost)
		})
	}
}
