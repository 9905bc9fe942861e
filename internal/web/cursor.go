package web

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// A place in the list of flows is written into a URL as the microsecond and the id, in
// base64: an id may hold anything.

func cursorOf(p flow.Position) string {
	if p.IsZero() {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.At.UnixMicro(), 36) + " " + string(p.Flow)))
}

// readCursor is the way back. What is none is the list's beginning: a link that somebody
// cut shows the newest flows.
func readCursor(text string) flow.Position {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || clean(map[string][]string{"": {string(raw)}}) != nil {
		return flow.Position{}
	}
	at, id, ok := strings.Cut(string(raw), " ")
	us, err := strconv.ParseInt(at, 36, 64)
	if !ok || err != nil || us <= 0 || us > 1<<53 {
		return flow.Position{}
	}
	return flow.Position{At: time.UnixMicro(us).UTC(), Flow: flow.ID(id)}
}

// including is the position from which a list begins with the flow that is at p.
func including(p flow.Position) flow.Position {
	if p.IsZero() {
		return p
	}
	return flow.Position{At: p.At, Flow: p.Flow + "\x01"} // after p, no id comes before that one
}

// above reports whether a flow is before a place in the list.
func above(s flow.Summary, p flow.Position) bool {
	if c := s.Position.At.Compare(p.At); c != 0 {
		return c > 0
	}
	return s.Position.Flow > p.Flow
}

// A list's URL has the cursors of the pages before it, so that "Newer" goes back the way
// that one came: a list is only ever read from the newest flow on. Of very many the first
// ones are forgotten, and then it goes to the beginning.
const (
	trailName = "newer"
	maxTrail  = 20
	beginning = "-" // instead of the cursor of the first page
)

// older is the link from a page to the one after it.
func older(q query, next flow.Position) string {
	here := q.get("after")
	if here == "" {
		here = beginning
	}
	trail := append(strings.Split(q.get(trailName), "."), here)
	if trail[0] == "" {
		trail = trail[1:]
	}
	if len(trail) > maxTrail {
		trail = trail[len(trail)-maxTrail:]
	}
	return q.without("at", "did").with("after", cursorOf(next)).with(trailName, strings.Join(trail, ".")).String()
}

// back is the link to the page before; empty on the first one.
func back(q query) string {
	if q.get("after") == "" {
		return ""
	}
	trail := strings.Split(q.get(trailName), ".")
	last := trail[len(trail)-1]
	if last == beginning {
		last = ""
	}
	return q.without("at", "did").with("after", last).with(trailName, strings.Join(trail[:len(trail)-1], ".")).String()
}
