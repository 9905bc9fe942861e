package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// patience is how long a program may take to stop: more than the 25 s in which watcher
// lets its tasks end.
const patience = 40 * time.Second

// A crew is the programs that we started, in that order.
type crew struct {
	environ []string
	ended   context.CancelCauseFunc // called when one ends without being told to
	mu      sync.Mutex              // of out
	out     io.Writer
	members []*member
}

type member struct {
	name string
	cmd  *exec.Cmd
	told chan struct{} // closed when we have told it to stop
	gone chan struct{} // closed when it has ended
}

func newCrew(out io.Writer, environ []string, ended context.CancelCauseFunc) *crew {
	return &crew{environ: environ, ended: ended, out: out}
}

// start starts the program of that name which lies beside our own. From the main
// goroutine only, see main.go.
func (c *crew) start(name string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// No context: a program is asked to stop, and in its turn.
	cmd := exec.CommandContext(context.Background(), filepath.Join(filepath.Dir(self), name), args...)
	cmd.Env = c.environ
	lines := &lines{mu: &c.mu, out: c.out, name: name}
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s (make build builds it): %w", name, err)
	}
	m := &member{name: name, cmd: cmd, told: make(chan struct{}), gone: make(chan struct{})}
	c.members = append(c.members, m)
	go func() {
		defer close(m.gone)
		_ = cmd.Wait() // how it ended is in ProcessState
		select {
		case <-m.told:
		default:
			c.ended(fmt.Errorf("%s ended by itself (%s): its last lines say why", name, cmd.ProcessState))
		}
	}()
	return nil
}

// stop stops the programs, the last one first, each when its successor is gone.
func (c *crew) stop() {
	for _, m := range slices.Backward(c.members) {
		close(m.told)
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-m.gone:
		case <-time.After(patience):
			fmt.Fprintf(c.out, "%s does not stop within %s: killed\n", m.name, patience)
			_ = m.cmd.Process.Kill()
			<-m.gone
		}
	}
}

// lines writes what a program wrote with its name before each line.
type lines struct {
	mu   *sync.Mutex // of out: others write there too
	out  io.Writer
	name string
	part []byte // of a line whose end has not come
}

func (l *lines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	end := bytes.LastIndexByte(l.part, '\n') + 1
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.part[:end]) {
		if _, err := fmt.Fprintf(l.out, "%-8s | %s", l.name, line); err != nil {
			return 0, err
		}
	}
	l.part = append(l.part[:0], l.part[end:]...)
	return len(p), nil
}
