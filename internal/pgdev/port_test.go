//go:build unix

package pgdev

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A port that was free a moment ago and is taken when the server wants it.
func TestRun_TriesAnotherPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	taken := l.Addr().(*net.TCPAddr).Port

	s := &Server{}
	defer s.Stop()
	s.user, s.owner, err = serverUser()
	require.NoError(t, err)
	require.NoError(t, s.makeTmp(t.Context(), os.TempDir()))
	o := Options{DataDir: filepath.Join(s.tmp, "data")}
	o.BinDir, err = FindBinDir()
	require.NoError(t, err)
	require.NoError(t, s.initCluster(t.Context(), o))

	picked := 0
	pick := func() (int, error) {
		if picked++; picked == 1 {
			return taken, nil
		}
		return freePort()
	}
	require.NoError(t, s.run(t.Context(), o, pick))
	require.Equal(t, 2, picked)
	require.NotEqual(t, taken, s.Port)

	picked = 0
	s2 := &Server{user: s.user, owner: s.owner}
	defer s2.Stop()
	require.NoError(t, s2.makeTmp(t.Context(), os.TempDir()))
	err = s2.run(t.Context(), o, pick)
	require.ErrorIs(t, err, errEnded)
	require.Equal(t, 1, picked, "the data is in use: no other port would help")
}
