package flow

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// def makes a task definition; without parents it follows the previous one, as in a chain.
func def(seq int, parents ...int) TaskDefinition {
	return TaskDefinition{Seq: seq, Program: "Test1", DependsOn: parents}
}

// root makes a task definition that depends on nothing.
func root(seq int) TaskDefinition {
	return TaskDefinition{Seq: seq, Program: "Test1", DependsOn: []int{}}
}

// place is what Plan decides about a task.
type place struct {
	Seq, ExecSeq        int
	Parents, Dependents []int
}

func places(planned []PlannedTask) []place {
	ps := make([]place, len(planned))
	for i, t := range planned {
		ps[i] = place{t.Seq, t.ExecSeq, t.Parents, t.Dependents}
	}
	return ps
}

func TestPlan(t *testing.T) {
	t.Parallel()
	none := []int{}
	for name, test := range map[string]struct {
		tasks []TaskDefinition
		want  []place
	}{
		"one": {
			[]TaskDefinition{def(7)},
			[]place{{7, 1, none, none}},
		},
		"a chain, given in no order": {
			[]TaskDefinition{def(3), def(1), def(2)},
			[]place{{1, 1, none, []int{2}}, {2, 2, []int{1}, []int{3}}, {3, 3, []int{2}, none}},
		},
		"a chain whose task_seqs have gaps": {
			[]TaskDefinition{def(10), def(20), def(35)},
			[]place{{10, 1, none, []int{2}}, {20, 2, []int{1}, []int{3}}, {35, 3, []int{2}, none}},
		},
		"a diamond": {
			[]TaskDefinition{root(1), def(2, 1), def(3, 1), def(4, 2, 3)},
			[]place{
				{1, 1, none, []int{2, 3}},
				{2, 2, []int{1}, []int{4}},
				{3, 3, []int{1}, []int{4}},
				{4, 4, []int{2, 3}, none},
			},
		},
		"no dependencies at all": {
			[]TaskDefinition{root(1), root(2), root(3)},
			[]place{{1, 1, none, none}, {2, 2, none, none}, {3, 3, none, none}},
		},
		"a later task_seq first": {
			[]TaskDefinition{def(1, 3), root(2), root(3)},
			[]place{{2, 1, none, none}, {3, 2, none, []int{3}}, {1, 3, []int{2}, none}},
		},
		"the smallest task_seq first at every step": {
			// 1 waits for 5, so that 2, 4 and 5 go before it and 3, which 1 lets go, after.
			[]TaskDefinition{def(1, 5), root(2), def(3, 1), root(4), root(5), root(6)},
			[]place{
				{2, 1, none, none},
				{4, 2, none, none},
				{5, 3, none, []int{4}},
				{1, 4, []int{3}, []int{5}},
				{3, 5, []int{4}, none},
				{6, 6, none, none},
			},
		},
		"a dependency twice is one": {
			[]TaskDefinition{root(1), def(2, 1, 1, 1)},
			[]place{{1, 1, none, []int{2}}, {2, 2, []int{1}, none}},
		},
		"the chain's default beside a join": {
			[]TaskDefinition{root(1), root(2), def(3, 1, 2), def(4)},
			[]place{
				{1, 1, none, []int{3}},
				{2, 2, none, []int{3}},
				{3, 3, []int{1, 2}, []int{4}},
				{4, 4, []int{3}, none},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given := slices.Clone(test.tasks)
			planned, err := Workflow{ID: "w", Tasks: test.tasks}.Plan()
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(test.want, places(planned)))
			require.Empty(t, cmp.Diff(given, test.tasks), "the workflow was changed")
		})
	}
}

// A planned task brings its whole definition with it.
func TestPlanKeepsDefinitions(t *testing.T) {
	t.Parallel()
	d := TaskDefinition{
		Seq: 4, Program: "HTTPPostRequest", Priority: -20, Parameters: []byte(`{"URL":"http://a"}`), DependsOn: []int{},
		Description: "post", MaxAttempts: 3, RetryDelay: time.Minute, Timeout: time.Hour, OnLost: OnLostSuspend,
	}
	planned, err := Workflow{ID: "w", Tasks: []TaskDefinition{d}}.Plan()
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(d, planned[0].TaskDefinition))
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	ring := make([]TaskDefinition, 40)
	for i := range ring {
		ring[i] = def(i+1, (i+1)%len(ring)+1)
	}
	for name, test := range map[string]struct {
		tasks []TaskDefinition
		want  string
	}{
		"empty":              {nil, `workflow "daily": it has no tasks`},
		"no program":         {[]TaskDefinition{{Seq: 2}}, `workflow "daily": task_seq 2 has no program`},
		"unknown dependency": {[]TaskDefinition{root(1), def(2, 1, 9)}, `workflow "daily": task_seq 2 depends on 9, which does not exist`},
		"no such thing as 0": {[]TaskDefinition{def(1, 0)}, `workflow "daily": task_seq 1 depends on 0, which does not exist`},
		"itself":             {[]TaskDefinition{root(1), def(2, 2)}, `workflow "daily": task_seq 2 depends on itself`},
		"twice": {
			[]TaskDefinition{{Seq: 1, Program: "A"}, {Seq: 1, Program: "B"}},
			`workflow "daily": task_seq 1 is there twice (programs "A" and "B")`,
		},
		"a cycle of two": {
			[]TaskDefinition{def(1, 2), def(2, 1)},
			`workflow "daily": its dependencies form a cycle: 1 → 2 → 1`,
		},
		"a cycle, and tasks before and after it": {
			[]TaskDefinition{root(1), def(2, 1, 4), def(3, 2), def(4, 3), def(5, 4)},
			`workflow "daily": its dependencies form a cycle: 2 → 4 → 3 → 2`,
		},
		"a cycle that is only reached from the first task": {
			[]TaskDefinition{def(1, 2), def(2, 3), def(3, 2)},
			`workflow "daily": its dependencies form a cycle: 2 → 3 → 2`,
		},
		"a long cycle is cut": {
			ring,
			`workflow "daily": its dependencies form a cycle: 1 → 2 → 3 → 4 → 5 → 6 → 7 → 8 → 9 → 10 → 11 → 12 → … (29 more)`,
		},
		"too many": {
			make([]TaskDefinition, MaxTasks+1),
			`workflow "daily": it has 10001 tasks, and 10000 are allowed`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			planned, err := Workflow{ID: "daily", Tasks: test.tasks}.Plan()
			require.Nil(t, planned)
			var invalid *InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, test.want, invalid.Error())
		})
	}
}

// Graphs of the largest size are planned quickly, whatever their shape. It takes a few
// hundredths of a second; the limit is for loaded machines, and for what is not linear.
func TestPlanLargest(t *testing.T) {
	t.Parallel()
	for name, parents := range map[string]func(i int) []int{
		"a chain":           func(int) []int { return nil },
		"a chain backwards": func(i int) []int { return []int{i + 1} },
		"a fan":             func(int) []int { return []int{1} },
		"no edges":          func(int) []int { return []int{} },
		"random":            func(i int) []int { return []int{1 + rand.IntN(i-1), 1 + rand.IntN(i-1), 1 + rand.IntN(i-1)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := Workflow{ID: "large"}
			for i := 1; i <= MaxTasks; i++ {
				d := root(i)
				if i > 1 && i < MaxTasks {
					d.DependsOn = parents(i)
				}
				w.Tasks = append(w.Tasks, d)
			}
			rand.Shuffle(len(w.Tasks), func(i, j int) { w.Tasks[i], w.Tasks[j] = w.Tasks[j], w.Tasks[i] })
			start := time.Now()
			planned, err := w.Plan()
			require.NoError(t, err)
			require.Less(t, time.Since(start), 10*time.Second)
			requireTopological(t, w, planned)
		})
	}
}

// The longest possible cycle is found, and its text fits into an answer.
func TestPlanLargestCycle(t *testing.T) {
	t.Parallel()
	w := Workflow{ID: "ring"}
	for i := 1; i <= MaxTasks; i++ {
		w.Tasks = append(w.Tasks, def(i, i%MaxTasks+1))
	}
	_, err := w.Plan()
	require.ErrorContains(t, err, "→ … (9989 more)")
	require.Less(t, len(err.Error()), 200)
}

// requireTopological holds a plan to what Plan promises. It compares without require
// where it has a great many of them to look at.
func requireTopological(t testing.TB, w Workflow, planned []PlannedTask) {
	t.Helper()
	require.Len(t, planned, len(w.Tasks))
	execSeq := make(map[int]int, len(planned)) // of a task_seq
	for i, p := range planned {
		if p.ExecSeq != i+1 || execSeq[p.Seq] != 0 {
			t.Fatalf("task_seq %d has number %d at place %d, and had %d before", p.Seq, p.ExecSeq, i, execSeq[p.Seq])
		}
		execSeq[p.Seq] = p.ExecSeq
	}
	parents := wantParents(w, execSeq)
	dependents := make([][]int, len(planned)+1)
	for _, p := range planned {
		if !slices.Equal(parents[p.ExecSeq], p.Parents) {
			t.Fatalf("task %d depends on %v and should on %v", p.ExecSeq, p.Parents, parents[p.ExecSeq])
		}
		for _, parent := range p.Parents {
			if parent >= p.ExecSeq {
				t.Fatalf("task %d comes before its parent %d", p.ExecSeq, parent)
			}
			dependents[parent] = append(dependents[parent], p.ExecSeq)
		}
	}
	for _, p := range planned {
		if !slices.Equal(dependents[p.ExecSeq], p.Dependents) {
			t.Fatalf("on task %d depend %v and should %v", p.ExecSeq, p.Dependents, dependents[p.ExecSeq])
		}
	}
}

// wantParents works out what each number depends on, from the definitions alone.
func wantParents(w Workflow, execSeq map[int]int) [][]int {
	tasks := slices.SortedFunc(slices.Values(w.Tasks), func(a, b TaskDefinition) int { return a.Seq - b.Seq })
	parents := make([][]int, len(tasks)+1)
	for i, d := range tasks {
		on := d.DependsOn
		if on == nil && i > 0 {
			on = []int{tasks[i-1].Seq}
		}
		n := execSeq[d.Seq]
		for _, seq := range on {
			parents[n] = append(parents[n], execSeq[seq])
		}
		slices.Sort(parents[n])
		parents[n] = slices.Compact(parents[n])
	}
	return parents
}

// FuzzPlan reads a graph from bytes: a task takes a byte for its task_seq and one for how
// many dependencies follow, a byte each.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 255, 2, 255, 3, 255})                // a chain
	f.Add([]byte{1, 0, 2, 1, 1, 3, 1, 1, 4, 2, 2, 3})    // a diamond
	f.Add([]byte{1, 1, 2, 2, 1, 1})                      // a cycle
	f.Add([]byte{1, 1, 1})                               // itself
	f.Add([]byte{1, 0, 1, 0})                            // twice
	f.Add([]byte{5, 2, 9, 9, 9, 0, 7, 255, 200, 1, 201}) // gaps, a duplicate, an unknown one
	f.Fuzz(func(t *testing.T, data []byte) {
		w := workflowOf(data)
		planned, err := w.Plan()
		if err != nil {
			requireNamesRow(t, w, err)
			return
		}
		requireTopological(t, w, planned)

		// Deterministic, also when the rows come in another order.
		again := Workflow{ID: w.ID, Tasks: slices.Clone(w.Tasks)}
		slices.Reverse(again.Tasks)
		planned2, err := again.Plan()
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(planned, planned2))
	})
}

func workflowOf(data []byte) Workflow {
	w := Workflow{ID: "fuzzed"}
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	for len(data) > 0 {
		d := TaskDefinition{Seq: next(), Program: "Test1"}
		if n := next(); n != 255 {
			d.DependsOn = []int{}
			for range n % 8 {
				d.DependsOn = append(d.DependsOn, next())
			}
		}
		w.Tasks = append(w.Tasks, d)
	}
	return w
}

// requireNamesRow: a graph is refused with an *InvalidError that names a row of it.
func requireNamesRow(t *testing.T, w Workflow, err error) {
	t.Helper()
	var invalid *InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, `workflow "fuzzed"`, invalid.Subject)
	if len(w.Tasks) == 0 {
		require.Equal(t, "it has no tasks", invalid.Problem)
		return
	}
	numbers := strings.FieldsFunc(invalid.Problem, func(r rune) bool { return r < '0' || r > '9' })
	require.True(t, slices.ContainsFunc(w.Tasks, func(d TaskDefinition) bool {
		return slices.Contains(numbers, strconv.Itoa(d.Seq))
	}), "%q names none of its rows", invalid.Problem)
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	// 10 → 20 → 40 → 60, 10 → 30 beside it, 50 → 40.
	planned, err := Workflow{ID: "w", Tasks: []TaskDefinition{
		def(60, 40), def(20, 10), root(10), def(30, 10), def(40, 20, 50), root(50),
	}}.Plan()
	require.NoError(t, err)
	before := NewPrecedence(planned).Before
	for other, want := range map[int][]int{
		10: nil, 20: {10}, 30: {10}, 40: {10, 20, 50}, 50: nil, 60: {10, 20, 40, 50}, 70: nil,
	} {
		for _, one := range []int{-1, 0, 1, 10, 20, 30, 40, 50, 60, 70} {
			require.Equal(t, slices.Contains(want, one), before(one, other), "%d before %d", one, other)
		}
	}
}
