//go:build unix

package pgdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// initCluster sees to it that o.DataDir has a cluster which the server's user may enter.
// A new one is made beside its place and moved there when it is whole, so that a start
// that was cancelled or killed half-way leaves nothing that looks like a cluster.
func (s *Server) initCluster(ctx context.Context, o Options) error {
	parent := filepath.Dir(o.DataDir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if err := s.mayEnter(ctx, parent); err != nil {
		return err
	}
	lock, err := lockDir(ctx, parent)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	exists, err := hasCluster(o.DataDir)
	if err != nil {
		return err
	}
	if exists {
		return s.mayEnter(ctx, o.DataDir)
	}
	return s.makeCluster(ctx, o, lock)
}

// makeCluster runs initdb, or copies the one to follow. The command holds on to the lock:
// should we be killed, the next start waits until it has ended.
func (s *Server) makeCluster(ctx context.Context, o Options, lock *os.File) error {
	fresh := o.DataDir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o700), s.give(fresh)); err != nil {
		return err
	}
	program, args := "initdb", []string{"-D", fresh, "-U", "flower", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"}
	if o.Standby != nil {
		program, args = "pg_basebackup", []string{"-D", fresh, "-d", o.Standby.DSN, "--write-recovery-conf", "--checkpoint=fast"}
	}
	if !o.Durable {
		args = append(args, "--no-sync")
	}
	c := s.command(ctx, filepath.Join(o.BinDir, program), args...)
	c.ExtraFiles = []*os.File{lock}
	err := c.Run()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = os.Rename(fresh, o.DataDir)
	}
	if err != nil {
		_ = os.RemoveAll(fresh)
		if ctx.Err() != nil {
			err = context.Cause(ctx) // rather than "signal: killed"
		}
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// hasCluster reports whether there is a cluster in dir; anything else there but an empty
// directory is an error, since it would be in the way.
func hasCluster(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name() == "PG_VERSION" {
			return true, nil
		}
	}
	return false, fmt.Errorf("%s is neither empty nor a PostgreSQL cluster: keep the data elsewhere", dir)
}

// lockDir lets one start at a time look whether there is a cluster, and make it. The lock
// is on the directory itself, so that no file is left behind.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for another start in %s: %w", dir, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
