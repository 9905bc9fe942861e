package simulation

import (
	"cmp"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// model is what the tables should hold, worked out from the rules alone.
type model struct {
	tasks    map[flow.TaskKey]*task
	attempts map[flow.TaskKey]map[int]attempt // superseded ones
	watchers map[string]*watcherRow           // those that have a row
}

func newModel() *model {
	return &model{
		tasks:    make(map[flow.TaskKey]*task),
		attempts: make(map[flow.TaskKey]map[int]attempt),
		watchers: make(map[string]*watcherRow),
	}
}

// task is a row of kr_task_stat.
type task struct {
	parents    []int // as written: duplicates and tasks that do not exist may be among them
	status     flow.Status
	priority   int
	registered time.Time
	program    string
	attempt    int
	base       int // attempt when it was last reset by hand
	failed     int
	lost       int
	claim      string
	watcher    string
	wait       wait
	reason     string
	hold       bool
	hasError   bool
	output     string
	pause      string // what its program has left; empty is none
	asks       bool   // a person
	approved   bool
	began      bool // before a pause, which has not ended
	// Which times are set.
	started, finished, suspended bool
	// How it runs.
	maxAttempts int
	retryLater  bool // a retry waits
	onLost      flow.OnLost
}

// wait is whether run_after is set, and to when.
type wait int

const (
	notAtAll wait = iota
	untilLater
	untilPast // its time has come, but nobody has noticed
)

type attempt struct {
	status flow.Status
	claim  string
}

type watcherRow struct {
	programs []string
	draining bool
	expired  bool // its lease has ended, and it does not know
}

func (m *model) unmet(key flow.TaskKey) int {
	n := 0
	for _, p := range distinct(m.tasks[key].parents) {
		parent := m.tasks[flow.TaskKey{Flow: key.Flow, Seq: p}]
		if parent == nil || !parent.status.Satisfies() {
			n++
		}
	}
	return n
}

func distinct(seqs []int) []int {
	return slices.Compact(slices.Sorted(slices.Values(seqs)))
}

// children returns the tasks that depend on one.
func (m *model) children(key flow.TaskKey) []*task {
	var found []*task
	for k, t := range m.tasks {
		if k.Flow == key.Flow && slices.Contains(t.parents, key.Seq) {
			found = append(found, t)
		}
	}
	return found
}

func (m *model) ready(key flow.TaskKey) bool {
	t := m.tasks[key]
	return t.status == flow.Waiting && t.wait == notAtAll && m.unmet(key) == 0
}

// queue returns what can be claimed by a watcher with programs, in the documented order.
func (m *model) queue(programs []string) []flow.TaskKey {
	var keys []flow.TaskKey
	for key, t := range m.tasks {
		if m.ready(key) && slices.Contains(programs, t.program) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b flow.TaskKey) int {
		x, y := m.tasks[a], m.tasks[b]
		return cmp.Or(cmp.Compare(x.priority, y.priority), x.registered.Compare(y.registered),
			cmp.Compare(a.Flow, b.Flow), cmp.Compare(a.Seq, b.Seq))
	})
	return keys
}

// keys returns all tasks, in order.
func (m *model) keys() []flow.TaskKey {
	return m.where(func(flow.TaskKey, *task) bool { return true })
}

func (m *model) where(match func(flow.TaskKey, *task) bool) []flow.TaskKey {
	var keys []flow.TaskKey
	for key, t := range m.tasks {
		if match(key, t) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b flow.TaskKey) int {
	return cmp.Or(cmp.Compare(a.Flow, b.Flow), cmp.Compare(a.Seq, b.Seq))
}

func (m *model) flows() []flow.ID {
	var ids []flow.ID
	for key := range m.tasks {
		ids = append(ids, key.Flow)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// free is how many tasks a watcher may claim that asks for n.
func (m *model) free(id string, n int) int {
	if w := m.watchers[id]; w == nil || w.draining || w.expired {
		return 0
	}
	return n
}

func (m *model) claim(key flow.TaskKey, c flow.Claim) {
	t := m.tasks[key]
	t.status, t.claim, t.watcher, t.started = flow.Running, c.ID, c.Watcher, true
	t.attempt++
}

// record applies a result if the fence holds.
func (m *model) record(r flow.Result) bool {
	key := r.Task.TaskKey
	t := m.tasks[key]
	if t == nil || t.status != flow.Running || t.claim != r.Task.ClaimID || t.watcher == "" {
		return false
	}
	t.watcher = ""
	switch r.Outcome {
	case flow.OutcomeFinished:
		t.status, t.output, t.finished, t.hasError = flow.Finished, string(r.Output), true, false
		t.pause, t.asks, t.approved, t.began = "", false, false, false
		return true
	case flow.OutcomeSkipped:
		t.status, t.output, t.started, t.hasError = flow.Ignored, "", false, true
		t.pause, t.asks, t.approved, t.began = "", false, false, false
		return true
	case flow.OutcomePaused:
		m.pause(key, *r.Pause)
		return true
	}
	t.hasError, t.wait = true, notAtAll
	back := r.Outcome == flow.OutcomeHandedBack || r.Outcome == flow.OutcomeNotStarted
	again := r.Outcome == flow.OutcomeNotStarted ||
		r.Outcome == flow.OutcomeHandedBack && t.onLost == flow.OnLostRerun ||
		(r.Outcome == flow.OutcomeFailed || r.Outcome == flow.OutcomeTimeout) && t.failed+1 < t.maxAttempts
	if !back {
		t.failed++
	}
	why := string(r.Outcome)
	if back {
		why = "lost"
	}
	ended := flow.Suspended
	if back {
		ended = flow.Running
	}
	m.again(key, again, ended, why)
	if again && !back && t.retryLater && t.status == flow.Waiting {
		t.wait = untilLater
	}
	return true
}

// pause lets a task wait without an attempt that is kept, or asks a person.
func (m *model) pause(key flow.TaskKey, p flow.Pause) {
	t := m.tasks[key]
	t.pause, t.asks, t.approved, t.began = string(p.State), p.Ask, false, true
	t.wait, t.hasError = notAtAll, p.Ask
	if p.After > 0 {
		t.wait = untilLater
	}
	if p.Ask || t.hold {
		t.status, t.suspended, t.reason = flow.Suspended, true, "held"
	} else {
		t.status, t.started = flow.Waiting, false
	}
}

// again lets a task wait after an attempt, or suspends it.
func (m *model) again(key flow.TaskKey, again bool, ended flow.Status, why string) {
	t := m.tasks[key]
	switch {
	case again && t.hold:
		t.status, t.suspended, t.reason = flow.Suspended, true, "held"
	case again:
		m.keep(key, ended)
		t.status, t.started = flow.Waiting, false
	default:
		t.status, t.suspended, t.reason, t.began = flow.Suspended, true, why, false
	}
}

// keep puts the present attempt of a task with the superseded ones.
func (m *model) keep(key flow.TaskKey, ended flow.Status) {
	t := m.tasks[key]
	if m.attempts[key] == nil {
		m.attempts[key] = make(map[int]attempt)
	}
	if _, kept := m.attempts[key][t.attempt]; !kept {
		m.attempts[key][t.attempt] = attempt{ended, t.claim}
	}
}

// endsAlike reports whether a task was rescued to an end that a late result looks like, so
// that nobody can tell which of the two it was.
func (m *model) endsAlike(r flow.Result) bool {
	t := m.tasks[r.Task.TaskKey]
	return !releases(r.Outcome) && t != nil && t.claim == r.Task.ClaimID && t.status != flow.Running
}

// lose takes back a task whose watcher vanished.
func (m *model) lose(key flow.TaskKey) {
	t := m.tasks[key]
	again := t.onLost == flow.OnLostRerun && t.lost < 2
	t.lost++
	t.watcher, t.hasError, t.wait = "", true, notAtAll
	m.again(key, again, flow.Running, "lost")
	if t.status == flow.Waiting && t.lost > 1 {
		t.wait = untilLater
	}
}

// edit sets the statuses of tasks by hand, in one UPDATE. It reports false, and changes
// nothing, where the database must refuse that.
func (m *model) edit(changes map[flow.TaskKey]flow.Status) bool {
	after := func(key flow.TaskKey) flow.Status {
		if s, changed := changes[key]; changed {
			return s
		}
		return m.tasks[key].status
	}
	for key, status := range changes {
		old := m.tasks[key].status
		if status == flow.Running && old != flow.Running {
			return false
		}
		if !old.Satisfies() || status.Satisfies() {
			continue
		}
		for child, t := range m.tasks {
			if child.Flow == key.Flow && slices.Contains(t.parents, key.Seq) && after(child) == flow.Running {
				return false
			}
		}
	}
	for key, status := range changes {
		if m.tasks[key].status != status {
			m.set(key, status)
		}
	}
	return true
}

func (m *model) set(key flow.TaskKey, status flow.Status) {
	t := m.tasks[key]
	old := t.status
	if status == flow.Waiting && t.attempt > 0 {
		m.keep(key, old)
	}
	resumed := old == flow.Suspended && t.reason == "held" && status == flow.Waiting // no new run: it goes on
	held := old == flow.Suspended && t.reason == "held" && t.pause != ""             // it paused, and goes on from there
	asked := held && t.asks
	anew := status == flow.Waiting && !(resumed && t.failed < t.maxAttempts) || old.Satisfies() && !status.Satisfies()
	if anew {
		t.failed, t.lost = 0, 0
		if !resumed || !held {
			t.base = t.attempt
		}
	}
	switch {
	case old == flow.Running && t.watcher != "":
		t.wait = untilLater // its program is still being stopped
	case t.wait == untilPast:
		t.wait = notAtAll
	}
	t.status, t.claim, t.watcher = status, "", ""
	t.started = t.started && status != flow.Waiting
	t.finished = status == flow.Finished
	t.suspended = status == flow.Suspended
	switch {
	case status != flow.Suspended:
		t.reason = ""
	case t.reason == "" && old == flow.Running:
		t.reason = "cancelled"
	case t.reason == "":
		t.reason = "held"
	}
	if status == flow.Waiting {
		t.hold, t.output = false, ""
		t.hasError = t.hasError && !anew && !asked
	}
	switch {
	case status == flow.Waiting && held:
		t.asks, t.approved = false, t.approved || asked
	case status != flow.Suspended:
		t.started = t.started || t.began && status == flow.Finished
		t.pause, t.asks, t.approved, t.began = "", false, false, false
		if status == flow.Finished && asked && t.output == "" {
			t.output = approval
		}
	}
}

// approval is the output of a task that asked, and was set to 3.
const approval = `{"approved": true}`

// plan is what an action of an operator does.
type plan struct {
	changes map[flow.TaskKey]flow.Status
	also    []func() // what changes beside statuses
	refused bool
}

// rerun plans a rerun from one task, or of its flow.
func (m *model) rerun(from flow.TaskKey, scope string) plan {
	p := plan{changes: make(map[flow.TaskKey]flow.Status)}
	set := m.where(func(key flow.TaskKey, _ *task) bool {
		return key.Flow == from.Flow && (key == from || scope == "all" || scope == "failed" || scope == "from" && m.after(from, key))
	})
	for _, key := range set {
		t := m.tasks[key]
		named := key == from && (scope == "from" || scope == "only")
		held := t.status == flow.Suspended && t.reason == "held"
		switch {
		case named && held && t.asks:
			p.refused = true
		case scope == "failed" && t.status != flow.Suspended, t.status == flow.Waiting,
			(held || t.status == flow.Ignored) && !named:
		case t.status == flow.Running:
			p.refused = true
		default:
			p.changes[key] = flow.Waiting
			p.also = append(p.also, func() { // whatever it was
				t.failed, t.lost, t.hasError = 0, 0, false
				if t.pause == "" {
					t.base = t.attempt
				}
			})
		}
		if scope == "only" && key != from {
			delete(p.changes, key)
		}
	}
	return p
}

// after reports whether a task comes after another one.
func (m *model) after(one, other flow.TaskKey) bool {
	return slices.ContainsFunc(m.tasks[other].parents, func(p int) bool {
		parent := flow.TaskKey{Flow: one.Flow, Seq: p}
		return parent == one || m.tasks[parent] != nil && m.after(one, parent)
	})
}

// operate plans what is done to tasks; named: it is one that the operator has named.
func (m *model) operate(name string, meant []flow.TaskKey, named bool) plan {
	p := plan{changes: make(map[flow.TaskKey]flow.Status)}
	for _, key := range meant {
		t := m.tasks[key]
		held := t.status == flow.Suspended && t.reason == "held"
		asks := held && t.asks
		switch {
		case name == "hold" && t.status <= flow.Running && !t.hold:
			if t.status == flow.Waiting {
				p.changes[key] = flow.Suspended
			}
			p.also = append(p.also, func() { t.hold = true })
		case name == "resume" && held && !asks, name == "approve" && asks:
			p.changes[key] = flow.Waiting
		case name == "resume" && t.status == flow.Running:
			p.also = append(p.also, func() { t.hold = false })
		case name == "resume" && named && t.status == flow.Suspended, name == "skip" && t.status == flow.Finished, name == "approve":
			p.refused = true
		case name == "cancel" && (t.status <= flow.Running || held):
			p.changes[key] = flow.Suspended
			t.reason, t.hasError = "cancelled", false // why: not given
		case name == "skip" && t.status <= flow.Suspended:
			p.changes[key] = flow.Ignored
		case name == "finish" && t.status != flow.Finished:
			p.changes[key] = flow.Finished
		}
	}
	return p
}

func (m *model) remove(key flow.TaskKey) {
	delete(m.tasks, key)
	delete(m.attempts, key)
}
