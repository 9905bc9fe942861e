package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/lib/pq"
)

// hosts connects to one of several servers: to the first that can be had and is what
// target_session_attrs asks for, beginning with the one that was found last. lib/pq begins
// with the first each time, and while that is dead every connection takes connect_timeout;
// with sslmode=prefer it takes it twice.
type hosts struct {
	net  *network
	each []host
}

type host struct {
	*pq.Connector
	address string
	timeout time.Duration
}

func newHosts(n *network, cfg pq.Config, d dialer) (*hosts, error) {
	h := &hosts{net: n}
	all := append([]pq.ConfigMultihost{{Host: cfg.Host, Hostaddr: cfg.Hostaddr, Port: cfg.Port}}, cfg.Multi...)
	for _, m := range all {
		one := cfg.Clone()
		one.Host, one.Hostaddr, one.Port, one.Multi = m.Host, m.Hostaddr, m.Port, nil
		c, err := pq.NewConnectorConfig(one)
		if err != nil {
			return nil, err
		}
		c.Dialer(d)
		h.each = append(h.each, host{c, net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))), one.ConnectTimeout})
	}
	return h, nil
}

// Driver is what database/sql wants to be there.
func (h *hosts) Driver() driver.Driver { return pq.Driver{} }

// Connect makes a connection. When it leads to another server than the last one did, that
// one is gone, or has lost its part, and no connection to it is used any more.
func (h *hosts) Connect(ctx context.Context) (driver.Conn, error) {
	begun := time.Now()
	first := h.net.host.Load()
	var errs []error
	for i := range h.each {
		n := (int(first) + i) % len(h.each)
		c, err := h.each[n].connect(ctx)
		if err == nil {
			if h.net.host.Swap(int32(n)) != int32(n) {
				h.net.distrust(begun)
			}
			return c, nil
		}
		if len(h.each) > 1 {
			err = fmt.Errorf("%s: %w", h.each[n].address, err)
		}
		errs = append(errs, err)
	}
	if len(errs) > 1 {
		return nil, fmt.Errorf("none of the hosts can be used: %w", errors.Join(errs...))
	}
	return nil, errs[0]
}

func (h host) connect(ctx context.Context) (driver.Conn, error) {
	if h.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.timeout)
		defer cancel()
	}
	return h.Connect(ctx)
}
