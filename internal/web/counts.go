package web

import (
	"context"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// counts keeps how many flows there are. With many flows that takes longer than all else on
// the page that lists them: then it shows what was counted last, and counts anew meanwhile,
// for the next refresh. Where it is quick it is counted each time.
type counts struct {
	mu   sync.Mutex
	kept map[string]*count // by filter; guarded by mu
}

type count struct {
	flow.FlowCounts
	at       time.Time // when they were asked for
	took     time.Duration
	renewing bool
}

const (
	dearCount   = 15 * time.Millisecond // what takes longer is kept
	newCount    = time.Second           // what is younger is good enough
	oldestCount = 10 * time.Second      // what is older is not shown
	maxCounts   = 200                   // filters
)

// countFlows counts the flows of a filter, whatever words it asks for.
func (s *Site) countFlows(ctx context.Context, f flow.Filter, q query) (flow.FlowCounts, error) {
	var fields query
	fields.values = map[string][]string{}
	for _, name := range filterNames {
		if name != "status" {
			fields.values[name] = q.values[name]
		}
	}
	key := fields.values.Encode()
	f.Status = nil

	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	last := s.counts.kept[key]
	if last == nil || last.took < dearCount || time.Since(last.at) > oldestCount {
		s.counts.mu.Unlock()
		now, err := s.countNow(ctx, f)
		s.counts.mu.Lock()
		if err != nil {
			return flow.FlowCounts{}, err
		}
		s.counts.keep(key, now)
		return now.FlowCounts, nil
	}
	if time.Since(last.at) > newCount && !last.renewing {
		last.renewing = true
		go func() { // nobody waits for it, and it ends by itself
			background, cancel := context.WithTimeout(context.WithoutCancel(ctx), renderTimeout)
			defer cancel()
			now, err := s.countNow(background, f)
			s.counts.mu.Lock()
			defer s.counts.mu.Unlock()
			if err != nil {
				delete(s.counts.kept, key) // whoever asks next is told
				return
			}
			s.counts.keep(key, now)
		}()
	}
	return last.FlowCounts, nil
}

func (s *Site) countNow(ctx context.Context, f flow.Filter) (*count, error) {
	begin := time.Now()
	c, err := s.store.FlowCounts(ctx, f)
	return &count{FlowCounts: c, at: begin, took: time.Since(begin)}, err
}

// keep remembers counts. Callers hold mu.
func (c *counts) keep(key string, now *count) {
	if len(c.kept) >= maxCounts {
		for other, one := range c.kept {
			if time.Since(one.at) > oldestCount {
				delete(c.kept, other)
			}
		}
	}
	if c.kept == nil || len(c.kept) >= maxCounts {
		c.kept = map[string]*count{}
	}
	c.kept[key] = now
}
