package cli

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nasty is what a person or a program may put into a row: new lines, a colour, a title
// for the terminal, text that tint would make an escape of, a right-to-left override.
const nasty = "a\r\nlevel=ERROR \x1b[31mred\x1b]0;t\x07 \\x1b[2J \u2028\u202e\xffend"

func TestLogger_NothingLoggedCommandsATerminal(t *testing.T) {
	t.Parallel()
	env, _, stderr := newEnv(nil)
	for _, colour := range []bool{false, true} {
		stderr.Reset()
		log := env.Logger(LogConfig{Format: "text"})
		if colour {
			log = slog.New(newTextHandler(stderr, LogConfig{}, true, true))
		}
		log.Info(nasty, "task", nasty, "err", errors.New(nasty))
		text := stderr.String()
		for _, own := range []string{"\x1b[0m", "\x1b[2m", "\x1b[22m", "\x1b[92m"} {
			text = strings.ReplaceAll(text, own, "")
		}
		require.Equal(t, 1, strings.Count(text, "\n"), text)
		for _, r := range []string{"\x1b", "\x07", "\r", "\u2028", "\u202e"} {
			require.NotContains(t, text, r, "%q in %q", r, text)
		}
		require.Equal(t, 3, strings.Count(text, "red"), "what can be read is kept: %q", text)
		require.Equal(t, 3, strings.Count(text, "?end"), "%q", text)
	}
}

func TestLogger_JSON(t *testing.T) {
	t.Parallel()
	env, _, stderr := newEnv(nil)
	log := env.Logger(LogConfig{Format: "auto"}) // a buffer is no terminal
	log.Debug("not written")
	log.Info("task finished", "task", nasty, "took", 1500*time.Millisecond, "err", errors.New(strings.Repeat("é", 5000)))
	var line map[string]any
	require.NoError(t, json.Unmarshal(stderr.Bytes(), &line))
	require.Equal(t, strings.ToValidUTF8(nasty, "\uFFFD"), line["task"])
	require.Equal(t, "1.5s", line["took"])
	require.Less(t, len(line["err"].(string)), maxField+10)
	require.Equal(t, 1, strings.Count(stderr.String(), "\n"))
}

func TestLogging_Settings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		vars map[string]string
		args []string
		want LogConfig
	}{
		"defaults":  {nil, nil, LogConfig{"auto", slog.LevelInfo}},
		"variables": {map[string]string{"FLOWER_LOG_FORMAT": "json", "FLOWER_LOG_LEVEL": "debug"}, nil, LogConfig{"json", slog.LevelDebug}},
		"flags":     {nil, []string{"-log-format", "text", "-log-level", "error"}, LogConfig{"text", slog.LevelError}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got LogConfig
			f := NewFlags("prog", "does things")
			f.Logging(&got)
			env, _, _ := newEnv(c.vars, c.args...)
			require.NoError(t, f.Parse(env))
			require.Equal(t, c.want, got)
		})
	}
	f := NewFlags("prog", "does things")
	f.Logging(new(LogConfig))
	env, _, _ := newEnv(map[string]string{"FLOWER_LOG_LEVEL": "loud"})
	require.EqualError(t, f.Parse(env),
		`invalid value "loud" for environment variable FLOWER_LOG_LEVEL: must be one of debug, info, warn, error`)
}
