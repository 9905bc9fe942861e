package cli

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A daemon that reads its files again at SIGHUP stops when its terminal has closed, and only
// then.
func TestHangups_OfATerminalThatHasClosed(t *testing.T) {
	t.Parallel()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)

	program, lines, _ := startStubborn(t, func(c *exec.Cmd) {
		reloads(c)
		c.Stdin, c.Stderr = terminal, terminal
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	})
	require.NoError(t, terminal.Close())
	require.NoError(t, program.Process.Signal(syscall.SIGHUP))
	requireLine(t, lines, "reloading: hangup\n")
	require.NoError(t, screen.Close())
	requireLine(t, lines, "stopping: hangup signal received\n")
	requireSignalled(t, program, syscall.SIGTERM)
}
