package watcher

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/d-tsuji/flower/internal/flow"
)

// Bounds of what an attempt's work prints into the log: a task that prints without end
// harms nobody.
const (
	maxLines = 1000
	maxLine  = 2 << 10 // bytes; the rest of a line is dropped
)

// printed takes what the work of one attempt prints, and logs it line by line.
type printed struct {
	log    *slog.Logger
	task   flow.Task
	stdout stream
	stderr stream

	mu    sync.Mutex
	lines int  // logged so far; guarded by mu
	over  bool // nothing more is taken; guarded by mu
}

// stream is one of the two that a process has.
type stream struct {
	to   *printed
	name string
	line []byte // what came of the present line; guarded by to.mu
	cut  bool   // and that some of it was dropped; guarded by to.mu
}

func newPrinted(log *slog.Logger, t flow.Task) *printed {
	p := &printed{log: log, task: t}
	p.stdout = stream{to: p, name: "stdout"}
	p.stderr = stream{to: p, name: "stderr"}
	return p
}

// Write never fails: whoever prints is not to stop because nobody keeps it.
func (s *stream) Write(b []byte) (int, error) {
	n := len(b)
	s.to.mu.Lock()
	defer s.to.mu.Unlock()
	for len(b) > 0 && !s.to.over {
		rest, ended := b, false
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			rest, ended = b[:i], true
		}
		b = b[min(len(rest)+1, len(b)):]
		room := maxLine - len(s.line)
		s.cut = s.cut || len(rest) > room
		s.line = append(s.line, rest[:min(len(rest), room)]...)
		if ended {
			s.end()
		}
	}
	return n, nil
}

// end logs the present line. The caller holds to.mu.
func (s *stream) end() {
	p := s.to
	text := strings.TrimSuffix(strings.ToValidUTF8(string(s.line), "\uFFFD"), "\r")
	if s.cut {
		text += " … (cut)"
	}
	s.line, s.cut = s.line[:0], false
	if p.lines++; p.lines > maxLines {
		p.over = true
		p.log.Warn("output cut: it has more lines than are logged", attrs(p.task, "lines", maxLines)...)
		return
	}
	p.log.Info("output", attrs(p.task, "stream", s.name, "line", text)...)
}

// close logs what came without an end of line. What a program that has not returned
// prints later is dropped.
func (p *printed) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range []*stream{&p.stdout, &p.stderr} {
		if len(s.line) > 0 && !p.over {
			s.end()
		}
	}
	p.over = true
}

var _ io.Writer = (*stream)(nil)
