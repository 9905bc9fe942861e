package cli

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever logs goes on when nobody reads, or writes it down; of what is too much then, the
// number is told as soon as somebody does.
func TestLogger_NobodyWaitsForItsReader(t *testing.T) {
	t.Parallel()
	const sent = 3 * maxBuffer / 1000
	reader, stderr, err := os.Pipe()
	require.NoError(t, err)
	env, _, _ := newEnv(nil)
	env.Stderr = stderr
	code := make(chan int, 1)
	read := make(chan string, 1)
	go func() {
		code <- Exec(t.Context(), env, func(context.Context, *Env) error {
			log := env.Logger(LogConfig{Format: "json"})
			for i := range sent {
				log.Info("line", "i", i, "text", strings.Repeat("x", 1000))
			}
			go func() {
				text, _ := io.ReadAll(reader)
				read <- string(text)
			}()
			return nil
		})
		_ = stderr.Close()
	}()
	require.Zero(t, <-code)
	var all []map[string]any
	for text := range strings.Lines(<-read) {
		var line map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		all = append(all, line)
	}
	told := all[len(all)-1]
	require.Equal(t, "WARN", told["level"])
	dropped, ok := told["lines"].(float64)
	require.True(t, ok, "%v", told)
	require.Positive(t, dropped)
	require.Equal(t, sent, len(all)-1+int(dropped))
	for i, line := range all[:len(all)-1] {
		require.EqualValues(t, i, line["i"], "in their order")
	}
}

// A reader that never comes back does not keep the process from its end.
func TestLogger_EndsWithoutItsReader(t *testing.T) {
	t.Parallel()
	reader, stderr, err := os.Pipe()
	require.NoError(t, err)
	env, _, _ := newEnv(nil)
	env.Stderr = stderr
	require.Equal(t, ExitStopped, Exec(t.Context(), env, func(context.Context, *Env) error {
		log := env.Logger(LogConfig{Format: "json"})
		for range 1000 { // more than a pipe holds
			log.Info("more", "text", strings.Repeat("x", 1000))
		}
		return nil
	}))
	require.NoError(t, reader.Close())
	_ = stderr.Close()
}
