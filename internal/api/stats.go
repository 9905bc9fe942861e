package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// Stats is how everything stands, and how it went.
type Stats struct {
	AsOfTs       *timestamp       `json:"asOfTs"`
	Flows        map[string]Count `json:"flows" doc:"By status, and all. One that still runs with a failed task counts as both."`
	Workers      int              `json:"workers" doc:"Of watchers that are alive."`
	Busy         int              `json:"busy"`
	Running      int              `json:"running" doc:"Tasks."`
	Queue        Count            `json:"queue" doc:"Tasks that can go."`
	OldestWaitMs int64            `json:"oldestWaitMs" doc:"How long the task that has waited longest, of whatever priority, could go already."`
	SinceTs      *timestamp       `json:"sinceTs"`
	BucketMs     int64            `json:"bucketMs"`
	Buckets      []Bucket         `json:"buckets" nullable:"false" doc:"The oldest first."`
}

// Count is how many there are.
type Count struct {
	Count int  `json:"count"`
	Exact bool `json:"exact" doc:"False: there are at least so many."`
}

// Bucket is a span of time with what ended in it.
type Bucket struct {
	Ts       *timestamp `json:"ts" doc:"Its beginning."`
	Finished int        `json:"finished" doc:"Tasks."`
	Failed   int        `json:"failed" doc:"Tasks that failed for good."`
}

func newCount(c flow.Count) Count { return Count{c.N, !c.More} }

func (a *API) getStats(ctx context.Context, in *struct {
	Window string `query:"window" maxLength:"20" default:"24h" doc:"How far back, as in 90m, 24h, 7d."`
	Bucket string `query:"bucket" maxLength:"20" default:"15m" doc:"Whole minutes; at most a thousand fit into the window."`
},
) (Stats, error) {
	window, err := period("window", in.Window)
	if err != nil {
		return Stats{}, err
	}
	bucket, err := period("bucket", in.Bucket)
	if err != nil {
		return Stats{}, err
	}
	s, err := a.store.Stats(ctx, window, bucket)
	if invalid, ok := errors.AsType[*flow.InvalidError](err); ok {
		return Stats{}, problem.InvalidFilter.Because("%s", invalid)
	}
	if err != nil {
		return Stats{}, err
	}
	stats := Stats{
		AsOfTs: stamp(s.AsOf), Flows: map[string]Count{"all": newCount(s.Flows.All)}, Workers: s.Workers, Busy: s.Busy, Running: s.Running,
		Queue: newCount(s.Queue), OldestWaitMs: max(s.Oldest, 0).Milliseconds(), SinceTs: stamp(s.Since), BucketMs: s.Bucket.Milliseconds(),
		Buckets: make([]Bucket, len(s.Buckets)),
	}
	for status, c := range s.Flows.ByStatus {
		stats.Flows[status] = newCount(c)
	}
	for i, b := range s.Buckets {
		stats.Buckets[i] = Bucket{stamp(b.At), b.Finished, b.Failed}
	}
	return stats, nil
}

func (c Count) String() string {
	if c.Exact {
		return strconv.Itoa(c.Count)
	}
	return strconv.Itoa(c.Count) + "+"
}

func (s Stats) text(view) string {
	text := fmt.Sprintf("workers %d, busy %d  running tasks %d  queue %s, oldest waits %s\n", s.Workers, s.Busy, s.Running, s.Queue, took(&s.OldestWaitMs))
	text += "flows " + s.Flows["all"].String()
	for _, status := range flow.FlowStatuses {
		text += fmt.Sprintf("  %s %s", status, s.Flows[status])
	}
	return text + "\n" + s.table().text()
}

func (s Stats) table() table {
	t := table{columns: []string{"from", "finished", "failed"}, numbers: []int{1, 2}}
	for _, b := range s.Buckets {
		t.add(at(b.Ts), b.Finished, b.Failed)
	}
	return t
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
