package web

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
)

// How much of each list the page has.
const (
	runningNow  = 20
	queuedNow   = 10
	groupsNow   = 5
	watchersNow = 12
)

// readsAtOnce leaves connections to others: register has six to read by.
const readsAtOnce = 3

// window is a time that charts are of. What was counted is read for twice as long, so that
// there is something to compare with.
type window struct {
	Name   string
	Span   time.Duration
	Bucket time.Duration // that is read: an hour is a number of them
	Bar    time.Duration // of the chart: a number of buckets
}

var windows = []window{
	{"24h", 24 * time.Hour, 5 * time.Minute, 15 * time.Minute},
	{"7d", 7 * 24 * time.Hour, 30 * time.Minute, 2 * time.Hour},
}

// windowOf returns the one that a URL names, by default the first.
func windowOf(q query) window {
	for _, w := range windows {
		if q.get("window") == w.Name {
			return w
		}
	}
	return windows[0]
}

// showNow is GET /: what runs, whether anything is stuck, whether the queue moves.
func (s *Site) showNow(r *http.Request, sh *shell) (any, error) {
	ctx, q := r.Context(), query{r.URL.Query()}.without("did")
	win := windowOf(q)
	stats, err := s.store.Throughput(ctx, 2*win.Span, win.Bucket)
	if err != nil {
		return nil, err
	}
	v := nowView{Query: q, Window: win, Stats: stats}
	if err := s.readNow(ctx, &v); err != nil {
		return nil, err
	}
	sh.Title, sh.Active, sh.AsOf, sh.Every = "Now", "Now", stats.AsOf, everyNow
	if stats.Running > 0 {
		sh.Icon = "running"
	}
	return v, nil
}

// readNow reads the parts of the page, several at a time: none needs another one.
func (s *Site) readNow(ctx context.Context, v *nowView) error {
	var (
		some    flow.Page
		a       flow.Attention
		running []flow.RunningTask
		queue   []flow.QueuedTask
		groups  flow.FailureGroups
		list    []flow.WatcherState
	)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(readsAtOnce)
	all.Go(func() (err error) {
		groups, err = s.store.FailureGroups(ctx, flow.FailureFilter{CountTo: flow.MaxCount, Limit: groupsNow})
		return err
	})
	all.Go(func() (err error) { running, err = s.store.Running(ctx, runningNow); return err })
	all.Go(func() (err error) { a, err = s.attention(ctx); return err })
	all.Go(func() (err error) { queue, _, err = s.store.Queue(ctx, "", queuedNow); return err })
	all.Go(func() (err error) { some, err = s.store.Flows(ctx, flow.Filter{}, flow.Position{}, 1); return err })
	all.Go(func() (err error) { list, err = s.store.Watchers(ctx); return err })
	if err := all.Wait(); err != nil {
		return err
	}
	v.First, v.Alerts = len(some.Flows) == 0, newAlerts(a)
	v.fill(running, queue, groups, list)
	return nil
}
