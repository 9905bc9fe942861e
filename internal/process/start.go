//go:build linux || darwin

package process

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// problemFD is where a process that is to become the command says why it cannot. It is
// closed by becoming it.
const problemFD = 3

// start starts the command by way of this binary: limits must be set by the process that
// they are for, and a supervisor with little memory would not work.
func (f *family) start() error {
	if _, err := os.Stat(f.order.Dir); err != nil {
		return err
	}
	limits, err := json.Marshal(f.order.Limits)
	if err != nil {
		return err
	}
	problems, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = problems.Close() }()
	f.command, err = syscall.ForkExec(self, append([]string{startName, string(limits), f.order.Path}, f.order.Args...), &syscall.ProcAttr{
		Dir:   f.order.Dir,
		Env:   f.order.Env,
		Files: []uintptr{0, 1, 2, theirs.Fd()},
		Sys:   childAttributes(),
	})
	err = errors.Join(err, theirs.Close())
	if err != nil {
		return err
	}
	// At once: should we be killed, somebody must know its group.
	_ = f.reports.Encode(report{Started: f.command})
	f.deaths = reap()
	if problem, _ := io.ReadAll(problems); len(problem) > 0 {
		for range f.deaths { // its own
		}
		return errors.New(string(problem))
	}
	return nil
}

// become turns this process into the command.
func become(limits, path string, args []string) {
	syscall.CloseOnExec(problemFD)
	closeOnExec()
	var l Limits
	err := json.Unmarshal([]byte(limits), &l)
	if err == nil {
		err = l.set()
	}
	if err == nil {
		err = ofScript(syscall.Exec(path, args, os.Environ()), path)
	}
	_, _ = os.NewFile(problemFD, "problem").WriteString(err.Error())
	os.Exit(127)
}

// ofScript says what the kernel means that complains of a file which everybody sees is there.
func ofScript(err error, path string) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return errors.New(err.Error() + ": a script begins with a line such as #!/bin/sh")
	case errors.Is(err, syscall.ENOENT) && unix.Access(path, unix.F_OK) == nil:
		return errors.New("what is to run it is not there: look at its first line, #!…")
	}
	return err
}

// CanWrite reports whether this process, and so a command, may change a directory.
func CanWrite(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// closeOnExec keeps the command from what whoever started the watcher has left open in it.
func closeOnExec() {
	open, _ := os.ReadDir("/dev/fd")
	for _, file := range open {
		if fd, err := strconv.Atoi(file.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// set sets the limits of this process, and of all that come from it. None can raise them.
func (l Limits) set() error {
	err := lower(unix.RLIMIT_CORE, 0, 0) // memory may hold secrets, and files fill disks
	if n := uint64(l.Files); err == nil && n > 0 {
		err = lower(unix.RLIMIT_NOFILE, n, n)
	}
	if n := uint64(l.CPU / time.Second); err == nil && n > 0 {
		err = lower(unix.RLIMIT_CPU, n, n+1) // SIGXCPU, and SIGKILL for who does not mind
	}
	if n := uint64(l.Memory); err == nil && n > 0 {
		err = lower(unix.RLIMIT_DATA, n, n) // the last: from here on there may be no more
	}
	return err
}

// lower sets a limit, unless a lower one is there already.
func lower(resource int, soft, hard uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	hard = min(hard, now.Max)
	return os.NewSyscallError("setrlimit", unix.Setrlimit(resource, &unix.Rlimit{Cur: min(soft, hard), Max: hard}))
}
