package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asProgram makes the test binary a program that does not stop when it is told to.
const asProgram = "FLOWER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	Main("stubborn", func(ctx context.Context, env *Env) error {
		log := env.Logger(LogConfig{Format: "json"})
		var hangups <-chan os.Signal
		if slices.Contains(env.Args, "reloads") {
			hangups = env.Hangups()
		}
		fmt.Fprintln(env.Stdout, "started")
		for ctx.Err() == nil {
			select {
			case s := <-hangups:
				fmt.Fprintln(env.Stdout, "reloading:", s)
			case <-ctx.Done():
			}
		}
		log.Info("stopping")
		fmt.Fprintln(env.Stdout, "stopping:", context.Cause(ctx))
		select {} // signals alone can end it
	})
}

// newEnv returns an environment of the given variables, and what is written to it.
func newEnv(vars map[string]string, args ...string) (env *Env, stdout, stderr *bytes.Buffer) {
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	return &Env{
		Name:   "prog",
		Args:   args,
		Getenv: func(name string) string { return vars[name] },
		Stdout: stdout,
		Stderr: stderr,
	}, stdout, stderr
}

func TestExec_MapsErrorsToExitCodes(t *testing.T) {
	t.Parallel()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, c := range map[string]struct {
		ctx    context.Context
		err    error
		code   int
		stderr string
	}{
		"done":                     {t.Context(), nil, 0, ""},
		"printed":                  {t.Context(), ErrPrinted, 0, ""},
		"failed":                   {t.Context(), errors.New("the disk is full"), 1, "prog: the disk is full\n"},
		"wrong usage":              {t.Context(), usagef("bad flag"), 2, "prog: bad flag (prog -help lists all settings)\n"},
		"interrupted by us":        {stopped, fmt.Errorf("wait: %w", context.Canceled), 0, ""},
		"failed while stopping":    {stopped, errors.New("cut off"), 1, "prog: cut off\n"},
		"interrupted by something": {t.Context(), context.Canceled, 1, "prog: context canceled\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, _, stderr := newEnv(nil)
			require.Equal(t, c.code, Exec(c.ctx, env, func(context.Context, *Env) error { return c.err }))
			require.Equal(t, c.stderr, stderr.String())
		})
	}
}

func TestExec_LogsTheErrorOnceThereIsALogger(t *testing.T) {
	t.Parallel()
	env, _, stderr := newEnv(nil)
	code := Exec(t.Context(), env, func(_ context.Context, env *Env) error {
		env.Logger(LogConfig{Format: "json"})
		return errors.New("the disk is full")
	})
	require.Equal(t, ExitFailed, code)
	require.Contains(t, stderr.String(), `"level":"ERROR","msg":"cannot go on","err":"the disk is full"}`)
}

// A collector of logs that is started anew does not end what it listened to.
func TestMain_OutlivesWhoeverReadsItsLog(t *testing.T) {
	t.Parallel()
	reader, log, err := os.Pipe()
	require.NoError(t, err)
	program, lines, end := startStubborn(t, func(c *exec.Cmd) { c.Stderr = log })
	require.NoError(t, log.Close())
	require.NoError(t, reader.Close())
	require.NoError(t, program.Process.Signal(syscall.SIGTERM)) // which it logs
	requireLine(t, lines, "stopping: terminated signal received\n")
	end()
	require.Error(t, program.Wait())
}

// A limit of the container is kept to before the kernel enforces it, which kills.
func TestKeepWithin(t *testing.T) { //nolint:paralleltest // the limit is that of the whole process
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	keepWithin(func() (uint64, error) { return 0, errors.New("there are no cgroups") })
	require.Equal(t, before, debug.SetMemoryLimit(-1))
	keepWithin(func() (uint64, error) { return 100 << 20, nil })
	require.EqualValues(t, 90<<20, debug.SetMemoryLimit(-1))
}

// startStubborn runs this test's own program, which ends by signals alone, until the test
// does or end is called, and returns what it says.
func startStubborn(t *testing.T, as func(*exec.Cmd)) (program *exec.Cmd, lines *bufio.Reader, end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	program = exec.CommandContext(ctx, os.Args[0])
	program.Env = append(os.Environ(), asProgram+"=1")
	stdout, err := program.StdoutPipe()
	require.NoError(t, err)
	as(program)
	require.NoError(t, program.Start())
	lines = bufio.NewReader(stdout)
	requireLine(t, lines, "started\n")
	return program, lines, cancel
}

func requireLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want, line)
}
