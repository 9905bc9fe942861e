package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// envHelper makes the test binary the program itself: signals are for whole processes.
const envHelper = "WITH_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(envHelper) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is "with ARGS…", with a server of its own unless env names one.
func program(args, env []string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	inherited := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, pgtest.EnvDSN+"=") })
	c.Env = append(append(inherited, envHelper+"=1", "GORACE=atexit_sleep_ms=0"), env...)
	return c
}

func TestRun_StartsAServer(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	c := program([]string{"sh", "-c", `echo "$FLOWER_TEST_DSN"; cat; exit 7`}, nil)
	in, out := bufio.NewReader(strings.NewReader("from standard input")), &stdout
	c.Stdin, c.Stdout = in, out
	require.Error(t, c.Run())
	require.Equal(t, 7, c.ProcessState.ExitCode(), "the command's exit code")
	dsn, rest, _ := strings.Cut(stdout.String(), "\n")
	require.Contains(t, dsn, "host=127.0.0.1")
	require.Equal(t, "from standard input", rest)
	require.True(t, gone(t, dsn), "the server ends with the command")
}

func TestRun_UsesAGivenServer(t *testing.T) {
	t.Parallel()
	out, err := program([]string{"sh", "-c", `echo "$FLOWER_TEST_DSN"`}, []string{"FLOWER_TEST_DSN=mine", "PG_BINDIR=/nonexistent"}).Output()
	require.NoError(t, err)
	require.Equal(t, "mine\n", string(out))
}

func TestRun_ExitCodes(t *testing.T) {
	t.Parallel()
	given := []string{"FLOWER_TEST_DSN=mine"}
	for name, tc := range map[string]struct {
		args, env []string
		code      int
		says      string
	}{
		"no command":         {nil, nil, exitUsage, "usage:"},
		"success":            {[]string{"true"}, given, 0, ""},
		"unknown command":    {[]string{"no-such-command"}, []string{"PG_BINDIR=/nonexistent"}, exitNotStarted, "no-such-command"},
		"no server":          {[]string{"true"}, []string{"PG_BINDIR=/nonexistent"}, exitNoServer, "PG_BINDIR=/nonexistent"},
		"killed by a signal": {[]string{"sh", "-c", "kill -KILL $$"}, given, exitSignal + 9, ""},
	} {
		c := program(tc.args, tc.env)
		out, _ := c.CombinedOutput()
		require.Equal(t, tc.code, c.ProcessState.ExitCode(), name)
		require.Contains(t, string(out), tc.says, name)
	}
}

func TestRun_HandsSignalsOn(t *testing.T) {
	t.Parallel()
	c := program([]string{"sh", "-c", `trap 'exit 9' TERM; echo "$FLOWER_TEST_DSN"; while :; do sleep 0.02; done`}, nil)
	stdout, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	dsn, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.False(t, gone(t, dsn))

	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.Error(t, c.Wait())
	require.Equal(t, 9, c.ProcessState.ExitCode())
	require.True(t, gone(t, dsn))
}

func TestRun_ASignalCancelsTheStart(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	started := filepath.Join(bin, "started")
	require.NoError(t, os.Chmod(bin, 0o777))
	require.NoError(t, os.Chmod(filepath.Dir(bin), 0o755))
	for _, name := range []string{"initdb", "postgres"} {
		// In another process: what is open for writing here, a child that is forked at the
		// same moment has open, too, and nobody can run it.
		c := exec.Command("sh", "-c", `cat >"$1" && chmod 755 "$1"`, "sh", filepath.Join(bin, name))
		c.Stdin = strings.NewReader("#!/bin/sh\ntouch " + started + "; exec sleep 600\n")
		require.NoError(t, c.Run())
	}
	c := program([]string{"true"}, []string{"PG_BINDIR=" + bin})
	var stderr bytes.Buffer
	c.Stderr = &stderr
	require.NoError(t, c.Start())
	pgtest.Eventually(t, 30*time.Second, "initdb has started", func() bool {
		_, err := os.Stat(started)
		return err == nil
	})
	require.NoError(t, c.Process.Signal(syscall.SIGINT))
	require.Error(t, c.Wait())
	require.Equal(t, exitNoServer, c.ProcessState.ExitCode())
	require.Contains(t, stderr.String(), "ended by a signal: interrupt")
}

// gone reports whether nobody answers.
func gone(t *testing.T, dsn string) bool {
	t.Helper()
	db, err := sql.Open("postgres", strings.TrimSpace(dsn))
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	return db.PingContext(t.Context()) != nil
}
