package program

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/secret"
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

	// repeats returns, and prints if the program does that, what it was given; nil: it does
	// not.
	repeats func(t *testing.T, text string) string
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
			repeats: func(t *testing.T, text string) string {
				return mustJSON(t, map[string]any{"argv": []string{"tee", "/dev/stderr"}, "stdin": text})
			},
		},
		"Container": {
			long: func(*testing.T, func()) string { return `{"image": "app:1"}` },
			huge: func(*testing.T) string { return `{"image": "huge:1"}` },
			fails: func(t *testing.T, secret string) string {
				return mustJSON(t, map[string]any{"image": "fails:1", "command": []string{secret}, "env": map[string]string{"TOKEN": secret}})
			},
			repeats: func(t *testing.T, text string) string {
				return mustJSON(t, map[string]any{"image": "repeats:1", "env": map[string]string{"TEXT": text}})
			},
		},
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
			repeats: func(t *testing.T, text string) string {
				return mustJSON(t, map[string]string{"URL": newServer(t, repeating).URL, "BODY": text})
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
			repeats: func(t *testing.T, text string) string {
				return mustJSON(t, map[string]string{"url": newServer(t, repeating).URL, "method": "POST", "body": text})
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
			repeats: func(t *testing.T, text string) string {
				return mustJSON(t, map[string]any{"statement": "SELECT $1::text AS t", "args": []string{text}})
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
			conformMasked(t, set, name, c)
			conformPanics(t, set, name, c.long)
		})
	}
}

// allPrograms is Default with nothing off.
func allPrograms(t *testing.T, db Database) Set {
	t.Helper()
	engine := newEngine(t, forever)
	engine.images["huge:1"] = func(c *fakeContainer) int {
		c.print(strings.Repeat("x", 3<<20) + "\n" + strings.Repeat(strings.Repeat("y", 1<<10)+"\n", 3<<10))
		return 0
	}
	engine.images["repeats:1"] = func(c *fakeContainer) int {
		c.print(c.env("TEXT") + "\n")
		c.printTo(stdcopy.Stderr, c.env("TEXT")+"\n")
		return 0
	}
	engine.images["fails:1"] = func(*fakeContainer) int { return 1 }
	set := Default(Config{
		Command: testCommands, SQL: map[string]Database{OwnDatabase: db}, Flows: fakeFlows{},
		Container: ContainerConfig{Allow: true, Host: engine.host(), Ledger: &ledger{}},
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

// repeating answers what it was sent.
func repeating(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }

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

// conformMasked gives a program a secret by each of its parameters, as a definition does,
// and looks for it in all that leaves the program: what it prints, logs and returns.
func conformMasked(t *testing.T, set Set, name string, c conformity) {
	t.Helper()
	const canary, named = "canary7f3a", "${{ secrets.CANARY }}"
	secrets, _, err := secret.New([]string{"FLOWER_SECRET_CANARY=" + canary}, "")
	require.NoError(t, err)
	limit := time.Minute
	run := func(parameters string) (string, error) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("stop"))
		defer cancel()
		var seen lockedBuffer
		output, err := set.Run(ctx, Attempt{
			Task: newTask(name, parameters), Log: slog.New(slog.NewTextHandler(&seen, nil)), Stdout: &seen, Stderr: &seen, Secrets: secrets,
		})
		fmt.Fprintf(&seen, "%s %v", output, err)
		if pause, paused := errors.AsType[*flow.Pause](err); paused {
			fmt.Fprintf(&seen, "%s %s", pause.Why, pause.State)
		}
		require.NotContains(t, seen.String(), canary, parameters)
		require.NotContains(t, seen.String(), base64.StdEncoding.EncodeToString([]byte(canary))[:12], parameters)
		return seen.String(), err
	}
	if c.fails != nil {
		_, err := run(c.fails(t, named))
		require.Error(t, err)
	}
	if c.repeats != nil {
		seen, err := run(c.repeats(t, named))
		require.NoError(t, err)
		require.Contains(t, seen, "***", "it repeats nothing")
	}
	limit = 200 * time.Millisecond // what would go on for long need not
	for _, p := range set[name].Parameters() {
		var given map[string]any
		require.NoError(t, json.Unmarshal([]byte(c.long(t, func() {})), &given))
		switch p.Type {
		case Strings, Array:
			given[p.Name] = []string{named, named}
		case Map, Object:
			given[p.Name] = map[string]string{"X": named, "x": "it is " + named}
		default:
			given[p.Name] = named
		}
		if _, err := run(mustJSON(t, given)); p.Public {
			require.ErrorAs(t, err, new(*flow.InvalidError), "%s is for all to see", p.Name)
			require.ErrorContains(t, err, "cannot have a secret in it")
		}
	}
}

// conformPanics gives a program what nobody should, as rows by hand can have it: each value
// is refused, in a few words, or taken. Nothing panics.
func conformPanics(t *testing.T, set Set, name string, long func(*testing.T, func()) string) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stop"))
	for _, p := range set[name].Parameters() {
		for _, value := range []string{
			`null`, `""`, `" "`, `"\u0000"`, `"\ud800"`, `"${{"`, `"` + strings.Repeat("x", 100_000) + `"`, `-1`, `0`, `1e308`, `-1e400`, `99999999999999999999`,
			`true`, `[]`, `[[]]`, `[null]`, `[""]`, `["\u0000", {}]`, `{}`, `{"": ""}`, `{"a": null}`, `{"a\u0000": "\n"}`, `{"a": [` + strings.Repeat("[", 1000) + strings.Repeat("]", 1001) + `}`,
		} {
			var given map[string]json.RawMessage
			require.NoError(t, json.Unmarshal([]byte(long(t, func() {})), &given))
			given[p.Name] = json.RawMessage(value)
			program, params, err := set.prepare(name, json.RawMessage(mustJSON(t, given)))
			if err != nil {
				require.ErrorAs(t, err, new(*flow.InvalidError), "%s: %.80s", p.Name, value)
				require.Less(t, len(err.Error()), 4<<10, "%s: %.80s", p.Name, value)
				continue
			}
			_, _ = program.Run(ctx, Input{Attempt: Attempt{Task: newTask(name, mustJSON(t, given))}.whole(), Params: params})
		}
	}
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
