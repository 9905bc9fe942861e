package program

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNoOp(t *testing.T) {
	t.Parallel()
	output, err := Default(Config{}).Run(t.Context(), Attempt{Task: newTask("NoOp", `{"ANY": "thing"}`)})
	require.NoError(t, err)
	require.Nil(t, output)
}

func TestEchoRandom_SleepsUpToTwoSeconds(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Test1", "Test2", "Test3", "EchoRandomTimeSleep"} {
		synctest.Test(t, func(t *testing.T) {
			seen := map[time.Duration]bool{}
			for range 20 {
				var lines bytes.Buffer
				start := time.Now()
				_, err := Default(Config{}).Run(t.Context(), Attempt{Task: newTask(name, `{}`), Log: slog.New(slog.NewTextHandler(&lines, nil))})
				require.NoError(t, err)
				took := time.Since(start)
				require.Less(t, took, 2*time.Second)
				require.Contains(t, lines.String(), "level=INFO msg=echo component=program flow=f1 seq=2 task=w program="+name)
				seen[took] = true
			}
			require.Greater(t, len(seen), 1, "it is not random")
		})
	}
}

func TestEchoParam_SleepsAsLongAsItSays(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]time.Duration{
		`{"SLEEP_TIME_SECOND": "1"}`:    time.Second,
		`{"SLEEP_TIME_SECOND": 1}`:      time.Second,
		`{"SLEEP_TIME_SECOND": 0}`:      0,
		`{"SLEEP_TIME_SECOND": "0.25"}`: 250 * time.Millisecond,
		`{"SLEEP_TIME_SECOND": 86400}`:  24 * time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			var lines bytes.Buffer
			start := time.Now()
			output, err := Default(Config{}).Run(t.Context(), Attempt{Task: newTask("EchoParamTimeSleep", parameters), Log: slog.New(slog.NewTextHandler(&lines, nil))})
			require.NoError(t, err)
			require.Nil(t, output)
			require.Equal(t, want, time.Since(start))
			require.Contains(t, lines.String(), "level=INFO msg=echo component=program flow=f1 seq=2 task=w program=EchoParamTimeSleep")
		})
	}
}

// The texts that people see when a row is wrong; the first is that of a sample workflow.
func TestEchoParam_WrongParameters(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]string{
		`{"SLEEP_TIME_SECOND": "soon"}`:  `"soon" is not a number of seconds from 0 to 86400`,
		`{"SLEEP_TIME_SECOND": ""}`:      `"" is not a number of seconds from 0 to 86400`,
		`{"SLEEP_TIME_SECOND": -1}`:      `-1 is not a number of seconds from 0 to 86400`,
		`{"SLEEP_TIME_SECOND": 86400.1}`: `86400.1 is not a number of seconds from 0 to 86400`,
		`{"SLEEP_TIME_SECOND": [1]}`:     `an array is not a number of seconds from 0 to 86400`,
		`{}`:                             `it is missing, and must be a number of seconds from 0 to 86400`,
		`{"SLEEP_TIME_SECONDS": 1}`:      `it is missing, and must be a number of seconds from 0 to 86400; this program does not know "SLEEP_TIME_SECONDS"`,
	} {
		_, err := Default(Config{}).Run(t.Context(), Attempt{Task: newTask("EchoParamTimeSleep", parameters)})
		requireInvalid(t, err, `parameter "SLEEP_TIME_SECOND": `+want)
	}
}

func TestEcho_StopsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(stop) })
		start := time.Now()
		_, err := Default(Config{}).Run(ctx, Attempt{Task: newTask("EchoParamTimeSleep", `{"SLEEP_TIME_SECOND": 3600}`)})
		require.Equal(t, stop, err)
		require.Equal(t, time.Minute, time.Since(start))
	})
}
