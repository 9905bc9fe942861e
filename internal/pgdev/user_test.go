//go:build unix

package pgdev_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The other tests run as whoever runs them; this one makes sure that they have been an
// ordinary user at least once when that is root.
func TestStart_AsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("every other test is one of an ordinary user already")
	}
	const nobody = 65534 // needs no entry in the user database
	dir := openDir(t)
	require.NoError(t, os.Chown(dir, nobody, nobody))
	path := filepath.Join(openDirIn(t, disk), "test")
	copyTestBinary(t, path)

	c := exec.Command(path)
	c.Dir = dir
	c.Env = append(os.Environ(), envHelper+"=once", "TMPDIR="+dir, noWait)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "host=127.0.0.1")
	require.Empty(t, list(t, dir), "nothing is left")
}
