package flow

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0.5": 500 * time.Millisecond, "1e3": 1000 * time.Second, "0": 0, "2.003": 2003 * time.Millisecond,
		"90s": 90 * time.Second, "250ms": 250 * time.Millisecond, "2h30m": 150 * time.Minute, "1h0m0s": time.Hour,
		"7d": 7 * day, "1.5d": 36 * time.Hour, "2d12h": 60 * time.Hour, "12h1d": 36 * time.Hour, "0d": 0, "100000d": 100_000 * day,
	} {
		d, ok := ParseDuration(text)
		require.True(t, ok, text)
		require.Equal(t, want, d, text)
	}
	for _, text := range []string{
		"", "x", "d", "5x", "1h30", "-5", "-5s", "-2d", "NaN", "Inf", "NaNd", "0x10", "1_000", "1e9d", ".", "1.5.d",
		"99999999999999999999", "1e300", "9999999d", "3000000h", strings.Repeat("1s", 51),
	} {
		_, ok := ParseDuration(text)
		require.False(t, ok, text)
	}
}
