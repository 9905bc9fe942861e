package watcher

import (
	"log/slog"
	"time"
)

// errorLog tells people of a loop that fails again and again: of the first failure at
// once, then once a minute, and when it works again. A loop that fails every other time
// has a line a second. It belongs to one goroutine.
type errorLog struct {
	to                 *slog.Logger
	failing, recovered string // what it says

	since    time.Time // of the first failure
	failures int       // since it last worked
	told     time.Time // when it last said so
	open     bool      // it has told of these failures
}

const (
	tellAgain = time.Minute
	tellLeast = time.Second
)

func newErrorLog(to *slog.Logger, failing, recovered string) *errorLog {
	return &errorLog{to: to, failing: failing, recovered: recovered}
}

func (l *errorLog) failed(err error) {
	now := time.Now()
	if l.failures == 0 {
		l.since = now
	}
	l.failures++
	pause := tellLeast
	if l.open {
		pause = tellAgain
	}
	if now.Sub(l.told) < pause {
		return
	}
	l.told, l.open = now, true
	//nolint:sloglint // each loop has constant messages, and gave them before
	l.to.Error(l.failing, "component", "watcher", "err", err, "failures", l.failures)
}

func (l *errorLog) worked() {
	if l.open {
		//nolint:sloglint // as above
		l.to.Info(l.recovered, "component", "watcher", "failures", l.failures, "after", time.Since(l.since).Round(time.Millisecond))
	}
	l.failures, l.open = 0, false
}
