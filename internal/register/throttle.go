package register

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/problem"
)

// throttle writes the same error at most once a second, with a count of those it left
// out: what is broken must be in the log, and must not be all of it.
type throttle struct {
	out *slog.Logger

	mu   sync.Mutex
	seen map[string]*sighting // by text; guarded by mu
}

type sighting struct {
	last   time.Time // when it was written
	missed int       // since then
}

const (
	throttlePause = time.Second
	// Texts that are told apart. Beyond, those of the last second count as one.
	throttleTexts = 64
)

func newThrottle(out *slog.Logger) *throttle {
	return &throttle{out: out, seen: make(map[string]*sighting)}
}

// log writes a failure's cause.
func (t *throttle) log(ctx context.Context, f *problem.Failure, attrs ...any) {
	missed, ok := t.admit(f.Cause.Error())
	if !ok {
		return
	}
	if missed > 0 {
		attrs = append(attrs, "repeated", missed)
	}
	t.out.ErrorContext(ctx, "request failed", append(attrs, "err", f.Cause)...)
}

// admit reports whether a text may be written now, and how often it was not.
func (t *throttle) admit(text string) (missed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.seen[text] == nil && len(t.seen) >= throttleTexts {
		for old, s := range t.seen {
			if now.Sub(s.last) >= throttlePause {
				delete(t.seen, old)
			}
		}
		if len(t.seen) >= throttleTexts {
			text = ""
		}
	}
	s := t.seen[text]
	if s == nil {
		s = &sighting{}
		t.seen[text] = s
	} else if now.Sub(s.last) < throttlePause {
		s.missed++
		return 0, false
	}
	missed, s.missed, s.last = s.missed, 0, now
	return missed, true
}
