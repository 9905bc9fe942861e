package web

import (
	"slices"
	"time"
)

// scale maps moments to places on an axis, in percent of its width. Where nothing went on
// for long it is cut: a rerun two days later must not squash everything.
type scale struct {
	From, To time.Time
	Going    bool // something goes on: To is an edge beyond the present moment
	Parts    []stretch
	Cuts     []cut
	Ticks    []tick
}

// stretch is a part of the axis without a cut.
type stretch struct {
	From, To time.Time
	X0, X1   float64
}

// cut is a time that was left out.
type cut struct {
	X, W float64
	Took string
}

// Mid is the middle of it.
func (c cut) Mid() float64 { return c.X + c.W/2 }

// tick is a moment that the axis names.
type tick struct {
	At   time.Time
	X    float64
	Form string // how exactly: static/js/chart.js writes it so
	Text string // in UTC
}

const (
	axisEnd  = 96.0 // percent; behind it is room for the icon of what ends there
	cutWidth = 4.0
	mostCuts = 30.0 // percent for all cuts together
	// An idle time is cut if it is longer than this, and than half of all that was not
	// idle.
	leastCut = 5 * time.Second
)

// newScale makes the scale of attempts, from the first to the last within limits; a zero
// limit is none.
func newScale(all []try, from, to, asOf time.Time) scale {
	var s scale
	var busy []span
	for _, one := range all {
		end := one.End
		if end.IsZero() {
			end, s.Going = asOf, s.Going || to.IsZero()
		}
		begin := later(one.begin(), from)
		if !to.IsZero() {
			end = earlier(end, to)
		}
		busy = append(busy, span{begin, later(end, begin)})
	}
	if len(busy) == 0 {
		return s
	}
	busy = joined(busy)
	s.From, s.To = busy[0].From, busy[len(busy)-1].To
	if s.Going {
		last := &busy[len(busy)-1]
		last.To = later(edge(last.From, asOf), last.To)
		s.To = last.To
	}
	s.lay(busy)
	s.tick()
	return s
}

// edge is a moment after now that stays the same for a while, so that the page does: about
// a fifth of what has passed since from, and at least a second.
func edge(from, now time.Time) time.Time {
	step := nice(max(now.Sub(from)/5, time.Second))
	n := (now.Sub(from) + step) / step
	return from.Add(n * step)
}

// joined puts spans together that touch or overlap.
func joined(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.From.Compare(b.From) })
	var all []span
	for _, s := range spans {
		if n := len(all); n > 0 && !s.From.After(all[n-1].To) {
			all[n-1].To = later(all[n-1].To, s.To)
			continue
		}
		all = append(all, s)
	}
	return all
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// lay divides the axis: what is left between cuts shares what cuts do not take.
func (s *scale) lay(busy []span) {
	total := time.Duration(0)
	for _, b := range busy {
		total += b.To.Sub(b.From)
	}
	for _, b := range busy {
		n := len(s.Parts)
		if n > 0 && b.From.Sub(s.Parts[n-1].To) <= max(leastCut, total/2) {
			s.Parts[n-1].To = b.To
			continue
		}
		s.Parts = append(s.Parts, stretch{From: b.From, To: b.To})
	}
	w := 0.0
	if n := len(s.Parts) - 1; n > 0 {
		w = min(cutWidth, mostCuts/float64(n))
	}
	left, shown, x := axisEnd-w*float64(len(s.Parts)-1), s.shown(), 0.0
	for i := range s.Parts {
		p := &s.Parts[i]
		if i > 0 {
			s.Cuts = append(s.Cuts, cut{x, w, took(p.From.Sub(s.Parts[i-1].To))})
			x += w
		}
		p.X0 = x
		if shown > 0 {
			x += left * float64(p.To.Sub(p.From)) / float64(shown)
		}
		p.X1 = x
	}
}

// shown is all the time that is not left out.
func (s scale) shown() time.Duration {
	total := time.Duration(0)
	for _, p := range s.Parts {
		total += p.To.Sub(p.From)
	}
	return total
}

// x is where a moment is. One that was left out is in its cut.
func (s scale) x(at time.Time) float64 {
	for i, p := range s.Parts {
		switch {
		case at.Before(p.From) && i == 0:
			return p.X0
		case at.Before(p.From):
			before := s.Parts[i-1]
			share := float64(at.Sub(before.To)) / float64(p.From.Sub(before.To))
			return before.X1 + share*(p.X0-before.X1)
		case !at.After(p.To) && p.To.After(p.From):
			return p.X0 + float64(at.Sub(p.From))/float64(p.To.Sub(p.From))*(p.X1-p.X0)
		}
	}
	if n := len(s.Parts); n > 0 {
		return s.Parts[n-1].X1
	}
	return 0
}

// Idle writes the time that was left out, if it is one.
func (s scale) Idle() string {
	if len(s.Cuts) == 1 {
		return s.Cuts[0].Took
	}
	return ""
}

// Last is the stretch that goes on, for a script that draws what goes on in it.
func (s scale) Last() stretch {
	if len(s.Parts) == 0 {
		return stretch{}
	}
	return s.Parts[len(s.Parts)-1]
}

// Steps that people find natural.
var niceSteps = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour,
}

// nice returns the first such step that is not shorter than d.
func nice(d time.Duration) time.Duration {
	for _, step := range niceSteps {
		if step >= d {
			return step
		}
	}
	days := (d + 24*time.Hour - 1) / (24 * time.Hour)
	return days * 24 * time.Hour
}

const (
	mostTicks = 6
	tickRoom  = 11.0 // percent that a tick's words take
)

// tick names moments: some in each stretch, at least where it begins.
func (s *scale) tick() {
	step := nice(max(s.shown()/mostTicks, niceSteps[0]))
	form, layout := "second", "15:04:05"
	switch {
	case step < time.Second:
		form, layout = "fraction", "15:04:05.0"
	case step >= time.Minute && len(s.Cuts) == 0:
		form, layout = "minute", "15:04"
	}
	last := -tickRoom
	add := func(at time.Time) {
		x := s.x(at)
		if x < last+tickRoom || x > axisEnd-tickRoom/2 {
			return
		}
		last = x
		text := at.UTC().Format(layout)
		if n := len(s.Ticks); n == 0 || !sameDay(s.Ticks[n-1].At, at) {
			text = at.UTC().Format("01-02 ") + text
		}
		s.Ticks = append(s.Ticks, tick{at, x, form, text})
	}
	for i, p := range s.Parts {
		first := p.From.Truncate(step)
		if first.Before(p.From) {
			first = first.Add(step)
		}
		if p.X0 > 0 || s.x(first)-p.X0 > tickRoom {
			add(p.From)
		}
		for at := first; !at.After(p.To); at = at.Add(step) {
			if i == len(s.Parts)-1 || s.x(at) < p.X1-tickRoom { // or its words would stand in the cut
				add(at)
			}
		}
	}
}

func sameDay(a, b time.Time) bool {
	return a.UTC().Format(time.DateOnly) == b.UTC().Format(time.DateOnly)
}
