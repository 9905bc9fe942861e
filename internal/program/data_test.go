package program

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/secret"
)

// shows is a program that returns the parameters that it gets.
var shows = fake{
	parameters: []Parameter{
		{Name: "text", Type: String},
		{Name: "n", Type: Integer, Default: json.RawMessage(`7`)},
		{Name: "any", Type: Any},
		{Name: "list", Type: Strings},
		{Name: "shown", Type: String, Public: true},
	},
	run: func(_ context.Context, in Input) (json.RawMessage, error) {
		return json.Marshal(map[string]any{
			"text": in.Params.String("text"), "n": in.Params.Int("n"), "any": in.Params.JSON("any"), "list": in.Params.Strings("list"),
		})
	},
}

const token = "s3cr3t-t0ken"

// withSecret has one secret.
func withSecret(t *testing.T) *secret.Store {
	t.Helper()
	s, warnings, err := secret.New([]string{secret.Prefix + "TOKEN=" + token}, "")
	require.NoError(t, err)
	require.Empty(t, warnings)
	return s
}

// newAttempt makes one at a task that runs after 1, which has returned something, and 2,
// which has not.
func newAttempt(parameters string) Attempt {
	return Attempt{
		Task: newTask("P", parameters),
		Outputs: func(_ context.Context, seqs ...int) (map[int]json.RawMessage, error) {
			found := make(map[int]json.RawMessage)
			for _, seq := range seqs {
				if seq == 1 {
					found[1] = json.RawMessage(`{"rows": [{"id": 5}], "text": "${{ secrets.TOKEN }}"}`)
				}
			}
			return found, nil
		},
		Flow: func(context.Context) (flow.Flow, error) {
			return flow.Flow{
				ID: "f1", WorkflowID: "w", RegisteredAt: time.Date(2026, 11, 24, 20, 0, 0, 0, time.FixedZone("", 3600)),
				Parameters: json.RawMessage(`{"day": "monday", "big": 18446744073709551615}`),
			}, nil
		},
	}
}

func TestRun_EvaluatesParameters(t *testing.T) {
	t.Parallel()
	set := Set{"P": shows}
	for parameters, want := range map[string]string{
		`{"n": "${{ outputs[1].rows[0].id }}"}`:                                                       `{"text": "", "n": 5, "any": null, "list": null}`,
		`{"n": "${{ len(outputs[1].rows) }}", "text": "x"}`:                                           `{"text": "x", "n": 1, "any": null, "list": null}`,
		`{"n": "${{ outputs[2] }}"}`:                                                                  `{"text": "", "n": 7, "any": null, "list": null}`, // null: as if it were not there
		`{"text": "${{ params.day }} ${{ flow.registered.Hour() }}h"}`:                                `{"text": "monday 19h", "n": 7, "any": null, "list": null}`,
		`{"text": "${{ flow.id }}/${{ flow.workflow }}/${{ flow.seq }}/${{ flow.attempt }}"}`:         `{"text": "f1/w/2/3", "n": 7, "any": null, "list": null}`,
		`{"any": {"a": ["${{ params.big }}", 1.50]}, "list": ["a", "${{ params.day }}", "${{ 1 }}"]}`: `{"text": "", "n": 7, "any": {"a": [18446744073709551615, 1.50]}, "list": ["a", "monday", "1"]}`,
		`{"any": "${{ outputs[1].rows }}", "list": "${{ map(outputs[1].rows, string(.id)) }}"}`:       `{"text": "", "n": 7, "any": [{"id": 5}], "list": ["5"]}`,
		// What a rerun gives stands in the task's row, beside what the definition says.
		`{"text": "${{ params.day }}", "day": "tuesday"}`:                         `{"text": "tuesday", "n": 7, "any": null, "list": null}`,
		`{"text": "${{ params.hour ?? 'any' }}", "hour": "noon"}`:                 `{"text": "noon", "n": 7, "any": null, "list": null}`,
		`{"text": "${{ params.n ?? 'none' }}", "n": 3}`:                           `{"text": "none", "n": 3, "any": null, "list": null}`, // the definition's
		`{"text": "${{ params.hour ?? 'any' }}", "hour": "${{ 1 }}"}`:             `{"text": "any", "n": 7, "any": null, "list": null}`,
		`{"undeclared": "${{ outputs[1].nothing.at.all }}"}`:                      `{"text": "", "n": 7, "any": null, "list": null}`,                                           // nobody reads it
		`{"text": "${{ outputs[1].text }}", "any": ["<${{ outputs[1].text }}>"]}`: `{"text": "${{ secrets.TOKEN }}", "n": 7, "any": ["<${{ secrets.TOKEN }}>"], "list": null}`, // data is not code
	} {
		a := newAttempt(parameters)
		given := string(a.Task.Parameters)
		output, err := set.Run(t.Context(), a)
		require.NoError(t, err, parameters)
		require.JSONEq(t, want, string(output), parameters)
		require.Equal(t, given, string(a.Task.Parameters))
	}
}

func TestRun_SaysWhichExpressionIsWrong(t *testing.T) {
	t.Parallel()
	set := Set{"P": shows}
	for parameters, want := range map[string]string{
		`{"n": "${{ params.day }}"}`:           `parameter "n": "monday" is not a whole number; it was computed from ${{ params.day }}`, // checked like what stands there
		`{"text": "${{ outputs[1] }}"}`:        `parameter "text": an object is not a string; it was computed from ${{ outputs[1] }}`,
		`{"list": ["a", "${{ params.dya }}"]}`: `parameter "list": item 2 is null, not a string; it was computed from ${{ params.dya }}`,
		`{"list": ["s3cret", "${{ 1 }}", "${{ 2 }}", "${{ 3 }}", "${{ 4 }}${{ 5 }}", "${{ outputs[1] }}"]}`: `parameter "list": item 6 is an object, not a string; ` +
			`it was computed from ${{ 1 }}, ${{ 2 }}, ${{ 3 }}, 3 more`,
		`{"text": "${{ outputs[2].rows }}"}`:    `parameter "text": ${{ outputs[2].rows }}: cannot fetch rows from null (line 1, column 12)`,
		`{"text": "x${{ outputs[2] }}"}`:        `parameter "text": ${{ outputs[2] }}: it is null, which is no text; ?? says what to take instead`,
		`{"text": "${{ 1 + }}"}`:                `parameter "text": ${{ 1 + }}: it ends too early (line 1, column 3)`,
		`{"any": [{"x": "${{ nothing }}"}]}`:    `parameter "any": ${{ nothing }}: unknown name nothing (line 1, column 1)`,
		`{"text": "${{ secrets.TOKEN }}"}`:      `parameter "text": secret TOKEN: the watcher has none of that name: it looks for the environment variable FLOWER_SECRET_TOKEN and for a file in -secrets-dir`,
		`{"shown": "for ${{ secrets.TOKEN }}"}`: `parameter "shown": it is for all to see, and cannot have a secret in it`,
		`{"any": {"${{ params.day }}": 1}}`:     `parameter "any": a key cannot have an expression in it: ${{ ${{ params.day }} }}`,
	} {
		_, err := set.Run(t.Context(), newAttempt(parameters))
		requireInvalid(t, err, want)
	}
	a := newAttempt(`{"SLEEP_TIME_SECOND": "${{ params.nap }}"}`)
	a.Task.Program = "EchoParamTimeSleep"
	_, err := Default(Config{}).Run(t.Context(), a)
	requireInvalid(t, err, `parameter "SLEEP_TIME_SECOND": it is missing, and must be a number of seconds from 0 to 86400; `+
		`it was computed from ${{ params.nap }}`)
}

func TestRun_RunIf(t *testing.T) {
	t.Parallel()
	ran := 0
	set := Set{"P": fake{run: func(context.Context, Input) (json.RawMessage, error) { ran++; return nil, nil }}}
	a := newAttempt(`{}`)
	for condition, want := range map[string]string{
		`outputs[1].rows[0].id == 5`:      "",
		`outputs[2] == nil`:               "",
		`params.day == "tuesday"`:         `run_if is false: ${{ params.day == "tuesday" }}`,
		`${{ len(outputs[1].rows) > 1 }}`: `run_if is false: ${{ len(outputs[1].rows) > 1 }}`,
	} {
		a.Task.RunIf = condition
		before := ran
		_, err := set.Run(t.Context(), a)
		if want == "" {
			require.NoError(t, err, condition)
			require.Equal(t, before+1, ran, condition)
			continue
		}
		var skipped *flow.SkippedError
		require.ErrorAs(t, err, &skipped)
		require.EqualError(t, err, want)
		require.Equal(t, before, ran, "it was run")
	}
	for condition, want := range map[string]string{
		`outputs[1]`:       `run_if: ${{ outputs[1] }}: it is neither true nor false, but an object`,
		`outputs[2].x > 1`: `run_if: ${{ outputs[2].x > 1 }}: cannot fetch x from null (line 1, column 12)`,
		`(`:                `run_if: ${{ ( }}: it ends too early (line 1, column 1)`,
		`secrets.A == "x"`: `run_if: ${{ secrets.A == "x" }}: unknown name secrets (line 1, column 1)`,
	} {
		a.Task.RunIf = condition
		_, err := set.Run(t.Context(), a)
		requireInvalid(t, err, want)
	}

	// Whoever paused goes on: the condition has been asked.
	a.Task.RunIf, a.Task.Pause = "false", &flow.Pause{}
	before := ran
	_, err := set.Run(t.Context(), a)
	require.NoError(t, err)
	require.Equal(t, before+1, ran)
	a.Task.Pause = nil

	// What is skipped needs no parameters.
	set["P"] = strict
	a.Task.RunIf = "false"
	_, err = set.Run(t.Context(), a)
	require.ErrorAs(t, err, new(*flow.SkippedError))
}

// What cannot be fetched is no mistake of the definition.
func TestRun_FetchesWhatItNeeds(t *testing.T) {
	t.Parallel()
	set := Set{"P": shows}
	away := errors.New("away")
	a := newAttempt(`{"text": "${{ flow.id }}"}`)
	a.Flow = func(context.Context) (flow.Flow, error) { return flow.Flow{}, away }
	a.Outputs = func(context.Context, ...int) (map[int]json.RawMessage, error) { return nil, away }
	_, err := set.Run(t.Context(), a)
	require.NoError(t, err, "it asks for nothing")
	for _, parameters := range []string{`{"text": "${{ params.day }}"}`, `{"text": "${{ flow.registered }}"}`, `{"any": "${{ flow }}"}`, `{"any": "${{ outputs[1] }}"}`} {
		a.Task.Parameters = json.RawMessage(parameters)
		_, err = set.Run(t.Context(), a)
		require.ErrorIs(t, err, away, parameters)
		require.NotErrorAs(t, err, new(*flow.InvalidError))
	}
	a.Task.Parameters, a.Task.RunIf = json.RawMessage(`{}`), "params.x == 1"
	_, err = set.Run(t.Context(), a)
	require.ErrorIs(t, err, away)
}
