package cli

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain_ASecondSignalEndsTheProcessAtOnce(t *testing.T) {
	t.Parallel()
	program, lines, _ := startStubborn(t, asItIs)
	require.NoError(t, program.Process.Signal(syscall.SIGTERM))
	requireLine(t, lines, "stopping: terminated signal received\n")

	// One is enough, as soon as the program says so.
	requireSignalled(t, program, syscall.SIGTERM)
}

// A terminal that closes has the program stop as it does at SIGTERM, however often it says so.
func TestMain_AHangupStopsIt(t *testing.T) {
	t.Parallel()
	program, lines, _ := startStubborn(t, asItIs)
	require.NoError(t, program.Process.Signal(syscall.SIGHUP))
	requireLine(t, lines, "stopping: hangup signal received\n")
	require.NoError(t, program.Process.Signal(syscall.SIGHUP))
	requireSignalled(t, program, syscall.SIGTERM)
}

// What nohup, or a shell for what is in the background, has ignored stays so.
func TestMain_WhatIsIgnoredStaysIgnored(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"reloads"}} {
		program, lines, _ := startStubborn(t, func(c *exec.Cmd) {
			c.Args = append([]string{"sh", "-c", `trap '' HUP INT; exec "$0" "$@"`, c.Path}, args...)
			c.Path = "/bin/sh"
		})
		require.NoError(t, program.Process.Signal(syscall.SIGHUP))
		require.NoError(t, program.Process.Signal(syscall.SIGINT))
		require.NoError(t, program.Process.Signal(syscall.SIGTERM))
		requireLine(t, lines, "stopping: terminated signal received\n")
	}
}

// A daemon that reads its files again does so as often as it is told to.
func TestHangups(t *testing.T) {
	t.Parallel()
	program, lines, _ := startStubborn(t, reloads)
	for range 3 {
		require.NoError(t, program.Process.Signal(syscall.SIGHUP))
		requireLine(t, lines, "reloading: hangup\n")
	}
	require.NoError(t, program.Process.Signal(syscall.SIGTERM))
	requireLine(t, lines, "stopping: terminated signal received\n")
}

// A program that was told to stop while it waited has not failed.
func TestExec_StoppedByASignal(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(signalError{syscall.SIGTERM})
	env, _, stderr := newEnv(nil)
	require.Equal(t, ExitStopped, Exec(ctx, env, func(ctx context.Context, _ *Env) error {
		return fmt.Errorf("join: %w", context.Cause(ctx))
	}))
	require.Empty(t, stderr.String())
}

func asItIs(*exec.Cmd) {}

func reloads(c *exec.Cmd) { c.Args = append(c.Args, "reloads") }

// requireSignalled ends the program by a signal, and sees that nothing else has ended it.
func requireSignalled(t *testing.T, program *exec.Cmd, s syscall.Signal) {
	t.Helper()
	require.NoError(t, program.Process.Signal(s))
	require.Error(t, program.Wait())
	status, ok := program.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	require.Equal(t, s, status.Signal())
}
