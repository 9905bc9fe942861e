package cli

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// newProgram returns a program with commands, which says what it was called with.
func newProgram() Run {
	say := func(summary, form string) Run {
		return func(_ context.Context, env *Env) error {
			var loud bool
			var words, args []string
			f := NewFlags(env.Name, summary)
			f.Group("Voice")
			f.Var(Bool(&loud), "loud", "LOUD", "more")
			f.Var(Repeated(&words), "word WORD", "", "one more")
			if form != "" {
				f.Args(form, &args)
			}
			f.ExitCodes("0 said, 7 hoarse")
			if err := f.Parse(env); err != nil {
				return err
			}
			fmt.Fprintln(env.Stdout, env.Name, loud, words, args)
			return nil
		}
	}
	return WithCommands(say("serves", ""),
		Command{"greet", "say hello", say("says hello", "NAME [PLACE]")},
		Command{"list", "say everything", say("says everything", "[THING…]")},
		Command{"wait", "wait", func(ctx context.Context, _ *Env) error { <-ctx.Done(); return ctx.Err() }},
		Command{"fail", "fail", func(context.Context, *Env) error { return &ExitError{7, errors.New("hoarse")} }},
		Command{"silent", "fail", func(context.Context, *Env) error { return fmt.Errorf("x: %w", &ExitError{Code: 8}) }},
	)
}

func TestWithCommands_TheFirstArgumentChooses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"none":               {nil, 0, "prog false [] []\n", ""},
		"flags of main":      {[]string{"-loud"}, 0, "prog true [] []\n", ""},
		"a command":          {[]string{"greet", "Ann"}, 0, "prog greet false [] [Ann]\n", ""},
		"flags between":      {[]string{"greet", "-word", "a", "Ann", "-loud", "Rome", "--word=b"}, 0, "prog greet true [a b] [Ann Rome]\n", ""},
		"after two dashes":   {[]string{"greet", "--", "-loud"}, 0, "prog greet false [] [-loud]\n", ""},
		"two dashes between": {[]string{"greet", "Ann", "--", "-loud"}, 0, "prog greet false [] [Ann -loud]\n", ""},
		"a dash":             {[]string{"greet", "-"}, 0, "prog greet false [] [-]\n", ""},
		"any number":         {[]string{"list", "a", "b", "c"}, 0, "prog list false [] [a b c]\n", ""},
		"no number":          {[]string{"list"}, 0, "prog list false [] []\n", ""},
		"unknown":            {[]string{"sing"}, 2, "", "prog: unknown command \"sing\": there are greet, list, wait, fail, silent (prog -help lists all settings)\n"},
		"behind a flag":      {[]string{"-loud", "greet"}, 2, "", "prog: the command comes before its settings, as in prog greet … (prog -help lists all settings)\n"},
		"behind one of its":  {[]string{"-nope", "greet"}, 2, "", "prog: flag provided but not defined: -nope; the command comes before its settings, as in prog greet … (prog -help lists all settings)\n"},
		"none behind a flag": {[]string{"-loud", "nobody"}, 2, "", "prog: unexpected argument \"nobody\": settings begin with a dash, as in -name value or -name=value (prog -help lists all settings)\n"},
		"too few":            {[]string{"greet"}, 2, "", "prog greet: NAME is missing: the arguments are NAME [PLACE] (prog greet -help lists all settings)\n"},
		"empty":              {[]string{"greet", "Ann", ""}, 2, "", "prog greet: PLACE is empty: the arguments are NAME [PLACE] (prog greet -help lists all settings)\n"},
		"too many":           {[]string{"greet", "a", "b", "c"}, 2, "", "prog greet: unexpected argument \"c\": the arguments are NAME [PLACE] (prog greet -help lists all settings)\n"},
		"unknown flag":       {[]string{"greet", "Ann", "-nope"}, 2, "", "prog greet: flag provided but not defined: -nope (prog greet -help lists all settings)\n"},
		"a code of its own":  {[]string{"fail"}, 7, "", "prog fail: hoarse\n"},
		"all is said":        {[]string{"silent"}, 8, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, stdout, stderr := newEnv(nil, c.args...)
			require.Equal(t, c.code, Exec(t.Context(), env, newProgram()))
			require.Equal(t, c.stdout, stdout.String())
			require.Equal(t, c.stderr, stderr.String())
		})
	}
}

func TestWithCommands_HelpOfTheProgramListsThem(t *testing.T) {
	t.Parallel()
	env, stdout, _ := newEnv(nil, "-help")
	require.Zero(t, Exec(t.Context(), env, newProgram()))
	require.Regexp(t, `(?s)Usage: prog \[flags\]\n +prog COMMAND \[flags\] .*\n\nCommands\n  greet +say hello\n.*\n\nVoice\n  -loud`, stdout.String())

	env, stdout, _ = newEnv(nil, "greet", "--help")
	require.Zero(t, Exec(t.Context(), env, newProgram()))
	require.Contains(t, stdout.String(), "prog greet: says hello\n\nUsage: prog greet [flags] NAME [PLACE]\n\nVoice\n  -loud")
	require.Contains(t, stdout.String(), "Exit codes: 0 said, 7 hoarse\n")
	require.NotContains(t, stdout.String(), "Commands")

	env, stdout, _ = newEnv(nil, "greet", "-version")
	require.Zero(t, Exec(t.Context(), env, newProgram()))
	require.Contains(t, stdout.String(), "prog greet ")
}

// Whoever waits for the result of a command must not take an interruption for success.
func TestWithCommands_AnInterruptedCommandHasNotSucceeded(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	env, _, stderr := newEnv(nil, "wait")
	require.Equal(t, ExitInterrupted, Exec(ctx, env, newProgram()))
	require.Empty(t, stderr.String())
}
