package web

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// buckets are of a time that ends at the last of them.
func bucketsOf(size time.Duration, n int, number func(i int) flow.Bucket) []flow.Bucket {
	list := make([]flow.Bucket, n)
	for i := range list {
		list[i] = number(i)
		list[i].At = at(0).Add(time.Duration(i-n+1) * size)
	}
	return list
}

func TestMerged(t *testing.T) {
	t.Parallel()
	list := bucketsOf(time.Minute, 7, func(i int) flow.Bucket { return flow.Bucket{Finished: i, Failed: 1} })
	got := merged(list, 3)
	require.Len(t, got, 3)
	require.Equal(t, []int{0, 1 + 2 + 3, 4 + 5 + 6}, []int{got[0].Finished, got[1].Finished, got[2].Finished})
	require.Equal(t, list[4].At, got[2].At, "the last one is whole")
	require.Equal(t, sum(list), sum(got))
	require.Empty(t, merged(nil, 3))
}

// Bars begin by the clock, so that a bar that is over stays as it is; the last one is under
// way, and the first is whole.
func TestBarsOf(t *testing.T) {
	t.Parallel()
	win := window{Span: 3 * time.Hour, Bucket: 20 * time.Minute, Bar: time.Hour}
	half := time.Date(2026, 11, 23, 10, 20, 0, 0, time.UTC)
	list := make([]flow.Bucket, 20)
	for i := range list {
		list[i] = flow.Bucket{At: half.Add(time.Duration(i-19) * win.Bucket), Finished: 1, Failed: i}
	}
	got := barsOf(list, win)
	require.Equal(t, []flow.Bucket{
		{At: half.Add(-140 * time.Minute), Finished: 3, Failed: 12 + 13 + 14},
		{At: half.Add(-80 * time.Minute), Finished: 3, Failed: 15 + 16 + 17},
		{At: half.Add(-20 * time.Minute), Finished: 2, Failed: 18 + 19},
	}, got)
	require.Empty(t, barsOf(nil, win))
}

// The numbers are of the last day and the last hour, whichever window the chart has, and
// the change is against the day before.
func TestNow_Numbers(t *testing.T) {
	t.Parallel()
	for _, win := range windows {
		perDay, perHour := int(24*time.Hour/win.Bucket), int(time.Hour/win.Bucket)
		n := 2 * int(win.Span/win.Bucket)
		v := nowView{Window: win, Query: query{}}
		v.Stats.Buckets = bucketsOf(win.Bucket, n, func(i int) flow.Bucket {
			b := flow.Bucket{Finished: 1}
			switch {
			case i >= n-perDay:
				b.Failed = 2
			case i >= n-2*perDay:
				b.Failed = 1
			}
			return b
		})
		v.draw()
		require.Equal(t, 2*perDay, v.Failed.N, win.Name)
		require.Equal(t, perDay, v.Failed.Change, win.Name)
		require.Equal(t, perHour, v.Finished.N, win.Name)
		require.Len(t, v.Failed.Spark.Bars, 24, win.Name)
		require.Len(t, v.Chart.Bars, int(win.Span/win.Bar), win.Name)
		require.Equal(t, win.Bar, v.Chart.Bucket)
	}
	require.Equal(t, []string{"▲ 2", "▼ 3", ""}, []string{trend{Change: 2}.Words(), trend{Change: -3}.Words(), trend{}.Words()})
	v := nowView{Window: windows[0]}
	v.draw() // without anything
	require.Zero(t, v.Failed.N)
}

func TestNow(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	store.lists.stats = flow.Stats{AsOf: at(60), Workers: 5, Running: 4, Queue: flow.Count{N: 1000, More: true}, Oldest: 55 * time.Second}
	store.flows = []flow.Summary{{Flow: flow.Flow{ID: "f"}}}
	store.lists.running = []flow.RunningTask{{TaskKey: flow.TaskKey{Flow: "a/b", Seq: 3}, WorkflowID: "nightly", Title: "load", StartedAt: at(0), UsualP50: time.Second, UsualP95: 2 * time.Second}}
	store.lists.queue = []flow.QueuedTask{{TaskKey: flow.TaskKey{Flow: "q", Seq: 1}, Position: 1, ReadySince: at(20)}, {TaskKey: flow.TaskKey{Flow: "r", Seq: 1}, Position: 2, ReadySince: at(10)}}
	store.watchers = []flow.WatcherState{
		{Watcher: flow.Watcher{ID: "1", Host: "a", PID: 1, Workers: 4}, State: "alive", Busy: 3},
		{Watcher: flow.Watcher{ID: "2", Host: "b", PID: 2, Workers: 1}, State: "late", HeartbeatAt: at(0)},
	}
	s := newSite(t, Config{BasePath: "/flower"}, store)
	page := get(s, "/").Body.String()
	require.Contains(t, page, "<strong>4</strong></a> <span class=\"muted\">of 5 workers")
	require.Contains(t, page, "1,000&#43;")
	require.Contains(t, page, `the oldest for <time datetime="`+at(5).Format(stampLayout), "not of the first ten alone")
	require.Contains(t, page, `href="/flower/flows/a%2Fb?task=3"`)
	require.Contains(t, page, "the 1 longest of 4")
	require.Contains(t, page, "usually 1.0 s")
	require.Less(t, strings.Index(page, "b:2"), strings.Index(page, "a:1"), "what needs a person comes first")

	page = get(newSite(t, Config{}, &fakeStore{}), "/").Body.String()
	require.Contains(t, page, "Nothing has been registered yet.")
	require.NotContains(t, page, "now-running")
}

// Whatever needs a person is said in words, once.
func TestAlerts(t *testing.T) {
	t.Parallel()
	require.Empty(t, newAlerts(flow.Attention{}))
	rule := flow.BrokenRule{Rule: "r"}
	require.Empty(t, newAlerts(flow.Attention{Check: flow.Check{Broken: []flow.BrokenRule{rule}}}), "the banner says it")
	all := newAlerts(flow.Attention{
		Lost: flow.Count{N: 1}, Dead: 2, Late: 1, Unowned: 3, NoWatcher: true, CanGo: flow.Count{N: 1}, Check: flow.Check{Broken: []flow.BrokenRule{rule}},
	})
	require.Len(t, all, 5)
	for i, begin := range []string{"1 task was lost", "2 watchers have stopped", "1 watcher is late", "3 running tasks are nobody's", "1 rule of the database"} {
		require.True(t, strings.HasPrefix(all[i].Text, begin), all[i].Text)
		require.True(t, all[i].Href != "" || all[i].Remedy != "", all[i].Text)
	}
}
