package web

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// hostile is a text that a person may have typed anywhere.
const hostile = "<script>alert(1)</script>\" onclick='x' 日本語 \u202e"

// partial executes one, and returns the text that it makes.
func partial(t *testing.T, name string, data any) string {
	t.Helper()
	s := newSite(t, Config{BasePath: "/flower"}, &fakeStore{})
	var b bytes.Buffer
	require.NoError(t, s.pages["help"].ExecuteTemplate(&b, name, data))
	require.NotContains(t, b.String(), "<script")
	require.NotContains(t, b.String(), "style=")
	require.NotContains(t, b.String(), "ZgotmplZ")
	return b.String()
}

// elements returns the attributes of all elements of a name and, unless empty, a class.
func elements(t *testing.T, text, name, class string) []map[string]string {
	t.Helper()
	var found []map[string]string
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict, d.Entity, d.AutoClose = false, xml.HTMLEntity, xml.HTMLAutoClose
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		e, ok := token.(xml.StartElement)
		if !ok || e.Name.Local != name {
			continue
		}
		attributes := map[string]string{}
		for _, a := range e.Attr {
			attributes[a.Name.Local] = a.Value
		}
		if class == "" || strings.Contains(" "+attributes["class"]+" ", " "+class+" ") {
			found = append(found, attributes)
		}
	}
}

// The numbers of a chart are those of the table beside it, and the heights follow them.
func TestEnded(t *testing.T) {
	t.Parallel()
	var buckets []flow.Bucket
	for i := range 96 {
		buckets = append(buckets, flow.Bucket{At: at(float64(i) * 900), Finished: i % 5 * 2, Failed: i % 3})
	}
	c := newEnded(buckets, 15*time.Minute)
	require.Equal(t, 10, c.Most)
	for i, b := range c.Bars {
		require.InDelta(t, float64(b.Finished)/10*100, b.FinishH, 1e-9)
		require.InDelta(t, float64(b.Failed)/10*100, b.FailedH, 1e-9)
		require.InDelta(t, 100, b.FinishY+b.FinishH, 1e-9, "it stands on the ground")
		require.InDelta(t, b.FinishY, b.FailedY+b.FailedH, 1e-9, "and the failed ones on it")
		require.Equal(t, buckets[i], b.Bucket)
	}
	text := partial(t, "ended", c)
	require.Len(t, elements(t, text, "rect", "back"), 96)
	require.Len(t, elements(t, text, "tr", ""), 97)
	require.NotEmpty(t, elements(t, text, "text", "zone"))

	empty := newEnded(nil, time.Minute)
	require.Empty(t, empty.Bars)
	partial(t, "ended", empty)
	partial(t, "ended", newEnded([]flow.Bucket{{At: at(0)}}, time.Minute))
}

func TestSpark(t *testing.T) {
	t.Parallel()
	s := newSpark(hostile, "failed", []int{0, 1, 1000})
	require.Zero(t, s.Bars[0].H)
	require.InDelta(t, 2, s.Bars[1].H, 1e-9, "what is not nothing can be seen")
	require.InDelta(t, 20, s.Bars[2].H, 1e-9)
	require.Len(t, elements(t, partial(t, "spark", s), "rect", ""), 3)
	partial(t, "spark", newSpark("none", "", nil))
	require.Equal(t, "4 failed, at most 3 in one part of the time", failedSpark([]flow.Bucket{{Failed: 1}, {Failed: 3, Finished: 9}}).Words)
	require.Equal(t, "9 finished, at most 9 in one part of the time", finishedSpark([]flow.Bucket{{Failed: 1}, {Failed: 3, Finished: 9}}).Words)
}

func TestDurations(t *testing.T) {
	t.Parallel()
	last := []flow.Summary{
		{Flow: flow.Flow{ID: hostile}, Status: flow.FlowRunning, StartedAt: at(20)},
		{Flow: flow.Flow{ID: "b"}, Status: flow.FlowFailed, StartedAt: at(10), EndedAt: at(12), Took: 2 * time.Second},
		{Flow: flow.Flow{ID: "a"}, Status: flow.FlowFinished, StartedAt: at(0), EndedAt: at(8), Took: 8 * time.Second},
	}
	d := newDurations(last, flow.Quantiles{P50: 4 * time.Second, P95: 8 * time.Second, Max: 8 * time.Second})
	require.Equal(t, []flow.ID{"a", "b", hostile}, []flow.ID{d.Bars[0].ID, d.Bars[1].ID, d.Bars[2].ID}, "the oldest first")
	require.InDelta(t, 100, d.Bars[0].H, 1e-9)
	require.InDelta(t, 25, d.Bars[1].H, 1e-9)
	require.Empty(t, d.Bars[2].Took)
	require.InDelta(t, 50, d.Line50, 1e-9)
	require.InDelta(t, 0, d.Line95, 1e-9)
	require.InDelta(t, 50, d.Half, 1e-9)
	links := elements(t, partial(t, "durations", d), "a", "")
	require.Len(t, links, 3)
	require.Equal(t, "/flower/flows/a", links[0]["href"])
	partial(t, "durations", newDurations(nil, flow.Quantiles{}))

	d = newDurations(last, flow.Quantiles{P50: time.Second, P95: time.Second, Max: 8 * time.Second})
	require.True(t, d.Cut)
	require.InDelta(t, 100, d.Bars[0].H, 1e-9)
	require.InDelta(t, 200./3, d.Bars[1].H, 1e-9)
	require.Contains(t, partial(t, "durations", d), "Bars are cut at 3.0 s.")
}

func TestMeter(t *testing.T) {
	t.Parallel()
	m := newMeter(flow.RunningTask{StartedAt: at(0), UsualP50: 2 * time.Second, UsualP95: 8 * time.Second})
	require.Equal(t, 10*time.Second, m.Full)
	require.InDelta(t, 20, m.P50, 1e-9)
	require.InDelta(t, 80, m.P95, 1e-9)
	require.Equal(t, "10000", elements(t, partial(t, "meter", m), "rect", "filled")[0]["data-full"])
	require.Empty(t, strings.TrimSpace(partial(t, "meter", newMeter(flow.RunningTask{}))), "without a history it has no measure")
}
