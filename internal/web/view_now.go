package web

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// nowView is what / shows.
type nowView struct {
	Query    query
	Window   window
	Stats    flow.Stats // without counts of flows
	First    bool       // nothing has been registered yet
	Alerts   []alert
	Running  []runningRow
	Unshown  int // running tasks that have no row
	Queue    []queueRow
	Oldest   time.Time // since when the one that has waited longest could go
	Groups   []groupRow
	Watchers []watcherRow
	Lesser   int // watchers that have no row
	Workers  string
	Busy     float64 // share of the workers, in percent
	Failed   trend   // in 24 h
	Finished trend   // in an hour
	Chart    ended
	Tabs     []tab
}

// QueueWords is how many tasks are in the queue.
func (v nowView) QueueWords() string { return number(v.Stats.Queue) }

// trend is a number with how it went.
type trend struct {
	N      int
	Change int // against the time before
	Spark  spark
}

// Words says how it changed: "▲ 2"; empty: it did not.
func (t trend) Words() string {
	switch {
	case t.Change > 0:
		return fmt.Sprintf("▲ %d", t.Change)
	case t.Change < 0:
		return fmt.Sprintf("▼ %d", -t.Change)
	}
	return ""
}

// runningRow is a task that runs.
type runningRow struct {
	flow.RunningTask
	Task    string // "3 load_orders"
	Href    string
	Meter   meter
	Usually string // "usually 1 m 40 s"
	Odd     string
}

// queueRow is a task that goes soon.
type queueRow struct {
	flow.QueuedTask
	Look look
	Task string
	Href string
}

func (v *nowView) fill(running []flow.RunningTask, queue []flow.QueuedTask, groups flow.FailureGroups, watchers []flow.WatcherState) {
	for _, t := range running {
		v.Running = append(v.Running, newRunningRow(t))
	}
	v.Unshown = max(0, v.Stats.Running-len(running))
	for _, t := range queue {
		v.Queue = append(v.Queue, queueRow{t, lookOfWait(t.WaitReason), fmt.Sprintf("%d %s", t.Seq, t.Title), taskHref(t.TaskKey)})
	}
	if v.Stats.Oldest > 0 {
		v.Oldest = v.Stats.AsOf.Add(-v.Stats.Oldest)
	}
	for _, g := range groups.Groups {
		v.Groups = append(v.Groups, newGroupRow(g, query{}))
	}
	slices.SortStableFunc(v.Groups, func(a, b groupRow) int { return b.LastAt.Compare(a.LastAt) })
	rows := watcherRows(watchers)
	v.Watchers = rows[:min(len(rows), watchersNow)]
	v.Lesser = len(rows) - len(v.Watchers)
	v.Workers = plural(v.Stats.Workers, "worker", "workers")
	// Not Stats.Busy, which is what watchers said with their last heartbeat.
	v.Busy = 100 * float64(min(v.Stats.Running, v.Stats.Workers)) / float64(max(1, v.Stats.Workers))
	v.draw()
}

// draw makes the numbers that have a history, and the chart.
func (v *nowView) draw() {
	all, size := v.Stats.Buckets, v.Window.Bucket
	last := func(d time.Duration) []flow.Bucket { return all[max(0, len(all)-int(d/size)):] }
	before := func(d time.Duration) []flow.Bucket {
		end := max(0, len(all)-int(d/size))
		return all[max(0, end-int(d/size)):end]
	}
	day, hour := 24*time.Hour, time.Hour
	v.Failed = trend{N: sum(last(day)).Failed, Spark: failedSpark(merged(last(day), int(hour/size)))}
	v.Failed.Change = v.Failed.N - sum(before(day)).Failed
	v.Finished = trend{N: sum(last(hour)).Finished, Spark: finishedSpark(merged(last(day), int(hour/size)))}
	v.Chart = newEnded(barsOf(all, v.Window), v.Window.Bar)
	for _, w := range windows {
		v.Tabs = append(v.Tabs, tab{Name: w.Name, Href: v.Query.with("window", w.Name).String(), Open: w == v.Window})
	}
}

func sum(buckets []flow.Bucket) (total flow.Bucket) {
	for _, b := range buckets {
		total.Finished += b.Finished
		total.Failed += b.Failed
	}
	return total
}

// barsOf puts buckets into bars that begin when the clock says so, as those of /api/v1/stats
// do: one that is over never changes again. The last one is under way.
func barsOf(buckets []flow.Bucket, w window) []flow.Bucket {
	var all []flow.Bucket
	for _, b := range buckets {
		at, until := b.At.Truncate(w.Bar), buckets[len(buckets)-1].At.Truncate(w.Bar).Add(w.Bar)
		if at.Before(until.Add(-w.Span)) {
			continue
		}
		if len(all) == 0 || !all[len(all)-1].At.Equal(at) {
			all = append(all, flow.Bucket{At: at})
		}
		bar := &all[len(all)-1]
		bar.Finished += b.Finished
		bar.Failed += b.Failed
	}
	return all
}

// merged puts so many buckets into one each, from the last ones on.
func merged(buckets []flow.Bucket, n int) []flow.Bucket {
	var all []flow.Bucket
	for end := len(buckets); end > 0; end -= n {
		some := buckets[max(0, end-n):end]
		b := sum(some)
		b.At = some[0].At
		all = append(all, b)
	}
	slices.Reverse(all)
	return all
}

func newRunningRow(t flow.RunningTask) runningRow {
	r := runningRow{RunningTask: t, Task: fmt.Sprintf("%d %s", t.Seq, t.Title), Href: taskHref(t.TaskKey), Meter: newMeter(t), Odd: capital(t.Odd)}
	if t.UsualP50 > 0 {
		r.Usually = "usually " + took(t.UsualP50)
	}
	return r
}

// taskHref is where a task is shown, without the base path.
func taskHref(k flow.TaskKey) string { return fmt.Sprintf("%s?task=%d", flowPath(k.Flow), k.Seq) }

// watcherRow is a watcher with how it does.
type watcherRow struct {
	flow.WatcherState
	Name string
	Look look
	Full float64 // share of its workers that are busy, in percent
}

// watcherLooks show the states of v_watcher.
var watcherLooks = map[string]look{
	"alive": {"finished", "finished", "Alive"}, "draining": {"held", "held", "Draining"},
	"late": {"held", "attention", "Late"}, "dead": {"failed", "failed", "Dead"},
}

// watcherRows have what needs a person first.
func watcherRows(list []flow.WatcherState) []watcherRow {
	rows := make([]watcherRow, len(list))
	for i, w := range list {
		l, known := watcherLooks[w.State]
		if !known {
			l = look{"waiting", "waiting", w.State}
		}
		rows[i] = watcherRow{w, fmt.Sprintf("%s:%d", w.Host, w.PID), l, 100 * float64(min(w.Busy, w.Workers)) / float64(max(1, w.Workers))}
	}
	order := []string{"dead", "late", "draining"}
	rank := func(r watcherRow) int {
		if i := slices.Index(order, r.State); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(rows, func(a, b watcherRow) int { return cmp.Compare(rank(a), rank(b)) })
	return rows
}

// alert is something that needs a person, in plain words.
type alert struct {
	Look   look
	Text   string
	Href   string // of what shows more, without the base path; empty is none
	Link   string
	Remedy string // a command
}

// newAlerts says all that needs a person, but for what the banner says.
func newAlerts(a flow.Attention) []alert {
	var list []alert
	warn := look{"held", "warning", "Attention"}
	bad := look{"failed", "failed", "Broken"}
	if a.Lost.N > 0 {
		list = append(list, alert{
			Look: bad, Text: counted(a.Lost, "task was", "tasks were") + " lost with a watcher, three times in a row or since it must not run twice. A person decides what becomes of that.",
			Href: "/flows?reason=lost", Link: "Show",
		})
	}
	if a.Dead > 0 {
		list = append(list, alert{
			Look: bad, Text: plural(a.Dead, "watcher has", "watchers have") + " stopped without a word. Others take over what it ran, within seconds; if there is none, start one.",
			Href: "/watchers", Link: "Watchers",
		})
	}
	if a.Late > 0 {
		list = append(list, alert{
			Look: warn, Text: plural(a.Late, "watcher is", "watchers are") + " late with the heartbeat: its machine, the network or the database is slow.",
			Href: "/watchers", Link: "Watchers",
		})
	}
	if a.Unowned > 0 {
		list = append(list, alert{
			Look: warn, Text: plural(a.Unowned, "running task is", "running tasks are") + " nobody's: inserted by hand as running. Flower leaves it alone until somebody sets its exec_status.",
			Remedy: "SELECT * FROM v_running WHERE watcher IS NULL;",
		})
	}
	if len(a.Check.Broken) > 1 || len(a.Check.Broken) == 1 && (a.NoWatcher || len(a.Strangers) > 0) {
		list = append(list, alert{Look: bad, Text: plural(len(a.Check.Broken), "rule", "rules") + " of the database: broken.", Href: "/watchers", Link: "Show"})
	}
	return list
}
