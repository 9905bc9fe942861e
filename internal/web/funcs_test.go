package web

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTook(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour:                              "0 ms",
		850 * time.Millisecond:                  "850 ms",
		12400 * time.Millisecond:                "12.4 s",
		59940 * time.Millisecond:                "59.9 s",
		59960 * time.Millisecond:                "1 m 00 s",
		187 * time.Second:                       "3 m 07 s",
		59*time.Minute + 59700*time.Millisecond: "1 h 00 m",
		125 * time.Minute:                       "2 h 05 m",
		76 * time.Hour:                          "3 d 04 h",
	} {
		require.Equal(t, want, took(d), d)
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"01a20f06-fa45-75fa-b53e-863925a24ea8": "01a20f06-fa45",
		"test_flow_1":                          "test_flow_1",
		"夜間バッチ夜間バッチ夜間バッチ夜間バッチ夜間バッチ": "夜間バッチ夜間バッチ夜間バッチ夜間バッチ夜間バ…",
	} {
		require.Equal(t, want, short(id))
	}
}

// A zero time has not happened: it is no moment in the year 1.
func TestTimeTag(t *testing.T) {
	t.Parallel()
	require.Empty(t, timeTag(time.Time{}, "at"))
	at := time.Date(2026, 11, 23, 12, 12, 1, 123456789, time.FixedZone("JST", 9*3600))
	require.EqualValues(t, `<time datetime="2026-11-23T03:12:01.123Z" data-form="since">since 03:12:01 UTC</time>`, timeTag(at, "since"))
}
