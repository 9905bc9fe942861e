package flow

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxDuration is 285 years. A time.Duration can hold a little more.
const maxDuration = 9e12 * time.Millisecond

var (
	plainNumber = regexp.MustCompile(`^[0-9.]+([eE][+-]?[0-9]+)?$`)
	days        = regexp.MustCompile(`[0-9.]+d`)
)

// ParseDuration reads a length of time as people write it, wherever they may: 90s, 2h30m,
// 7d, or a number of seconds. There are no negative ones.
func ParseDuration(text string) (time.Duration, bool) {
	switch {
	case len(text) > 100:
		return 0, false
	case plainNumber.MatchString(text):
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || seconds > maxDuration.Seconds() {
			return 0, false
		}
		return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond), true
	}
	// Go knows no days, and adds up what it is given.
	d, err := time.ParseDuration(days.ReplaceAllStringFunc(text, func(day string) string {
		return strings.Repeat(strings.TrimSuffix(day, "d")+"h", 24)
	}))
	return d, err == nil && d >= 0 && d <= maxDuration
}
