package postgres

import (
	"context"
	"net"
	"time"
)

// How long a read or a write on a connection may take before the peer counts as dead.
// It is longer than statement_timeout, so that the server's own error comes first.
const ioTimeout = 12 * time.Second

// slowTimeout is the same for what reads whole tables.
const slowTimeout = 75 * time.Second

// dialer makes connections on which no read and no write blocks for longer than patience;
// 0 is for ever. A context does not free a read on a dead network, and TCP keep-alive sees
// nothing as long as the peer's kernel answers.
type dialer struct{ patience time.Duration }

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
	if d.patience == 0 {
		return c, nil
	}
	return deadlineConn{c, d.patience}, nil
}

type deadlineConn struct {
	net.Conn
	patience time.Duration
}

func (c deadlineConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c deadlineConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
