package web

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// failureCard is what failed, why, what it keeps from running, and what can be done.
type failureCard struct {
	Task    taskRow
	Program string
	Words   []string // attempt, watcher and the like
	Error   errorView
	Log     []flow.LogLine // the last lines
	Params  string         // of the task, as JSON; empty is none
	Blocks  string         // "Blocks 2 tasks: 4 build_mart, 5 notify"
	Buttons []button

	// Tasks that failed alike, where they are more than a few. The card is of the first.
	Alike []taskRow
}

// errorView is an error, its first line large.
type errorView struct {
	ID    string // of the element that has all of it, to be copied
	First string
	Rest  []string // the lines after it that are shown at once
	More  []string // and those that are folded away
}

// What is shown at once of failures: of many the first ones, of a long error its
// beginning.
const (
	cardsShown   = 10
	alikeShown   = 3 // so many failures with one error have a card each
	errorLines   = 12
	logLines     = 20
	cardsWithLog = 3
)

func newErrorView(id, text string) errorView {
	first, rest := firstLine(text)
	v := errorView{ID: id, First: first}
	if strings.TrimSpace(rest) == "" {
		return v
	}
	lines := strings.Split(strings.TrimRight(rest, "\n\r\t "), "\n")
	v.Rest = lines
	if heightOf(lines) > errorLines+2 {
		n := 0
		for heightOf(lines[:n+1]) <= errorLines {
			n++
		}
		v.Rest, v.More = lines[:n], lines[n:]
	}
	return v
}

// heightOf is how many lines of a page these are: a server may answer with all of a page in
// one line.
func heightOf(lines []string) int {
	const width = 150 // characters that fit into one, roughly
	n := len(lines)
	for _, l := range lines {
		n += len(l) / width
	}
	return n
}

// failureCards makes a card for each failure, the earliest first: it is the cause.
func failureCards(tasks []flow.TaskState, g graph, watchers watchers, q query) (cards []failureCard, unshown int) {
	var failed []flow.TaskState
	for _, t := range tasks {
		if t.Failing() {
			failed = append(failed, t)
		}
	}
	slices.SortStableFunc(failed, func(a, b flow.TaskState) int { return a.SuspendedAt.Compare(b.SuspendedAt) })
	alike := map[string][]flow.TaskState{}
	for _, t := range failed {
		alike[kindOf(t)] = append(alike[kindOf(t)], t)
	}
	done := map[string]bool{}
	shown := 0
	for _, t := range failed {
		kind := kindOf(t)
		group := alike[kind]
		switch {
		case done[kind]:
			continue
		case len(cards) == cardsShown:
			return cards, len(failed) - shown
		case len(group) > alikeShown:
			done[kind] = true
		default:
			group = nil
		}
		shown += max(1, len(group))
		cards = append(cards, newFailureCard(t, group, g, watchers, q))
	}
	return cards, 0
}

// kindOf is equal for failures that are alike.
func kindOf(t flow.TaskState) string {
	return t.Fingerprint + "\x00" + t.Program + "\x00" + string(t.Reason)
}

func newFailureCard(t flow.TaskState, group []flow.TaskState, g graph, watchers watchers, q query) failureCard {
	c := failureCard{
		Task:    newTaskRow(t, g, watchers, q),
		Program: t.Program,
		Error:   newErrorView(fmt.Sprintf("error-%d", t.Seq), cmp.Or(t.Error, "Suspended without an error's text: by hand, as it seems.")),
		Params:  pretty(t.Parameters),
	}
	if t.Attempt > 0 {
		c.Words = append(c.Words, attemptOf(t))
	}
	if name := watchers.name(t.WatcherID); name != "" {
		c.Words = append(c.Words, name)
	}
	behind := map[int]bool{}
	for _, one := range append([]flow.TaskState{t}, group...) {
		for _, seq := range g.behind(one.Seq) {
			behind[seq] = true
		}
	}
	if n := len(behind); n > 0 {
		c.Blocks = fmt.Sprintf("Blocks %s: %s", plural(n, "task", "tasks"), g.names(sorted(behind)))
	}
	for _, one := range group {
		c.Alike = append(c.Alike, newTaskRow(one, g, watchers, q))
	}
	return c
}

// attemptOf is "attempt 2 of 3".
func attemptOf(t flow.TaskState) string {
	return "attempt " + cmp.Or(attemptText(t), strconv.Itoa(t.Attempt))
}

func sorted(set map[int]bool) []int {
	list := make([]int, 0, len(set))
	for n := range set {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}
