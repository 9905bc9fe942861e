package simulation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

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
	w.take(adv.Claimed, c.Watcher)
}

// take keeps what was claimed in an order of its own: Owned has it in that of the rows'
// places, which is not the same twice, and a story is to be.
func (w *world) take(tasks []flow.Task, watcher string) {
	slices.SortFunc(tasks, func(a, b flow.Task) int { return compareKeys(a.TaskKey, b.TaskKey) })
	for _, t := range tasks {
		w.hands = append(w.hands, &hand{task: t, watcher: watcher})
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
	w.take(owned, id)
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
	var rescued []flow.Rescued
	require.NoError(w, w.engine.Rescue(w.Context(), by, func(some []flow.Rescued) { rescued = append(rescued, some...) }))
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
	owns := len(w.model.where(func(_ flow.TaskKey, t *task) bool { return t.status == flow.Running && t.watcher == id })) > 0
	require.NoError(w, w.engine.Leave(w.Context(), id, owns))
	if m := w.model.watchers[id]; m != nil {
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
