package program

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// TestConformance holds every program of Default to what the package's documentation
// promises. A new program gets a line in parameters: what makes it run for a while.
func TestConformance(t *testing.T) {
	t.Parallel()
	parameters := map[string]func(t *testing.T, started func()) string{
		"EchoParamTimeSleep":  func(*testing.T, func()) string { return `{"SLEEP_TIME_SECOND": 3600}` },
		"EchoRandomTimeSleep": func(*testing.T, func()) string { return `{}` },
		"HTTPPostRequest": func(t *testing.T, started func()) string {
			server := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
				started()
				<-r.Context().Done()
			})
			return `{"URL": "` + server.URL + `"}`
		},
		"NoOp":  func(*testing.T, func()) string { return `{}` },
		"Test1": func(*testing.T, func()) string { return `{}` },
		"Test2": func(*testing.T, func()) string { return `{}` },
		"Test3": func(*testing.T, func()) string { return `{}` },
	}
	set := Default(Config{})
	require.Equal(t, set.Names(), slices.Sorted(maps.Keys(parameters)))
	for _, name := range set.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformParameters(t, set, name)
			started := make(chan struct{})
			start := sync.OnceFunc(func() { close(started) })
			conformCancel(t, set, newTask(name, parameters[name](t, start)), start, started)
		})
	}
}

func conformParameters(t *testing.T, set Set, name string) {
	t.Helper()
	types := []Type{String, Integer, Number, Boolean, Object, Array, Strings, Map, URL, Any}
	declared := set[name].Parameters()
	require.Equal(t, declared, set[name].Parameters(), "it changes what it declares")
	seen := map[string]bool{}
	for _, p := range declared {
		require.NotEmpty(t, p.Name)
		require.False(t, seen[p.Name], "%s is there twice", p.Name)
		seen[p.Name] = true
		require.Contains(t, types, p.Type, p.Name)
		require.True(t, strings.HasSuffix(p.Description, "."), "%s is not described in sentences", p.Name)
		require.False(t, p.Required && p.Default != nil, "%s has a default that is never used", p.Name)
		if p.Default != nil {
			_, err := p.value(p.Default)
			require.NoError(t, err, "%s has a default of another type", p.Name)
		}
	}
	for _, parameters := range []string{`[]`, `"x"`, `1`, `null`, `{`} {
		_, err := set.Run(t.Context(), Attempt{Task: newTask(name, parameters)})
		require.ErrorAs(t, err, new(*flow.InvalidError), parameters)
	}
}

// conformCancel lets the task run until started is closed, by its first line in the log
// or by what waits for its request, and then stops it.
func conformCancel(t *testing.T, set Set, task flow.Task, start func(), started <-chan struct{}) {
	t.Helper()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := set.Run(ctx, Attempt{Task: task, Log: slog.New(onLine(start))})
		done <- err
	}()
	var err error
	select {
	case <-started:
		cancel(stop)
		err = within(t, time.Second, done)
		require.ErrorIs(t, err, stop)
	case err = <-done: // it has nothing to wait for
		cancel(stop)
		require.NoError(t, err)
	}

	// The same without the set's own look at the context.
	p, params, err := set.prepare(task.Program, task.Parameters)
	require.NoError(t, err)
	go func() {
		_, again := p.Run(ctx, Input{Attempt: Attempt{Task: task}.whole(), Params: params})
		done <- again
	}()
	if err = within(t, time.Second, done); err != nil {
		require.ErrorIs(t, err, stop)
	}
}

func within(t *testing.T, limit time.Duration, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("it still runs %s after its context ended", limit)
		return nil
	}
}

// onLine is a log that calls a function for each line.
type onLine func()

func (onLine) Enabled(context.Context, slog.Level) bool    { return true }
func (f onLine) Handle(context.Context, slog.Record) error { f(); return nil }
func (f onLine) WithAttrs([]slog.Attr) slog.Handler        { return f }
func (f onLine) WithGroup(string) slog.Handler             { return f }

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}
