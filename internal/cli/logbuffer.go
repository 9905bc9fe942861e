package cli

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// maxBuffer is how much of a log waits for its reader, in bytes.
const maxBuffer = 1 << 20

// lastWord is how long the end of a process waits for a reader of its log that takes nothing.
const lastWord = 2 * time.Second

// logBuffer stands between those who log and a file, so that none of them ever waits: a pipe
// whose reader sleeps, or a terminal on which somebody has typed Ctrl-S, takes nothing any
// more, and heartbeats, workers and requests would stand still behind it. Lines that find the
// buffer full are dropped and counted.
type logBuffer struct {
	to   io.Writer
	tell func(dropped int) // by a line of its own
	some chan struct{}     // of capacity 1: there is something to write, or closing is set
	done chan struct{}     // closed when all is written after closing was set

	written atomic.Int64 // lines

	mu      sync.Mutex // protects following fields
	waiting []byte     // whole lines
	dropped int        // lines, after those
	closing bool
}

func newLogBuffer(to io.Writer, tell func(dropped int)) *logBuffer {
	b := &logBuffer{to: to, tell: tell, some: make(chan struct{}, 1), done: make(chan struct{})}
	go b.write()
	return b
}

// Write takes a whole line, or drops it.
func (b *logBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	if len(b.waiting)+len(line) <= maxBuffer {
		b.waiting = append(b.waiting, line...)
	} else {
		b.dropped++
	}
	b.mu.Unlock()
	b.wake()
	return len(line), nil
}

func (b *logBuffer) wake() {
	select {
	case b.some <- struct{}{}:
	default:
	}
}

// write writes what waits until nothing more can come.
func (b *logBuffer) write() {
	defer close(b.done)
	var lines []byte
	for range b.some {
		var dropped int
		var closing bool
		lines, dropped, closing = b.take(lines[:0])
		for line := range bytes.Lines(lines) { // each by itself: others may write there, too
			_, _ = b.to.Write(line) // there is nowhere else to say that it cannot be written
			b.written.Add(1)
		}
		if dropped > 0 {
			b.tell(dropped)
		}
		switch {
		case closing && len(lines) == 0 && dropped == 0:
			return
		case closing:
			b.wake()
		}
	}
}

// take returns what waits, and has what is to come wait in empty.
func (b *logBuffer) take(empty []byte) (lines []byte, dropped int, closing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines, dropped = b.waiting, b.dropped
	b.waiting, b.dropped = empty, 0
	return lines, dropped, b.closing
}

// close waits until all is written, unless nobody reads it.
func (b *logBuffer) close() {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	b.wake()
	for before := int64(-1); before != b.written.Load(); {
		before = b.written.Load()
		select {
		case <-b.done:
			return
		case <-time.After(lastWord):
		}
	}
}
