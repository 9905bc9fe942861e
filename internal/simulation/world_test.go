package simulation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
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
	Rescue(ctx context.Context, watcher string, tell func([]flow.Rescued)) error
	Drain(ctx context.Context, watcher string) error
	Leave(ctx context.Context, watcher string, behind bool) error
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
