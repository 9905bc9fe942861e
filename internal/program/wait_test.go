package program

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// runAt runs a program in an attempt that began at a time of the database's clock.
func runAt(t *testing.T, name, parameters, at string, pause *flow.Pause) (json.RawMessage, error) {
	t.Helper()
	task := newTask(name, parameters)
	var err error
	task.StartedAt, err = time.Parse(time.RFC3339, at)
	require.NoError(t, err)
	task.Pause = pause
	return Default(Config{}).Run(t.Context(), Attempt{Task: task})
}

func TestWait_UntilWhen(t *testing.T) {
	t.Parallel()
	const now = "2026-11-24T19:30:00Z" // 20:30 in Berlin, 03:30 of the next day in Tokyo
	for parameters, want := range map[string]string{
		`{"for": "90s"}`:      "2026-11-24T19:31:30Z",
		`{"for": "2h30m"}`:    "2026-11-24T22:00:00Z",
		`{"for": 45}`:         "2026-11-24T19:30:45Z",
		`{"for": "0.5"}`:      "2026-11-24T19:30:00.5Z",
		`{"for": " 87600h "}`: "2036-11-21T19:30:00Z",

		`{"until": "2026-11-25T06:30:00+01:00"}`:             "2026-11-25T05:30:00Z",
		`{"until": "2030-01-01T00:00:00Z"}`:                  "2030-01-01T00:00:00Z",
		`{"until": "19:31"}`:                                 "2026-11-24T19:31:00Z",
		`{"until": "19:30"}`:                                 "2026-11-25T19:30:00Z", // the next one
		`{"until": "06:30:15"}`:                              "2026-11-25T06:30:15Z",
		`{"until": "21:00", "zone": "Europe/Berlin"}`:        "2026-11-24T20:00:00Z",
		`{"until": "20:00", "zone": "Europe/Berlin"}`:        "2026-11-25T19:00:00Z",
		`{"until": "03:00", "zone": "Asia/Tokyo"}`:           "2026-11-25T18:00:00Z",
		`{"until": "00:00", "zone": "America/Los_Angeles"}`:  "2026-11-25T08:00:00Z",
		`{"until": "23:59:59", "zone": "UTC", "other": "x"}`: "2026-11-24T23:59:59Z",
	} {
		_, err := runAt(t, "Wait", parameters, now, nil)
		var pause *flow.Pause
		require.ErrorAs(t, err, &pause, parameters)
		require.Equal(t, want, pause.Until.Format(time.RFC3339Nano), parameters)
		require.Equal(t, flow.Pause{Until: pause.Until}, *pause)
	}
	// In summer the clock there is another one; and on the day of the change.
	for at, want := range map[string]string{
		"2026-07-01T00:00:00Z": "2026-07-01T04:30:00Z",
		"2026-10-24T23:00:00Z": "2026-10-25T05:30:00Z",
	} {
		_, err := runAt(t, "Wait", `{"until": "06:30", "zone": "Europe/Berlin"}`, at, nil)
		var pause *flow.Pause
		require.ErrorAs(t, err, &pause)
		require.Equal(t, want, pause.Until.Format(time.RFC3339))
	}
}

// A time of day that there is not, since clocks are put forward over it, is as long after
// that as it would have been: never before, which at midnight is another day.
func TestWait_ClocksArePutForward(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, clock, now, want string }{
		{"Europe/Berlin", "02:30", "2026-03-28T23:00:00+01:00", "2026-03-29T03:30:00+02:00"},
		{"America/New_York", "02:30", "2026-03-07T23:00:00-05:00", "2026-03-08T03:30:00-04:00"},
		{"America/New_York", "02:30", "2026-03-08T01:45:00-05:00", "2026-03-08T03:30:00-04:00"},
		{"America/New_York", "02:30", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"},
		{"America/Santiago", "00:00", "2026-09-05T22:00:00-04:00", "2026-09-06T01:00:00-03:00"},
		{"America/Santiago", "00:00", "2026-09-05T23:30:00-04:00", "2026-09-06T01:00:00-03:00"},
		{"Africa/Cairo", "00:30", "2026-04-23T22:00:00+02:00", "2026-04-24T01:30:00+03:00"},
		{"Australia/Lord_Howe", "02:10", "2026-10-04T01:00:00+10:30", "2026-10-04T02:40:00+11:00"},
		// Of one that there is twice, the first is meant.
		{"Europe/Berlin", "02:30", "2026-10-24T23:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		{"Europe/Berlin", "03:30", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		require.NoError(t, err)
		at, err := parseUntil(c.clock, c.zone, now)
		require.NoError(t, err)
		place, err := time.LoadLocation(c.zone)
		require.NoError(t, err)
		require.Equal(t, c.want, at.In(place).Format(time.RFC3339), "%+v", c)
	}
}

// What an expression comes to is judged when it is known.
func TestWait_Expressions(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "Wait", Parameters: json.RawMessage(`{"for": "${{ params.minutes }}m"}`)}}}
	require.NoError(t, set.CheckWorkflow(w, nil))
	a := Attempt{Task: newTask("Wait", string(w.Tasks[0].Parameters)), Flow: func(context.Context) (flow.Flow, error) {
		return flow.Flow{Parameters: json.RawMessage(`{"minutes": 5}`)}, nil
	}}
	a.Task.StartedAt = time.Date(2026, 11, 24, 19, 30, 0, 0, time.UTC)
	_, err := set.Run(t.Context(), a)
	require.Equal(t, &flow.Pause{Until: a.Task.StartedAt.Add(5 * time.Minute)}, err)
}

// When the wait is over is said once.
func TestWait_TheNextAttemptFinishes(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 11, 24, 20, 0, 0, 0, time.UTC)
	for _, at := range []string{"2026-11-24T20:00:00Z", "2027-01-01T00:00:00Z", "2026-11-24T19:59:00Z"} { // the last one: put forward by a person
		output, err := runAt(t, "Wait", `{"for": "1h"}`, at, &flow.Pause{Until: until})
		require.NoError(t, err)
		require.JSONEq(t, `{"until": "2026-11-24T20:00:00Z"}`, string(output))
	}
	for _, parameters := range []string{`{"for": 0}`, `{"until": "2026-11-24T20:00:00Z"}`, `{"until": "2001-01-01T00:00:00Z"}`} {
		_, err := runAt(t, "Wait", parameters, "2026-11-24T20:00:00Z", nil)
		require.NoError(t, err, "there is nothing to wait for")
	}
}

func TestWait_WrongParameters(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]string{
		`{}`:                                               `parameters "for" and "until": there must be one of the two`,
		`{"for": "1h", "until": "06:30"}`:                  `parameters "for" and "until": there must be one of the two`,
		`{"for": "soon"}`:                                  `parameter "for": "soon" is not a time like 90s, 2h30m or 45, of at most ten years`,
		`{"for": -1}`:                                      `parameter "for": "-1" is not a time like 90s, 2h30m or 45, of at most ten years`,
		`{"for": "-1h"}`:                                   `parameter "for": "-1h" is not a time like 90s, 2h30m or 45, of at most ten years`,
		`{"for": "87601h"}`:                                `parameter "for": "87601h" is not a time like 90s, 2h30m or 45, of at most ten years`,
		`{"for": 1e300}`:                                   `parameter "for": "1e300" is not a time like 90s, 2h30m or 45, of at most ten years`,
		`{"for": "1h", "zone": "UTC"}`:                     `parameter "zone": it is for a time of day, in until`,
		`{"until": "25:00"}`:                               `parameter "until": "25:00" is neither a time like 2026-11-25T06:30:00+01:00 nor a time of day like 06:30`,
		`{"until": "2026-11-25"}`:                          `parameter "until": "2026-11-25" is neither a time like 2026-11-25T06:30:00+01:00 nor a time of day like 06:30`,
		`{"until": "1969-01-01T00:00:00Z"}`:                `parameter "until": "1969-01-01T00:00:00Z" is not from 1970 to 9999`,
		`{"until": "06:30", "zone": "Mars"}`:               `parameter "zone": "Mars" is not a time zone like Europe/Berlin`,
		`{"until": "06:30", "zone": "Local"}`:              `parameter "zone": "Local" is not a time zone like Europe/Berlin`,
		`{"until": "06:30", "zone": "../x"}`:               `parameter "zone": "../x" is not a time zone like Europe/Berlin`,
		`{"until": "2026-11-25T06:30:00Z", "zone": "UTC"}`: `parameter "zone": it is for a time of day, and until has a date and its own zone`,
	} {
		requireInvalid(t, Default(Config{}).Check("Wait", json.RawMessage(parameters)), want)
		_, err := runAt(t, "Wait", parameters, "2026-11-24T19:30:00Z", nil)
		requireInvalid(t, err, want)
	}
}

// Whatever somebody writes, the answer is a time to come or a refusal.
func FuzzWait(f *testing.F) {
	f.Add("90s", "", "")
	f.Add("", "06:30", "Europe/Berlin")
	f.Add("", "2026-11-25T06:30:00+01:00", "")
	f.Add("1e9", "", "")
	now := time.Date(2026, 3, 29, 0, 59, 59, 0, time.UTC) // a second before the clock is put forward
	f.Fuzz(func(t *testing.T, length, until, zone string) {
		given := Values{"for": length, "until": until, "zone": zone}
		at, err := target(given, now)
		if err != nil {
			require.ErrorAs(t, err, new(*flow.InvalidError))
			require.LessOrEqual(t, len(err.Error()), 500)
			return
		}
		require.True(t, at.Year() >= 1970 && at.Year() <= 9999, at)
		if _, err := time.Parse(time.RFC3339, until); err != nil {
			require.False(t, at.Before(now))
			require.LessOrEqual(t, at.Sub(now), maxWait)
		}
		_, err = json.Marshal(flow.Pause{Until: at})
		require.NoError(t, err)
	})
}
