package watcher

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/lmittmann/tint"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxLine is how much of a line is kept, in bytes.
const maxLine = 8 << 10

// resultWait is how long the result of an attempt waits for its last lines.
const resultWait = 100 * time.Millisecond

// printed takes what comes of one attempt: what its work prints, and what its program
// says. Every line passes through stream.end, and goes to the shipper.
type printed struct {
	shipper                *shipper
	task                   *flow.Task
	log                    atomic.Pointer[attemptLog] // nil before the first line: most attempts have none
	stdout, stderr, spoken stream
	over                   atomic.Bool // nothing more is taken
}

// stream makes lines of bytes.
type stream struct {
	to   *printed
	name flow.Stream

	mu   sync.Mutex
	line []byte // what came of the present line; guarded by mu
	cut  bool   // and that some of it was dropped; guarded by mu
}

// open makes ready for what the attempt at t prints.
func (p *printed) open(s *shipper, t *flow.Task) {
	p.shipper, p.task = s, t
	p.stdout.to, p.stdout.name = p, flow.StreamStdout
	p.stderr.to, p.stderr.name = p, flow.StreamStderr
	p.spoken.to, p.spoken.name = p, flow.StreamLog
}

// kept returns the attempt's log, for its next line.
func (p *printed) kept() *attemptLog {
	if p.log.Load() == nil {
		p.log.CompareAndSwap(nil, newAttemptLog(*p.task)) // or another stream was first
	}
	return p.log.Load()
}

var _ io.Writer = (*stream)(nil)

// Write never fails: whoever prints is not to stop because nobody keeps it.
func (s *stream) Write(b []byte) (int, error) {
	n := len(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(b) > 0 && !s.to.over.Load() {
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

// end ends the present line. The caller holds mu.
func (s *stream) end() {
	line := bytes.TrimSuffix(s.line, []byte("\r"))
	if s.cut {
		line = wholeRunes(line)
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(string(line), "\uFFFD"), "\x00", "\uFFFD")
	if s.cut {
		text += " … (cut)"
	}
	s.line, s.cut = s.line[:0], false
	s.to.shipper.take(s.to.kept(), flow.LogLine{At: time.Now(), Stream: s.name, Text: text})
}

// wholeRunes takes off what is left of a character where a line was cut.
func wholeRunes(line []byte) []byte {
	for i := len(line) - 1; i >= max(0, len(line)-utf8.UTFMax); i-- {
		if utf8.RuneStart(line[i]) {
			if !utf8.FullRune(line[i:]) {
				return line[:i]
			}
			break
		}
	}
	return line
}

// close takes what came without an end of line, and nothing more, and waits until the
// last lines are in the database: whoever sees that a task has ended can read what it
// said. It waits neither for long nor for a database that has not kept up before.
func (p *printed) close() {
	p.over.Store(true) // a program that has not returned, or has left somebody behind, may still print
	for _, s := range []*stream{&p.stdout, &p.stderr, &p.spoken} {
		s.mu.Lock()
		if len(s.line) > 0 {
			s.end()
		}
		s.line = nil
		s.mu.Unlock()
	}
	log := p.log.Load()
	if log == nil || p.shipper.end(log) || p.shipper.late.Load() {
		return
	}
	select {
	case <-log.written:
	case <-time.After(resultWait):
		p.shipper.late.Store(true)
	}
}

// logger returns a logger whose lines go to the log of the watcher and to that of the
// attempt.
func (p *printed) logger(of *slog.Logger) *slog.Logger {
	return slog.New(teller{of.Handler(), func() slog.Handler {
		return tint.NewTextHandler(&p.spoken, &tint.Options{NoColor: true, ReplaceAttr: withoutSame(p.task)})
	}})
}

// withoutSame leaves out what is the same in each line of an attempt, and that a line is
// no warning.
func withoutSame(t *flow.Task) func(groups []string, a slog.Attr) slog.Attr {
	same := map[string]string{
		"component": "program", "flow": string(t.Flow), "seq": strconv.Itoa(t.Seq), "task": string(t.WorkflowID),
		"program": t.Program, "attempt": strconv.Itoa(t.Attempt), slog.LevelKey: slog.LevelInfo.String(),
	}
	return func(groups []string, a slog.Attr) slog.Attr {
		if text, known := same[a.Key]; known && len(groups) == 0 && a.Value.String() == text {
			return slog.Attr{}
		}
		return a
	}
}

// teller tells the watcher's log, which is the embedded handler, and the attempt's own. The
// latter gets whatever is no debugging, at any level of the former. It is made anew for
// each line: most attempts have nothing to say.
type teller struct {
	slog.Handler
	own func() slog.Handler
}

func (h teller) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.Handler.Enabled(ctx, level)
}

func (h teller) Handle(ctx context.Context, r slog.Record) error {
	told := r.Clone()
	told.Time = time.Time{} // a line has its time beside it
	_ = h.own().Handle(ctx, told)
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h teller) WithAttrs(attrs []slog.Attr) slog.Handler {
	return teller{h.Handler.WithAttrs(attrs), func() slog.Handler { return h.own().WithAttrs(attrs) }}
}

func (h teller) WithGroup(name string) slog.Handler {
	return teller{h.Handler.WithGroup(name), func() slog.Handler { return h.own().WithGroup(name) }}
}
