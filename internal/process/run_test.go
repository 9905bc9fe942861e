//go:build linux

package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// victim makes this binary run one command, so that a test can kill it meanwhile.
const victim = "FLOWER_TEST_COMMAND"

func TestMain(m *testing.M) {
	Supervise()
	if text := os.Getenv(victim); text != "" {
		var c Command
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			panic(err)
		}
		exit, err := Run(context.Background(), c)
		fmt.Println(exit, err)
		return
	}
	goleak.VerifyTestMain(m)
}

// ran is what came of a command.
type ran struct {
	exit           Exit
	err            error
	stdout, stderr string
}

// shell is a command that is a shell's script.
func shell(script string, args ...string) Command {
	return Command{
		Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "sh"}, args...),
		Env: []string{"PATH=/usr/bin:/bin"}, Grace: time.Second,
	}
}

func run(ctx context.Context, t *testing.T, c Command) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Scratch = t.TempDir()
	c.Stdout, c.Stderr = &stdout, &stderr
	exit, err := Run(ctx, c)
	left, readErr := os.ReadDir(c.Scratch)
	require.NoError(t, readErr)
	require.Empty(t, left, "it left files behind")
	return ran{exit, err, stdout.String(), stderr.String()}
}

func TestRun(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]ran{
		`echo hello; echo oh >&2`:       {stdout: "hello\n", stderr: "oh\n"},
		`exit 3`:                        {exit: Exit{Code: 3}},
		`kill -9 $$`:                    {exit: Exit{Signal: syscall.SIGKILL}},
		`kill -TERM $$`:                 {exit: Exit{Signal: syscall.SIGTERM}},
		`cat`:                           {stdout: "from stdin"},
		`printf '%s|' "$#" "$@"`:        {stdout: "3|a b|$(touch x)|\n;|"},
		`env -u PWD | sort | cut -c1-5`: {stdout: "HOME=\nPATH=\nTMPDI\n"},
		`ls -A . "$TMPDIR" | wc -l`:     {stdout: "3\n"},
		`[ "$HOME" = "$PWD" ] && [ "$TMPDIR" = "$PWD" ] && touch file && mkdir -p a/b && echo fine`: {stdout: "fine\n"},
		`exec ls /proc/self/fd`: {stdout: "0\n1\n2\n3\n"}, // 3 is the directory: it has no file of ours
		`ulimit -c`:             {stdout: "0\n"},
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			c := shell(script, "a b", "$(touch x)", "\n;")
			c.Stdin = "from stdin"
			require.Equal(t, want, run(t.Context(), t, c))
		})
	}
}

func TestRun_Dir(t *testing.T) {
	t.Parallel()
	c := shell(`pwd; [ "$TMPDIR" != "$PWD" ] && [ -d "$TMPDIR" ] && echo fine`)
	c.Dir = "/usr"
	require.Equal(t, ran{stdout: "/usr\nfine\n"}, run(t.Context(), t, c))
}

func TestRun_WhatCannotStart(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte("echo hello\n"), 0o755))
	lost := filepath.Join(t.TempDir(), "lost")
	require.NoError(t, os.WriteFile(lost, []byte("#!/no/such\n"), 0o755))
	for name, c := range map[string]struct {
		command Command
		want    string
	}{
		"no such file":      {Command{Path: "/no/such", Args: []string{"x"}}, "cannot start /no/such: no such file or directory"},
		"no program":        {Command{Path: script, Args: []string{"x"}}, "cannot start " + script + ": exec format error: a script begins with a line such as #!/bin/sh"},
		"no interpreter":    {Command{Path: lost, Args: []string{"x"}}, "cannot start " + lost + ": what is to run it is not there: look at its first line, #!…"},
		"a directory":       {Command{Path: "/usr", Args: []string{"x"}}, "cannot start /usr: permission denied"},
		"no such directory": {Command{Path: "/bin/true", Args: []string{"x"}, Dir: "/no/such"}, "cannot start /bin/true: stat /no/such: no such file or directory"},
		"a long argument": {
			Command{Path: "/bin/true", Args: []string{"x", strings.Repeat("x", 200_000)}},
			"cannot start /bin/true: argument list too long",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(t.Context(), t, c.command)
			require.EqualError(t, got.err, c.want)
		})
	}
}

func TestRun_Limits(t *testing.T) {
	t.Parallel()
	c := shell(`ulimit -n; ulimit -Hn; ulimit -t; ulimit -d; ulimit -d 999999 2>/dev/null; sh -c 'ulimit -n'`)
	c.Limits = Limits{Memory: 64 << 20, CPU: 90*time.Second + 1, Files: 20}
	got := run(t.Context(), t, c)
	require.NoError(t, got.err)
	require.Equal(t, "20\n20\n90\n65536\n20\n", got.stdout)

	c = shell(`exec dd if=/dev/zero of=/dev/null bs=100M count=1`)
	c.Limits = Limits{Memory: 16 << 20}
	got = run(t.Context(), t, c)
	require.NoError(t, got.err)
	require.Equal(t, Exit{Code: 1}, got.exit)
	require.Contains(t, got.stderr, "memory exhausted")

	c = shell(`while :; do :; done`)
	c.Limits = Limits{CPU: time.Second}
	got = run(t.Context(), t, c)
	require.NoError(t, got.err)
	require.Equal(t, Exit{Signal: syscall.SIGXCPU}, got.exit)
}

func TestRun_LargeStreams(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	c := shell(`cat; cat <&- 2>/dev/null; true`)
	c.Stdin = strings.Repeat("0123456789abcdef", size/16)
	got := run(t.Context(), t, c)
	require.NoError(t, got.err)
	require.Equal(t, len(c.Stdin), len(got.stdout))

	c = shell(`true`) // does not read it
	c.Stdin = strings.Repeat("x", size)
	require.Equal(t, ran{}, run(t.Context(), t, c))
}

var errStop = errors.New("stop")

func TestRun_AlreadyOver(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	require.Equal(t, errStop, run(ctx, t, shell(`touch /tmp/it-was-run`)).err)
}

// stopped runs a command whose script says "ready", and stops it then. What it printed
// after that is in the result.
func stopped(t *testing.T, c Command) (got ran, took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var begin time.Time
	out := &watched{until: "ready\n", then: sync.OnceFunc(func() {
		begin = time.Now()
		cancel(errStop)
	})}
	c.Scratch, c.Stdout = t.TempDir(), out
	var err error
	got.exit, err = Run(ctx, c)
	took = time.Since(begin)
	require.Equal(t, errStop, err)
	got.stdout = out.String()
	return got, took
}

// watched is output that calls then when a text was written.
type watched struct {
	mu    sync.Mutex
	b     bytes.Buffer // guarded by mu
	until string
	then  func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.b.Write(p)
	if strings.Contains(w.b.String(), w.until) {
		w.then()
	}
	return n, err
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func TestRun_Stops(t *testing.T) {
	t.Parallel()
	got, took := stopped(t, shell(`trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done`))
	require.Equal(t, "ready\nbye\n", got.stdout, "it may clean up")
	require.Less(t, took, time.Second)

	// Neither the command nor its children care about SIGTERM.
	got, took = stopped(t, shell(`trap '' TERM INT HUP; sleep 1000 & sleep 1000 & echo ready; wait; wait`))
	require.Equal(t, "ready\n", got.stdout)
	require.GreaterOrEqual(t, took, time.Second)
	require.Less(t, took, 3*time.Second)
}

// Whoever the command has started may clean up as well, wherever it is.
func TestRun_TellsEverybody(t *testing.T) {
	t.Parallel()
	const child = `sh -c "trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.01; done"`
	for _, script := range []string{child, "setsid " + child, "( " + child + " & wait )"} {
		out := filepath.Join(t.TempDir(), "out")
		got, _ := stopped(t, shell(`(`+script+`) > $1 & until grep -q up $1 2>/dev/null; do sleep 0.01; done; echo ready; wait`, out))
		require.Equal(t, "ready\n", got.stdout)
		text, err := os.ReadFile(out)
		require.NoError(t, err)
		require.Equal(t, "up\nbye\n", string(text), script)
	}
}

// A supervisor that does nothing any more is not waited for.
func TestRun_SupervisorHangs(t *testing.T) {
	t.Parallel()
	mark := newMark(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	c := shell(`kill -STOP $PPID; echo ready; sleep 1000.$1`, mark)
	c.Scratch, c.Grace = t.TempDir(), 10*time.Millisecond
	c.Stdout = &watched{until: "ready\n", then: sync.OnceFunc(func() { cancel(errStop) })}
	_, err := Run(ctx, c)
	require.Equal(t, errStop, err)
	eventually(t, "nobody is left", func() bool { return len(alive(t, mark)) == 0 })
}

// who is the script of a family of all sorts: each member says who it is. It uses the
// mark, an argument, so that a test finds whoever is left.
const who = `
mark=$1
sleep 1000.$mark &
( trap '' TERM HUP INT; sleep 1001.$mark & sleep 1002.$mark ) &
setsid sleep 1003.$mark &
setsid sh -c "trap '' TERM HUP; setsid sleep 1004.$mark & sleep 1005.$mark; :" &
( ( trap '' TERM HUP; setsid setsid sleep 1006.$mark & ) & )
nohup sleep 1007.$mark >/dev/null 2>&1 &
while [ $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -o "sleep 100[0-9].$mark" | sort -u | wc -l) -lt 8 ]; do sleep 0.02; done
echo ready
`

// alive returns the processes that have a mark among their arguments.
func alive(t *testing.T, mark string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	var found []string
	for _, name := range names {
		text, err := os.ReadFile(name + "/cmdline")
		if err == nil && bytes.Contains(text, []byte(mark)) && name != "/proc/"+strconv.Itoa(os.Getpid()) {
			found = append(found, name+": "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

// newMark returns a number that nothing else has.
func newMark(t *testing.T) string {
	t.Helper()
	mark := strconv.FormatInt(time.Now().UnixNano(), 10)
	t.Cleanup(func() {
		for _, p := range alive(t, mark) {
			pid, _, _ := strings.Cut(strings.TrimPrefix(p, "/proc/"), ":")
			n, _ := strconv.Atoi(pid)
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	})
	return mark
}

func TestRun_LeavesNobodyBehind(t *testing.T) {
	t.Parallel()
	mark := newMark(t)
	got := run(t.Context(), t, shell(who+`exit 4`, mark))
	require.NoError(t, got.err)
	require.Equal(t, Exit{Code: 4}, got.exit)
	require.Equal(t, "ready\n", got.stdout)
	require.Empty(t, alive(t, mark))

	mark = newMark(t)
	stopped(t, shell(who+`wait; sleep 1008.$mark`, mark))
	require.Empty(t, alive(t, mark))
}

// A command that starts processes as fast as it can is still brought down.
func TestRun_StopsWhoeverForks(t *testing.T) {
	t.Parallel()
	mark := newMark(t)
	stopped(t, shell(`trap '' TERM; echo ready; while :; do ( setsid sleep 1000.$1 & ); done`, mark))
	require.Empty(t, alive(t, mark))
}

// startVictim runs a command in a process of its own, which a test may kill.
func startVictim(t *testing.T, c Command) (process *os.Process, scratch string, gone func()) {
	t.Helper()
	scratch = t.TempDir()
	c.Scratch = scratch
	text, err := json.Marshal(c)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victim+"="+string(text))
	require.NoError(t, cmd.Start())
	return cmd.Process, scratch, func() { _ = cmd.Wait() }
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !met(); time.Sleep(5 * time.Millisecond) {
		require.True(t, time.Now().Before(end), what)
	}
}

// whoWith is a script that makes a file when everybody is there.
func whoWith(t *testing.T) (c Command, mark string, ready func()) {
	t.Helper()
	mark = newMark(t)
	file := filepath.Join(t.TempDir(), "ready")
	c = shell(who+`touch $2; wait; sleep 1008.$mark`, mark, file)
	return c, mark, func() {
		eventually(t, "all have started", func() bool {
			_, err := os.Stat(file)
			return err == nil
		})
	}
}

// Whoever runs a command is killed by SIGKILL: nobody survives it, neither those who left
// the process group nor those who ignore SIGTERM.
func TestRun_KilledFromAbove(t *testing.T) {
	t.Parallel()
	c, mark, ready := whoWith(t)
	process, scratch, gone := startVictim(t, c)
	ready()
	require.NoError(t, process.Kill())
	gone()
	eventually(t, "nobody is left", func() bool { return len(alive(t, mark)) == 0 })
	eventually(t, "nor a file", func() bool {
		left, err := os.ReadDir(scratch)
		return err == nil && len(left) == 0
	})
}

// The supervisor is killed: the command ends, and so does its group; Run says why.
func TestRun_SupervisorKilled(t *testing.T) {
	t.Parallel()
	mark := newMark(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := shell(`trap '' TERM; sleep 1000.$1 & ( sleep 1001.$1 & ) ; echo ready; wait; sleep 1002.$1`, mark)
	c.Scratch = t.TempDir()
	c.Stdout = &watched{until: "ready\n", then: sync.OnceFunc(func() {
		for _, p := range alive(t, mark) {
			pid, _, _ := strings.Cut(strings.TrimPrefix(p, "/proc/"), ":")
			if parent, _ := parentOf(pid); strings.Contains(p, "sh -c") && parent != os.Getpid() {
				_ = syscall.Kill(parent, syscall.SIGKILL)
			}
		}
	})}
	_, err := Run(ctx, c)
	require.EqualError(t, err, "its supervisor ended before it (signal: killed), and it was killed")
	eventually(t, "nobody is left", func() bool { return len(alive(t, mark)) == 0 })
}

// Signals to the group of whoever runs it, such as those of a terminal, are not for it.
func TestRun_IsOfAnotherGroup(t *testing.T) {
	t.Parallel()
	c := shell(`cut -d' ' -f5 /proc/self/stat /proc/$PPID/stat`)
	got := run(t.Context(), t, c)
	require.NoError(t, got.err)
	groups := strings.Fields(got.stdout)
	require.Len(t, groups, 2)
	require.NotEqual(t, groups[0], groups[1])
	require.NotContains(t, groups, strconv.Itoa(syscall.Getpgrp()))
}

// What is secret in whoever runs it cannot be read by way of /proc, in the one between
// neither.
func TestSupervisor_IsConcealedAndHasNoEnvironment(t *testing.T) {
	t.Parallel()
	got := run(t.Context(), t, shell(`cat /proc/$PPID/environ | wc -c; tr '\0' '\n' < /proc/$PPID/cmdline; stat -c %U /proc/$PPID/environ`))
	require.NoError(t, got.err)
	require.Equal(t, "0\n"+supervisorName+"\nroot\n", got.stdout)
}

func TestConceal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it runs a command as another user")
	}
	Conceal()
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	require.Zero(t, dumpable)
}
