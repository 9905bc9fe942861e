package watcher

import (
	"log/slog"
	"time"
)

// errorLog tells people of a loop that fails again and again: of the first failure at
// once; again after a few seconds, since the first one often says no more than that a
// connection was lost; then once a minute; and when it works again. A loop that fails
// every other time has a line a second. It belongs to one goroutine.
type errorLog struct {
	to                 *slog.Logger
	failing, recovered string // what it says

	since    time.Time // of the first failure
	failures int       // since it last worked
	told     time.Time // when it last said so
	tells    int       // how often it has told of these
}

// tellPauses are the least ones before the first, the second and any other line.
var tellPauses = [...]time.Duration{time.Second, 5 * time.Second, time.Minute}

func newErrorLog(to *slog.Logger, failing, recovered string) *errorLog {
	return &errorLog{to: to, failing: failing, recovered: recovered}
}

func (l *errorLog) failed(err error) {
	now := time.Now()
	if l.failures == 0 {
		l.since = now
	}
	l.failures++
	if now.Sub(l.told) < tellPauses[min(l.tells, len(tellPauses)-1)] {
		return
	}
	l.told = now
	l.tells++
	//nolint:sloglint // each loop has constant messages, and gave them before
	l.to.Error(l.failing, "component", "watcher", "err", err, "failures", l.failures)
}

func (l *errorLog) worked() {
	if l.tells > 0 {
		//nolint:sloglint // as above
		l.to.Info(l.recovered, "component", "watcher", "failures", l.failures, "after", time.Since(l.since).Round(time.Millisecond))
	}
	l.failures, l.tells = 0, 0
}
