//go:build linux || darwin

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// lateness is how long after the grace the supervisor may still be there.
const lateness = 2 * time.Second

// Run runs a command until it and everything that it started has gone. An exit code is
// no error. When ctx ends first, the error is its cause; it returns soon after c.Grace.
func Run(ctx context.Context, c Command) (Exit, error) {
	if ctx.Err() != nil {
		return Exit{}, context.Cause(ctx)
	}
	s, err := startSupervisor(c)
	if err != nil {
		return Exit{}, fmt.Errorf("start a supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = s.control.Close()
		select {
		case <-s.gone:
		case <-time.After(c.Grace + lateness):
			_ = s.cmd.Process.Kill() // it cannot be waited for any longer
		}
	})
	defer stop()
	r := s.wait()
	switch {
	case ctx.Err() != nil && (r.Told || r.Problem != ""):
		return Exit{}, context.Cause(ctx)
	case r.Problem != "":
		return Exit{}, errors.New(r.Problem)
	}
	return Exit{Code: r.Code, Signal: syscall.Signal(r.Signal)}, nil
}

// supervisor is one that runs, as its starter sees it.
type supervisor struct {
	cmd     *exec.Cmd
	control *os.File
	reports *os.File
	gone    chan struct{}
}

// The supervisor's files, beside the three that everybody has.
const (
	controlFD = 3
	reportFD  = 4
)

func startSupervisor(c Command) (*supervisor, error) {
	theirControl, control, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	reports, theirReports, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirControl.Close(), control.Close())
	}
	cmd := exec.Command(self)
	cmd.Args = []string{supervisorName}
	cmd.Env = []string{} // nothing of ours
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	if c.Stdin != "" {
		cmd.Stdin = strings.NewReader(c.Stdin)
	}
	cmd.ExtraFiles = []*os.File{theirControl, theirReports}
	// Of its own group: neither Ctrl-C nor a signal to our group is for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = lateness // for what has escaped and holds its output open
	err = cmd.Start()
	err = errors.Join(err, theirControl.Close(), theirReports.Close())
	if err != nil {
		return nil, errors.Join(err, control.Close(), reports.Close())
	}
	s := &supervisor{cmd: cmd, control: control, reports: reports, gone: make(chan struct{})}
	// Beside reading: the command may be large, and the supervisor may be gone.
	go func() { _ = json.NewEncoder(control).Encode(newOrder(c)) }()
	return s, nil
}

// wait returns how it went, when the supervisor is gone.
func (s *supervisor) wait() report {
	var last report
	for in := json.NewDecoder(s.reports); in.Decode(&last) == nil; {
	}
	if !last.Ended && last.Started > 0 {
		// The supervisor was killed, and the command with it; the rest of its group was not.
		_ = syscall.Kill(-last.Started, syscall.SIGKILL)
	}
	err := s.cmd.Wait()
	close(s.gone)
	_ = s.control.Close()
	_ = s.reports.Close()
	if !last.Ended {
		last.Problem = fmt.Sprintf("its supervisor ended before it (%v), and it was killed", err)
	}
	return last
}

// order is a command as the supervisor is told of it.
type order struct {
	Path    string
	Args    []string
	Env     []string
	Dir     string
	Scratch string
	Limits  Limits
	Grace   time.Duration
}

func newOrder(c Command) order {
	return order{c.Path, c.Args, c.Env, c.Dir, c.Scratch, c.Limits, c.Grace}
}

// report is what the supervisor has to say: first that the command was started, then how
// it ended. Fields that a later one does not have stay.
type report struct {
	Started int    `json:",omitempty"` // the command's process
	Ended   bool   `json:",omitempty"`
	Told    bool   `json:",omitempty"` // it was told to end before the command had ended
	Code    int    `json:",omitempty"`
	Signal  int    `json:",omitempty"`
	Problem string `json:",omitempty"` // why there is neither
}
