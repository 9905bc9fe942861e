package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// limits are how long things may take on a network that can fall silent. A call that
// meets a silent network ends after silence and probe together; one whose connection alone
// is dead, after its own limit and a probe at most, or when TCP finds that out (KeepAlive).
type limits struct {
	silence time.Duration // without a word, after which it is asked whether the server is there
	probe   time.Duration // for the answer to that

	// For an answer on this connection, however well the server is. Longer than
	// statement_timeout, so that its own error comes first.
	quick time.Duration
	slow  time.Duration // what reads whole tables, however large: see inLongTx
	// A heartbeat that fails must leave its watcher time for others, on a new connection,
	// before its lease ends.
	beat time.Duration
	logs time.Duration // the logs of tasks, which a watcher that stops waits for
}

var usualLimits = limits{
	silence: 3 * time.Second, probe: 3 * time.Second,
	quick: 12 * time.Second, slow: 11 * time.Minute, beat: 3 * time.Second, logs: 6 * time.Second,
}

// network makes the connections of a DB. A context does not free a read on a dead
// network, and TCP sees nothing as long as the peer's kernel answers: here every read and
// every write has a deadline. And when one connection turns out to be dead, or to lead to
// a server that is read-only, none that is as old is used again: each would cost its user
// the same time, and after a failover all of them lead to the wrong server.
type network struct {
	limits
	host      atomic.Int32 // the number of the one that was found last, of several
	makeshift atomic.Bool  // what was asked for is not there: to read, another server will do
	shut      atomic.Bool  // nobody connects but who prepares the database, see Config.AwaitSchema
	mu        sync.Mutex
	trusted   time.Time // connections made before are not; guarded by mu
	writable  time.Time // nor are those made before, but for reading; guarded by mu
}

// distrust has no connection used again that was made before a moment.
func (n *network) distrust(before time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if before.After(n.trusted) {
		n.trusted = before
	}
}

// anew is the least time between two occasions on which all connections are made anew
// since the server is read-only: making one is dear, and everybody tries again and again.
const anew = time.Second

// leadsAstray reports whether err says that the server is read-only, so that no
// connection is to be used again for writing: another host may be the primary by now. To
// read, the server will do until that one is found (see hosts).
func (n *network) leadsAstray(err error) bool {
	if !readOnly(err) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if now.Sub(n.writable) < anew {
		return false
	}
	n.writable = now
	return true
}

// trusts reports whether a connection that was made at a moment may be used.
func (n *network) trusts(made time.Time, reads bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !made.Before(n.trusted) && (reads || !made.Before(n.writable))
}

// dialer makes connections on which no answer may take longer than patience; 0 is for as
// long as the server answers others, which it is asked after each silence.
type dialer struct {
	*network
	silence, patience time.Duration
	reads             bool // what is read may come from a server that takes no writes
	makeshift         bool // such a server is asked for, as long as there is no other
	early             bool // it connects before the database is prepared
}

func (n *network) dialer(patience time.Duration) dialer {
	return dialer{network: n, silence: n.silence, patience: patience}
}

// early is dialer for connections by which the database is prepared.
func (n *network) early(patience time.Duration) dialer {
	return dialer{network: n, silence: n.silence, patience: patience, early: true}
}

// reader is dialer for connections that only read.
func (n *network) reader(patience time.Duration) dialer {
	return dialer{network: n, silence: n.silence, patience: patience, reads: true}
}

var netDialer = net.Dialer{
	Timeout: 3 * time.Second,
	KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
	},
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := netDialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c, dialer: d, made: time.Now()}, nil
}

// watchedConn is a connection with deadlines.
type watchedConn struct {
	net.Conn
	dialer
	made  time.Time
	until time.Time // lib/pq's own deadline, while it connects: see connect_timeout
}

// SetDeadline is what lib/pq bounds the making of a connection with.
func (c *watchedConn) SetDeadline(t time.Time) error {
	c.until = t
	return c.Conn.SetDeadline(t)
}

func (c *watchedConn) Read(p []byte) (int, error) {
	begun := time.Now()
	for {
		deadline := c.until
		if deadline.IsZero() {
			deadline = time.Now().Add(c.silence)
		}
		if err := c.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !c.until.IsZero() {
			return n, err
		}
		if c.patience > 0 && time.Since(begun) >= c.patience || !c.answers() {
			c.distrust(begun)
			return n, err
		}
	}
}

// errDistrusted comes with nothing sent, so that database/sql takes another connection.
var errDistrusted = fmt.Errorf("the connection is as old as one that was found dead: %w", net.ErrClosed)

func (c *watchedConn) Write(p []byte) (int, error) {
	if !c.trusts(c.made, c.reads) || c.makeshift && !c.network.makeshift.Load() {
		return 0, errDistrusted
	}
	deadline := c.until
	if deadline.IsZero() {
		deadline = time.Now().Add(c.quick)
	}
	if err := c.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// answers asks the server, on a connection of its own, whether it is there: by the
// question whether it speaks TLS, which it answers to everybody, before it looks at its
// limits, and without a line in its log.
func (c *watchedConn) answers() bool {
	until := time.Now().Add(c.probe)
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	probe, err := netDialer.DialContext(ctx, c.RemoteAddr().Network(), c.RemoteAddr().String())
	if err != nil {
		return false
	}
	defer func() { _ = probe.Close() }()
	var answer [1]byte
	_ = probe.SetDeadline(until)
	_, err = probe.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47})
	if err == nil {
		_, err = io.ReadFull(probe, answer[:])
	}
	return err == nil
}
