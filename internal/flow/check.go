package flow

import (
	"fmt"
	"strings"
	"time"
)

// Check is what was found when somebody last looked whether every rule holds that the
// database must keep (v_invariant). It reads everything, so it is not done for whoever
// asks, but by watchers, now and then.
type Check struct {
	Done      bool          // false: nobody has looked yet
	Age       time.Duration // since then
	Took      time.Duration
	Broken    []BrokenRule
	BrokenFor time.Duration // since a rule was first seen to be broken

	// What was broken before and holds again: repaired, as a rule by the sweep.
	Repaired    []BrokenRule
	RepairedAge time.Duration
}

// BrokenRule is a rule that does not hold, with one of the rows that break it.
type BrokenRule struct {
	Rule   string
	Rows   int
	Key    TaskKey
	Detail string
}

// How often watchers look, and how much of the time they may spend on it.
const (
	CheckEvery = time.Minute
	CheckShare = 50 // a fiftieth
)

// Pause returns how long watchers wait after a check that took so long.
func (c Check) Pause() time.Duration { return max(CheckEvery, CheckShare*c.Took) }

// repairedShown is for how long a repair is worth a line.
const repairedShown = time.Hour

// Text says it in lines for people and for monitors. Without names it tells nothing about
// what runs here: for those who may not know.
func (c Check) Text(names bool) string {
	var b strings.Builder
	ago := func(d time.Duration) string { return d.Round(time.Second).String() }
	switch {
	case !c.Done:
		return "v_invariant: not checked yet: a watcher does so within half a minute of its start\n"
	case len(c.Broken) > 0:
		fmt.Fprintf(&b, "v_invariant: NOT EMPTY for %s, checked %s ago\n", ago(c.BrokenFor), ago(c.Age))
		write(&b, c.Broken, names)
		b.WriteString("  A sweep repairs this within a minute or two, as a rule. If it stays: SELECT * FROM v_invariant;\n")
	default:
		fmt.Fprintf(&b, "v_invariant: empty, checked %s ago\n", ago(c.Age))
	}
	if c.Age > 2*c.Pause()+CheckEvery {
		fmt.Fprintf(&b, "  That is long ago. A watcher checks it every %s here: does one run?\n", ago(c.Pause()))
	}
	if len(c.Broken) == 0 && len(c.Repaired) > 0 && c.RepairedAge < repairedShown {
		fmt.Fprintf(&b, "  Repaired %s ago:\n", ago(c.RepairedAge))
		write(&b, c.Repaired, names)
	}
	return b.String()
}

func write(b *strings.Builder, rules []BrokenRule, names bool) {
	for _, r := range rules {
		rows := "1 row"
		if r.Rows != 1 {
			rows = fmt.Sprintf("%d rows", r.Rows)
		}
		fmt.Fprintf(b, "  %s: %s", r.Rule, rows)
		if names {
			fmt.Fprintf(b, ", such as task %d of flow %q: %s", r.Key.Seq, r.Key.Flow, r.Detail)
		}
		b.WriteString("\n")
	}
}
