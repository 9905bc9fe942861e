package flow

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
)

// PlannedTask is a task definition with its place in a flow.
type PlannedTask struct {
	TaskDefinition
	ExecSeq    int   // 1 to n, in a topological order
	Parents    []int // ExecSeqs it depends on, ascending, without duplicates
	Dependents []int // ExecSeqs that depend on it, ascending
}

// Plan checks the graph of w and numbers its tasks from 1 to n so that each comes after
// what it depends on; where the graph leaves a choice, the smaller task_seq goes first,
// so that a chain keeps its order and the numbers are the same each time.
//
// The error is an *InvalidError that names the rows: no task, a task_seq twice, a
// dependency that does not exist, a cycle, too many tasks, no program.
func (w Workflow) Plan() ([]PlannedTask, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	tasks := slices.Clone(w.Tasks)
	slices.SortFunc(tasks, func(a, b TaskDefinition) int { return cmp.Compare(a.Seq, b.Seq) })
	index := make(map[int]int, len(tasks)) // task_seq to its place in tasks
	for i, t := range tasks {
		if j, twice := index[t.Seq]; twice {
			return nil, w.invalid("task_seq %d is there twice (programs %q and %q)", t.Seq, tasks[j].Program, t.Program)
		}
		index[t.Seq] = i
	}
	parents, err := w.parents(tasks, index)
	if err != nil {
		return nil, err
	}
	order := topological(parents)
	if len(order) < len(tasks) {
		return nil, w.invalid("its dependencies form a cycle: %s", CycleText(cycles(tasks, parents, order)[0]))
	}
	return number(tasks, parents, order), nil
}

func (w Workflow) check() error {
	switch n := len(w.Tasks); {
	case n == 0:
		return w.invalid("it has no tasks")
	case n > MaxTasks:
		return w.invalid("it has %d tasks, and %d are allowed", n, MaxTasks)
	}
	for _, t := range w.Tasks {
		if t.Program == "" {
			return w.invalid("task_seq %d has no program", t.Seq)
		}
	}
	return nil
}

func (w Workflow) invalid(format string, args ...any) error {
	return &InvalidError{Subject: fmt.Sprintf("workflow %q", w.ID), Problem: fmt.Sprintf(format, args...)}
}

// parents returns, for each of tasks (sorted by Seq), the places of what it depends on.
func (w Workflow) parents(tasks []TaskDefinition, index map[int]int) ([][]int, error) {
	parents := make([][]int, len(tasks))
	for i, t := range tasks {
		if t.DependsOn == nil {
			if i > 0 {
				parents[i] = []int{i - 1}
			}
			continue
		}
		for _, seq := range t.DependsOn {
			p, known := index[seq]
			if !known {
				return nil, w.invalid("task_seq %d depends on %d, which does not exist", t.Seq, seq)
			}
			if p == i {
				return nil, w.invalid("task_seq %d depends on itself", t.Seq)
			}
			parents[i] = append(parents[i], p)
		}
		slices.Sort(parents[i])
		parents[i] = slices.Compact(parents[i])
	}
	return parents, nil
}

// topological returns the places of a graph's nodes so that each comes after its
// parents, the smallest possible place first at every step. Nodes on a cycle, and what
// depends on them, are missing.
func topological(parents [][]int) []int {
	children := invert(parents)
	unmet := make([]int, len(parents))
	var ready intHeap
	for i, ps := range parents {
		if unmet[i] = len(ps); unmet[i] == 0 {
			ready = append(ready, i)
		}
	}
	order := make([]int, 0, len(parents))
	for heap.Init(&ready); len(ready) > 0; {
		i := heap.Pop(&ready).(int)
		order = append(order, i)
		for _, c := range children[i] {
			if unmet[c]--; unmet[c] == 0 {
				heap.Push(&ready, c)
			}
		}
	}
	return order
}

func invert(parents [][]int) [][]int {
	children := make([][]int, len(parents))
	for i, ps := range parents {
		for _, p := range ps {
			children[p] = append(children[p], i)
		}
	}
	return children
}

// number turns places into exec sequences: the n-th of order gets n+1.
func number(tasks []TaskDefinition, parents [][]int, order []int) []PlannedTask {
	execSeq := make([]int, len(tasks))
	for n, i := range order {
		execSeq[i] = n + 1
	}
	children := invert(parents)
	planned := make([]PlannedTask, len(order))
	for n, i := range order {
		planned[n] = PlannedTask{
			TaskDefinition: tasks[i],
			ExecSeq:        n + 1,
			Parents:        renumber(parents[i], execSeq),
			Dependents:     renumber(children[i], execSeq),
		}
	}
	return planned
}

func renumber(places, execSeq []int) []int {
	seqs := make([]int, len(places))
	for i, p := range places {
		seqs[i] = execSeq[p]
	}
	slices.Sort(seqs)
	return seqs
}

// Precedence tells which task of a plan comes before which, by their task_seqs.
type Precedence struct {
	planned []PlannedTask
	execSeq map[int]int // by task_seq
}

// NewPrecedence takes what Plan returned.
func NewPrecedence(planned []PlannedTask) Precedence {
	p := Precedence{planned, make(map[int]int, len(planned))}
	for _, t := range planned {
		p.execSeq[t.Seq] = t.ExecSeq
	}
	return p
}

// Before reports whether one task has always ended when another one starts. What is near
// is found first.
func (p Precedence) Before(one, other int) bool {
	wanted, known := p.execSeq[one]
	from, alsoKnown := p.execSeq[other]
	if !known || !alsoKnown {
		return false
	}
	seen := make(map[int]bool)
	for open := []int{from}; len(open) > 0; open = open[1:] {
		for _, parent := range p.planned[open[0]-1].Parents {
			if parent == wanted {
				return true
			}
			if parent > wanted && !seen[parent] { // what it depends on has a smaller number
				seen[parent] = true
				open = append(open, parent)
			}
		}
	}
	return false
}

// Cycles returns the task_seqs of each cycle, in which each task depends on the next one; of
// cycles that share tasks it returns one. There are none if something else is wrong with
// the graph.
func (w Workflow) Cycles() [][]int {
	tasks := slices.SortedFunc(slices.Values(w.Tasks), func(a, b TaskDefinition) int { return cmp.Compare(a.Seq, b.Seq) })
	index := make(map[int]int, len(tasks))
	for i, t := range tasks {
		index[t.Seq] = i
	}
	parents, err := w.parents(tasks, index)
	if err != nil {
		return nil
	}
	return cycles(tasks, parents, topological(parents))
}

// cycles walks from each node outside order to a parent outside order, which there always
// is, until it comes to where a walk has been: if that was this one, it has gone round.
func cycles(tasks []TaskDefinition, parents [][]int, order []int) [][]int {
	sorted := make([]bool, len(tasks))
	for _, i := range order {
		sorted[i] = true
	}
	next := func(i int) int {
		return parents[i][slices.IndexFunc(parents[i], func(p int) bool { return !sorted[p] })]
	}
	var found [][]int
	walk := make([]int, len(tasks)) // the first one that came here; they count from 1
	for start := range tasks {
		if sorted[start] {
			continue
		}
		i := start
		for ; walk[i] == 0; i = next(i) {
			walk[i] = start + 1
		}
		if walk[i] != start+1 {
			continue
		}
		seqs := []int{tasks[i].Seq}
		for j := next(i); j != i; j = next(j) {
			seqs = append(seqs, tasks[j].Seq)
		}
		found = append(found, seqs)
	}
	return found
}

// CycleText names the tasks of a cycle: "2 → 4 → 3 → 2", an arrow from a task to one that
// it depends on.
func CycleText(seqs []int) string {
	const most = 12 // the text goes into an answer
	var text []string
	for n, seq := range append(slices.Clone(seqs), seqs[0]) {
		if n == most {
			text = append(text, fmt.Sprintf("… (%d more)", len(seqs)+1-most))
			break
		}
		text = append(text, fmt.Sprint(seq))
	}
	return strings.Join(text, " → ")
}

// intHeap is a min-heap of ints.
type intHeap []int

func (h intHeap) Len() int           { return len(h) }
func (h intHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h intHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *intHeap) Push(x any)        { *h = append(*h, x.(int)) }
func (h *intHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
