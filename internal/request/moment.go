package request

import (
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxPeriod is the longest time that somebody may ask about.
const maxPeriod = 100 * 365 * 24 * time.Hour

// Period reads a length of time in which something can happen: 90s, 15m, 24h, 7d.
func Period(text string) (time.Duration, bool) {
	d, ok := flow.ParseDuration(text)
	return d, ok && d > 0 && d <= maxPeriod
}

// Moment reads a point in time: 15m, 24h or 7d before now, RFC 3339, or in UTC a day or
// what forms of browsers have.
func Moment(text string) (flow.Moment, bool) {
	if ago, ok := Period(text); ok {
		return flow.Moment{Before: ago}, true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil && at.Year() >= 1900 && at.Year() < 3000 {
			return flow.Moment{At: at}, true
		}
	}
	return flow.Moment{}, false
}
