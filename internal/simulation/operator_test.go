package simulation

import (
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// byHand runs a statement of an operator, which must be refused exactly where the model
// says so.
func (w *world) byHand(allowed bool, query string, args ...any) {
	_, err := w.db.Exec(query, args...)
	if allowed {
		require.NoError(w, err)
		return
	}
	require.Error(w, err, "%s %v was not refused", query, args)
	require.Contains(w, err.Error(), "23514", "refused for another reason")
}

// settleClock keeps times that lie a few seconds ahead from coming by themselves.
func (w *world) settleClock() {
	w.exec(`UPDATE kr_task_stat SET run_after = clock_timestamp() + interval '1 day' WHERE run_after > clock_timestamp()`)
}

// setStatus changes exec_status by hand, from anything to anything.
func (w *world) setStatus() {
	id := w.flow()
	status := pick(w, []flow.Status{0, 0, 0, 0, 1, 2, 2, 3, 3, 9}, "status")
	of := w.model.where(func(key flow.TaskKey, _ *task) bool { return key.Flow == id })
	switch w.below(4, "which") {
	case 0:
		of = some(w, of, "tasks")
	case 1: // the documented recovery, and its relatives
		old := pick(w, []flow.Status{0, 1, 2, 2, 3, 9}, "old")
		of = slices.DeleteFunc(of, func(key flow.TaskKey) bool { return w.model.tasks[key].status != old })
	case 2: // what something that runs depends on
		of = slices.DeleteFunc(of, func(key flow.TaskKey) bool {
			return !slices.ContainsFunc(w.model.children(key), func(t *task) bool { return t.status == flow.Running })
		})
	}
	changes := make(map[flow.TaskKey]flow.Status)
	var seqs []int32
	for _, key := range of {
		changes[key] = status
		seqs = append(seqs, int32(key.Seq))
	}
	w.byHand(w.model.edit(changes), `UPDATE kr_task_stat SET exec_status = $1 WHERE task_flow_id = $2 AND task_exec_seq = ANY ($3)`,
		status, string(id), seqs)
	w.settleClock()
}

// operate uses the functions that are there for operators; often where one is asked. They
// must do, to the task, what the model does, and refuse what it refuses.
func (w *world) operate() {
	id := w.flow()
	asking := w.model.where(func(_ flow.TaskKey, t *task) bool { return t.asks && t.reason == "held" })
	if len(asking) > 0 && w.bool("one that asks") {
		id = pick(w, asking, "asking").Flow
	}
	of := w.model.where(func(key flow.TaskKey, _ *task) bool { return key.Flow == id })
	key := pick(w, of, "task")
	switch name := pick(w, []string{"rerun", "rerun", "rerun", "hold", "resume", "resume", "cancel", "skip", "approve", "finish"}, "operation"); name {
	case "rerun":
		scope := pick(w, []string{"failed", "failed", "from", "from", "only", "all"}, "scope")
		ended := slices.DeleteFunc(slices.Clone(of), func(key flow.TaskKey) bool {
			return !slices.ContainsFunc(w.model.children(key), func(t *task) bool { return t.status.Satisfies() })
		})
		if len(ended) > 0 && scope == "from" {
			key = pick(w, ended, "one that others come after which have ended")
		}
		query, args := "SELECT flower_rerun($1, scope => $2)", []any{string(id), scope}
		if scope == "from" || scope == "only" {
			query, args = "SELECT flower_rerun($1, scope => $2, seq => $3)", append(args, key.Seq)
		}
		w.planned(w.model.rerun(key, scope), query, args...)
	case "hold", "resume", "cancel":
		query, args, meant := "SELECT flower_"+name+"($1)", []any{string(id)}, of
		if w.bool("one task") {
			query, args, meant = "SELECT flower_"+name+"($1, seq => $2)", append(args, key.Seq), []flow.TaskKey{key}
		}
		w.planned(w.model.operate(name, meant, len(args) > 1), query, args...)
	case "finish":
		output := pick(w, []any{nil, `{"by": "hand"}`}, "output")
		if t := w.model.tasks[key]; output != nil && t.status != flow.Finished {
			t.output = output.(string)
		}
		w.planned(w.model.operate(name, []flow.TaskKey{key}, true), "SELECT flower_finish($1, $2, $3)", string(id), key.Seq, output)
	default:
		w.planned(w.model.operate(name, []flow.TaskKey{key}, true), "SELECT flower_"+name+"($1, $2)", string(id), key.Seq)
	}
	w.settleClock()
}

// planned carries out a plan of the model, and a statement that must have the same effect.
func (w *world) planned(p plan, query string, args ...any) {
	allowed := !p.refused && w.model.edit(p.changes)
	if allowed {
		for _, f := range p.also {
			f()
		}
	}
	w.byHand(allowed, query, args...)
}

func (w *world) setPriority() {
	key := pick(w, w.model.keys(), "task")
	priority := w.below(5, "priority") - 2
	w.model.tasks[key].priority = priority
	w.exec(`UPDATE kr_task_stat SET task_priority = $1 WHERE task_flow_id = $2 AND task_exec_seq = $3`, priority, string(key.Flow), key.Seq)
}

func (w *world) putOff() {
	key := pick(w, w.model.keys(), "task")
	until := pick(w, []wait{notAtAll, untilLater, untilPast}, "until")
	w.model.tasks[key].wait = until
	w.exec(`UPDATE kr_task_stat SET run_after = CASE $1::int WHEN 1 THEN clock_timestamp() + interval '1 day' WHEN 2 THEN clock_timestamp() - interval '1 day' END
		WHERE task_flow_id = $2 AND task_exec_seq = $3`, until, string(key.Flow), key.Seq)
}

// relink changes what a task depends on.
func (w *world) relink() {
	key := pick(w, w.model.keys(), "task")
	one, many := w.dependencies(key.Seq)
	w.model.tasks[key].parents = written(one, many)
	w.exec(`UPDATE kr_task_stat SET depends_task_exec_seq = $1, depends_task_exec_seqs = `+arrayLiteral(many)+` WHERE task_flow_id = $2 AND task_exec_seq = $3`,
		one, string(key.Flow), key.Seq)
}

func (w *world) remove() {
	id := w.flow()
	of := w.model.where(func(key flow.TaskKey, _ *task) bool { return key.Flow == id })
	if !w.chance(8, "the whole flow") {
		of = some(w, of, "tasks")
	}
	var seqs []int32
	for _, key := range of {
		w.model.remove(key)
		seqs = append(seqs, int32(key.Seq))
	}
	w.exec(`DELETE FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = ANY ($2)`, string(id), seqs)
}

// timePasses lets every time come, and somebody notice.
func (w *world) timePasses() {
	w.exec(`UPDATE kr_task_stat SET run_after = clock_timestamp() - interval '1 day' WHERE run_after IS NOT NULL`)
	want := 0
	for _, t := range w.model.tasks {
		if t.wait == notAtAll {
			continue
		}
		t.wait = notAtAll
		if t.status == flow.Waiting {
			want++
		}
	}
	promoted, _, err := w.engine.Promote(w.Context())
	require.NoError(w, err)
	require.Equal(w, want, promoted)
}
