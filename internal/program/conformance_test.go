package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// conformity is what a program needs to be held to what the package's documentation
// promises: parameters for each of its cases.
type conformity struct {
	// long runs until it is stopped, or if it is brief may end before. It says that it has
	// started by its log, by what it prints, or by calling started.
	long  func(t *testing.T, started func()) string
	brief bool // or it pauses at once

	// huge yields more than an output may have; nil: it yields nothing.
	huge func(t *testing.T) string

	// fails fails at the place where it would use a secret; nil: it has no use for any.
	fails func(t *testing.T, secret string) string
}

// TestConformance holds every program of Default to it. A new program gets an entry here.
func TestConformance(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	brief := conformity{long: func(*testing.T, func()) string { return `{}` }, brief: true}
	programs := map[string]conformity{
		"Command": {
			long: func(*testing.T, func()) string { return `{"shell": true, "argv": ["echo ready; exec sleep 3600"]}` },
			huge: func(*testing.T) string {
				return `{"shell": true, "argv": ["yes | head -c 3000000; echo; yes | head -c 3000000 >&2"]}`
			},
			fails: func(t *testing.T, secret string) string {
				return mustJSON(t, map[string]any{
					"argv": []string{"false", secret}, "stdin": secret, "env": map[string]string{"TOKEN": secret},
				})
			},
		},
		"Container":           {long: func(*testing.T, func()) string { return `{"image": "app:1"}` }},
		"EchoParamTimeSleep":  {long: func(*testing.T, func()) string { return `{"SLEEP_TIME_SECOND": 3600}` }},
		"EchoRandomTimeSleep": brief,
		"HTTPPostRequest": {
			long: func(t *testing.T, started func()) string {
				return `{"URL": "` + hanging(t, started) + `"}`
			},
			huge: func(t *testing.T) string {
				return `{"URL": "` + newServer(t, answers(200, strings.Repeat("x", 3<<20))).URL + `"}`
			},
			fails: func(t *testing.T, secret string) string {
				url := newServer(t, answers(500, "no")).URL
				return `{"URL": "` + strings.Replace(url, "://", "://me:"+secret+"@", 1) + `/?t=` + secret + `", "BODY": "` + secret + `"}`
			},
		},
		"HTTPRequest": {
			long: func(t *testing.T, started func()) string {
				return `{"url": "` + hanging(t, started) + `"}`
			},
			huge: func(t *testing.T) string {
				return `{"url": "` + newServer(t, answers(200, strings.Repeat("x", 3<<20))).URL + `"}`
			},
			fails: func(t *testing.T, secret string) string {
				url := newServer(t, func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusForbidden)
					fmt.Fprint(w, "no: ", r.Header)
				}).URL
				return mustJSON(t, map[string]any{
					"url":     strings.Replace(url, "://", "://me:"+secret+"@", 1) + "/?t=" + secret,
					"headers": map[string]string{"Authorization": "Bearer " + secret, "X-Api-Key": secret}, "body": secret,
				})
			},
		},
		"SQL": {
			long: func(t *testing.T, started func()) string {
				go whenSleeping(t.Context(), db, started)
				return `{"statement": "SELECT pg_sleep($1)", "args": [3600]}`
			},
			huge: func(*testing.T) string { return `{"statement": "SELECT repeat('x', 3000000)"}` },
			fails: func(t *testing.T, secret string) string {
				return mustJSON(t, map[string]any{"statement": "SELECT 1 / length(replace($1::text, $1::text, ''))", "args": []string{secret}})
			},
		},
		"Approve": {long: func(*testing.T, func()) string { return `{"message": "go on?"}` }, brief: true},
		"Flow":    {long: func(*testing.T, func()) string { return `{"workflow": "load"}` }, brief: true},
		"Wait":    {long: func(*testing.T, func()) string { return `{"for": "1h"}` }, brief: true},
		"NoOp":    brief, "Test1": brief, "Test2": brief, "Test3": brief,
	}
	set := allPrograms(t, db)
	require.Equal(t, set.Names(), slices.Sorted(maps.Keys(programs)))
	for name, c := range programs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformParameters(t, set, name)
			conformStop(t, set, name, c)
			conformAtOnce(t, set, name, c.long)
			if c.huge != nil {
				conformHuge(t, set, newTask(name, c.huge(t)))
			}
			if c.fails != nil {
				conformSecret(t, set, name, c.fails)
			}
		})
	}
}

// allPrograms is Default with nothing off.
func allPrograms(t *testing.T, db Database) Set {
	t.Helper()
	set := Default(Config{
		Command: testCommands, SQL: map[string]Database{OwnDatabase: db}, Flows: fakeFlows{},
		Container: ContainerConfig{Allow: true, Host: newEngine(t, forever).host(), Ledger: &ledger{}},
	})
	require.Equal(t, set.Names(), set.Enabled().Names())
	return set
}

// hanging is the URL of a server that answers nothing.
func hanging(t *testing.T, started func()) string {
	t.Helper()
	return newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		started()
		<-r.Context().Done()
	}).URL
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

// conformStop lets the program run until it has started, and then ends its context: by
// hand, or as its timeout does.
func conformStop(t *testing.T, set Set, name string, c conformity) {
	t.Helper()
	stop := errors.New("stop")
	for _, timeout := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if timeout {
			var release context.CancelFunc
			ctx, release = context.WithDeadlineCause(ctx, time.Now().Add(200*time.Millisecond), stop)
			defer release()
		}
		started := make(chan struct{})
		start := sync.OnceFunc(func() { close(started) })
		task := newTask(name, c.long(t, start))
		over := make(chan struct{})
		var err error
		go func() {
			defer close(over)
			_, err = set.Run(ctx, Attempt{Task: task, Log: slog.New(onLine(start)), Stdout: onLine(start)})
		}()
		select {
		case <-started:
		case <-over: // it has nothing to wait for
		case <-ctx.Done(): // it took its time to start
		}
		if timeout {
			<-ctx.Done()
		}
		cancel(stop)
		within(t, 3*time.Second, over)
		if err != nil || !c.brief {
			requireStopped(t, err, stop, c.brief)
		}
	}
}

// conformAtOnce runs a program several times at once, with a context that has ended: it
// has no state, it does not panic, and gives up without the set's own look at the context.
func conformAtOnce(t *testing.T, set Set, name string, long func(*testing.T, func()) string) {
	t.Helper()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	task := newTask(name, long(t, func() {}))
	p, params, err := set.prepare(task.Program, task.Parameters)
	require.NoError(t, err)
	var errs [4]error
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = p.Run(ctx, Input{Attempt: Attempt{Task: task}.whole(), Params: params}) })
	}
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	within(t, 3*time.Second, over)
	for _, err := range errs {
		if err != nil {
			requireStopped(t, err, stop, true)
		}
	}
}

// requireStopped requires that a program has stopped, or paused, if that takes no time.
func requireStopped(t *testing.T, err, stop error, mayPause bool) {
	t.Helper()
	if !mayPause || !errors.As(err, new(*flow.Pause)) {
		require.ErrorIs(t, err, stop)
	}
}

// conformHuge requires of a task with a huge result what the database takes, or an error
// that says so in a few words.
func conformHuge(t *testing.T, set Set, task flow.Task) {
	t.Helper()
	output, err := set.Run(t.Context(), Attempt{Task: task})
	if err != nil {
		require.Less(t, len(err.Error()), 4<<10)
		return
	}
	require.True(t, json.Valid(output))
	require.LessOrEqual(t, len(output), flow.MaxOutput)
}

// conformSecret looks for a secret in all that may be seen of a task that failed.
func conformSecret(t *testing.T, set Set, name string, fails func(*testing.T, string) string) {
	t.Helper()
	const canary = "canary7f3a"
	var log strings.Builder
	_, err := set.Run(t.Context(), Attempt{
		Task: newTask(name, fails(t, canary)), Log: slog.New(slog.NewTextHandler(&log, nil)), Stdout: &log, Stderr: &log,
	})
	require.Error(t, err)
	require.NotContains(t, err.Error(), canary)
	require.NotContains(t, log.String(), canary)
}

func within(t *testing.T, limit time.Duration, over <-chan struct{}) {
	t.Helper()
	select {
	case <-over:
	case <-time.After(limit):
		t.Fatalf("it still runs %s after its context ended", limit)
	}
}

// onLine is a log, and a writer, that calls a function for each line.
type onLine func()

func (onLine) Enabled(context.Context, slog.Level) bool    { return true }
func (f onLine) Handle(context.Context, slog.Record) error { f(); return nil }
func (f onLine) WithAttrs([]slog.Attr) slog.Handler        { return f }
func (f onLine) WithGroup(string) slog.Handler             { return f }
func (f onLine) Write(p []byte) (int, error)               { f(); return len(p), nil }

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}
