package definition

import (
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

// formatDuration writes what is read: 1h30m.
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
