package web

import (
	"net/http"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// How much of each list the page has.
const (
	runningNow  = 20
	queuedNow   = 10
	groupsNow   = 5
	watchersNow = 12
)

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
	some, err := s.store.Flows(ctx, flow.Filter{}, flow.Position{}, 1)
	if err != nil {
		return nil, err
	}
	v := nowView{Query: q, Window: win, Stats: stats, First: len(some.Flows) == 0}
	a, err := s.attention(ctx)
	if err != nil {
		return nil, err
	}
	v.Alerts = newAlerts(a)
	running, err := s.store.Running(ctx, runningNow)
	if err != nil {
		return nil, err
	}
	queue, _, err := s.store.Queue(ctx, "", queuedNow)
	if err != nil {
		return nil, err
	}
	groups, err := s.store.FailureGroups(ctx, flow.FailureFilter{CountTo: flow.MaxCount, Limit: groupsNow})
	if err != nil {
		return nil, err
	}
	list, err := s.store.Watchers(ctx)
	if err != nil {
		return nil, err
	}
	v.fill(running, queue, groups, list)
	sh.Title, sh.Active, sh.AsOf, sh.Every = "Now", "Now", stats.AsOf, everyNow
	if stats.Running > 0 {
		sh.Icon = "running"
	}
	return v, nil
}
