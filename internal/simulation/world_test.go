package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/postgres"
)

// engine is the store as watchers and register use it; mutants change it.
type engine interface {
	Register(ctx context.Context, r flow.Registration) (flow.Flow, error)
	Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error)
	Owned(ctx context.Context, watcher string, claims []string) ([]flow.Task, error)
	Join(ctx context.Context, w flow.Watcher) error
	Beat(ctx context.Context, watcher string, running []flow.Task) (flow.Pulse, error)
	Rescue(ctx context.Context, watcher string) ([]flow.Rescued, error)
	Drain(ctx context.Context, watcher string) error
	Leave(ctx context.Context, watcher string) error
	Promote(ctx context.Context) (int, time.Duration, error)
	Strangers(ctx context.Context, programs []string) ([]string, error)
	Refuse(ctx context.Context, program, text string) ([]flow.TaskKey, error)
	Sweep(ctx context.Context) (flow.Swept, error)
}

var _ engine = (*postgres.DB)(nil)

// maxSeq bounds the tasks of a flow.
const maxSeq = 12

// programs are what tasks name; no watcher but the last one has all of them.
var programs = []string{"A", "A", "A", "A", "A", "B", "B", "Nobody"}

// world is a database, the model of it, and those who act on it.
type world struct {
	*rapid.T
	failure string // of the check that failed

	db     *pgtest.DB
	engine engine
	model  *model
	slots  []string // ids of the watchers that run, some of which may be dead
	hands  []*hand
	n      int // things made so far
}

// hand is an attempt that somebody was given, and what he holds of it.
type hand struct {
	task    flow.Task
	watcher string
	result  *flow.Result // nil: not given yet
	applied bool         // the fence held when it was given
}

// Errorf and FailNow make the world what require reports to.
func (w *world) Errorf(format string, args ...any) { w.failure = fmt.Sprintf(format, args...) }

func (w *world) FailNow() { w.Fatalf("%s", w.failure) }

func newWorld(t *rapid.T, db *pgtest.DB, e engine) *world {
	return &world{T: t, db: db, engine: e, model: newModel()}
}

// play runs a random story, and then lets everything come to its end.
func (w *world) play() {
	w.reset()
	for range 1 + w.below(3, "watchers") {
		w.join()
	}
	w.register()
	w.Repeat(map[string]func(*rapid.T){
		"":     func(*rapid.T) { w.compare() },
		"step": func(*rapid.T) { w.step() },
	})
	w.end()
}

// step does one thing of many.
func (w *world) step() {
	actions := []struct {
		name   string
		weight int
		do     func()
	}{
		{"advance", 16, w.advance},
		{"set status", 6, w.setStatus},
		{"operate", 4, w.operate},
		{"lost answer", 3, w.lostAnswer},
		{"beat", 3, w.beat},
		{"register", 2, w.register},
		{"insert", 2, w.insert},
		{"time passes", 2, w.timePasses},
		{"relink", 1, w.relink},
		{"delete", 1, w.remove},
		{"die", 1, w.die},
		{"vanish", 1, w.vanish},
		{"leave", 1, w.leave},
		{"refuse", 1, w.refuse},
		{"set priority", 1, w.setPriority},
		{"put off", 1, w.putOff},
	}
	var names []string
	for _, a := range actions {
		for range a.weight {
			names = append(names, a.name)
		}
	}
	name := pick(w, names, "step")
	for _, a := range actions {
		if a.name == name {
			a.do()
		}
	}
}

func (w *world) exec(query string, args ...any) {
	_, err := w.db.Exec(query, args...)
	require.NoError(w, err)
}

func (w *world) reset() {
	w.exec(`TRUNCATE kr_task_stat, kr_event, kr_watcher, ms_task_definition`)
	w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program) SELECT 'hand', n, 'B' FROM generate_series(1, $1) n`, maxSeq)
}

// below draws a number from 0 to n-1, each as likely as the others: rapid's own prefer
// small ones, and a story in which little happens finds little.
func (w *world) below(n int, label string) int {
	return rapid.Custom(func(t *rapid.T) int {
		v := 0
		for range 16 {
			v <<= 1
			if rapid.Bool().Draw(t, "") {
				v++
			}
		}
		return v * n >> 16
	}).Draw(w.T, label)
}

func (w *world) bool(label string) bool { return rapid.Bool().Draw(w.T, label) }

// chance is true once in n.
func (w *world) chance(n int, label string) bool { return w.below(n, label) == n-1 }

func pick[T any](w *world, from []T, label string) T {
	if len(from) == 0 {
		w.Skip("nothing to pick")
	}
	return from[w.below(len(from), label)]
}

// some picks a few of many, in order.
func some[T any](w *world, from []T, label string) []T {
	if len(from) == 0 {
		w.Skip("nothing to pick")
	}
	n := 1 + w.below(min(len(from), 4), label+": how many")
	chosen := make(map[int]bool)
	for range n {
		chosen[w.below(len(from), label)] = true
	}
	var picked []T
	for _, i := range slices.Sorted(maps.Keys(chosen)) {
		picked = append(picked, from[i])
	}
	return picked
}

func (w *world) next() int {
	w.n++
	return w.n
}

// maxFlows bounds a story, so that what happens happens to the same tasks.
const maxFlows = 4

// flow picks a flow; more often than not one in which something runs.
func (w *world) flow() flow.ID {
	flows := w.model.flows()
	if w.bool("one that runs") {
		running := slices.DeleteFunc(slices.Clone(flows), func(id flow.ID) bool {
			return len(w.model.where(func(key flow.TaskKey, t *task) bool { return key.Flow == id && t.watcher != "" })) == 0
		})
		if len(running) > 0 {
			flows = running
		}
	}
	return pick(w, flows, "flow")
}

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
			finished: status == flow.Finished, suspended: status == flow.Suspended,
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

// join starts a watcher in a free slot.
func (w *world) join() {
	id := uuid.NewString()
	has := pick(w, [][]string{{"A", "B"}, {"A", "B"}, {"A"}, {"B"}}, "programs")
	w.joinAs(id, has)
	w.slots = append(w.slots, id)
}

func (w *world) joinAs(id string, has []string) {
	require.NoError(w, w.engine.Join(w.Context(), flow.Watcher{ID: id, Host: "test", Programs: has, Workers: 5}))
	w.model.watchers[id] = &watcherRow{programs: has}
	w.stabilize()
}

// stabilize makes every watcher look as if it had been there for long, and its last
// heartbeat as if it had come just now.
func (w *world) stabilize() {
	w.exec(`UPDATE kr_watcher SET stable_since = clock_timestamp() - interval '1 h', heartbeat_ts = clock_timestamp(),
		lease_until = CASE WHEN lease_until > clock_timestamp() THEN clock_timestamp() + interval '10 s' ELSE lease_until END`)
}

// slot picks one of those who run as watchers.
func (w *world) slot() string {
	w.stabilize() // however slow the machine is: time passes when we say so
	return w.slots[w.below(len(w.slots), "watcher")]
}

// advance delivers results, timely, late and repeated ones, and claims.
func (w *world) advance() {
	id := w.slot()
	given := w.results()
	w.claim(given, w.newClaim(id, w.below(5, "free")))
}

func (w *world) newClaim(id string, free int) flow.Claim {
	var has []string
	if m := w.model.watchers[id]; m != nil {
		has = m.programs
	}
	return flow.Claim{ID: uuid.NewString(), Watcher: id, Free: free, Programs: has}
}

// results draws whose results are given; each has one result, however often it is given.
func (w *world) results() []*hand {
	if len(w.hands) == 0 || w.bool("nothing to deliver") {
		return nil
	}
	open := slices.DeleteFunc(slices.Clone(w.hands), func(h *hand) bool { return h.result != nil })
	if len(open) == 0 || w.chance(4, "also old ones") {
		open = w.hands
	}
	var given []*hand
	seen := make(map[flow.TaskKey]bool)
	for _, h := range some(w, open, "attempts") {
		if seen[h.task.TaskKey] {
			continue
		}
		seen[h.task.TaskKey] = true
		if h.result == nil {
			h.result = new(w.draw(h.task))
		}
		given = append(given, h)
	}
	return given
}

func resultsOf(hands []*hand) []*flow.Result {
	var results []*flow.Result
	for _, h := range hands {
		results = append(results, h.result)
	}
	return results
}

func (w *world) draw(t flow.Task) flow.Result {
	r := flow.Result{Task: t, Error: "it failed", Outcome: pick(w, []flow.Outcome{
		flow.OutcomeFinished, flow.OutcomeFinished, flow.OutcomeFinished, flow.OutcomeFinished,
		flow.OutcomeFailed, flow.OutcomeFailed, flow.OutcomeTimeout, flow.OutcomeInvalid, flow.OutcomeHandedBack, flow.OutcomeNotStarted,
		flow.OutcomeSkipped, flow.OutcomePaused, flow.OutcomePaused,
	}, "outcome")}
	switch r.Outcome {
	case flow.OutcomeFinished:
		r.Error, r.Output = "", json.RawMessage(strconv.Itoa(t.Attempt))
	case flow.OutcomePaused:
		r.Error, r.Pause = "", &flow.Pause{State: json.RawMessage(strconv.Itoa(t.Attempt))}
		switch w.below(4, "pause") {
		case 0:
			r.Pause.After = 30 * time.Minute
		case 1, 2:
			r.Pause.Ask, r.Pause.Why = true, "go on?"
		}
	}
	return r
}

// claim gives results to the engine, claims, and holds the answer to the model.
func (w *world) claim(given []*hand, c flow.Claim) {
	adv, err := w.engine.Advance(w.Context(), resultsOf(given), c)
	require.NoError(w, err)
	require.Empty(w, adv.Rejected)
	w.judge(given, adv.Verdicts)
	w.grant(adv, c)
	for _, t := range adv.Claimed {
		w.hands = append(w.hands, &hand{task: t, watcher: c.Watcher})
	}
}

// releases reports whether what depends on a task goes on after such an end.
func releases(o flow.Outcome) bool { return o == flow.OutcomeFinished || o == flow.OutcomeSkipped }

// judge applies results to the model, in the engine's order: finished ones last. Each has
// a verdict: recorded if it was, refused if it never was. Of one that was recorded earlier
// and is given again, the trace may have been lost meanwhile. It returns whose results
// count from now on.
func (w *world) judge(given []*hand, verdicts []flow.Judged) (applied map[flow.TaskKey]bool) {
	applied = make(map[flow.TaskKey]bool)
	require.Len(w, verdicts, len(given))
	got := make(map[flow.TaskKey]flow.Verdict)
	for _, j := range verdicts {
		got[j.Result.Task.TaskKey] = j.Verdict
	}
	for _, finished := range []bool{false, true} {
		for _, h := range given {
			if releases(h.result.Outcome) != finished {
				continue
			}
			if w.model.record(*h.result) {
				h.applied, applied[h.task.TaskKey] = true, true
				require.Equal(w, flow.VerdictRecorded, got[h.task.TaskKey], "%+v", *h.result)
			} else if !h.applied && !w.model.endsAlike(*h.result) {
				require.Equal(w, flow.VerdictRefused, got[h.task.TaskKey], "%+v", *h.result)
			}
		}
	}
	return applied
}

// grant checks what was claimed: the first of the queue, in order. Where released tasks
// and the queue compete, fewer than there are workers may be claimed, if the watcher is
// told to look again.
func (w *world) grant(adv flow.Advanced, c flow.Claim) {
	queue := w.model.queue(c.Programs)
	free := min(w.model.free(c.Watcher, c.Free), len(queue))
	claimed := []flow.TaskKey{}
	for _, t := range adv.Claimed {
		require.Equal(w, c.ID, t.ClaimID)
		claimed = append(claimed, t.TaskKey)
	}
	require.LessOrEqual(w, len(claimed), free, "claimed %v of %v", claimed, queue)
	if len(claimed) < free {
		require.NotEmpty(w, claimed, "nothing was claimed of %v", queue)
		require.Positive(w, adv.Queued, "claimed only %v of %v", claimed, queue)
	}
	want := append([]flow.TaskKey{}, queue[:len(claimed)]...)
	slices.SortFunc(want, compareKeys)
	slices.SortFunc(claimed, compareKeys)
	require.Empty(w, cmp.Diff(want, claimed), "claimed out of order, of %v", queue)
	for _, t := range adv.Claimed {
		w.model.claim(t.TaskKey, c)
		m := w.model.tasks[t.TaskKey]
		require.Equal(w, m.attempt, t.Attempt)
		require.Equal(w, m.base, t.AttemptBase)
		require.Equal(w, m.program, t.Program)
		require.Equal(w, m.onLost, t.OnLost)
		require.Equal(w, m.pause != "", t.Pause != nil)
		if t.Pause != nil {
			require.Equal(w, m.pause, string(t.Pause.State))
			require.Equal(w, m.approved, t.Pause.Approval != nil)
		}
	}
}

// lostAnswer: the engine has done what it was asked to, and nobody hears of it. The
// results are given again, and what the claim has got is asked for.
func (w *world) lostAnswer() {
	id := w.slot()
	c := w.newClaim(id, 1+w.below(4, "free"))
	given := w.results()
	adv, err := w.engine.Advance(w.Context(), resultsOf(given), c)
	require.NoError(w, err)
	applied := w.judge(given, adv.Verdicts)
	w.grant(adv, c)

	owned, err := w.engine.Owned(w.Context(), id, []string{c.ID, uuid.NewString()})
	require.NoError(w, err)
	require.ElementsMatch(w, adv.Claimed, owned)
	for _, t := range owned {
		w.hands = append(w.hands, &hand{task: t, watcher: id})
	}
	again, err := w.engine.Advance(w.Context(), resultsOf(given), w.newClaim(id, 0))
	require.NoError(w, err)
	require.Len(w, again.Verdicts, len(given))
	for _, j := range again.Verdicts {
		back := j.Result.Outcome == flow.OutcomeHandedBack || j.Result.Outcome == flow.OutcomeNotStarted || j.Result.Outcome == flow.OutcomePaused
		if applied[j.Result.Task.TaskKey] && !back { // what went back may have been claimed again
			require.Equal(w, flow.VerdictRecorded, j.Verdict, "%+v", j.Result)
		}
	}
}

// running is what a watcher believes to run.
func (w *world) running(id string) []flow.Task {
	var tasks []flow.Task
	for _, h := range w.hands {
		if h.watcher == id && h.result == nil {
			tasks = append(tasks, h.task)
		}
	}
	return tasks
}

// beat sends a heartbeat: it tells which claims were revoked, whether somebody can be
// rescued, and to the dead that they are.
func (w *world) beat() { w.beatOf(w.slot()) }

func (w *world) beatOf(id string) {
	running := w.running(id)
	begin := time.Now()
	pulse, err := w.engine.Beat(w.Context(), id, running)
	m := w.model.watchers[id]
	if m == nil {
		require.ErrorIs(w, err, flow.ErrFenced)
		w.replace(id)
		return
	}
	require.NoError(w, err)
	m.expired = false
	dead := 0
	for _, other := range w.model.watchers {
		if other.expired {
			dead++
		}
	}
	if time.Since(begin) < 3*time.Second { // or the heartbeat came late
		require.Equal(w, dead > 0, pulse.Rescue)
	}
	var want, got []flow.TaskKey
	for _, t := range running {
		if now := w.model.tasks[t.TaskKey]; now == nil || now.status != flow.Running || now.claim != t.ClaimID {
			want = append(want, t.TaskKey)
		}
	}
	for _, t := range pulse.Revoked {
		got = append(got, t.TaskKey)
	}
	require.ElementsMatch(w, want, got, "revoked")
	if pulse.Rescue {
		w.rescue(id)
	}
}

// replace lets a watcher that was declared dead go on under a new id. Its late results
// will come under it.
func (w *world) replace(id string) {
	w.slots = slices.DeleteFunc(w.slots, func(s string) bool { return s == id })
	w.join()
}

// rescue takes back the tasks of all watchers whose lease has ended.
func (w *world) rescue(by string) {
	rescued, err := w.engine.Rescue(w.Context(), by)
	require.NoError(w, err)
	dead := func(id string) bool {
		m := w.model.watchers[id]
		return m != nil && m.expired && id != by
	}
	w.lost(rescued, dead)
	for id := range w.model.watchers {
		if dead(id) {
			delete(w.model.watchers, id)
		}
	}
	w.settleClock()
}

// lost applies the loss of tasks to the model, and compares.
func (w *world) lost(rescued []flow.Rescued, dead func(id string) bool) {
	var want, got []string
	for _, key := range w.model.where(func(_ flow.TaskKey, t *task) bool {
		return t.status == flow.Running && t.watcher != "" && dead(t.watcher)
	}) {
		owner := w.model.tasks[key].watcher
		w.model.lose(key)
		want = append(want, fmt.Sprint(key, owner, w.model.tasks[key].status))
	}
	for _, r := range rescued {
		got = append(got, fmt.Sprint(r.Key, r.Watcher, r.Status))
	}
	require.ElementsMatch(w, want, got, "rescued")
}

// die ends a watcher's lease, by back-dating it. It may come back, or others rescue.
func (w *world) die() {
	id := w.slot()
	if m := w.model.watchers[id]; m == nil {
		w.Skip("it is dead")
	} else {
		m.expired = true
	}
	w.exec(`UPDATE kr_watcher SET lease_until = clock_timestamp() - interval '1 s' WHERE watcher_id = $1`, id)
}

// vanish: somebody deletes a watcher's row. The sweep finds its tasks; it repairs nothing
// else, since nothing else was broken.
func (w *world) vanish() {
	id := w.slot()
	w.exec(`DELETE FROM kr_watcher WHERE watcher_id = $1`, id)
	delete(w.model.watchers, id)
	w.sweep()
}

func (w *world) sweep() {
	swept, err := w.engine.Sweep(w.Context())
	require.NoError(w, err)
	require.Empty(w, swept.Recounted, "the sweep had to repair what is counted")
	require.Zero(w, swept.Leftovers, "the sweep had to repair the queue")
	w.lost(swept.Rescued, func(id string) bool { return w.model.watchers[id] == nil })
	w.settleClock()
}

// leave ends a watcher. It drains first, and claims in vain; what it leaves behind is
// rescued with the next heartbeat.
func (w *world) leave() {
	id := w.slot()
	require.NoError(w, w.engine.Drain(w.Context(), id))
	if m := w.model.watchers[id]; m != nil {
		m.draining = true
	}
	w.claim(w.results(), w.newClaim(id, 2))
	require.NoError(w, w.engine.Leave(w.Context(), id))
	if m := w.model.watchers[id]; m != nil {
		owns := len(w.model.where(func(_ flow.TaskKey, t *task) bool { return t.status == flow.Running && t.watcher == id })) > 0
		if owns {
			m.expired, m.draining = true, true
		} else {
			delete(w.model.watchers, id)
		}
	}
	w.replace(id)
}

// refuse suspends what nobody can run.
func (w *world) refuse() {
	id := w.slot()
	m := w.model.watchers[id]
	if m == nil {
		w.Skip("it is dead")
	}
	strangers, err := w.engine.Strangers(w.Context(), m.programs)
	require.NoError(w, err)
	live := []string{}
	for _, other := range w.model.watchers {
		if !other.expired {
			live = append(live, other.programs...)
		}
	}
	var want []string
	for _, program := range []string{"A", "B", "Nobody"} {
		if !slices.Contains(live, program) && !slices.Contains(m.programs, program) && len(w.model.queue([]string{program})) > 0 {
			want = append(want, program)
		}
	}
	require.ElementsMatch(w, want, strangers)
	for _, program := range strangers {
		keys := w.model.queue([]string{program})
		refused, err := w.engine.Refuse(w.Context(), program, "nobody has it")
		require.NoError(w, err)
		require.ElementsMatch(w, keys, refused)
		for _, key := range keys {
			w.model.tasks[key].reason, w.model.tasks[key].hasError = "invalid", true
			w.model.set(key, flow.Suspended)
		}
	}
}

// end lets everything finish that can: somebody decides about what is stopped, and a
// watcher that has all programs works until there is nothing left to do.
func (w *world) end() {
	for _, id := range w.model.flows() {
		changes := make(map[flow.TaskKey]flow.Status)
		for key, t := range w.model.tasks {
			switch {
			case key.Flow != id:
			case t.status == flow.Suspended:
				changes[key] = flow.Waiting
			case t.status == flow.Running && t.watcher == "":
				changes[key] = flow.Finished // whoever runs it says so
			}
		}
		w.byHand(w.model.edit(changes), `UPDATE kr_task_stat SET exec_status = CASE exec_status WHEN 2 THEN 0 ELSE 3 END
			WHERE task_flow_id = $1 AND (exec_status = 2 OR exec_status = 1 AND watcher_id IS NULL)`, string(id))
	}
	w.exec(`UPDATE kr_watcher SET lease_until = clock_timestamp() - interval '1 s'`)
	for _, m := range w.model.watchers {
		m.expired = true
	}
	last := uuid.NewString()
	w.joinAs(last, []string{"A", "B", "Nobody"})
	w.slots = []string{last}
	w.beatOf(last)
	w.compare()
	w.rerunSuspended() // the third loss suspends, and so does on_lost
	for range len(w.model.tasks) + 2 {
		w.timePasses()
		w.stabilize()
		w.claim(w.finishing(last), w.newClaim(last, 5))
		w.compare()
	}
	w.ended()
}

func (w *world) rerunSuspended() {
	changes := make(map[flow.TaskKey]flow.Status)
	for key, t := range w.model.tasks {
		if t.status == flow.Suspended {
			changes[key] = flow.Waiting
		}
	}
	w.byHand(w.model.edit(changes), `UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2`)
}

// finishing returns everything that a watcher runs, as having succeeded.
func (w *world) finishing(id string) []*hand {
	var given []*hand
	for _, h := range w.hands {
		if h.watcher == id && h.result == nil {
			h.result = &flow.Result{Task: h.task, Outcome: flow.OutcomeFinished}
			given = append(given, h)
		}
	}
	return given
}

// ended: every flow has ended, but for tasks that wait for what does not exist, which is
// said where one looks.
func (w *world) ended() {
	var whys []struct {
		Flow string `db:"task_flow_id"`
		Seq  int    `db:"task_exec_seq"`
		Why  string `db:"why"`
	}
	require.NoError(w, w.db.Select(&whys, `SELECT task_flow_id, task_exec_seq, why FROM v_why_waiting`))
	visible := make(map[flow.TaskKey]string)
	for _, r := range whys {
		visible[flow.TaskKey{Flow: flow.ID(r.Flow), Seq: r.Seq}] = r.Why
	}
	stuck := make(map[flow.ID]bool)
	for _, key := range w.model.keys() {
		t := w.model.tasks[key]
		if t.status.Satisfies() {
			continue
		}
		stuck[key.Flow] = true
		require.Equal(w, flow.Waiting, t.status, "task %s does not end", key)
		require.True(w, w.waitsForMissing(key), "task %s waits without a reason", key)
		require.Regexp(w, `^(task \d+, which it depends on, does not exist|waits for task \d+(, \d+)*)$`, visible[key])
	}
	var unfinished []string
	require.NoError(w, w.db.Select(&unfinished, `SELECT task_flow_id FROM v_flow WHERE status <> 'finished'`))
	require.Len(w, unfinished, len(stuck))
}

func (w *world) waitsForMissing(key flow.TaskKey) bool {
	return slices.ContainsFunc(w.model.tasks[key].parents, func(p int) bool {
		parent := flow.TaskKey{Flow: key.Flow, Seq: p}
		t := w.model.tasks[parent]
		return t == nil || !t.status.Satisfies() && w.waitsForMissing(parent)
	})
}
