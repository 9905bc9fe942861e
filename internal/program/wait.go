package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones mean the same wherever a watcher runs

	"github.com/d-tsuji/flower/internal/flow"
)

// maxWait keeps times in what both Go and PostgreSQL can count with.
const maxWait = 10 * 365 * 24 * time.Hour

// wait finishes at a time. Its first attempt says when that is, by the database's clock;
// the next one begins then, or when a person has put it forward.
type wait struct{}

func (wait) Parameters() []Parameter {
	return []Parameter{
		{Name: "for", Type: String, Public: true, Description: "How long to wait: 90s, 2h30m, 2d, or a number of seconds."},
		{Name: "until", Type: String, Public: true, Description: "When to go on: a time like 2026-11-25T06:30:00+01:00, " +
			"or a time of day like 06:30, which is the next one."},
		{Name: "zone", Type: String, Description: "The time zone of a time of day, like Europe/Berlin. The default is UTC."},
	}
}

// Check has the rules for parameters together.
func (wait) Check(v Values) error {
	if v.Open("for") || v.Open("until") || v.Open("zone") {
		return nil
	}
	_, err := target(v, time.Unix(0, 0))
	return err
}

func (wait) Run(_ context.Context, in Input) (json.RawMessage, error) {
	until, err := target(in.Params, in.Task.StartedAt)
	switch {
	case err != nil:
		return nil, err
	case in.Task.Pause != nil:
		until = in.Task.Pause.Until // as the first attempt saw it
	case until.After(in.Task.StartedAt):
		return nil, &flow.Pause{Until: until}
	}
	return json.Marshal(map[string]time.Time{"until": until})
}

// target returns when a wait that begins now is over.
func target(v Values, now time.Time) (time.Time, error) {
	length, until, zone := strings.TrimSpace(v.String("for")), strings.TrimSpace(v.String("until")), v.String("zone")
	switch {
	case (length == "") == (until == ""):
		return time.Time{}, &flow.InvalidError{Subject: `parameters "for" and "until"`, Problem: "there must be one of the two"}
	case length != "" && zone != "":
		return time.Time{}, invalid("zone", "it is for a time of day, in until")
	case length != "":
		d, err := parseLength(length)
		if err != nil {
			return time.Time{}, invalid("for", err.Error())
		}
		return now.Add(d).UTC(), nil
	}
	return parseUntil(until, zone, now)
}

func parseLength(text string) (time.Duration, error) {
	d, ok := flow.ParseDuration(text)
	if !ok || d > maxWait {
		return 0, errors.New(quote(text) + " is not a time like 90s, 2h30m or 45, of at most ten years")
	}
	return d, nil
}

func parseUntil(text, zone string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		switch {
		case zone != "":
			return time.Time{}, invalid("zone", "it is for a time of day, and until has a date and its own zone")
		case at.Year() < 1970 || at.Year() > 9999:
			return time.Time{}, invalid("until", quote(text)+" is not from 1970 to 9999")
		}
		return at.UTC(), nil
	}
	clock, err := time.Parse("15:04:05", text)
	if err != nil {
		clock, err = time.Parse("15:04", text)
	}
	if err != nil {
		return time.Time{}, invalid("until", quote(text)+" is neither a time like 2026-11-25T06:30:00+01:00 nor a time of day like 06:30")
	}
	place, err := time.LoadLocation(zone) // "" is UTC
	if err != nil || zone == "Local" {
		return time.Time{}, invalid("zone", fmt.Sprintf("%s is not a time zone like Europe/Berlin", quote(zone)))
	}
	year, month, day := now.In(place).Date()
	for {
		if at := onClock(time.Date(year, month, day, clock.Hour(), clock.Minute(), clock.Second(), 0, time.UTC), place); at.After(now) {
			return at.UTC(), nil
		}
		day++
	}
}

// onClock returns when clocks in a place show what they show in UTC at a time: the first time
// if that is twice, and if clocks are put forward over it, as long after that as it would
// have been. (Of time.Date one cannot know which it takes.)
func onClock(shown time.Time, place *time.Location) time.Time {
	at := func(offset int) time.Time { return shown.Add(-time.Duration(offset) * time.Second) }
	_, before := shown.Add(-24 * time.Hour).In(place).Zone()
	_, after := shown.Add(24 * time.Hour).In(place).Zone()
	for _, offset := range []int{before, after} {
		if _, there := at(offset).In(place).Zone(); there == offset {
			return at(offset)
		}
	}
	return at(before)
}
