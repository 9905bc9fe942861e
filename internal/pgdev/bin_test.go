//go:build unix

package pgdev

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	require.Equal(t,
		[]string{"/usr/lib/postgresql/18/bin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/9.6/bin"},
		newestFirst([]string{"/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/18/bin", "/usr/lib/postgresql/9.6/bin"}))
	require.Empty(t, newestFirst(nil))
}

// A cluster is opened by the server that made it, though a newer one was installed since.
func TestOfVersion(t *testing.T) {
	t.Parallel()
	dirs := []string{"/usr/lib/postgresql/18/bin", "/usr/lib/postgresql/15/bin"}
	data := t.TempDir()
	require.Empty(t, ofVersion(dirs, data), "not made yet")
	for version, want := range map[string]string{"15\n": dirs[1], "18\n": dirs[0], "1\n": "", "": ""} {
		require.NoError(t, os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(version), 0o600))
		require.Equal(t, want, ofVersion(dirs, data), version)
	}
}

func TestFindBinDir_Environment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PG_BINDIR", dir)
	_, err := FindBinDir()
	require.ErrorContains(t, err, "PG_BINDIR="+dir, "never another one instead")

	for _, name := range []string{"initdb", "postgres"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o755))
	}
	found, err := FindBinDir()
	require.NoError(t, err)
	require.Equal(t, dir, found)
}

// The PATH comes last, and a link on it leads to where postgres is.
func TestFindBinDir_Path(t *testing.T) {
	t.Setenv("PG_BINDIR", "")
	if dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin"); len(dirs) > 0 {
		found, err := FindBinDir()
		require.NoError(t, err)
		require.Contains(t, dirs, found)
		return
	}
	real, links := t.TempDir(), t.TempDir()
	for _, name := range []string{"initdb", "postgres"} {
		require.NoError(t, os.WriteFile(filepath.Join(real, name), nil, 0o755))
	}
	require.NoError(t, os.Symlink(filepath.Join(real, "initdb"), filepath.Join(links, "initdb")))
	t.Setenv("PATH", links)
	found, err := FindBinDir()
	require.NoError(t, err)
	require.Equal(t, real, found)
}
