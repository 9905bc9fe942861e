//go:build unix

// Package pgdev runs a private PostgreSQL server from binaries that are already
// installed: for tests, and for trying Flower out without Docker. The server trusts
// every connection from the loopback address, so it is for development only.
//
// What it promises: no server outlives the process that started it, not even after
// SIGKILL (see guard in process.go); a start that is cancelled or killed half-way leaves
// nothing that looks like a cluster (cluster.go); what a killed process left in the
// temporary directory is swept away by the next start (tmp.go).
package pgdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Options says how to run the server; the zero value is for tests.
type Options struct {
	BinDir  string        // where initdb and postgres are; default: of the version of the data, else FindBinDir()
	DataDir string        // kept between runs; default: a temporary one, removed by Stop
	Standby *Server       // a new cluster is a copy of this one's, and follows it
	Port    int           // default: a free one
	Durable bool          // false: nothing is flushed to disk, for tests
	Conf    []string      // further settings, "name=value"
	Wait    time.Duration // for the server to answer; default 30 s
	TmpDir  string        // where what is temporary is kept; default: os.TempDir()
}

// Server is a running server, made by Start.
type Server struct {
	// DSN is in key=value form and names the database "postgres"; append
	// " dbname=…" for another one (the last value counts).
	DSN string
	// Port is where the server listens, on 127.0.0.1 alone.
	Port int

	tmp   string              // the log and, unless it is kept, the data
	log   *os.File            // locked as long as we or the server live, see sweep
	user  string              // what messages call the user that the server runs as
	owner *syscall.Credential // that user; nil: us
	life  io.Closer           // the server stops when this pipe closes: by Stop or by our end
	pid   int                 // of the process group; 0: not launched
	ended chan struct{}       // closed when the server has ended
}

// Start makes a cluster where there is none yet, starts it, and waits until it answers.
// An end of ctx ends the start, and nothing stays behind; it does not end a server that
// has been returned. An error carries the end of the server's log, since what is wrong
// stands there.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{}
	if err := s.start(ctx, o); err != nil {
		if text := s.logTail(); text != "" {
			err = fmt.Errorf("%w; the end of its log:\n%s", err, text)
		}
		s.Stop()
		return nil, fmt.Errorf("private PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, o Options) (err error) {
	if o.BinDir == "" {
		if o.BinDir, err = findBinDirFor(o.DataDir); err != nil {
			return err
		}
	}
	if s.user, s.owner, err = serverUser(); err != nil {
		return err
	}
	o.TmpDir = cmp.Or(o.TmpDir, os.TempDir())
	sweep(o.TmpDir)
	if err = s.makeTmp(ctx, o.TmpDir); err != nil {
		return err
	}
	if o.DataDir, err = filepath.Abs(cmp.Or(o.DataDir, filepath.Join(s.tmp, "data"))); err != nil {
		return err
	}
	if err = s.initCluster(ctx, o); err != nil {
		return err
	}
	return s.run(ctx, o, freePort)
}

// maxPorts bounds how often a free port may be lost to somebody else.
const maxPorts = 5

// run launches the server and waits until it answers. A port that pick chose can be taken
// by somebody else before the server gets it, if only as the local end of a connection:
// then another one is tried. A port that the caller chose is not negotiable.
func (s *Server) run(ctx context.Context, o Options, pick func() (int, error)) (err error) {
	wanted := o.Port
	for try := 1; ; try++ {
		if wanted == 0 {
			if o.Port, err = pick(); err != nil {
				return err
			}
		}
		if err = s.launch(o); err != nil {
			return err
		}
		s.Port = o.Port
		s.DSN = fmt.Sprintf("host=127.0.0.1 port=%d user=flower dbname=postgres sslmode=disable connect_timeout=5", s.Port)
		err = s.await(ctx, cmp.Or(o.Wait, 30*time.Second))
		if wanted != 0 || try == maxPorts || !errors.Is(err, errEnded) || !s.lostPort() {
			return err
		}
	}
}

// URL returns the address of one of the server's databases in the form
// postgres://flower@127.0.0.1:PORT/dbname?sslmode=disable.
func (s *Server) URL(dbname string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("flower"), Host: fmt.Sprintf("127.0.0.1:%d", s.Port),
		Path: "/" + dbname, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Stop stops the server, waits until it has ended, and removes what is temporary. It may
// be called twice.
func (s *Server) Stop() {
	if s.pid != 0 {
		_ = s.life.Close() // the guard does the rest
		select {
		case <-s.ended:
		case <-time.After(guardPatience + 10*time.Second):
			// Not even an immediate shutdown ended it: it is stopped or stuck.
			_ = syscall.Kill(-s.pid, syscall.SIGKILL)
			<-s.ended
		}
	}
	s.removeTmp()
}
