//go:build unix

package pgdev_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
)

// within is how long a test waits for what takes a moment: long enough for a loaded
// machine, and never reached on a good day.
const within = 30 * time.Second

// envHelper makes the test binary a process that uses pgdev and can be killed.
const envHelper = "PGDEV_TEST_HELPER"

// disk is for programs: a directory in memory may refuse to run them.
var disk string

func TestMain(m *testing.M) {
	if how := os.Getenv(envHelper); how != "" {
		os.Exit(helper(how))
	}
	disk = os.TempDir()
	if dir := pgdev.MemoryDir(); dir != "" { // a dozen clusters are made
		_ = os.Setenv("TMPDIR", dir)
	}
	os.Exit(m.Run())
}

// helper starts a server and says where it is: "stay" then waits to be killed, "once"
// stops it. "mute" is a server itself, but one that never answers.
func helper(how string) int {
	if how == "mute" {
		return mute(os.Args[1])
	}
	s, err := pgdev.Start(context.Background(), pgdev.Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(s.DSN)
	if how == "stay" {
		_, _ = io.Copy(io.Discard, os.Stdin) // the test holds the other end
	}
	s.Stop()
	return 0
}

// mute makes a file and waits for the signal of a fast shutdown.
func mute(started string) int {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT)
	if err := os.WriteFile(started, nil, 0o644); err != nil {
		fmt.Println(err)
		return 1
	}
	<-asked
	return 0
}

// copyTestBinary copies the running binary, which Go keeps where this user alone may go.
// Another process does it: while a file is open for writing in this one, a child that
// some other test forks at that moment has it open, too, and nobody can run it.
func copyTestBinary(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("cp", os.Args[0], path).CombinedOutput()
	require.NoError(t, err, string(out))
}

// script makes a shell script, in another process for the same reason.
func script(t *testing.T, path, text string) {
	t.Helper()
	c := exec.Command("sh", "-c", `cat >"$1" && chmod 755 "$1"`, "sh", path)
	c.Stdin = strings.NewReader("#!/bin/sh\n" + text + "\n")
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
}

// noWait spares the helper the second that the race detector waits at a process's end.
const noWait = "GORACE=atexit_sleep_ms=0"

// helperCommand is the helper with a temporary directory of its own, since it sweeps
// there.
func helperCommand(how, tmp string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), envHelper+"="+how, "TMPDIR="+tmp, noWait)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

// startHelper starts a helper that stays, and returns its server's DSN.
func startHelper(t *testing.T, tmp string) (*exec.Cmd, string) {
	t.Helper()
	c := helperCommand("stay", tmp)
	in, err := c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "host=127.0.0.1")
	return c, strings.TrimSpace(line)
}

// openDir makes a directory that everybody may enter, as t.TempDir is not: root's server
// runs as another user.
func openDir(t *testing.T) string {
	t.Helper()
	return openDirIn(t, os.TempDir())
}

func openDirIn(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "pgdev-test-*")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// closedDir makes a directory that the server's user may not enter.
func closedDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(openDir(t), "closed")
	mode := os.FileMode(0o700) // root's alone
	if os.Geteuid() != 0 {
		mode = 0o600
	}
	require.NoError(t, os.Mkdir(dir, mode))
	return dir
}

// start starts a server that is stopped when the test ends.
func start(t *testing.T, o pgdev.Options) *pgdev.Server {
	t.Helper()
	s, err := pgdev.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

// ask returns the one value that a query answers.
func ask(t *testing.T, dsn, query string) string {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	var answer string
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&answer))
	return answer
}

// do runs a statement.
func do(t *testing.T, dsn, statement string) {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
}

// gone reports whether nobody answers any more.
func gone(dsn string) bool {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return false
	}
	defer func() { _ = db.Close() }()
	return db.Ping() != nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// list returns what is in a directory, which need not exist.
func list(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return entries
}
