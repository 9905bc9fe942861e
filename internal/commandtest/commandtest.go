// Package commandtest builds the two programs and runs them as processes, for tests that
// meet them as their users do: by HTTP, by SQL and by signals.
package commandtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Soon is how long a test waits for what takes a moment: long enough for a loaded
// machine, and never reached on a good day.
const Soon = 2 * time.Minute

// Build builds register and watcher into dir, with the race detector if the test has it,
// and without what only debuggers read.
func Build(dir string) error {
	build := exec.CommandContext(context.Background(), "go", "build", RaceFlag, "-ldflags", "-s -w", "-o", dir+"/",
		"github.com/d-tsuji/flower/cmd/...")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, text)
	}
	return nil
}

// Environment is that of a program which uses the database at an address: DB_USER and
// so on.
func Environment(t *testing.T, address string) []string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	env := []string{"DB_USER=" + u.User.Username(), "DB_HOST=" + u.Hostname(), "DB_PORT=" + u.Port(), "DB_NAME=" + u.Path[1:]}
	if password, ok := u.User.Password(); ok {
		env = append(env, "DB_PASS="+password)
	}
	return env
}

// Process is one of the programs, running.
type Process struct {
	Name string
	Cmd  *exec.Cmd
	Log  *Lines // what it writes to standard error

	Ended chan struct{} // closed when it has ended
	Err   error         // how; after Ended

	t *testing.T
}

// Start starts a program with nothing in its environment but what is given, "NAME=value".
// It is killed at the end of the test.
func Start(t *testing.T, path string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, Name: filepath.Base(path), Log: &Lines{}, Ended: make(chan struct{})}
	p.Cmd = exec.Command(path, args...)
	p.Cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=1"}, env...)
	p.Cmd.Stderr = p.Log
	require.NoError(t, p.Cmd.Start())
	go func() {
		p.Err = p.Cmd.Wait()
		close(p.Ended)
	}()
	t.Cleanup(func() {
		_ = p.Cmd.Process.Kill()
		<-p.Ended
		text := p.Log.String()
		require.NotContains(t, text, "DATA RACE")
		if t.Failed() {
			t.Logf("log of %s (%d):\n%s", p.Name, p.Cmd.Process.Pid, text)
		}
	})
	return p
}

// Signal sends it a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.Cmd.Process.Signal(s))
}

// Exit waits for the end and returns the exit code; -1 is a signal.
func (p *Process) Exit() int {
	p.t.Helper()
	select {
	case <-p.Ended:
	case <-time.After(Soon):
		require.FailNow(p.t, p.Name+" does not end", "within %s", Soon)
	}
	if failed, ok := errors.AsType[*exec.ExitError](p.Err); ok {
		return failed.ExitCode()
	}
	require.NoError(p.t, p.Err)
	return 0
}

// Running reports whether it has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.Ended:
		return false
	default:
		return true
	}
}

// Await waits for a line of the log and returns it.
func (p *Process) Await(msg string, attrs ...string) Line {
	p.t.Helper()
	var found Line
	pgtest.Eventually(p.t, Soon, fmt.Sprintf("%s logs %q %v", p.Name, msg, attrs), func() bool {
		found = nil
		if all := p.Log.With(msg, attrs...); len(all) > 0 {
			found = all[0]
		}
		if found == nil && !p.Running() {
			require.FailNow(p.t, p.Name+" has ended", "%v", p.Err)
		}
		return found != nil
	})
	return found
}

// AwaitURL waits until it serves HTTP, as register does, and returns where.
func (p *Process) AwaitURL() string {
	p.t.Helper()
	var found string
	pgtest.Eventually(p.t, Soon, p.Name+" serves", func() bool {
		require.True(p.t, p.Running(), "%s has ended: %v", p.Name, p.Err)
		for _, ln := range p.Log.All() {
			if address, ok := ln["address"].(string); ok {
				found = "http://" + strings.Replace(address, "localhost", "127.0.0.1", 1)
			}
		}
		return found != ""
	})
	return found
}
