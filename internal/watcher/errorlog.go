package watcher

import (
	"log/slog"
	"time"
)

// errorLog keeps a loop that fails again and again from flooding the log: the first
// failure is logged at once, then at most one a second, with a count of the others. It
// belongs to one goroutine.
type errorLog struct {
	to      *slog.Logger
	last    time.Time
	skipped int
}

func newErrorLog(to *slog.Logger) *errorLog { return &errorLog{to: to} }

func (l *errorLog) log(msg string, err error) {
	if time.Since(l.last) < time.Second {
		l.skipped++
		return
	}
	//nolint:sloglint // each loop has one constant message, and gives it here
	l.to.Error(msg, "component", "watcher", "err", err, "skipped", l.skipped)
	l.last, l.skipped = time.Now(), 0
}
