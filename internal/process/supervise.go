//go:build linux || darwin

package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// What this binary is started as, by its name.
const (
	supervisorName = "flower: supervisor"
	startName      = "flower: start"
)

// Supervise makes a supervisor of this process if Run has started it, and then never
// returns; otherwise it does nothing. A program that calls Run calls it first of all.
func Supervise() {
	switch {
	case len(os.Args) == 1 && os.Args[0] == supervisorName:
		syscall.Exit(supervise()) // not os.Exit: what others want done at the end is not to be done here
	case len(os.Args) > 3 && os.Args[0] == startName:
		become(os.Args[1], os.Args[2], os.Args[3:])
	}
}

// family is a command with what it has started.
type family struct {
	order   order
	command int // the command's process, and its group
	reports *json.Encoder
	told    <-chan struct{} // closed when all are to end
	deaths  <-chan death    // closed when nobody is left
}

type death struct {
	pid    int
	status syscall.WaitStatus
}

func supervise() int {
	// The command is killed when the thread that has started it ends: this one never does.
	runtime.LockOSThread()
	// Signals are for others. Ignored ones would be ignored by the command, too; caught
	// ones are not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	Conceal()
	syscall.CloseOnExec(controlFD)
	syscall.CloseOnExec(reportFD)
	control, reports := os.NewFile(controlFD, "control"), os.NewFile(reportFD, "reports")

	f := &family{reports: json.NewEncoder(reports)}
	if err := json.NewDecoder(control).Decode(&f.order); err != nil {
		return 1 // whoever wanted it has gone
	}
	told := make(chan struct{})
	f.told = told
	go func() {
		_, _ = io.Copy(io.Discard, control)
		close(told)
	}()
	_ = f.reports.Encode(f.run())
	return 0
}

// run runs the command in a directory of its own.
func (f *family) run() report {
	fail := func(doing string, err error) report {
		return report{Ended: true, Problem: fmt.Sprintf("%s: %v", doing, err)}
	}
	if err := adoptOrphans(); err != nil {
		return fail("become the parent of its orphans", err)
	}
	scratch, err := os.MkdirTemp(f.order.Scratch, "flower-command-")
	if err != nil {
		return fail("make a directory for it", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	f.order.Env = withDefault(f.order.Env, "HOME", scratch)
	f.order.Env = withDefault(f.order.Env, "TMPDIR", scratch)
	if f.order.Dir == "" {
		f.order.Dir = scratch
	}
	if err := f.start(); err != nil {
		return fail("cannot start "+f.order.Path, err)
	}
	return f.wait()
}

// withDefault adds a variable that env does not set.
func withDefault(env []string, name, value string) []string {
	if slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
		return env
	}
	return append(env, name+"="+value)
}

// wait waits until the command, and whoever else is left, has gone.
func (f *family) wait() report {
	const again = 5 * time.Millisecond // who is started meanwhile is not among those killed
	result := report{Ended: true}
	commandGone := false
	told := f.told
	var grace, kill <-chan time.Time
	for {
		select {
		case d, some := <-f.deaths:
			if !some {
				return result
			}
			if d.pid == f.command {
				commandGone = true
				result.Code, result.Signal = exit(d.status)
				if told != nil { // what it leaves behind has no purpose
					kill = time.Tick(again)
				}
			}
		case <-told:
			told, grace = nil, time.After(f.order.Grace)
			result.Told = !commandGone
			f.signal(syscall.SIGTERM)
		case <-grace:
			kill = time.Tick(again)
		case <-kill:
			if !f.signal(syscall.SIGKILL) {
				return result // they are another user's, and may go on for ever
			}
		}
	}
}

func exit(s syscall.WaitStatus) (code, sig int) {
	if s.Signaled() {
		return 0, int(s.Signal())
	}
	return s.ExitStatus(), 0
}

// signal sends a signal to all that are left. It reports false if none of them is to be had:
// all are another user's.
func (f *family) signal(s syscall.Signal) bool {
	all, err := descendants()
	if err != nil {
		_ = syscall.Kill(-f.command, s)
		return true
	}
	refused := 0
	for _, pid := range all {
		if errors.Is(syscall.Kill(pid, s), syscall.EPERM) { // otherwise it may have gone just now
			refused++
		}
	}
	return refused == 0 || refused < len(all)
}

// reap waits for children, ours or adopted, until there are none.
func reap() <-chan death {
	deaths := make(chan death)
	go func() {
		defer close(deaths)
		for {
			var d death
			var err error
			switch d.pid, err = syscall.Wait4(-1, &d.status, 0, nil); err {
			case nil:
				deaths <- d
			case syscall.EINTR:
			default: // ECHILD
				return
			}
		}
	}()
	return deaths
}
