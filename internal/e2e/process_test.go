package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
)

// soon is how long a test waits for what takes a moment.
const soon = commandtest.Soon

// process is one of the programs, running.
type process struct {
	*commandtest.Process
	t *testing.T
}

// run starts a program with nothing in its environment but what is given, "NAME=value".
// It is killed at the end of the test.
func run(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	return &process{commandtest.Start(t, filepath.Join(bin, name), env, args...), t}
}

// output runs a program that prints something and stops.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	text, err := exec.Command(filepath.Join(bin, name), args...).Output()
	require.NoError(t, err)
	return string(text)
}
