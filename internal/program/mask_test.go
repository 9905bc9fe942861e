package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/secret"
)

// leaky gives away what it is given, in the way that a test says.
func leaky(leak func(in Input, secret string) (json.RawMessage, error)) Set {
	return Set{"P": fake{
		parameters: []Parameter{{Name: "key", Type: String}, {Name: "n", Type: Integer}},
		run: func(_ context.Context, in Input) (json.RawMessage, error) {
			return leak(in, in.Params.String("key"))
		},
	}}
}

// leaked runs an attempt with a secret, and returns everything that came of it.
func leaked(t *testing.T, set Set) (output json.RawMessage, shown string, err error) {
	t.Helper()
	var stdout, stderr, lines bytes.Buffer
	a := newAttempt(`{"key": "${{ secrets.TOKEN }}"}`)
	a.Secrets, a.Stdout, a.Stderr = withSecret(t), &stdout, &stderr
	a.Log = slog.New(slog.NewJSONHandler(&lines, nil))
	output, err = set.Run(t.Context(), a)
	return output, stdout.String() + stderr.String() + lines.String(), err
}

func TestMasked_WhateverLeavesAnAttempt(t *testing.T) {
	t.Parallel()
	output, shown, err := leaked(t, leaky(func(in Input, key string) (json.RawMessage, error) {
		require.Equal(t, token, key, "the program itself gets it")
		fmt.Fprintf(in.Stdout, "printed %s\nand without an end %s", key, key)
		fmt.Fprintf(in.Stderr, "warned of %s\n", key)
		in.Log.Info("logged", "key", key, "err", errors.New(key))
		in.Log.With("with", key).Info("again")
		return json.Marshal(map[string]any{key: []string{key, "not " + key}})
	}))
	require.NoError(t, err)
	require.JSONEq(t, `{"***": ["***", "not ***"]}`, string(output))
	require.NotContains(t, shown, token)
	for _, want := range []string{"printed ***\nand without an end ***", "warned of ***\n", `"key":"***"`, `"err":"***"`, `"with":"***"`} {
		require.Contains(t, shown, want)
	}
}

func TestMasked_Errors(t *testing.T) {
	t.Parallel()
	for _, given := range []error{
		errors.New("it is " + token),
		fmt.Errorf("open: %w", &os.PathError{Op: "open", Path: "/" + token, Err: os.ErrNotExist}),
	} {
		_, _, err := leaked(t, leaky(func(Input, string) (json.RawMessage, error) { return nil, given }))
		require.Equal(t, strings.ReplaceAll(given.Error(), token, "***"), err.Error())
		require.Equal(t, errors.Is(given, os.ErrNotExist), errors.Is(err, os.ErrNotExist))
		require.ErrorIs(t, err, given, "whoever judges it still knows what it is")
	}
	_, _, err := leaked(t, leaky(func(Input, string) (json.RawMessage, error) {
		return nil, &flow.InvalidError{Subject: "header " + token, Problem: token + " has no user"}
	}))
	requireInvalid(t, err, "header ***: *** has no user")

	harmless := errors.New("it rains")
	_, _, err = leaked(t, leaky(func(Input, string) (json.RawMessage, error) { return nil, harmless }))
	require.Equal(t, harmless, err)
}

// What a program wants to find again is in a table until then.
func TestMasked_Pauses(t *testing.T) {
	t.Parallel()
	_, _, err := leaked(t, leaky(func(_ Input, key string) (json.RawMessage, error) {
		return nil, fmt.Errorf("of %s: %w", key, &flow.Pause{
			Why: "waits for " + key, State: json.RawMessage(`{"key": "` + key + `"}`), After: time.Hour, Flow: "f7",
		})
	}))
	require.Equal(t, &flow.Pause{Why: "waits for ***", State: json.RawMessage(`{"key":"***"}`), After: time.Hour, Flow: "f7"}, err)
}

// A mistake in a definition shows its value, cut; not a secret.
func TestMasked_AParameterOfTheWrongKind(t *testing.T) {
	t.Parallel()
	set := leaky(func(Input, string) (json.RawMessage, error) { return nil, nil })
	a := newAttempt(`{"n": "${{ secrets.TOKEN }}"}`)
	a.Secrets = withSecret(t)
	_, err := set.Run(t.Context(), a)
	requireInvalid(t, err, `parameter "n": "***" is not a whole number; it was computed from ${{ secrets.TOKEN }}`)

	a.Task.Parameters = json.RawMessage(`{"n": "` + strings.Repeat("x", 55) + `${{ secrets.TOKEN }}"}`)
	_, err = set.Run(t.Context(), a)
	requireInvalid(t, err, `parameter "n": "`+strings.Repeat("x", 55)+`***…" is not a whole number; it was computed from ${{ secrets.TOKEN }}`)
	a.Task.Parameters = json.RawMessage(`{"n": "${{ int(secrets.TOKEN) }}"}`)
	_, err = set.Run(t.Context(), a)
	requireInvalid(t, err, `parameter "n": ${{ int(secrets.TOKEN) }}: invalid operation: int(***) (line 1, column 1)`)
}

func TestMasked_Panics(t *testing.T) {
	t.Parallel()
	set := leaky(func(_ Input, key string) (json.RawMessage, error) {
		panicWith(errors.New("no " + key))
		return nil, nil
	})
	func() {
		defer func() {
			require.Equal(t, "no ***", recover())
			require.Contains(t, string(debug.Stack()), "panicWith", "one sees where it happened")
		}()
		_, _, _ = leaked(t, set)
	}()
	cause := errors.New("no secret in it")
	require.PanicsWithValue(t, cause, func() {
		_, _, _ = leaked(t, leaky(func(Input, string) (json.RawMessage, error) { panic(cause) }))
	})
}

func panicWith(v any) { panic(v) }

// Programs of a watcher without secrets are not in anybody's way.
func TestMasked_WithoutSecrets(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	a := newAttempt(`{"key": "x"}`)
	a.Stdout = &stdout
	_, err := leaky(func(in Input, _ string) (json.RawMessage, error) {
		require.Same(t, &stdout, in.Stdout)
		return nil, nil
	}).Run(t.Context(), a)
	require.NoError(t, err)
}

// Of what a command has printed an error has the end alone: where that begins there may be
// the rest of a secret.
func TestMasked_WhereAnErrorsTextBegins(t *testing.T) {
	t.Parallel()
	const key = "0123-αβγ-abcdef"
	store, warnings, err := secret.New([]string{secret.Prefix + "TOKEN=" + key}, "")
	require.NoError(t, err)
	require.Empty(t, warnings)
	set := Default(Config{Command: testCommands})
	for _, to := range []string{"", " >&2"} {
		most := maxStdout
		if to != "" {
			most = maxStderr
		}
		for left := 8; left < len(key); left++ { // of the key: less gives nothing away
			a := Attempt{Secrets: store, Task: newTask("Command", mustJSON(t, map[string]any{
				"shell": true, "argv": []string{fmt.Sprintf(`printf '%%s' "$KEY"%s; head -c %d /dev/zero | tr '\0' x%s; exit 1`, to, most-left, to)},
				"env": map[string]string{"KEY": "${{ secrets.TOKEN }}"},
			}))}
			_, err := set.Run(t.Context(), a)
			said, _ := strings.CutPrefix(strings.TrimRight(err.Error(), "x"), "it ended with exit code 1")
			require.Contains(t, []string{": …***", "; the end of its output: …***"}, said, "%d bytes of the key", left)
		}
	}
}
