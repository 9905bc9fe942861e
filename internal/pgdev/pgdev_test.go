//go:build unix

package pgdev_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func TestStart_AndStopTwice(t *testing.T) {
	t.Parallel()
	s, err := pgdev.Start(t.Context(), pgdev.Options{Conf: []string{"max_connections=17"}})
	require.NoError(t, err)
	defer s.Stop()

	require.Equal(t, "postgres", ask(t, s.DSN, "SELECT current_database()"))
	require.Equal(t, "template1", ask(t, s.DSN+" dbname=template1", "SELECT current_database()"))
	require.Equal(t, "postgres://flower@127.0.0.1:"+strconv.Itoa(s.Port)+"/postgres?sslmode=disable", s.URL("postgres"))
	require.Equal(t, "template1", ask(t, s.URL("template1"), "SELECT current_database()"))
	require.Equal(t, "17", ask(t, s.DSN, "SHOW max_connections"))
	require.Equal(t, "off", ask(t, s.DSN, "SHOW fsync"))
	require.Equal(t, "UTF8", ask(t, s.DSN, "SHOW server_encoding"))
	data := ask(t, s.DSN, "SHOW data_directory")

	s.Stop()
	require.True(t, gone(s.DSN))
	require.NoDirExists(t, filepath.Dir(data), "the temporary directory")
	s.Stop()
}

func TestStart_KeepsData(t *testing.T) {
	t.Parallel()
	o := pgdev.Options{DataDir: filepath.Join(openDir(t), "kept", "data")}
	first := start(t, o)
	do(t, first.DSN, "CREATE TABLE kept AS SELECT 42 AS answer")
	first.Stop()

	second := start(t, o)
	require.Equal(t, "42", ask(t, second.DSN, "SELECT answer FROM kept"))

	_, err := pgdev.Start(t.Context(), o)
	require.ErrorContains(t, err, "postmaster.pid", "the server's own words")
	require.Equal(t, "42", ask(t, second.DSN, "SELECT answer FROM kept"), "the refused start harms nobody")
}

// What the server refuses, it refuses in its own words.
func TestStart_Refused(t *testing.T) {
	t.Parallel()
	other := start(t, pgdev.Options{})
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	require.NoError(t, err)
	defer func() { _ = mute.Close() }()
	o := pgdev.Options{DataDir: filepath.Join(openDir(t), "data")}
	start(t, o).Stop()

	for name, tc := range map[string]struct {
		options pgdev.Options
		words   string
	}{
		"port taken":                  {pgdev.Options{Port: mute.Addr().(*net.TCPAddr).Port}, "could not bind"},
		"port taken by such a server": {pgdev.Options{Port: other.Port}, "could not bind"},
		"unknown setting":             {pgdev.Options{Conf: []string{"no_such_setting=1"}}, "no_such_setting"},
	} {
		tc.options.DataDir = o.DataDir
		_, err := pgdev.Start(t.Context(), tc.options)
		require.ErrorContains(t, err, "the server ended", name)
		require.ErrorContains(t, err, tc.words, name)
	}
	require.False(t, gone(other.DSN))
}

// Whoever comes second waits until the cluster is whole, and is then refused by the
// server.
func TestStart_NewDataByTwoAtOnce(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	o := pgdev.Options{DataDir: filepath.Join(dir, "data")}
	servers, errs := make([]*pgdev.Server, 2), make([]error, 2)
	done := make(chan struct{})
	for i := range servers {
		go func() {
			servers[i], errs[i] = pgdev.Start(context.Background(), o)
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	for i, s := range servers {
		if s != nil {
			defer s.Stop()
			require.ErrorContains(t, errs[1-i], "postmaster.pid")
			require.Equal(t, o.DataDir, ask(t, s.DSN, "SHOW data_directory"))
		}
	}
	require.NotEqual(t, servers[0] == nil, servers[1] == nil, "one server: %v", errs)
	require.Len(t, list(t, dir), 1, "nothing lies beside the data")
}

func TestStart_DataWhereTheUserMayNotGo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(closedDir(t), "data")
	_, err := pgdev.Start(t.Context(), pgdev.Options{DataDir: dir})
	require.Error(t, err)
	require.Regexp(t, "may not enter .*closed: keep the data elsewhere|permission denied", err.Error())
}

func TestStart_TemporaryDirectoryWhereTheUserMayNotGo(t *testing.T) {
	t.Parallel()
	out, err := helperCommand("once", closedDir(t)).CombinedOutput()
	require.Error(t, err)
	require.Regexp(t, "may not enter the temporary directory .*: set TMPDIR|permission denied", string(out))
}

func TestStart_DataOfSomebodyElse(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("only copy"), 0o600))
	_, err := pgdev.Start(t.Context(), pgdev.Options{DataDir: dir})
	require.ErrorContains(t, err, "neither empty nor a PostgreSQL cluster")
	require.FileExists(t, filepath.Join(dir, "thesis.txt"))
}

// After SIGKILL of the process that started it the server ends by itself, and what it
// leaves is swept away by the next start, but not before.
func TestStart_ParentKilled(t *testing.T) {
	t.Parallel()
	tmp := openDir(t)
	c, dsn := startHelper(t, tmp)
	data := ask(t, dsn, "SHOW data_directory")
	once := func() {
		out, err := helperCommand("once", tmp).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	once()
	require.DirExists(t, data, "who lives is left alone")

	require.NoError(t, syscall.Kill(-c.Process.Pid, syscall.SIGKILL))
	pgtest.Eventually(t, within, "the server has ended", func() bool {
		return !exists(filepath.Join(data, "postmaster.pid")) // removed at the very end
	})
	require.True(t, gone(dsn))
	require.DirExists(t, data, "nobody was left to remove it")
	pgtest.Eventually(t, within, "a later start sweeps", func() bool {
		once()
		return !exists(data)
	})
	require.Empty(t, list(t, tmp))
}

func TestStart_ServerKilled(t *testing.T) {
	t.Parallel()
	o := pgdev.Options{DataDir: filepath.Join(openDir(t), "data"), Durable: true}
	first := start(t, o)
	require.Equal(t, "on", ask(t, first.DSN, "SHOW fsync"))
	do(t, first.DSN, "CREATE TABLE kept AS SELECT 42 AS answer")
	pidFile, err := os.ReadFile(filepath.Join(o.DataDir, "postmaster.pid"))
	require.NoError(t, err)
	line, _, _ := strings.Cut(string(pidFile), "\n")
	pid, err := strconv.Atoi(line)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	first.Stop()
	require.True(t, gone(first.DSN))

	// The killed server's children notice its end in their own time, and until then the
	// server refuses to start a second one on the same data.
	pgtest.Eventually(t, within, "the data can be used again", func() bool {
		second, err := pgdev.Start(t.Context(), o)
		if err != nil {
			require.ErrorContains(t, err, "shared memory block")
			return false
		}
		defer second.Stop()
		require.Equal(t, "42", ask(t, second.DSN, "SELECT answer FROM kept"))
		return true
	})
}
