//go:build unix

package pgdev

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/lib/pq"
)

// freePort returns a port that is free at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// name tells our server from any other that answers on the same port.
func (s *Server) name() string { return filepath.Base(s.tmp) }

// errEnded is the error of a server that ended before it answered.
var errEnded = errors.New("the server ended")

// await waits until our server answers, and is not satisfied with anybody else's.
func (s *Server) await(ctx context.Context, wait time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("no answer within %s", wait))
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-s.ended:
			end(errEnded)
		case <-ctx.Done():
		}
	}()
	connector, err := pq.NewConnector(s.DSN)
	if err != nil {
		return err
	}
	connector.Dialer(tiedDialer{until: ctx})
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var name string
		if err = db.QueryRowContext(ctx, "SHOW cluster_name").Scan(&name); err == nil {
			if name == s.name() {
				return nil
			}
			err = fmt.Errorf("another server, %q, is on port %d", name, s.Port)
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); errors.Is(cause, errEnded) {
				return cause
			}
			return fmt.Errorf("wait for the server: %w (%w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// tiedDialer closes its connections when a context ends. What has our port may accept
// connections and never say a word, and lib/pq does not look at a context while it waits
// for a server's first one.
type tiedDialer struct{ until context.Context }

// DialContext connects.
func (d tiedDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		context.AfterFunc(d.until, func() { _ = c.Close() })
	}
	return c, err
}

// Dial connects; lib/pq wants it to be there.
func (d tiedDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(d.until, network, address)
}

// DialTimeout connects; lib/pq wants it to be there.
func (d tiedDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.until, timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}
