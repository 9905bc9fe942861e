package watcher

import (
	"sync"

	"github.com/d-tsuji/flower/internal/flow"
)

// ended is what a worker tells the dispatcher: an attempt ended, or a stuck worker came
// back.
type ended struct {
	result *flow.Result // nil: it was reported before
	free   bool         // the worker can take a task again
}

// inbox gathers what workers tell the dispatcher, which is woken up when there is as much as
// it can use: to wake it up for each result costs a microsecond a task. Nobody waits to be
// heard, not even after the dispatcher's end.
type inbox struct {
	full chan struct{} // of a signal: there is as much as was asked for

	mu     sync.Mutex
	ended  []ended
	enough int
}

func newInbox() *inbox { return &inbox{full: make(chan struct{}, 1)} }

func (b *inbox) put(e ended) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = append(b.ended, e)
	b.tell()
}

// ask tells after how many the dispatcher is to be woken up from now on, at least one.
func (b *inbox) ask(enough int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.enough = enough
	b.tell()
}

func (b *inbox) tell() {
	if len(b.ended) >= b.enough {
		signal(b.full)
	}
}

// take empties the inbox into a slice, whose former content is gone.
func (b *inbox) take(into []ended) []ended {
	clear(into) // or what was taken lives on
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.ended
	b.ended = into[:0]
	return taken
}
