package watcher

import (
	"sync"

	"github.com/d-tsuji/flower/internal/flow"
)

// roster is the attempts whose programs run, so that they can be cancelled one by one.
type roster struct {
	mu      sync.Mutex
	running map[attemptKey]*attempt
}

// attemptKey tells attempts at one task apart, which may overlap when one was revoked.
type attemptKey struct {
	task  flow.TaskKey
	claim string
}

func newRoster() *roster { return &roster{running: make(map[attemptKey]*attempt)} }

func (r *roster) add(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[keyOf(a.task)] = a
}

func (r *roster) remove(t flow.Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, keyOf(t))
}

// size returns how many run.
func (r *roster) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.running)
}

// tasks returns what runs, in no order.
func (r *roster) tasks() []flow.Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	tasks := make([]flow.Task, 0, len(r.running))
	for _, a := range r.running {
		tasks = append(tasks, a.task)
	}
	return tasks
}

// cancel ends one attempt's context; one that has ended meanwhile is nobody's concern.
func (r *roster) cancel(t flow.Task, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.running[keyOf(t)]; ok {
		a.end(cause)
	}
}

// cancelAll ends the contexts of all attempts that match.
func (r *roster) cancelAll(match func(flow.Task) bool, cause error) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, a := range r.running {
		if match(a.task) {
			a.end(cause)
			n++
		}
	}
	return n
}
