package watcher

import (
	"fmt"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Bounds of what is kept of an attempt, in lines and bytes: of its head, and of its tail.
// The comment on kr_task_log and the README name them.
const (
	keepLines = 5000
	keepBytes = 512 << 10
)

// liveLines is how many lines of the tail are written at a time while the attempt runs:
// enough to see what it is doing, and little for the database, whatever it prints.
const liveLines = 100

// What a line and an attempt take in memory, beside texts.
const (
	lineCost    = 64
	attemptCost = 512
)

func costOf(l flow.LogLine) int { return len(l.Text) + lineCost }

// attemptLog is the log of an attempt on its way to the database. Kept are its head, the
// lines up to gap.headTo, and its tail, those from gap.tailFrom on; what is between them is
// missing, and a mark says so. Head and tail are shortened at that end alone, by the
// bounds above or for want of memory, so that there is never a second gap.
//
// The head is written as it comes. The tail is kept in memory until the attempt ends, as
// nobody knows earlier which lines are the last; meanwhile its newest lines are written
// for those who look, and taken out again when the gap has come to them.
//
// Its fields are guarded by the shipper's mu.
type attemptLog struct {
	key     flow.LogPart  // the attempt
	ended   bool          // nothing more will come
	written chan struct{} // nil, or closed when all is written after the end
	queued  bool          // it is in the shipper's queue
	cost    int           // of what is in memory

	last       int64 // number of the newest line
	gap        gap
	marked     gap // that which the database knows of
	headFull   bool
	headBytes  int // of the whole head, written or not
	tailBytes  int
	head, tail []flow.LogLine // what is not written; of a running attempt the whole tail

	liveFrom, liveTo int64 // these lines of the tail are written already
	liveAt           time.Time
}

// gap is what is between head and tail; at first it is nothing.
type gap struct{ headTo, tailFrom int64 }

// missing is how many lines are in it.
func (g gap) missing() int64 { return g.tailFrom - g.headTo - 1 }

func newAttemptLog(t flow.Task) *attemptLog {
	return &attemptLog{
		key:  flow.LogPart{TaskKey: t.TaskKey, Attempt: t.Attempt, ClaimID: t.ClaimID},
		cost: attemptCost, gap: gap{0, 1},
	}
}

// add takes the next line.
func (a *attemptLog) add(l flow.LogLine) {
	a.last++
	l.No = a.last
	a.cost += costOf(l)
	a.headFull = a.headFull || a.gap.headTo == keepLines || a.headBytes+len(l.Text) > keepBytes
	if !a.headFull {
		a.head = append(a.head, l)
		a.headBytes += len(l.Text)
		a.gap = gap{l.No, l.No + 1}
		return
	}
	a.tail = append(a.tail, l)
	a.tailBytes += len(l.Text)
	for len(a.tail) > keepLines || a.tailBytes > keepBytes {
		a.cutTail(1)
	}
}

// shrink shortens what is in memory until it costs no more than a share, if it can. A
// head that was whole is divided first: the last lines are worth as much.
func (a *attemptLog) shrink(share int) {
	for a.cost > share && len(a.head)+len(a.tail) > 0 {
		switch {
		case !a.headFull:
			a.divide()
		case len(a.tail) >= len(a.head):
			a.cutTail((len(a.tail) + 1) / 2)
		default:
			a.cutHead((len(a.head) + 1) / 2)
		}
	}
}

// divide makes the newer half of the head the tail.
func (a *attemptLog) divide() {
	a.headFull = true
	half := len(a.head) / 2
	a.tail = slices.Clone(a.head[half:])
	clear(a.head[half:])
	a.head = a.head[:half]
	for _, l := range a.tail {
		a.tailBytes += len(l.Text)
	}
	a.gap = gap{a.tail[0].No - 1, a.tail[0].No}
}

// cutTail drops the n oldest lines of the tail.
func (a *attemptLog) cutTail(n int) {
	a.gap.tailFrom = a.tail[n-1].No + 1
	for _, l := range a.tail[:n] {
		a.tailBytes -= len(l.Text)
	}
	a.tail = a.pop(a.tail, n)
}

// cutHead drops the n newest lines of the head.
func (a *attemptLog) cutHead(n int) {
	left := len(a.head) - n
	a.gap.headTo, a.headFull = a.head[left].No-1, true
	a.pop(a.head[left:], n)
	a.head = a.head[:left]
}

// pop takes the first n lines out of memory.
func (a *attemptLog) pop(lines []flow.LogLine, n int) []flow.LogLine {
	for _, l := range lines[:n] {
		a.cost -= costOf(l)
	}
	clear(lines[:n]) // the slice may live longer than its texts are needed
	return lines[n:]
}

// due reports whether there is something to write.
func (a *attemptLog) due() bool {
	return len(a.head) > 0 || len(a.tail) > 0 && (a.ended || a.last > a.liveTo) || a.markDue()
}

func (a *attemptLog) markDue() bool { return a.gap.missing() > 0 && a.gap != a.marked }

// parcel is a part of an attempt's log on its way.
type parcel struct {
	of   *attemptLog
	part flow.LogPart
	upTo int64 // number of its last line; 0: there is none but a mark
	live int64 // number of its first line, if they are of the tail of a running attempt; else 0
	gap  gap   // as it was
	more bool  // there is no room for the rest of what is due now
}

// pack makes a parcel of what is due. It costs no more than room, but for a line and a mark.
func (a *attemptLog) pack(room int) parcel {
	p := parcel{of: a, part: a.key, gap: a.gap}
	if a.markDue() {
		text := fmt.Sprintf("… %d lines are not kept …", a.gap.missing())
		p.part.Lines = append(p.part.Lines, flow.LogLine{No: a.gap.headTo + 1, At: time.Now(), Stream: flow.StreamFlower, Text: text})
		p.part.GoneFrom, p.part.GoneTo = a.gap.headTo+2, a.gap.tailFrom-1
	}
	lines := a.head
	switch {
	case len(a.head) > 0:
	case a.ended:
		lines = a.tail
	case len(a.tail) > 0:
		lines = a.tail[max(upTo(a.tail, a.liveTo), len(a.tail)-liveLines):]
		p.live = a.last + 1 - int64(len(lines))
	}
	for _, l := range lines {
		if p.more = room <= 0; p.more {
			break
		}
		room -= costOf(l)
		p.part.Lines = append(p.part.Lines, l)
		p.upTo = l.No
	}
	return p
}

// settle forgets what is written.
func (a *attemptLog) settle(p parcel) {
	if p.part.GoneTo > 0 {
		a.marked = p.gap
	}
	a.head = a.pop(a.head, upTo(a.head, p.upTo))
	switch {
	case p.live == 0:
		a.tail = a.pop(a.tail, upTo(a.tail, p.upTo))
	case p.upTo > 0:
		if p.live != a.liveTo+1 {
			a.liveFrom = p.live
		}
		a.liveTo, a.liveAt = p.upTo, time.Now()
	}
}

// finish is the end: the whole tail is due, but for what is written already.
func (a *attemptLog) finish() {
	a.ended = true
	if len(a.tail) > 0 && a.liveFrom <= a.tail[0].No {
		a.tail = a.pop(a.tail, upTo(a.tail, a.liveTo))
	}
}

// upTo counts the lines up to a number.
func upTo(lines []flow.LogLine, no int64) int {
	if len(lines) == 0 {
		return 0
	}
	return int(min(max(no+1-lines[0].No, 0), int64(len(lines))))
}
