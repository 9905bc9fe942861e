package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
)

// bin has dev, register and watcher.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = os.MkdirTemp("", "flower-dev-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(bin) }()
		// As make build does, which a test here runs, too: what one has compiled, the other
		// finds. Processes as they are in make run have no race detector.
		build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin+"/", ".", "../../cmd/...")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, text)
			return 1
		}
		return m.Run()
	}())
}

func TestOnceRunsTheSampleAndStops(t *testing.T) {
	t.Parallel()
	d := start(t, checkout(t), commandtest.FreePort(t), "-once")
	require.Equal(t, 0, d.exitCode())
	text := d.out.String()
	for _, want := range []string{"starting server on address", "starting worker: 1", "FINISHED  3 of 3 finished"} {
		require.Contains(t, text, want)
	}
	d.requireNothingLeft()
}

func TestInterruptStopsAllAndTheNextRunGoesOn(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	first := start(t, dir, commandtest.FreePort(t))
	first.await("Try in another terminal")

	second := start(t, dir, commandtest.FreePort(t))
	require.Equal(t, 1, second.exitCode())
	require.Contains(t, second.out.String(), "this checkout runs already")

	require.NoError(t, first.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, 0, first.exitCode())
	first.requireNothingLeft()

	third := start(t, dir, commandtest.FreePort(t), "-once")
	require.Equal(t, 0, third.exitCode())
	third.requireNothingLeft()
}

// A terminal that closes says so more than once, and nobody reads what we write any more: all
// stops as it does on Ctrl-C.
func TestHangupStopsAll(t *testing.T) {
	t.Parallel()
	d := start(t, checkout(t), commandtest.FreePort(t))
	d.await("Try in another terminal")
	d.out.close()
	for range 3 {
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGHUP))
	}
	require.Equal(t, 0, d.exitCode())
	d.requireNothingLeft()
}

// Whatever kills us, no process stays behind, and the data is usable at once.
func TestKillLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	killed := start(t, dir, commandtest.FreePort(t))
	killed.await("Try in another terminal")
	require.NoError(t, killed.cmd.Process.Kill())
	killed.exitCode()

	next := start(t, dir, commandtest.FreePort(t), "-once")
	require.Equal(t, 0, next.exitCode())
	killed.requireNothingLeft()
	next.requireNothingLeft()
}

func TestDeadProgramEndsTheRun(t *testing.T) {
	t.Parallel()
	d := start(t, checkout(t), commandtest.FreePort(t))
	d.await("Try in another terminal")
	pids := d.processes("watcher")
	require.Len(t, pids, 1)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
	require.Equal(t, 1, d.exitCode())
	require.Contains(t, d.out.String(), "watcher ended by itself (signal: killed)")
	d.requireNothingLeft()
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	d := start(t, checkout(t), port)
	require.Equal(t, 1, d.exitCode())
	require.Contains(t, d.out.String(), fmt.Sprintf("port %d is in use: stop what uses it, or choose another one: make run PORT=%d", port, port+1))
}

func TestMissingServer(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	d := start(t, dir, commandtest.FreePort(t), "PG_BINDIR="+dir)
	require.Equal(t, 1, d.exitCode())
	require.Contains(t, d.out.String(), "initdb and postgres are not there")
}

func TestLinesAreWhole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := &lines{mu: new(sync.Mutex), out: &out, name: "watcher"}
	for _, part := range []string{"one\ntw", "o", "\nthree\nfour"} {
		n, err := l.Write([]byte(part))
		require.NoError(t, err)
		require.Equal(t, len(part), n)
	}
	require.Equal(t, "watcher  | one\nwatcher  | two\nwatcher  | three\n", out.String())
}

// checkout is an empty directory that the server's user may enter.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

// A dev is a running dev.
type dev struct {
	t     *testing.T
	cmd   *exec.Cmd
	port  int
	bin   string
	out   *buffer
	ended chan struct{}
}

// start starts dev in a checkout, with programs of its own, so that its processes can be
// told from those of other tests. An argument such as NAME=value goes to the environment.
func start(t *testing.T, checkout string, port int, args ...string) *dev {
	t.Helper()
	d := &dev{t: t, port: port, bin: t.TempDir(), out: &buffer{}, ended: make(chan struct{})}
	for _, name := range []string{"dev", "register", "watcher"} {
		require.NoError(t, os.Link(filepath.Join(bin, name), filepath.Join(d.bin, name)))
	}
	d.cmd = exec.CommandContext(t.Context(), filepath.Join(d.bin, "dev"), "-port", strconv.Itoa(port))
	d.cmd.Env = append(os.Environ(), "DATABASE_URL=")
	for _, arg := range args {
		if strings.Contains(arg, "=") {
			d.cmd.Env = append(d.cmd.Env, arg)
		} else {
			d.cmd.Args = append(d.cmd.Args, arg)
		}
	}
	d.cmd.Dir = checkout
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.cmd.WaitDelay = 10 * time.Second
	require.NoError(t, d.cmd.Start())
	go func() {
		defer close(d.ended)
		_ = d.cmd.Wait() // ProcessState says more
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.ended
		if t.Failed() {
			t.Logf("its output:\n%s", d.out)
		}
	})
	return d
}

func (d *dev) await(text string) {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return strings.Contains(d.out.String(), text) }, 2*time.Minute, 20*time.Millisecond, "waiting for %q", text)
}

func (d *dev) exitCode() int {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(2 * time.Minute):
		d.t.Fatal("dev does not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

// requireNothingLeft requires that no program of a run and no server on its data lives.
func (d *dev) requireNothingLeft() {
	d.t.Helper()
	for _, name := range []string{"dev", "register", "watcher"} {
		require.Empty(d.t, d.processes(name), "%s still runs", name)
	}
	require.NoFileExists(d.t, filepath.Join(d.cmd.Dir, stateDir, "pg", "postmaster.pid"))
	require.NoFileExists(d.t, filepath.Join(d.cmd.Dir, urlFile))
}

// processes returns the ids of the processes that run a program of d.
func (d *dev) processes(name string) (pids []int) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	require.NoError(d.t, err)
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && path == filepath.Join(d.bin, name) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			require.NoError(d.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// A buffer may be read while it is written.
type buffer struct {
	mu     sync.Mutex
	text   bytes.Buffer
	closed bool
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, os.ErrClosed
	}
	return b.text.Write(p)
}

// close has whoever writes find that nobody reads.
func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// The sample of everything runs to its end: somebody approves it as make run says.
func TestSampleETL(t *testing.T) {
	t.Parallel()
	d := start(t, checkout(t), commandtest.FreePort(t))
	d.await("Try in another terminal")
	text := d.out.String()
	said := regexp.MustCompile(`curl -X POST (\S+) -d '(.*register.*)'`).FindStringSubmatch(text)
	require.NotNil(t, said)
	require.True(t, strings.HasSuffix(said[1], "/register/sample-etl"), said[1])
	approve := regexp.MustCompile(`(?s)SELECT flower_approve.*?;`).FindString(text)
	require.NotEmpty(t, approve)

	answer, err := call(t.Context(), http.MethodPost, "http://"+said[1], said[2])
	require.NoError(t, err)
	var registered struct{ TaskFlowID string }
	require.NoError(t, json.Unmarshal(answer, &registered))
	at := strings.TrimSuffix("http://"+said[1], "/register/sample-etl") + "/api/v1/flows/" + registered.TaskFlowID
	status, err := awaitEnd(t.Context(), at)
	require.NoError(t, err)
	shown, err := call(t.Context(), http.MethodGet, at+"?format=text", "")
	require.NoError(t, err)
	require.Equal(t, "held", status, string(shown))
	require.Contains(t, string(shown), "publish 3 orders of 49.5 in all, most of them by Ann?")
	page, err := call(t.Context(), http.MethodGet, strings.Replace(at, "/api/v1/", "/", 1), "")
	require.NoError(t, err)
	require.Contains(t, string(page), `/flows/`+registered.TaskFlowID+`/tasks/5/approve"`, "its page offers it, too")

	address, err := os.ReadFile(filepath.Join(d.cmd.Dir, urlFile))
	require.NoError(t, err)
	psql := exec.CommandContext(t.Context(), "psql", strings.TrimSpace(string(address)), "-v", "ON_ERROR_STOP=1", "-c", approve)
	printed, err := psql.CombinedOutput()
	require.NoError(t, err, string(printed))
	status, err = awaitEnd(t.Context(), at)
	require.NoError(t, err)
	shown, err = call(t.Context(), http.MethodGet, at+"?format=text", "")
	require.NoError(t, err)
	require.Equal(t, "finished", status, string(shown))
	require.Contains(t, string(shown), "6 of 6 finished")
}
