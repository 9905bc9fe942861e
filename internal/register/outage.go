package register

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// outage tells people that the database is away: at once; again after a few seconds, since
// the first error often says no more than that a connection was lost; then once a minute,
// with how many requests that has cost; and when it is back. One that fails every other
// time has a line a second.
type outage struct {
	out  *slog.Logger
	away atomic.Bool // saves the requests of a good day the lock

	mu      sync.Mutex // guards the rest
	since   time.Time
	refused int
	told    time.Time // when it last said so
	tells   int       // how often it has told of this outage
}

// tellPauses are the least ones before the first, the second and any other line.
var tellPauses = [...]time.Duration{time.Second, 5 * time.Second, time.Minute}

// refuse notes a request that failed for that.
func (o *outage) refuse(ctx context.Context, err error, attrs ...any) {
	o.away.Store(true)
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.refused == 0 {
		o.since = now
	}
	o.refused++
	if now.Sub(o.told) < tellPauses[min(o.tells, len(tellPauses)-1)] {
		return
	}
	o.told = now
	o.tells++
	o.out.WarnContext(ctx, "the database is away: requests are answered with 503", append(attrs, "refused", o.refused, "err", err)...)
}

// over notes that the database has answered.
func (o *outage) over(ctx context.Context) {
	if !o.away.Swap(false) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tells > 0 {
		o.out.InfoContext(ctx, "the database is back", "refused", o.refused, "after", time.Since(o.since).Round(time.Millisecond))
	}
	o.refused, o.tells = 0, 0
}
