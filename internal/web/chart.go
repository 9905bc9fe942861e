package web

import (
	"fmt"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Charts are SVG made here, from numbers that a table beside them has, too.

// ended is what ended in spans of time: bars of what finished, and on them what failed.
type ended struct {
	Bars   []endedBar
	Ticks  []tick
	Most   int           // in one span
	Bucket time.Duration // the length of a span
	Total  struct{ Finished, Failed int }
	Zone   time.Time // the axis names the zone of this moment
}

// endedBar is a span of time. All but the counts is of the chart's size, in percent.
type endedBar struct {
	flow.Bucket
	To               time.Time
	X, W             float64
	FinishY, FinishH float64
	FailedY, FailedH float64 // on top
	Sentence         string
}

// Length is that of a bar, in words: 15 minutes.
func (e ended) Length() string {
	if e.Bucket%time.Hour == 0 {
		return plural(int(e.Bucket/time.Hour), "hour", "hours")
	}
	return plural(int(e.Bucket/time.Minute), "minute", "minutes")
}

func newEnded(buckets []flow.Bucket, size time.Duration) ended {
	c := ended{Bucket: size}
	for _, b := range buckets {
		c.Most = max(c.Most, b.Finished+b.Failed)
		c.Total.Finished += b.Finished
		c.Total.Failed += b.Failed
	}
	if len(buckets) == 0 {
		return c
	}
	c.Zone = buckets[0].At
	w := 100 / float64(len(buckets))
	for i, b := range buckets {
		bar := endedBar{Bucket: b, To: b.At.Add(size), X: float64(i) * w, W: w * 0.8}
		if c.Most > 0 {
			bar.FinishH = 100 * float64(b.Finished) / float64(c.Most)
			bar.FailedH = 100 * float64(b.Failed) / float64(c.Most)
		}
		bar.FinishY = 100 - bar.FinishH
		bar.FailedY = bar.FinishY - bar.FailedH
		bar.Sentence = fmt.Sprintf("%d finished, %d failed", b.Finished, b.Failed)
		c.Bars = append(c.Bars, bar)
	}
	span := scale{Parts: []stretch{{From: buckets[0].At, To: c.Bars[len(c.Bars)-1].To, X1: 100}}}
	span.tick()
	c.Ticks = span.Ticks
	return c
}

// spark is a row of small bars: how a number went.
type spark struct {
	Words string // what it shows, and how much, for who cannot see it
	Class string // a state, for its colour; empty is that of text
	Bars  []sparkBar
}

type sparkBar struct{ X, W, Y, H float64 }

// newSpark makes bars of numbers, 100 wide and 20 high. What is not nothing can be seen.
func newSpark(words, class string, numbers []int) spark {
	s := spark{Words: words, Class: class}
	most := 1
	for _, n := range numbers {
		most = max(most, n)
	}
	w := 100 / float64(max(1, len(numbers)))
	for i, n := range numbers {
		h := 20 * float64(n) / float64(most)
		if n > 0 {
			h = max(h, 2)
		}
		s.Bars = append(s.Bars, sparkBar{float64(i) * w, w * 0.75, 20 - h, h})
	}
	return s
}

// finishedSpark and failedSpark are of what ended in the last hours.
func finishedSpark(buckets []flow.Bucket) spark {
	return sparkOf("finished", buckets, func(b flow.Bucket) int { return b.Finished })
}

func failedSpark(buckets []flow.Bucket) spark {
	return sparkOf("failed", buckets, func(b flow.Bucket) int { return b.Failed })
}

func sparkOf(word string, buckets []flow.Bucket, number func(flow.Bucket) int) spark {
	numbers, most, total := make([]int, len(buckets)), 0, 0
	for i, b := range buckets {
		numbers[i] = number(b)
		most, total = max(most, numbers[i]), total+numbers[i]
	}
	return newSpark(fmt.Sprintf("%d %s, at most %d in one part of the time", total, word, most), word, numbers)
}

// durations are how long the last flows of a workflow took, the oldest first, with lines
// where half of them and nearly all of them end. The flows are a table on the same page.
type durations struct {
	Bars           []durationBar
	Usual          flow.Quantiles
	Line50, Line95 float64 // in percent from the top
	Half           float64 // where the word for the first one is: never on that of the other
	Most           time.Duration
	Cut            bool // some took longer than Most: their bars are cut
}

// durationBar is a flow; Y and H are of the chart's height, in percent.
type durationBar struct {
	flow.Summary
	Look       look
	X, W, Y, H float64
	Took       string // empty: it goes on
}

// outlier is how many times what nearly all of them take a bar can show: one flow that was
// run again after a day must not squash the others.
const outlier = 3

// leastBars is for how many flows there is room, so that the bars of a few are no walls.
const leastBars = 25

// newDurations makes the bars of flows, of which the latest comes first.
func newDurations(last []flow.Summary, usual flow.Quantiles) durations {
	d := durations{Usual: usual, Most: usual.P95}
	for _, f := range last {
		if !f.EndedAt.IsZero() {
			d.Most = max(d.Most, f.Took)
		}
	}
	if usual.P95 > 0 && d.Most > outlier*usual.P95 {
		d.Most, d.Cut = outlier*usual.P95, true
	}
	height := func(t time.Duration) float64 {
		return min(100, 100*float64(max(0, t))/float64(max(1, d.Most)))
	}
	d.Line50, d.Line95 = 100-height(usual.P50), 100-height(usual.P95)
	d.Half = max(d.Line50, d.Line95+12)
	w := 100 / float64(max(leastBars, len(last)))
	for i := range last {
		f := last[len(last)-1-i]
		bar := durationBar{Summary: f, Look: lookOfSummary(f), X: float64(i) * w, W: w * 0.8, H: 100}
		if !f.EndedAt.IsZero() {
			bar.H, bar.Took = max(2, height(f.Took)), took(f.Took)
		}
		bar.Y = 100 - bar.H
		d.Bars = append(d.Bars, bar)
	}
	return d
}

// meter is how long something has run of what it usually takes. A script fills it.
type meter struct {
	Since time.Time
	Full  time.Duration // the whole width
	P50   float64       // where it usually is, in percent; 0 is not known
	P95   float64
	Words string
}

// newMeter makes the meter of a running task; without a history it has no measure.
func newMeter(t flow.RunningTask) meter {
	m := meter{Since: t.StartedAt}
	if t.UsualP95 <= 0 {
		return m
	}
	m.Full = t.UsualP95 * 5 / 4
	m.P50, m.P95 = 100*float64(t.UsualP50)/float64(m.Full), 80
	m.Words = fmt.Sprintf("half of them took at most %s, nearly all %s", took(t.UsualP50), took(t.UsualP95))
	return m
}

// FullMs is Full for a script.
func (m meter) FullMs() int64 { return m.Full.Milliseconds() }
