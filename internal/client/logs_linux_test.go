package client

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/d-tsuji/flower/internal/cli"
)

// terminal opens one: what is written to it, and what is seen of that.
func terminal(t *testing.T) (stdout, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	stdout, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = stdout.Close() })
	return stdout, screen
}

// What a task has printed goes into a file or a pipe as it is, and commands no terminal.
func TestLogs_CommandNoTerminal(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string][]string{"GET /api/v1/flows/f/tasks/3/log": {page(1, false, false, 1, "注\tr\x1b[31m\x1b]0;t\a\u009b2J\r\u202e.")}})
	stdout, screen := terminal(t)
	var stderr bytes.Buffer
	env := &cli.Env{
		Name: "register", Args: []string{"logs", "f", "3", "-server", f.URL}, Stdout: stdout, Stderr: &stderr,
		Getenv: func(string) string { return "" },
	}
	require.Zero(t, cli.Exec(t.Context(), env, cli.WithCommands(nil, Commands()...)), stderr.String())
	line, err := bufio.NewReader(screen).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "注\tr?[31m?]0;t??2J??.\r\n", line, "the terminal itself makes \\r\\n of the end")
}
