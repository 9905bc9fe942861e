package simulation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/d-tsuji/flower/internal/flow"
)

// register makes a flow of a random graph, by way of a definition.
func (w *world) register() {
	if len(w.model.flows()) >= maxFlows {
		w.Skip("there are enough")
	}
	id := flow.WorkflowID("w" + strconv.Itoa(w.next()))
	definition := flow.Workflow{ID: id, Tasks: w.graph()}
	for _, d := range definition.Tasks {
		w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, depends_task_seqs, max_attempts, retry_delay, on_lost)
			VALUES ($1, $2, $3, $4, $5, $6, $7 * interval '1 ms', $8)`, string(id), d.Seq, d.Program, d.Priority,
			d.DependsOn, d.MaxAttempts, d.RetryDelay.Milliseconds(), string(d.OnLost))
	}
	planned, err := definition.Plan()
	require.NoError(w, err)
	f, err := w.engine.Register(w.Context(), flow.Registration{FlowID: flow.ID("f" + strconv.Itoa(w.n)), WorkflowID: id})
	require.NoError(w, err)
	for _, p := range planned {
		w.model.tasks[flow.TaskKey{Flow: f.ID, Seq: p.ExecSeq}] = &task{
			parents: p.Parents, priority: p.Priority, registered: f.RegisteredAt, program: p.Program,
			maxAttempts: p.MaxAttempts, retryLater: p.RetryDelay > 0, onLost: p.OnLost,
		}
	}
}

// graph draws definitions whose task_seqs are in no topological order.
func (w *world) graph() []flow.TaskDefinition {
	n := 1 + w.below(8, "tasks")
	seqs := rapid.Permutation(upTo(n)).Draw(w.T, "task_seqs")
	chain := w.chance(4, "a chain")
	var defs []flow.TaskDefinition
	for i, seq := range seqs {
		d := flow.TaskDefinition{
			Seq: seq, Program: pick(w, programs, "program"), Priority: w.below(3, "priority") - 1,
			MaxAttempts: 1 + w.below(3, "max_attempts"),
			OnLost:      pick(w, []flow.OnLost{flow.OnLostRerun, flow.OnLostRerun, flow.OnLostSuspend}, "on_lost"),
		}
		if w.bool("retries wait") {
			d.RetryDelay = 30 * time.Minute
		}
		if !chain {
			d.DependsOn = []int{}
			for _, parent := range seqs[:i] {
				if w.bool("depends") {
					d.DependsOn = append(d.DependsOn, parent)
				}
			}
		}
		defs = append(defs, d)
	}
	return defs
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i + 1
	}
	return all
}

// insert puts rows in by hand, into a new flow or one that exists, in any order and any
// state; what they depend on may not exist.
func (w *world) insert() {
	id := flow.ID("h" + strconv.Itoa(w.next()))
	if flows := w.model.flows(); len(flows) >= maxFlows || len(flows) > 0 && w.bool("an old flow") {
		id = w.flow()
	}
	unused := slices.DeleteFunc(upTo(maxSeq), func(seq int) bool { return w.model.tasks[flow.TaskKey{Flow: id, Seq: seq}] != nil })
	seqs := some(w, unused, "seqs")
	seqs = rapid.Permutation(seqs).Draw(w.T, "order")
	var rows []string
	for _, seq := range seqs {
		one, many := w.dependencies(seq)
		status := pick(w, []flow.Status{0, 0, 0, 0, 1, 2, 3, 9}, "status")
		program, column := "B", "NULL"
		if w.bool("with a program") {
			program = pick(w, programs, "program")
			column = pq.QuoteLiteral(program)
		}
		rows = append(rows, fmt.Sprintf("(%s, %d, %d, %s, 'hand', %d, %d, %s)", pq.QuoteLiteral(string(id)), seq, one, arrayLiteral(many), seq, status, column))
		w.model.tasks[flow.TaskKey{Flow: id, Seq: seq}] = &task{
			parents: written(one, many), status: status, program: program, maxAttempts: 1, onLost: flow.OnLostRerun, retryLater: true,
			started: status == flow.Running, finished: status == flow.Finished, suspended: status == flow.Suspended,
		}
	}
	const insert = `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq, exec_status, program) VALUES `
	if w.bool("in one statement") {
		w.exec(insert + strings.Join(rows, ", "))
	} else {
		for _, row := range rows {
			w.exec(insert + row)
		}
	}
	for _, seq := range seqs {
		key := flow.TaskKey{Flow: id, Seq: seq}
		require.NoError(w, w.db.Get(&w.model.tasks[key].registered,
			`SELECT registered_ts FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq))
	}
}

// dependencies draws both columns. Parents have smaller numbers, so that there are no
// cycles, but need not exist.
func (w *world) dependencies(seq int) (one int, many []int) {
	if seq == 1 || w.chance(3, "none") {
		return pick(w, []int{0, -1}, "no dependency"), pick(w, [][]int{nil, {}}, "no dependencies")
	}
	parents := make([]int, 1+w.below(3, "parents: how many"))
	for i := range parents {
		parents[i] = 1 + w.below(seq-1, "parent")
	}
	if len(parents) == 1 && w.bool("the old column alone") {
		return parents[0], nil
	}
	return parents[0], parents
}

func written(one int, many []int) []int {
	if many == nil && one > 0 {
		return []int{one}
	}
	return many
}

func arrayLiteral(many []int) string {
	if many == nil {
		return "NULL"
	}
	return "'{" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(many)), ","), "[]") + "}'"
}
