package e2e

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
)

// soon is how long a test waits for what takes a moment.
const soon = commandtest.Soon

// raceFlag builds the programs as the tests are built.
const raceFlag = commandtest.RaceFlag

// process is one of the programs, running, with the test's own names for what it can.
type process struct {
	*commandtest.Process
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	log   lines
	ended chan struct{} // closed when it has ended
}

// run starts a program with nothing in its environment but what is given, "NAME=value".
// It is killed at the end of the test.
func run(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := commandtest.Start(t, filepath.Join(bin, name), env, args...)
	return &process{p, t, p.Name, p.Cmd, lines{p.Log}, p.Ended}
}

// output runs a program that prints something and stops.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	text, err := exec.Command(filepath.Join(bin, name), args...).Output()
	require.NoError(t, err)
	return string(text)
}

func (p *process) signal(s syscall.Signal)                { p.Signal(s) }
func (p *process) exit() int                              { return p.Exit(soon) }
func (p *process) running() bool                          { return p.Running() }
func (p *process) await(msg string, attrs ...string) line { return p.Await(msg, attrs...) }

// lines are a log in JSON.
type lines struct{ *commandtest.Lines }

type line = commandtest.Line

func (l lines) all() []line                             { return l.All() }
func (l lines) with(msg string, attrs ...string) []line { return l.With(msg, attrs...) }
