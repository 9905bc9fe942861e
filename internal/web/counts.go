package web

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// counts keeps how many flows there are. With many flows that takes longer than all else on
// the page that lists them: then it shows what was counted last, and counts anew meanwhile,
// for the next refresh. Where it is quick it is counted each time.
type counts struct {
	mu   sync.Mutex
	kept map[string]*count // by generation and filter; guarded by mu
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
	key := fmt.Sprintf("%d %s", s.generation.Load(), fields.values.Encode())
	f.Status = nil

	last, old := s.counts.find(key)
	if last == nil {
		now, err := s.countNow(ctx, f)
		if err != nil {
			return flow.FlowCounts{}, err
		}
		s.counts.keep(key, now)
		return now.FlowCounts, nil
	}
	if old {
		go s.renew(context.WithoutCancel(ctx), key, f)
	}
	return last.FlowCounts, nil
}

// renew counts anew. Nobody waits for it, and it ends by itself.
func (s *Site) renew(ctx context.Context, key string, f flow.Filter) {
	ctx, cancel := context.WithTimeout(ctx, renderTimeout)
	defer cancel()
	if now, err := s.countNow(ctx, f); err == nil {
		s.counts.keep(key, now)
	} else {
		s.counts.forget(key) // whoever asks next is told
	}
}

func (s *Site) countNow(ctx context.Context, f flow.Filter) (*count, error) {
	begin := time.Now()
	c, err := s.store.FlowCounts(ctx, f)
	return &count{FlowCounts: c, at: begin, took: time.Since(begin)}, err
}

// find returns what was counted last, nil if that is not to be shown, and whether the
// caller is to count anew: only one does.
func (c *counts) find(key string) (last *count, old bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last = c.kept[key]
	if last == nil || last.took < dearCount || time.Since(last.at) > oldestCount {
		return nil, false
	}
	old = time.Since(last.at) > newCount && !last.renewing
	last.renewing = last.renewing || old
	return last, old
}

func (c *counts) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.kept, key)
}

// keep remembers counts.
func (c *counts) keep(key string, now *count) {
	c.mu.Lock()
	defer c.mu.Unlock()
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
