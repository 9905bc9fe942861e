package cli

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/postgres"
)

// some is a program's settings, one of each type.
type some struct {
	host   string
	port   int
	loud   bool
	mode   string
	every  time.Duration
	names  []string
	secret string
}

func newSome(s *some) *Flags {
	f := NewFlags("prog", "does things", "prog -port 1")
	f.Group("Things")
	f.Var(Text(&s.host, "localhost"), "host HOST", "HOST", "where")
	f.Var(Int(&s.port, 8000, 0, 65535), "port PORT", "PORT", "which")
	f.Var(Bool(&s.loud), "loud", "LOUD", "more")
	f.Var(OneOf(&s.mode, "auto", "auto", "off"), "mode MODE", "MODE", "how")
	f.Var(Duration(&s.every, 5*time.Second, 100*time.Millisecond, time.Hour), "every TIME", "EVERY_SECOND", "when")
	f.Var(List(&s.names), "names NAME,…", "NAMES", "who")
	f.Var(Secret(&s.secret), "secret TEXT", "SECRET", "psst")
	return f
}

// What is given with nothing is most often a variable that is not set.
func TestNotEmpty_RefusesAFlagWithoutAValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args    []string
		vars    map[string]string
		problem string
	}{
		{[]string{"-host", ""}, map[string]string{"HOST": "db"}, "flag -host is given, and is empty"},
		{[]string{"-names", " ,"}, nil, "flag -names is given, and is empty"},
		{nil, map[string]string{"HOST": "", "NAMES": ""}, ""},
		{[]string{"-host", "db", "-names", "a"}, nil, ""},
	} {
		var s some
		f := newSome(&s)
		f.NotEmpty("host", "names")
		env, _, _ := newEnv(c.vars, c.args...)
		if err := f.Parse(env); c.problem != "" {
			require.EqualError(t, err, c.problem)
		} else {
			require.NoError(t, err)
		}
	}
}

func TestParse_FlagBeatsEnvironmentBeatsDefault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		vars map[string]string
		want int
	}{
		"default":                  {nil, nil, 8000},
		"empty variable":           {nil, map[string]string{"PORT": ""}, 8000},
		"variable":                 {nil, map[string]string{"PORT": "1"}, 1},
		"one dash":                 {[]string{"-port", "2"}, nil, 2},
		"two dashes":               {[]string{"--port", "2"}, nil, 2},
		"one dash, equals":         {[]string{"-port=2"}, nil, 2},
		"two dashes, equals":       {[]string{"--port=2"}, nil, 2},
		"flag and variable":        {[]string{"-port", "2"}, map[string]string{"PORT": "1"}, 2},
		"flag and broken variable": {[]string{"-port", "2"}, map[string]string{"PORT": "x"}, 2},
		"flag that is the default": {[]string{"-port", "8000"}, map[string]string{"PORT": "1"}, 8000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s some
			env, _, _ := newEnv(c.vars, c.args...)
			require.NoError(t, newSome(&s).Parse(env))
			require.Equal(t, c.want, s.port)
		})
	}
}

func TestParse_ReadsEveryType(t *testing.T) {
	t.Parallel()
	want := some{"db", 1, true, "off", 90 * time.Second, []string{"a", "b"}, "s3cret"}
	var s some
	env, _, _ := newEnv(nil, "-host", "db", "-port", "1", "-loud", "-mode", "off", "-every", "1m30s", "-names", "a, b,", "-secret", "s3cret")
	require.NoError(t, newSome(&s).Parse(env))
	require.Equal(t, want, s)

	var fromVars some
	env, _, _ = newEnv(map[string]string{
		"HOST": "db", "PORT": "1", "LOUD": "true", "MODE": "off", "EVERY_SECOND": "90", "NAMES": "a,b", "SECRET": "s3cret",
	})
	require.NoError(t, newSome(&fromVars).Parse(env))
	require.Equal(t, want, fromVars)
}

func TestParse_ErrorsNameTheSettingTheValueAndWhatIsAllowed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		vars map[string]string
		want string
	}{
		"flag, no number":   {args: []string{"-port", "x"}, want: `invalid value "x" for flag -port: must be a whole number from 0 to 65535`},
		"flag, too large":   {args: []string{"-port", "65536"}, want: `invalid value "65536" for flag -port: must be a whole number from 0 to 65535`},
		"variable, no word": {vars: map[string]string{"MODE": "on"}, want: `invalid value "on" for environment variable MODE: must be one of auto, off`},
		"flag, no word":     {args: []string{"-mode", "on"}, want: `invalid value "on" for flag -mode: must be one of auto, off`},
		"variable, no bool": {vars: map[string]string{"LOUD": "very"}, want: `invalid value "very" for environment variable LOUD: must be true or false`},
		"flag, no bool":     {args: []string{"-loud=very"}, want: `invalid boolean value "very" for -loud: must be true or false`},
		"no time":           {args: []string{"-every", "soon"}, want: `invalid value "soon" for flag -every: must be a time such as 5s or 1m30s, or a number of seconds, from 100ms to 1h`},
		"too long a time":   {vars: map[string]string{"EVERY_SECOND": "3601"}, want: `invalid value "3601" for environment variable EVERY_SECOND: must be a time such as 5s or 1m30s, or a number of seconds, from 100ms to 1h`},
		"unknown flag":      {args: []string{"-prot", "1"}, want: `flag provided but not defined: -prot`},
		"no value":          {args: []string{"-port"}, want: `flag needs an argument: -port`},
		"an argument":       {args: []string{"-loud", "true"}, want: `unexpected argument "true": settings begin with a dash, as in -name value or -name=value`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, stdout, stderr := newEnv(c.vars, c.args...)
			err := newSome(new(some)).Parse(env)
			var usage *UsageError
			require.ErrorAs(t, err, &usage)
			require.Equal(t, c.want, usage.Problem)
			require.Empty(t, stdout.String()+stderr.String(), "Exec prints errors")
		})
	}
}

func TestDuration_TakesABareNumberAsSeconds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"5": 5 * time.Second, "1m30s": 90 * time.Second, "1h": time.Hour} {
		var d time.Duration
		require.NoError(t, Duration(&d, 0, 0, time.Hour).Set(text), text)
		require.Equal(t, want, d, text)
	}
	for _, text := range []string{"", "-5", "2h"} {
		var d time.Duration
		require.Error(t, Duration(&d, 0, 0, time.Hour).Set(text), text)
		require.Zero(t, d, text)
	}
}

func TestParse_Help(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"-h", "-help", "--help"} {
		env, stdout, _ := newEnv(map[string]string{"SECRET": "s3cret", "PORT": "4711"}, flag)
		require.ErrorIs(t, newSome(new(some)).Parse(env), ErrPrinted)
		help := stdout.String()
		require.Contains(t, help, "prog: does things\n\nUsage: prog [flags]\n\nThings\n")
		require.Regexp(t, `(?m)^  -port PORT +PORT +which \(default 8000\)$`, help)
		require.Regexp(t, `(?m)^  -loud +LOUD +more$`, help)
		require.Regexp(t, `(?m)^  -secret TEXT +SECRET +psst$`, help)
		require.Regexp(t, `(?m)^  -version +print`, help)
		require.Contains(t, help, "Examples\n  prog -port 1\n")
		require.NotContains(t, help, "s3cret")
		require.NotContains(t, help, "4711")
	}
}

func TestParse_HelpOfTheRealSettingsHasNoSecrets(t *testing.T) {
	t.Parallel()
	env, stdout, _ := newEnv(map[string]string{
		"DB_PASS": "s3cret", "DATABASE_URL": "postgres://u:s3cret@db/flower",
	}, "-dbpass", "s3cret", "-help")
	f := NewFlags("prog", "does things")
	f.Database(new(postgres.Config))
	f.Logging(new(LogConfig))
	require.ErrorIs(t, f.Parse(env), ErrPrinted)
	require.NotContains(t, stdout.String(), "s3cret")
	for i, line := range strings.Split(stdout.String(), "\n") {
		require.LessOrEqual(t, len([]rune(line)), 130, "line %d", i+1)
	}
}

func TestParse_Version(t *testing.T) {
	t.Parallel()
	env, stdout, _ := newEnv(map[string]string{"PORT": "broken, but nobody asked"}, "-version")
	require.ErrorIs(t, newSome(new(some)).Parse(env), ErrPrinted)
	require.Regexp(t, `^prog \S.* go1\.`, stdout.String())
}

func TestParse_PrintConfigShowsSourcesAndNoSecrets(t *testing.T) {
	t.Parallel()
	env, stdout, _ := newEnv(map[string]string{"SECRET": "s3cret", "EVERY_SECOND": "60"}, "-port", "1", "-print-config")
	require.ErrorIs(t, newSome(new(some)).Parse(env), ErrPrinted)
	text := stdout.String()
	require.Regexp(t, `(?m)^-host +localhost +default$`, text)
	require.Regexp(t, `(?m)^-port +1 +flag$`, text)
	require.Regexp(t, `(?m)^-every +1m +environment EVERY_SECOND$`, text)
	require.Regexp(t, `(?m)^-secret +\(set, not shown\) +environment SECRET$`, text)
	require.NotContains(t, text, "s3cret")
}

func TestReport_LogsWhatDiffersFromTheDefaults(t *testing.T) {
	t.Parallel()
	env, _, stderr := newEnv(map[string]string{
		"DATABASE_URL": "postgres://u:s3cret@db/flower",
	}, "-dbpass", "s3cret2", "-dbname", "other")
	f := NewFlags("prog", "does things")
	f.Database(new(postgres.Config))
	require.NoError(t, f.Parse(env))
	f.Report(env.Logger(LogConfig{Format: "text", Level: slog.LevelInfo}))
	text := stderr.String()
	require.Contains(t, text, "WRN the database password was given as a flag")
	require.Contains(t, text, `INF configuration database-url=postgres://u:xxxxx@db/flower dbpass="(set, not shown)" dbname=other`)
	require.NotContains(t, text, "s3cret")
}

// What is set in vain is told, whether that comes from a flag or from a variable.
func TestReport_WarnsOfWhatHasNoEffect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vars map[string]string
		args []string
		warn string
	}{
		{nil, nil, ""},
		{nil, []string{"-dirs", "/bin"}, "settings=[dirs] need=allow"},
		{map[string]string{"SHELL": "sh"}, []string{"-dirs", "/bin"}, `settings="[dirs shell]" need=allow`},
		{map[string]string{"ALLOW": "true", "SHELL": "sh"}, []string{"-dirs", "/bin"}, ""},
		{map[string]string{"ALLOW": "true", "SHELL": "sh"}, []string{"-allow=false"}, "settings=[shell] need=allow"},
	} {
		f := NewFlags("prog", "does things")
		f.Var(Bool(new(bool)), "allow", "ALLOW", "")
		f.Var(Text(new(string), ""), "dirs DIR", "", "")
		f.Var(Text(new(string), "ash"), "shell NAME", "SHELL", "")
		f.Needs("allow", "dirs", "shell")
		env, _, stderr := newEnv(c.vars, c.args...)
		require.NoError(t, f.Parse(env))
		f.Report(env.Logger(LogConfig{Format: "text"}))
		require.Contains(t, stderr.String(), c.warn)
		require.Equal(t, c.warn != "", strings.Contains(stderr.String(), "have no effect"), stderr.String())
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "512MiB": 512 << 20, "2GB": 2_000_000_000, "1500KB": 1_500_000, "3TiB": 3 << 40, "2097152B": 2 << 20,
	} {
		var n int64
		v := Bytes(&n, 0, 1<<20, 4<<40)
		require.NoError(t, v.Set(text), text)
		require.Equal(t, want, n, text)
		again := int64(-1)
		require.NoError(t, Bytes(&again, 0, 1<<20, 4<<40).Set(v.String()), v.String())
		require.Equal(t, want, again, v.String())
	}
	for _, text := range []string{"", "x", "-1", "1.5GiB", "1 GiB", "GiB", "1gib", "1023KiB", "5TiB", "9223372036854775807TiB", "1e9", "0x10"} {
		var n int64
		require.EqualError(t, Bytes(&n, 0, 1<<20, 4<<40).Set(text), "must be a size such as 512MiB or 2GB from 1MiB to 4TiB, or 0", text)
		require.Zero(t, n, text)
	}
}

// Whatever form a connection string has, no password of it is shown.
func TestConnectionURL_ShowsNoSecret(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                       "",
		"postgres://u@db/flower":                 "postgres://u@db/flower",
		"postgres://u:s3cret@db/flower":          "postgres://u:xxxxx@db/flower",
		"postgres://u@db/flower?password=s3cret": "(set, not shown)",
		"postgres://u:s3cret@db:x/flower":        "(set, not shown)",
		"postgres:///flower?password=s3cret":     "(set, not shown)",
		"host=db password=s3cret":                "(set, not shown)",
		"password='s3 cret' host=db":             "(set, not shown)",
	} {
		var p string
		v := ConnectionURL(&p)
		require.NoError(t, v.Set(given))
		require.Equal(t, want, v.String(), given)
		require.Equal(t, given, p)
	}
}
