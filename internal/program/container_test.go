package program

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// ledger is a database of a test.
type ledger struct {
	mu     sync.Mutex
	stands map[flow.TaskKey]flow.Standing // nil: the database is away
	name   string                         // its identity; empty is the usual one
	err    error                          // of Identity
}

func (l *ledger) Identity(context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(l.name, "7-16384"), l.err
}

func (l *ledger) Standings(_ context.Context, keys []flow.TaskKey) ([]flow.Standing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stands == nil {
		return nil, flow.ErrUnavailable
	}
	var list []flow.Standing
	for _, k := range keys {
		if s, ok := l.stands[k]; ok {
			list = append(list, s)
		}
	}
	return list, nil
}

// newContainersAt makes the program, as a watcher has it, with an engine.
func newContainersAt(e *fakeEngine, settings ...func(*ContainerConfig)) *containers {
	cfg := ContainerConfig{Allow: true, Host: e.host(), Ledger: &ledger{}}
	for _, set := range settings {
		set(&cfg)
	}
	c := newContainers(cfg)
	c.grace = time.Second
	return c
}

// attempt makes the nth attempt at a task.
func attempt(n int) flow.Task {
	t := newTask("Container", `{"image": "app:1"}`)
	t.Attempt, t.OnLost = n, flow.OnLostRerun
	return t
}

func withParameters(t flow.Task, parameters string) flow.Task {
	t.Parameters = json.RawMessage(parameters)
	return t
}

// running is an attempt under way.
type running struct {
	t      *testing.T
	cancel context.CancelCauseFunc
	stdout *lockedBuffer
	stderr *lockedBuffer
	log    *lockedBuffer
	done   chan struct{}
	output json.RawMessage // after done
	err    error           // after done
}

// lockedBuffer is what several goroutines use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// begin begins an attempt, as a worker does.
func begin(t *testing.T, c *containers, task flow.Task) *running {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	r := &running{t: t, cancel: cancel, stdout: &lockedBuffer{}, stderr: &lockedBuffer{}, log: &lockedBuffer{}, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.output, r.err = Set{"Container": c}.Run(ctx, Attempt{
			Task: task, Stdout: r.stdout, Stderr: r.stderr, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		})
	}()
	t.Cleanup(func() {
		cancel(errors.New("the test is over"))
		<-r.done
		if t.Failed() {
			t.Logf("log of attempt %d:\n%s", task.Attempt, r.log)
		}
	})
	return r
}

// end waits for the attempt's end.
func (r *running) end() (string, error) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		r.t.Fatal("the attempt does not end")
	}
	return string(r.output), r.err
}

// eventually waits for what happens in a moment.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for began := time.Now(); !f(); {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("not within 20s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startedContainer waits until a container has been started, and no other one.
func startedContainer(t *testing.T, e *fakeEngine) {
	t.Helper()
	eventually(t, "a container is started", func() bool { return len(e.started()) > 0 })
	require.Len(t, e.started(), 1)
}

// nothing is an image that ends at once.
func nothing(*fakeContainer) int { return 0 }

// forever is an image that ends when it is told to.
func forever(c *fakeContainer) int {
	c.wait(nil)
	return 143
}

func TestContainer_Runs(t *testing.T) {
	t.Parallel()
	specs := make(chan container.CreateRequest, 1)
	e := newEngine(t, func(c *fakeContainer) int {
		specs <- c.spec
		c.print("loading\n")
		c.printTo(stdcopy.Stderr, "a warning\n")
		c.print(`{"rows": 12, "of": "` + c.env("FLOWER_FLOW") + `"}` + "\n")
		return 0
	})
	dir := t.TempDir()
	c := newContainersAt(e, func(cfg *ContainerConfig) {
		cfg.Directories = []Directory{{Path: dir}}
		cfg.Networks = []string{"bridge"}
		cfg.Capabilities = []string{"CHOWN"}
		cfg.Memory, cfg.CPUs = 1<<30, 4
	})
	task := withParameters(attempt(3), `{"image": "app:1", "command": ["load", "$HOME; x"], "entrypoint": ["/bin/app"],
		"env": {"B": "2", "A": "1"}, "mounts": ["`+dir+`/:/in"], "network": "bridge", "memory": "64m", "cpus": 0.5,
		"user": "1000:1000", "workdir": "/work"}`)
	r := begin(t, c, task)
	output, err := r.end()
	require.NoError(t, err)
	require.JSONEq(t, `{"exit_code": 0, "json": {"rows": 12, "of": "f1"}, "stdout": "loading\n{\"rows\": 12, \"of\": \"f1\"}"}`, output)
	require.Equal(t, "loading\n{\"rows\": 12, \"of\": \"f1\"}\n", r.stdout.String())
	require.Equal(t, "a warning\n", r.stderr.String())
	require.Empty(t, e.names(), "it is removed")

	spec := <-specs
	require.Equal(t, []string{"/bin/app"}, spec.Entrypoint)
	require.Equal(t, []string{"load", "$HOME; x"}, spec.Cmd, "byte for byte, without a shell")
	require.Equal(t, []string{"A=1", "B=2", "FLOWER_ATTEMPT=3", "FLOWER_FLOW=f1", "FLOWER_IDEMPOTENCY_KEY=f1:2:0", "FLOWER_SEQ=2"}, spec.Env)
	require.Equal(t, "1000:1000", spec.User)
	require.Equal(t, "/work", spec.WorkingDir)
	require.Equal(t, map[string]string{
		"flower.database": "7-16384", "flower.id": hash("7-16384", "f1", "2"), "flower.flow": "f1", "flower.seq": "2", "flower.task": "w",
		"flower.key": "f1:2:0", "flower.attempt": "3", "flower.parameters": spec.Labels["flower.parameters"],
	}, spec.Labels)

	host := spec.HostConfig
	require.Equal(t, []mount.Mount{{
		Type: mount.TypeBind, Source: dir, Target: "/in", ReadOnly: true, BindOptions: &mount.BindOptions{NonRecursive: true},
	}}, host.Mounts)
	require.Equal(t, int64(64<<20), host.Memory)
	require.Equal(t, int64(64<<20), host.MemorySwap, "no swap beside it")
	require.Equal(t, int64(5e8), host.NanoCPUs)
	require.Equal(t, int64(maxProcesses), *host.PidsLimit)
	require.Equal(t, "json-file", host.LogConfig.Type)
	require.Equal(t, "bridge", string(host.NetworkMode))
	requireConfined(t, host, "CAP_CHOWN")
}

// requireConfined asserts that a container has nothing of its host's but some capabilities.
func requireConfined(t *testing.T, host *container.HostConfig, caps ...string) {
	t.Helper()
	require.False(t, host.Privileged)
	require.Equal(t, []string{"ALL"}, host.CapDrop)
	require.ElementsMatch(t, caps, host.CapAdd)
	require.Equal(t, []string{"no-new-privileges"}, host.SecurityOpt)
	require.Empty(t, host.PidMode)
	require.Equal(t, "private", string(host.IpcMode))
	require.Empty(t, host.UsernsMode)
	require.Empty(t, host.Binds)
	require.Empty(t, host.Devices)
	require.Empty(t, host.VolumesFrom)
	require.NotEqual(t, "host", string(host.NetworkMode))
}

func TestContainer_HasNothingUnlessItIsAskedFor(t *testing.T) {
	t.Parallel()
	specs := make(chan container.CreateRequest, 1)
	e := newEngine(t, func(c *fakeContainer) int { specs <- c.spec; return 0 })
	_, err := begin(t, newContainersAt(e, func(cfg *ContainerConfig) { cfg.Memory = 2 << 30 }), attempt(1)).end()
	require.NoError(t, err)
	spec := <-specs
	requireConfined(t, spec.HostConfig)
	require.Equal(t, "none", string(spec.HostConfig.NetworkMode))
	require.Equal(t, int64(2<<30), spec.HostConfig.Memory)
	require.Zero(t, spec.HostConfig.NanoCPUs)
	require.Empty(t, spec.HostConfig.Mounts)
	require.Equal(t, []string{"NONE"}, spec.Healthcheck.Test)
}

func TestContainer_Failures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		image work
		want  string
	}{
		"exit code": {func(c *fakeContainer) int {
			c.print("to stdout\n")
			c.printTo(stdcopy.Stderr, "no such\n\ttable\n")
			return 3
		}, "image \"app:1\" ended with exit code 3; it said last: no such\n\ttable"},
		"lines stay lines": {func(c *fakeContainer) int {
			c.print("ERROR: no such table\n  at line 1\n")
			return 1
		}, "image \"app:1\" ended with exit code 1; it said last: ERROR: no such table\n  at line 1"},
		"the cause first": {func(c *fakeContainer) int {
			c.print("Traceback (most recent call last):\n  File \"a.py\"\nValueError: 7\n")
			return 1
		}, "image \"app:1\" ended with exit code 1; it said last: ValueError: 7\nTraceback (most recent call last):\n  File \"a.py\"\nValueError: 7"},
		"stdout, if it said nothing else": {func(c *fakeContainer) int { c.print("oh\n"); return 1 }, `image "app:1" ended with exit code 1; it said last: oh`},
		"the end of much": {func(c *fakeContainer) int {
			c.printTo(stdcopy.Stderr, strings.Repeat("é", 600)+"x\n")
			return 1
		}, `image "app:1" ended with exit code 1; it said last: …` + strings.Repeat("é", 511) + "x"},
		"killed": {func(*fakeContainer) int { return 139 }, `image "app:1" ended with exit code 139 (signal 11: from itself, by somebody else, or the engine was stopped)`},
		"out of memory": {func(c *fakeContainer) int {
			c.engine.mu.Lock()
			c.state.OOMKilled = true
			c.engine.mu.Unlock()
			return 137
		}, `image "app:1" ended with exit code 137: it ran out of memory and was killed; its limit is 512 MiB, see the parameter memory`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, c.image)
			output, err := begin(t, newContainersAt(e, func(cfg *ContainerConfig) { cfg.Memory = 512 << 20 }), attempt(1)).end()
			require.EqualError(t, err, c.want)
			require.Empty(t, output)
			require.NotErrorAs(t, err, new(*flow.InvalidError), "another attempt may do better")
			require.Empty(t, e.names(), "it is removed")
		})
	}
}

// What a container prints is there while it runs, however slowly, and in two streams.
func TestContainer_OutputIsLive(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	e := newEngine(t, func(c *fakeContainer) int {
		c.print("one\n")
		c.wait(next)
		c.printTo(stdcopy.Stderr, "half a line")
		c.wait(next)
		return 0
	})
	r := begin(t, newContainersAt(e), attempt(1))
	eventually(t, "the first line", func() bool { return r.stdout.String() == "one\n" })
	next <- struct{}{}
	eventually(t, "the second", func() bool { return r.stderr.String() == "half a line" })
	require.Equal(t, "one\n", r.stdout.String())
	next <- struct{}{}
	_, err := r.end()
	require.NoError(t, err)
}

// slowWriter lets nobody write until it is opened.
type slowWriter struct {
	open <-chan struct{}
	n    int
}

func (w *slowWriter) Write(b []byte) (int, error) {
	<-w.open
	w.n += len(b)
	return len(b), nil
}

// Nobody who reads slowly keeps a container from going on.
func TestContainer_DoesNotWaitForWhoReadsItsOutput(t *testing.T) {
	t.Parallel()
	const lines = 20_000
	printed := make(chan struct{})
	e := newEngine(t, func(c *fakeContainer) int {
		c.print(strings.Repeat("0123456789abcdef0123456789abcdef\n", lines))
		close(printed)
		return 0
	})
	c := newContainersAt(e)
	w := &slowWriter{open: printed}
	output, err := Set{"Container": c}.Run(t.Context(), Attempt{Task: attempt(1), Stdout: w})
	require.NoError(t, err)
	require.Equal(t, 33*lines, w.n)
	var got struct{ Stdout string }
	require.NoError(t, json.Unmarshal(output, &got))
	require.InDelta(t, maxStdout, len(got.Stdout), 2)
}

func TestContainer_Pulls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		parameters string
		pulls      []string
		want       string // the error; empty is none
		invalid    bool
	}{
		"missing and there":     {`{"image": "app:1"}`, nil, "", false},
		"missing and not there": {`{"image": "new:2"}`, []string{"new:2"}, "", false},
		"without a tag":         {`{"image": "new"}`, []string{"new:latest"}, "", false},
		"always":                {`{"image": "app:1", "pull": "always"}`, []string{"app:1"}, "", false},
		"never and there":       {`{"image": "app:1", "pull": "never"}`, nil, "", false},
		"never and not there": {
			`{"image": "new:2", "pull": "never"}`, nil,
			`parameter "image": "new:2" is not at the engine, and pull is never: No such image: new:2`, true,
		},
		"denied": {
			`{"image": "secret:1"}`,
			[]string{"secret:1"},
			`parameter "image": "secret:1" cannot be pulled; if it is there and private, pull it at the engine's host, signed in, and set pull to never: ` +
				`pull access denied for secret:1, repository does not exist or may require 'docker login'`, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, nothing)
			e.registry = map[string]work{"new:2": nothing, "new:latest": nothing, "app:1": nothing}
			_, err := begin(t, newContainersAt(e), withParameters(attempt(1), c.parameters)).end()
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, c.want)
				require.Equal(t, c.invalid, errors.As(err, new(*flow.InvalidError)))
			}
			require.Equal(t, c.pulls, e.pulls)
			require.Empty(t, e.names())
		})
	}
}

// What the engine says is told with what to do. Another attempt is made only where it may
// come to something else.
func TestContainer_EngineProblems(t *testing.T) {
	t.Parallel()
	fails := func(call string, status int, message string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.Method+" "+r.URL.Path, call) {
				return false
			}
			answer(w, status, message)
			return true
		}
	}
	for name, c := range map[string]struct {
		parameters string
		before     func(http.ResponseWriter, *http.Request) bool
		want       string
		invalid    bool
	}{
		"no such command": {
			`{"image": "app:1", "command": ["nosuch"]}`, nil,
			`parameter "command": it cannot be started in image "app:1": OCI runtime create failed: exec: "nosuch": executable file not found in $PATH: unknown`, true,
		},
		"no such network": {`{"image": "app:1", "network": "lan"}`, nil, `parameter "network": "lan" does not exist at the engine: network lan not found`, true},
		"no such directory": {
			`{"image": "app:1", "mounts": ["/nosuch/dir:/m"]}`, nil,
			`container of image "app:1": the engine refuses it: invalid mount config for type "bind": bind source path does not exist: /nosuch/dir`, true,
		},
		"no such user": {
			`{"image": "app:1", "user": "x"}`, fails("/start", 500, "unable to find user x: no matching entries in passwd file"),
			`parameter "user": the image has no such user: unable to find user x: no matching entries in passwd file`, true,
		},
		"the registry is away": {
			`{"image": "new:2"}`, fails("/images/create", 500, `Get "https://registry/v2/": dial tcp: no route to host`),
			`pull image "new:2": Get "https://registry/v2/": dial tcp: no route to host`, false,
		},
		"the engine is ill": {`{"image": "app:1"}`, fails("/containers/create", 500, "no space left on device"), `create a container of image "app:1": no space left on device`, false},
		"the list is ill":   {`{"image": "app:1"}`, fails("/containers/json", 500, "x\ny"), `list containers: x y`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, nothing)
			e.intercept(c.before)
			cs := newContainersAt(e, func(cfg *ContainerConfig) {
				cfg.Networks, cfg.Directories = []string{"lan"}, []Directory{{Path: "/nosuch"}}
			})
			_, err := begin(t, cs, withParameters(attempt(1), c.parameters)).end()
			require.EqualError(t, err, c.want)
			require.Equal(t, c.invalid, errors.As(err, new(*flow.InvalidError)))
			require.Empty(t, e.names(), "nothing is left")
		})
	}
}

func TestContainer_NoEngine(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nothing)
	e.down()
	_, err := begin(t, newContainersAt(e), attempt(1)).end()
	require.ErrorContains(t, err, "no container engine answers at "+e.host()+": start it, or name another one with -container-host (DOCKER_HOST): ")
	require.NotErrorAs(t, err, new(*flow.InvalidError), "it may be there for the next attempt")
	e.up()
	_, err = begin(t, newContainersAt(e), attempt(2)).end()
	require.NoError(t, err)
}

// The database may be away when an attempt begins.
func TestContainer_WaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nothing)
	l := &ledger{err: flow.ErrUnavailable}
	c := newContainersAt(e, func(cfg *ContainerConfig) { cfg.Ledger = l })
	r := begin(t, c, attempt(1))
	stopped := begin(t, c, attempt(1))
	cause := errors.New("stop")
	stopped.cancel(cause)
	_, err := stopped.end()
	require.ErrorIs(t, err, cause)

	l.mu.Lock()
	l.err = nil
	l.mu.Unlock()
	_, err = r.end()
	require.NoError(t, err)
}
