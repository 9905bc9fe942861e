package watcher

import (
	"sync"

	"github.com/d-tsuji/flower/internal/flow"
)

// roster is the attempts whose programs run, so that they can be cancelled one by one.
type roster struct {
	mu      sync.Mutex
	running map[*attempt]bool
}

// attemptKey tells attempts at one task apart, which may overlap when one was revoked.
type attemptKey struct {
	task  flow.TaskKey
	claim string
}

func newRoster() *roster { return &roster{running: make(map[*attempt]bool)} }

func (r *roster) add(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[a] = true
}

func (r *roster) remove(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, a)
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
	for a := range r.running {
		tasks = append(tasks, a.result.Task)
	}
	return tasks
}

// cancel ends one attempt's context; one that has ended meanwhile is nobody's concern.
func (r *roster) cancel(t flow.Task, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a := range r.running {
		if keyOf(a.result.Task) == keyOf(t) {
			a.end(cause)
		}
	}
}

// cancelAll ends the contexts of all attempts that match.
func (r *roster) cancelAll(match func(flow.Task) bool, cause error) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for a := range r.running {
		if match(a.result.Task) {
			a.end(cause)
			n++
		}
	}
	return n
}
