package definition

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// units are those of times, the longest first.
var units = []struct {
	name string
	time time.Duration
}{
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"m", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
}

// durationText is the pattern of the schema: numbers with units, whole but for the ones
// that have a fraction.
var durationText = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$`)

var durationPart = regexp.MustCompile(`([0-9.]+)(ms|s|m|h|d)`)

// parseDuration reads 1h30m. Times count in milliseconds.
func parseDuration(s string) (time.Duration, bool) {
	if len(s) > 100 || !durationText.MatchString(s) {
		return 0, false
	}
	var total float64
	for _, part := range durationPart.FindAllStringSubmatch(s, -1) {
		number, err := strconv.ParseFloat(part[1], 64)
		if err != nil {
			return 0, false
		}
		for _, u := range units {
			if u.name == part[2] {
				total += number * float64(u.time/time.Millisecond)
			}
		}
	}
	return milliseconds(total)
}

func parseSeconds(number string) (time.Duration, bool) {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 {
		return 0, false
	}
	return milliseconds(f * 1000)
}

// maxDuration is 285 years, in milliseconds. A time.Duration can hold a little more.
const maxDuration = 9e12

func milliseconds(ms float64) (time.Duration, bool) {
	ms = math.Round(ms)
	if ms > maxDuration {
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}

// formatDuration writes what parseDuration reads: 1h30m.
func formatDuration(t time.Duration) string {
	if t < time.Millisecond {
		return "0s"
	}
	var b strings.Builder
	for _, u := range units {
		if n := t / u.time; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
			t %= u.time
		}
	}
	return b.String()
}
