// With starts a PostgreSQL server for tests and runs a command that finds its address in
// FLOWER_TEST_DSN, so that many packages share one server:
//
//	go run ./internal/pgdev/with go test ./...
//
// It hands signals on to the command, ends with the command's exit code, and leaves no
// server behind. A FLOWER_TEST_DSN that is already there is used as it is.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Exit codes of our own, as shells and env(1) use them.
const (
	exitUsage      = 2
	exitNoServer   = 125
	exitNotStarted = 127
	exitSignal     = 128 // plus the signal's number
)

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		_, _ = fmt.Fprintln(stderr, "usage: with COMMAND [ARGUMENT …]")
		return exitUsage
	}
	// Before the server is started: it is to be stopped whatever comes. A terminal's
	// Ctrl-C reaches the command a second time through us; "go test" does not mind.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	c := exec.Command(args[0], args[1:]...)
	if c.Err != nil { // before a server is started for nothing
		_, _ = fmt.Fprintln(stderr, "with:", c.Err)
		return exitNotStarted
	}
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	c.Env = os.Environ()
	if os.Getenv(pgtest.EnvDSN) == "" {
		pg, err := start(signals)
		if err != nil {
			_, _ = fmt.Fprintln(stderr, "with:", err)
			return exitNoServer
		}
		defer pg.Stop()
		c.Env = append(c.Env, pgtest.EnvDSN+"="+pg.DSN)
	}
	if err := c.Start(); err != nil {
		_, _ = fmt.Fprintln(stderr, "with:", err)
		return exitNotStarted
	}
	return wait(c, signals)
}

// start starts the server; a signal cancels that.
func start(signals <-chan os.Signal) (*pgdev.Server, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var pg *pgdev.Server
	var err error
	started := make(chan struct{})
	go func() {
		defer close(started)
		pg, err = pgtest.StartServer(ctx)
	}()
	for {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("ended by a signal: %v", s))
		case <-started:
			if err == nil && ctx.Err() != nil { // it came too late to cancel anything
				pg.Stop()
				return nil, context.Cause(ctx)
			}
			return pg, err
		}
	}
}

// wait hands signals on to the command until it ends, and returns its exit code.
func wait(c *exec.Cmd, signals <-chan os.Signal) int {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // ProcessState says more
	}()
	for {
		select {
		case s := <-signals:
			_ = c.Process.Signal(s)
		case <-ended:
			if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				return exitSignal + int(ws.Signal())
			}
			return c.ProcessState.ExitCode()
		}
	}
}
