package watcher

import (
	"sync"

	"github.com/d-tsuji/flower/internal/flow"
)

// outbox has tasks for workers; there is a free one for each. The dispatcher wakes up one
// worker for all that it gives, which wakes up the next when it takes a task while there are
// more: long tasks all begin at once. No second one is woken up before the first is awake, so
// that of short tasks each worker runs several without going to sleep between them, which
// costs as much as they do.
type outbox struct {
	some sync.Cond // there are tasks, or it is closed

	mu     sync.Mutex
	tasks  []flow.Task
	asleep int  // workers that wait and have not been woken up
	waking bool // one has been, and has not looked yet
	closed bool
}

func newOutbox() *outbox {
	b := &outbox{}
	b.some.L = &b.mu
	return b
}

// give adds tasks, which it copies.
func (b *outbox) give(tasks []flow.Task) {
	if len(tasks) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tasks = append(b.tasks, tasks...)
	b.wake()
}

// wake has one more worker look if there is something for it, unless one is about to. Call
// it with the lock held.
func (b *outbox) wake() {
	if len(b.tasks) > 0 && b.asleep > 0 && !b.waking {
		b.asleep--
		b.waking = true
		b.some.Signal()
	}
}

// take waits for the next task, which was given first; false: there will be none.
func (b *outbox) take() (flow.Task, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.tasks) == 0 {
		if b.closed {
			return flow.Task{}, false
		}
		b.asleep++
		b.some.Wait()
		b.waking = false
	}
	t := b.tasks[0]
	b.tasks[0] = flow.Task{} // the slice lives longer than what is in it
	b.tasks = b.tasks[1:]
	b.wake()
	return t, true
}

// close ends the workers, once there are no more tasks.
func (b *outbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.some.Broadcast()
}
