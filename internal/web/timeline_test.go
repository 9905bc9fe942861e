package web

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// at is so many seconds after the tests' beginning.
func at(seconds float64) time.Time {
	return time.Date(2026, 11, 23, 3, 12, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

func ran(seq int, status flow.Status, registered, start, end float64, parents ...int) flow.TaskState {
	t := flow.TaskState{
		TaskKey: flow.TaskKey{Flow: "f", Seq: seq}, Parents: parents, Program: "NoOp", Status: status, Attempt: 1,
		RegisteredAt: at(registered), StartedAt: at(start),
	}
	switch status {
	case flow.Finished:
		t.FinishedAt = at(end)
	case flow.Suspended:
		t.SuspendedAt, t.Reason = at(end), flow.ReasonFailed
	}
	return t
}

// The timeline of a large flow has the tasks that its list has, and says which.
func TestTimeline_OfALargeFlow(t *testing.T) {
	t.Parallel()
	s := flow.State{Flow: flow.Flow{ID: "f", WorkflowID: "w"}, AsOf: at(9)}
	for seq := range tasksShown + 2 {
		s.Tasks = append(s.Tasks, ran(seq+1, flow.Finished, 0, 1, 2))
	}
	s.Tasks[tasksShown+1].Status, s.Tasks[tasksShown+1].SuspendedAt = flow.Suspended, at(2)
	store := fullStore("plain")
	store.flow = func(flow.ID) (flow.State, error) { return s, nil }
	site := newSite(t, Config{}, store)
	page := get(site, "/flows/f").Body.String()
	require.Equal(t, tasksShown, strings.Count(page, `<tr id="tl-`))
	require.Contains(t, page, `>Timeline</h2><span class="muted">1 to 500 of 502</span>`)
	require.Less(t, strings.Index(page, `id="tl-499"`), strings.Index(page, `id="tl-502"`), "in their own order")
	page = get(site, "/flows/f?rows=2").Body.String()
	require.Equal(t, 2, strings.Count(page, `<tr id="tl-`))
	s.Tasks = s.Tasks[:3]
	require.Contains(t, get(site, "/flows/f").Body.String(), ">Timeline</h2>\n")
}

func timelineOf(asOf float64, q query, superseded []flow.Attempt, tasks ...flow.TaskState) timeline {
	s := flow.State{AsOf: at(asOf), Tasks: tasks}
	return newTimeline(s, superseded, taskRows(tasks, newGraph(tasks), nil, q), q)
}

// A task waits from when what it depends on has ended, not from its registration: so what
// is slow and what was queued differ.
func TestTimeline_WaitingBeginsWhenATaskCanGo(t *testing.T) {
	t.Parallel()
	v := timelineOf(100, query{}, nil,
		ran(1, flow.Finished, 0, 2, 10), ran(2, flow.Finished, 0, 12, 20, 1))
	require.Equal(t, []cut(nil), v.Cuts)
	require.Equal(t, at(0), v.From)
	require.Equal(t, at(20), v.To)
	first, second := v.Rows[0].Bars[0], v.Rows[1].Bars[0]
	require.Equal(t, "2.0 s", first.Waited())
	require.Equal(t, "8.0 s", first.Took())
	require.Equal(t, "2.0 s", second.Waited())
	percent := axisEnd / 20
	require.InDelta(t, 0, first.WaitX, 1e-9)
	require.InDelta(t, 2*percent, first.WaitW, 1e-9)
	require.InDelta(t, 2*percent, first.RunX, 1e-9)
	require.InDelta(t, 8*percent, first.RunW, 1e-9)
	require.InDelta(t, 10*percent, second.WaitX, 1e-9)
	require.InDelta(t, axisEnd, second.RunX+second.RunW, 1e-9)
}

// Rerun two days later: the idle days are cut, and each attempt can have the whole width.
func TestTimeline_RerunTwoDaysLater(t *testing.T) {
	t.Parallel()
	const days = 2 * 24 * 3600
	again := ran(2, flow.Finished, 0, days+1, days+11, 1)
	again.Attempt = 2
	superseded := []flow.Attempt{{
		TaskKey: flow.TaskKey{Seq: 2}, Number: 1, Status: flow.Suspended, Reason: flow.ReasonFailed, StartedAt: at(10), EndedAt: at(20), AgainAt: at(days),
	}}
	tasks := []flow.TaskState{ran(1, flow.Finished, 0, 0, 10), again, ran(3, flow.Finished, 0, days+11, days+31, 2)}

	v := timelineOf(days+1000, query{}, superseded, tasks...)
	require.Len(t, v.Cuts, 1)
	require.Equal(t, "1 d 23 h", v.Cuts[0].Took)
	require.Len(t, v.Rows[1].Bars, 2)
	require.Equal(t, "1.0 s", v.Rows[1].Bars[1].Waited(), "it waits since a person set it back")
	require.Greater(t, v.Rows[1].Bars[0].RunW, 15.0)
	require.Greater(t, v.Rows[1].Bars[1].RunW, 15.0)
	require.Equal(t, []choice{{"All", "?", true}, {"1", "?tries=1", false}, {"2", "?tries=2", false}}, v.Choices)

	for n, want := range map[string][2]float64{"1": {0, 20}, "2": {days, days + 31}} {
		v := timelineOf(days+1000, query{}.with("tries", n), superseded, tasks...)
		require.Empty(t, v.Cuts)
		require.Equal(t, at(want[0]), v.From, n)
		require.Equal(t, at(want[1]), v.To, n)
	}
}

// The pause before a retry is waiting, but nothing went on in it.
func TestTimeline_PauseBeforeARetryIsCut(t *testing.T) {
	t.Parallel()
	again := ran(1, flow.Finished, 0, 601, 602)
	again.Attempt = 2
	v := timelineOf(1000, query{}, []flow.Attempt{
		{TaskKey: flow.TaskKey{Seq: 1}, Number: 1, Status: flow.Suspended, Reason: flow.ReasonFailed, StartedAt: at(0), EndedAt: at(1)},
	}, again)
	require.Len(t, v.Cuts, 1)
	require.Equal(t, "10 m 00 s", v.Cuts[0].Took)
	require.InDelta(t, v.Cuts[0].W, v.Rows[0].Bars[1].WaitW, 1e-9)
}

// What goes on ends at an edge that stays where it is for a while: a page never contains
// the present moment.
func TestTimeline_EdgeStandsStill(t *testing.T) {
	t.Parallel()
	running := ran(1, flow.Running, 0, 0, 0)
	running.FinishedAt = time.Time{}
	edges := map[time.Time]bool{}
	for second := 100.0; second < 200; second += 0.25 {
		v := timelineOf(second, query{}, nil, running)
		require.True(t, v.To.After(at(second)))
		require.True(t, v.Going)
		require.True(t, v.Rows[0].Bars[0].Goes())
		edges[v.To] = true
	}
	require.LessOrEqual(t, len(edges), 5)
}

// Times that a person has set may stand in any order. Nothing is negative.
func TestTimeline_TimesSetByHand(t *testing.T) {
	t.Parallel()
	v := timelineOf(5, query{}, []flow.Attempt{
		{TaskKey: flow.TaskKey{Seq: 1}, Number: 3, StartedAt: at(50), EndedAt: at(20)},
		{TaskKey: flow.TaskKey{Seq: 9}, Number: 1},
	}, ran(1, flow.Finished, 100, 40, 10, 2), ran(2, flow.Running, 0, 60, 0, 1), flow.TaskState{TaskKey: flow.TaskKey{Seq: 3}})
	for _, row := range v.Rows {
		for _, b := range row.Bars {
			for _, n := range []float64{b.WaitX, b.WaitW, b.RunX, b.RunW} {
				require.GreaterOrEqual(t, n, 0.0)
				require.LessOrEqual(t, n, 100.0)
			}
		}
	}
	require.Empty(t, v.Rows[2].Bars)
	require.Empty(t, timelineOf(0, query{}, nil).Ticks)
}

// What asks a person is called here what it is called everywhere.
func TestTimeline_Asks(t *testing.T) {
	t.Parallel()
	asking := ran(1, flow.Suspended, 0, 2, 10)
	asking.Reason, asking.Asks = flow.ReasonHeld, true
	before := flow.Attempt{TaskKey: asking.TaskKey, Number: 1, Status: flow.Suspended, Reason: flow.ReasonCancelled, StartedAt: at(1), EndedAt: at(1.5)}
	asking.Attempt = 2
	bars := timelineOf(100, query{}, []flow.Attempt{before}, asking).Rows[0].Bars
	require.Equal(t, []look{lookCancelled, lookApproval}, []look{bars[0].Look, bars[1].Look})
}

// What its program waits for is shown from when it began to wait.
func TestTimeline_Pauses(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"time", "flow", "callback"} {
		paused := flow.TaskState{
			TaskKey: flow.TaskKey{Seq: 2}, Parents: []int{1}, RegisteredAt: at(0), StartedAt: at(14), Attempt: 1, Wait: flow.Wait{Reason: reason},
		}
		v := timelineOf(100, query{}, nil, ran(1, flow.Finished, 0, 2, 10), paused)
		bar := v.Rows[1].Bars[0]
		require.True(t, bar.Waits())
		require.Equal(t, at(14), bar.Ready)
		require.InDelta(t, v.x(at(14)), bar.WaitX, 1e-9)
		require.InDelta(t, v.x(v.To), bar.WaitX+bar.WaitW, 1e-9)
	}
}

// Words of the axis have room, whatever the time.
func TestScale_TicksHaveRoom(t *testing.T) {
	t.Parallel()
	for _, seconds := range []float64{0.01, 0.7, 3, 59, 61, 600, 4000, 90_000, 3e6, 3e8} {
		v := timelineOf(seconds, query{}, nil, ran(1, flow.Finished, 0, 0, seconds/3), ran(2, flow.Finished, 0, seconds/2, seconds, 1))
		require.NotEmpty(t, v.Ticks, "%v s", seconds)
		require.LessOrEqual(t, len(v.Ticks), mostTicks+3, "%v s", seconds)
		for i, tick := range v.Ticks[1:] {
			require.GreaterOrEqual(t, tick.X-v.Ticks[i].X, tickRoom, "%v s", seconds)
		}
	}
}

// The table beside the bars says what they show, and no title breaks it.
func TestTimeline_Template(t *testing.T) {
	t.Parallel()
	failed := ran(1, flow.Suspended, 0, 1, 2.5)
	failed.Description = hostile
	waits := flow.TaskState{TaskKey: flow.TaskKey{Seq: 3}, RegisteredAt: at(0), Wait: flow.Wait{Reason: "queued"}}
	text := partial(t, "timeline", timelineOf(10, query{}.with("x", hostile), nil, failed, ran(2, flow.Running, 0, 4, 0), waits))
	require.Len(t, elements(t, text, "rect", "run"), 3, "and one of the legend")
	require.Len(t, elements(t, text, "rect", "wait"), 4)
	require.Contains(t, text, "waited 1.0 s, ran 1.5 s: <time")
	require.Contains(t, text, "runs since <time")
	require.Contains(t, text, "waits since <time")
	require.Contains(t, partial(t, "timeline", timelineOf(10, query{}, nil)), "Nothing has run yet")
}
