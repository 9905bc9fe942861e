//go:build unix

package pgdev

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const tmpPattern = "flower-pg-*"

// makeTmp makes the server's temporary directory in dir. Its log appears only once it is locked: a log
// without a lock is what sweep takes for left behind.
func (s *Server) makeTmp(ctx context.Context, dir string) (err error) {
	if s.tmp, err = os.MkdirTemp(dir, tmpPattern); err != nil {
		return err
	}
	if err = s.give(s.tmp); err != nil {
		return err
	}
	path := filepath.Join(s.tmp, "log")
	if s.log, err = os.Create(path + ".new"); err != nil {
		return err
	}
	if err = syscall.Flock(int(s.log.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if err = os.Rename(path+".new", path); err != nil {
		return err
	}
	// Every command runs there: where that user may not go, none can start.
	if err = s.mayEnter(ctx, s.tmp); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s may not enter the temporary directory %s: set TMPDIR to another one", s.user, dir)
	}
	return err
}

// removeTmp removes the temporary directory, and only then gives its lock up: no other
// process is to sweep it meanwhile.
func (s *Server) removeTmp() {
	_ = os.RemoveAll(s.tmp)
	if s.log != nil {
		_ = s.log.Close()
	}
}

// sweep removes from dir what processes left there that were killed. The lock on a
// log is shared with the server, which writes to it: it is free when both have ended.
func sweep(dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, tmpPattern, "log"))
	for _, path := range logs {
		f, err := os.Open(path)
		if err != nil {
			continue // somebody else's
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		_ = f.Close()
	}
}

// logTail returns the last lines of the log, to explain a failed start.
func (s *Server) logTail() string {
	text, _ := os.ReadFile(filepath.Join(s.tmp, "log"))
	if n := len(text) - 2000; n > 0 {
		_, text, _ = bytes.Cut(text[n:], []byte("\n"))
	}
	return string(bytes.TrimSpace(text))
}

// lostPort reports whether a server of this run ended since its port was taken.
func (s *Server) lostPort() bool {
	text, _ := os.ReadFile(filepath.Join(s.tmp, "log"))
	return bytes.Contains(text, []byte("could not bind"))
}
