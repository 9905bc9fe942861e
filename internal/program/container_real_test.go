package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/enginetest"
	"github.com/d-tsuji/flower/internal/flow"
)

// real finds an engine of this machine. Without one the test is skipped: the fake one has
// shown what there is to see.
func real(t *testing.T) *realEngine {
	t.Helper()
	e := &realEngine{t: t, host: enginetest.Find(t).Host, dir: t.TempDir(), ledger: &ledger{}}
	require.NoError(t, os.Chmod(e.dir, 0o777))
	e.engine = connected(t, e.containers())
	return e
}

type realEngine struct {
	t      *testing.T
	host   string
	dir    string // which containers may write to
	ledger *ledger
	engine *engine
}

func (e *realEngine) containers(settings ...func(*ContainerConfig)) *containers {
	cfg := ContainerConfig{Allow: true, Host: e.host, Directories: []Directory{{Path: e.dir, Writable: true}}, Ledger: e.ledger}
	for _, set := range settings {
		set(&cfg)
	}
	return newContainers(cfg)
}

// task makes an attempt that runs inside with arguments, and what else is set.
func (e *realEngine) task(n int, more string, arguments ...string) flow.Task {
	e.t.Helper()
	command := mustJSON(e.t, append([]string{"/inside"}, arguments...))
	task := withParameters(attempt(n), `{"image": "`+enginetest.Image+`", "pull": "never", "mounts": ["`+e.dir+`:/out:rw"], "command": `+command+more+`}`)
	task.Flow = flow.ID(e.t.Name()) // tests of several packages, or checkouts, may run at once
	task.WorkflowID = flow.WorkflowID(e.dir)
	return task
}

// left returns the names of the test's containers.
func (e *realEngine) left() []string {
	e.t.Helper()
	all, err := e.engine.list(e.t.Context(), labelTask, e.dir)
	require.NoError(e.t, err)
	var names []string
	for _, f := range all {
		names = append(names, f.name)
	}
	return names
}

func TestRealEngine_ConfinesWhatItRuns(t *testing.T) {
	t.Parallel()
	e := real(t)
	in := t.TempDir()
	require.NoError(t, os.Chmod(in, 0o777))
	c := e.containers(func(cfg *ContainerConfig) {
		cfg.Directories = append(cfg.Directories, Directory{Path: in})
		cfg.Memory = 256 << 20
	})
	task := e.task(1, "", "look")
	task.Parameters = bytes.Replace(task.Parameters, []byte(`"mounts": [`), []byte(`"env": {"A": "b c"}, "mounts": ["`+in+`:/in", `), 1)
	r := begin(t, c, task)
	output, err := r.end()
	require.NoError(t, err)
	var got struct {
		JSON struct {
			UID        int
			PID        int
			Env        []string
			CapEff     string
			CapBnd     string
			NoNewPrivs string
			Interfaces []string
			In         bool `json:"/in"`
			Out        bool `json:"/out"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(output), &got))
	require.Equal(t, "0000000000000000", got.JSON.CapEff)
	require.Equal(t, "0000000000000000", got.JSON.CapBnd)
	require.Equal(t, "1", got.JSON.NoNewPrivs)
	require.Equal(t, 1, got.JSON.PID, "a process table of its own")
	require.Equal(t, []string{"lo"}, got.JSON.Interfaces)
	require.False(t, got.JSON.In, "it is mounted to read")
	require.True(t, got.JSON.Out)
	require.Subset(t, got.JSON.Env, []string{
		"A=b c", "FLOWER_ATTEMPT=1", "FLOWER_SEQ=2", "FLOWER_FLOW=" + t.Name(), "FLOWER_IDEMPOTENCY_KEY=" + t.Name() + ":2:0",
	})
	require.Empty(t, e.left())
}

// Where another user, a network and a capability are allowed, they are there.
func TestRealEngine_GivesWhatIsAllowed(t *testing.T) {
	t.Parallel()
	e := real(t)
	c := e.containers(func(cfg *ContainerConfig) {
		cfg.Networks, cfg.Capabilities = []string{"bridge"}, []string{"CHOWN"}
	})
	output, err := begin(t, c, e.task(1, `, "user": "1234:1234", "network": "bridge", "cpus": 0.5, "workdir": "/out"`, "look")).end()
	require.NoError(t, err)
	require.Contains(t, output, `"uid":1234`)
	require.Contains(t, output, `"CapBnd":"0000000000000001"`)
	require.Contains(t, output, `eth0`)
}

func TestRealEngine_Failures(t *testing.T) {
	t.Parallel()
	e := real(t)
	for name, c := range map[string]struct {
		task    flow.Task
		want    string
		invalid bool
	}{
		"exit code":       {e.task(1, "", "exit", "3", "the table is locked"), `ended with exit code 3; it said last: the table is locked`, false},
		"no such image":   {withParameters(attempt(1), `{"image": "flower-nosuch:1", "pull": "never"}`), `parameter "image": "flower-nosuch:1" is not at the engine, and pull is never`, true},
		"no such user":    {e.task(1, `, "user": "nosuch"`, "look"), `parameter "user": the image has no such user`, true},
		"no such network": {e.task(1, `, "network": "flower-nosuch"`, "look"), `parameter "network": "flower-nosuch" does not exist at the engine`, true},
		"no such command": {e.task(1, `, "entrypoint": ["/nosuch"]`), `parameter "command": it cannot be started in image "flower-test-inside:1"`, true},
		"no such directory": {
			withParameters(attempt(1), `{"image": "`+enginetest.Image+`", "mounts": ["/nosuch/flower:/m"], "command": ["/inside"]}`),
			"the engine refuses it: ", true,
		},
		"too many CPUs": {e.task(1, `, "cpus": 9999`, "look"), "the engine refuses it: ", true},
	} {
		t.Run(name, func(t *testing.T) {
			cs := e.containers(func(cfg *ContainerConfig) {
				cfg.Networks = []string{"flower-nosuch"}
				cfg.Directories = append(cfg.Directories, Directory{Path: "/nosuch"})
			})
			c.task.Flow = flow.ID(t.Name())
			_, err := begin(t, cs, c.task).end()
			require.ErrorContains(t, err, c.want)
			require.Equal(t, c.invalid, errors.As(err, new(*flow.InvalidError)), err.Error())
		})
	}
	require.Empty(t, e.left())
}

func TestRealEngine_RunsOutOfMemory(t *testing.T) {
	t.Parallel()
	e := real(t)
	_, err := begin(t, e.containers(), e.task(1, `, "memory": "32m"`, "eat")).end()
	require.ErrorContains(t, err, "exit code 137: it ran out of memory and was killed; its limit is 32 MiB")
	require.Empty(t, e.left())
}

func TestRealEngine_Cancels(t *testing.T) {
	t.Parallel()
	e := real(t)
	stop := errors.New("stop")
	for _, how := range []string{"deaf", "heed"} {
		r := begin(t, e.containers(), e.task(1, "", how))
		eventually(t, "it runs", func() bool { return r.stdout.String() != "" })
		began := time.Now()
		r.cancel(stop)
		_, err := r.end()
		require.ErrorIs(t, err, stop)
		require.Less(t, time.Since(began), 5*time.Second)
		t.Logf("%s: %s", how, time.Since(began).Round(time.Millisecond))
		require.Empty(t, e.left())
	}
	require.FileExists(t, filepath.Join(e.dir, "heeded"))
}

// A watcher ends, and the next one goes on with its container.
func TestRealEngine_FindsContainersAgain(t *testing.T) {
	t.Parallel()
	e := real(t)
	first := begin(t, e.containers(), e.task(1, "", "wait", "/out/go"))
	eventually(t, "it prints", func() bool { return first.stdout.String() == "waiting\n" })
	first.cancel(flow.ErrShutdown)
	_, err := first.end()
	require.ErrorIs(t, err, flow.ErrShutdown)
	require.Len(t, e.left(), 1)

	second := begin(t, e.containers(), e.task(2, "", "wait", "/out/go"))
	eventually(t, "it has its output", func() bool { return second.stdout.String() == "waiting\n" })
	third := begin(t, e.containers(), e.task(3, "", "wait", "/out/go")) // while the second is at it
	eventually(t, "it has its output", func() bool { return third.stdout.String() == "waiting\n" })
	require.NoError(t, os.WriteFile(filepath.Join(e.dir, "go"), nil, 0o666))
	output, err := third.end()
	require.NoError(t, err)
	require.JSONEq(t, `{"exit_code": 0, "json": {"attempt": "1"}, "stdout": "waiting\n{\"attempt\": \"1\"}"}`, output)
	_, err = second.end()
	require.Error(t, err)
	require.Empty(t, e.left())
}

// However two attempts meet, their containers never run at once.
func TestRealEngine_AttemptsThatMeet(t *testing.T) {
	t.Parallel()
	e := real(t)
	for range 10 {
		first, second := begin(t, e.containers(), e.task(1, "", "alone")), begin(t, e.containers(), e.task(2, "", "alone"))
		_, firstErr := first.end()
		_, err := second.end()
		require.NoError(t, err, "the later attempt is the task's")
		if firstErr != nil {
			require.NotContains(t, firstErr.Error(), "exit code 9")
		}
		require.Empty(t, e.left())
	}
}

// A lot of output comes whole, and takes no memory.
func TestRealEngine_Flood(t *testing.T) {
	t.Parallel()
	e := real(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	task := e.task(1, "", "flood", "20")
	printed := &counter{}
	output, err := Set{"Container": e.containers()}.Run(t.Context(), Attempt{Task: task, Stdout: printed})
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	t.Logf("20 MB took %s; the heap grew by %d KiB", time.Since(began).Round(time.Millisecond), (int64(after.HeapInuse)-int64(before.HeapInuse))>>10)
	require.Equal(t, 20_000_000+len("{\"done\": true}\n"), printed.n)
	var got struct {
		JSON struct{ Done bool }
	}
	require.NoError(t, json.Unmarshal(output, &got))
	require.True(t, got.JSON.Done)
	require.Empty(t, e.left())
}

type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	return len(b), nil
}

func TestRealEngine_Housekeeping(t *testing.T) {
	t.Parallel()
	e := real(t)
	// A database of its own, or it would take the containers of the tests beside it.
	l := &ledger{stands: map[flow.TaskKey]flow.Standing{}, name: e.dir}
	c := e.containers(func(cfg *ContainerConfig) { cfg.Ledger = l })
	task := e.task(1, "", "wait", "/out/go")
	l.stands[task.TaskKey] = flow.Standing{TaskKey: task.TaskKey, Status: flow.Running, Attempt: 1}
	r := begin(t, c, task)
	eventually(t, "it prints", func() bool { return r.stdout.String() != "" })
	require.NoError(t, c.tidy(t.Context(), slog.New(slog.DiscardHandler)))
	require.Len(t, e.left(), 1, "its task runs")
	r.cancel(flow.ErrShutdown)
	_, _ = r.end()
	l.mu.Lock()
	l.stands[task.TaskKey] = flow.Standing{TaskKey: task.TaskKey, Status: flow.Suspended, Attempt: 1}
	l.mu.Unlock()
	require.NoError(t, c.tidy(t.Context(), slog.New(slog.DiscardHandler)))
	require.Empty(t, e.left())
}
