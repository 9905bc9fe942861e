//go:build unix

package pgdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// serverUser returns whom the server runs as: PostgreSQL refuses to run as root, so root
// runs it as postgres or nobody, and everybody else (nil) as himself.
func serverUser() (name string, c *syscall.Credential, err error) {
	if os.Geteuid() != 0 {
		return "this user", nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return "", nil, err
		}
		return "the server's user " + name, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return "", nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// give makes the server's user the owner of a path.
func (s *Server) give(path string) error {
	if s.owner == nil {
		return nil
	}
	return os.Chown(path, int(s.owner.Uid), int(s.owner.Gid))
}

// mayEnter asks the system itself whether the server's user may enter a directory: every
// directory above it counts, too.
func (s *Server) mayEnter(ctx context.Context, dir string) error {
	err := s.command(ctx, "test", "-x", dir).Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("%s may not enter %s: keep the data elsewhere", s.user, dir)
	}
}

// command makes a command that runs as the server's user, writes to the log, and is
// killed with all its children when ctx ends.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = s.tmp // that user may not be allowed into our working directory
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+s.tmp)
	c.Stdout, c.Stderr = s.log, s.log
	// A process group of its own: Ctrl-C is for us, and we stop the server last.
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	return c
}

// guardPatience is how long a fast shutdown may take before guard asks for an immediate one.
const guardPatience = 10 * time.Second

// guard runs the server and asks it for a fast shutdown when its own standard input
// ends, so that no server outlives us, even after SIGKILL. (Linux's Pdeathsig would not
// do: it fires when the thread that started the child ends.) It asks every second, since
// a shell starts its children deaf to SIGINT and one in its first milliseconds has not
// changed that yet. The last line ends what watches, and is not to hear it itself.
const guard = `exec 3<&0
"$@" 3<&- </dev/null & server=$!
(read _; for i in 1 2 3 4 5 6 7 8 9 10; do kill -INT $server; sleep 1; done; kill -QUIT $server) <&3 >/dev/null 2>&1 &
wait $server; rc=$?
trap '' TERM; kill 0; exit $rc`

// launch starts the server on o.Port.
func (s *Server) launch(o Options) error {
	// TCP only (-k ''): a socket's path is limited to 107 bytes, and Debian's directory
	// for sockets is not open to everybody.
	args := []string{
		"-D", o.DataDir, "-h", "127.0.0.1", "-p", strconv.Itoa(o.Port), "-k", "",
		"-c", "cluster_name=" + s.name(),
	}
	if !o.Durable {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
	}
	for _, c := range o.Conf {
		args = append(args, "-c", c)
	}
	return s.guarded(filepath.Join(o.BinDir, "postgres"), args...)
}

// guarded starts a program that lives until Stop or our end.
func (s *Server) guarded(program string, args ...string) error {
	c := s.command(context.Background(), "/bin/sh", append([]string{"-c", guard, "sh", program}, args...)...)
	life, err := c.StdinPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	s.life, s.pid, s.ended = life, c.Process.Pid, ended
	go func() {
		defer close(ended)
		_ = c.Wait() // why it ended stands in the log
	}()
	return nil
}
