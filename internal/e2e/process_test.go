package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// soon is how long a test waits for what takes a moment: long enough for a loaded
// machine, and never reached on a good day.
const soon = 60 * time.Second

// process is one of the programs, running.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  *lines // what it writes to standard error

	ended chan struct{} // closed when it has ended
	err   error         // how; after ended
}

// run starts a program with nothing in its environment but what is given, "NAME=value".
// It is killed at the end of the test.
func run(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, log: &lines{}, ended: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(bin, name), args...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=1"}, env...)
	p.cmd.Stderr = p.log
	require.NoError(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		text := p.log.String()
		require.NotContains(t, text, "DATA RACE")
		if t.Failed() {
			t.Logf("log of %s (%d):\n%s", name, p.cmd.Process.Pid, text)
		}
	})
	return p
}

// output runs a program that prints something and stops.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	text, err := exec.Command(filepath.Join(bin, name), args...).Output()
	require.NoError(t, err)
	return string(text)
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
}

// exit waits for the end and returns the exit code; -1 is a signal.
func (p *process) exit(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		require.FailNow(p.t, p.name+" does not end", "within %s", within)
	}
	var failed *exec.ExitError
	if errors.As(p.err, &failed) {
		return failed.ExitCode()
	}
	require.NoError(p.t, p.err)
	return 0
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// await waits for a line of the log and returns it.
func (p *process) await(msg string, attrs ...string) line {
	p.t.Helper()
	var found line
	pgtest.Eventually(p.t, soon, fmt.Sprintf("%s logs %q %v", p.name, msg, attrs), func() bool {
		found = nil
		if all := p.log.with(msg, attrs...); len(all) > 0 {
			found = all[0]
		}
		if found == nil && !p.running() {
			require.FailNow(p.t, p.name+" has ended", "%v", p.err)
		}
		return found != nil
	})
	return found
}

// lines are a log in JSON.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

type line map[string]any

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// all returns the complete lines.
func (l *lines) all() []line {
	var all []line
	for text := range strings.Lines(l.String()) {
		var ln line
		if json.Unmarshal([]byte(text), &ln) == nil {
			all = append(all, ln)
		}
	}
	return all
}

// with returns the lines whose message begins so, with attributes, "name=value".
func (l *lines) with(msg string, attrs ...string) []line {
	return slices.DeleteFunc(l.all(), func(ln line) bool {
		text, _ := ln["msg"].(string)
		return !strings.HasPrefix(text, msg) || slices.ContainsFunc(attrs, func(a string) bool {
			name, value, _ := strings.Cut(a, "=")
			return fmt.Sprint(ln[name]) != value
		})
	})
}
