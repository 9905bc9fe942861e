package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// hosts connects to one of several servers: to the first that can be had and is what
// target_session_attrs asks for, beginning with the one that was found last. lib/pq begins
// with the first each time, and while that is dead every connection takes connect_timeout;
// with sslmode=prefer it takes it twice.
//
// Who only reads takes a server that is not what was asked for, rather than none: what
// people look at while they wait for a new primary.
type hosts struct {
	net       *network
	early     bool // see dialer
	each      []host
	makeshift []host // the same, whatever they are; empty: nobody may take those
}

type host struct {
	*pq.Connector
	address string
	timeout time.Duration
}

func newHosts(n *network, cfg pq.Config, d dialer) (*hosts, error) {
	h := &hosts{net: n, early: d.early}
	var err error
	if h.each, err = eachHost(cfg, d); err == nil && d.reads && cfg.TargetSessionAttrs != "" && cfg.TargetSessionAttrs != pq.TargetSessionAttrsAny {
		cfg.TargetSessionAttrs, d.makeshift = pq.TargetSessionAttrsAny, true
		h.makeshift, err = eachHost(cfg, d)
	}
	return h, err
}

func eachHost(cfg pq.Config, d dialer) ([]host, error) {
	var hosts []host
	all := append([]pq.ConfigMultihost{{Host: cfg.Host, Hostaddr: cfg.Hostaddr, Port: cfg.Port}}, cfg.Multi...)
	for _, m := range all {
		one := cfg.Clone()
		one.Host, one.Hostaddr, one.Port, one.Multi = m.Host, m.Hostaddr, m.Port, nil
		c, err := pq.NewConnectorConfig(one)
		if err != nil {
			return nil, err
		}
		c.Dialer(d)
		hosts = append(hosts, host{c, net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))), one.ConnectTimeout})
	}
	return hosts, nil
}

// Driver is what database/sql wants to be there.
func (h *hosts) Driver() driver.Driver { return pq.Driver{} }

// Connect makes a connection. When it leads to another server than the last one did, that
// one is gone, or has lost its part, and no connection to it is used any more.
func (h *hosts) Connect(ctx context.Context) (driver.Conn, error) {
	if h.net.shut.Load() && !h.early {
		return nil, errShut
	}
	begun := time.Now()
	c, n, err := h.first(ctx)
	switch {
	case err == nil:
		h.net.makeshift.Store(false) // which ends the use of those, whenever they were made
		if h.net.host.Swap(n) != n {
			h.net.distrust(begun)
		}
	case len(h.makeshift) > 0 && wrongPart(err):
		h.net.makeshift.Store(true) // before there is one, which is used for as long
		if spare, makeshiftErr := h.makeshift[n].connect(ctx); makeshiftErr == nil {
			return spare, nil
		}
	}
	return c, err
}

// first connects to the first of the servers that can be had, and returns its number. Where
// none can, it is that of one that was there, and not what was asked for.
func (h *hosts) first(ctx context.Context) (driver.Conn, int32, error) {
	last := h.net.host.Load()
	var errs []error
	var there int
	for i := range h.each {
		n := (int(last) + i) % len(h.each)
		c, err := h.each[n].connect(ctx)
		if err == nil {
			return c, int32(n), nil
		}
		if wrongPart(err) {
			there = n
		}
		if len(h.each) > 1 {
			err = fmt.Errorf("%s: %w", h.each[n].address, err)
		}
		errs = append(errs, err)
	}
	if len(errs) > 1 {
		return nil, int32(there), fmt.Errorf("none of the hosts can be used: %w", errors.Join(errs...))
	}
	return nil, int32(there), errs[0]
}

// wrongPart reports whether one of several servers was there, and not what was asked for.
func wrongPart(err error) bool {
	if several, ok := errors.AsType[severalErrors](err); ok {
		return slices.ContainsFunc(several.Unwrap(), wrongPart)
	}
	return readOnly(err)
}

func (h host) connect(ctx context.Context) (driver.Conn, error) {
	if h.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.timeout)
		defer cancel()
	}
	c, err := h.Connect(ctx)
	if refusesSettings(err) {
		err = fmt.Errorf("a pooler answers there, for which -db-pooler (FLOWER_DB_POOLER) is: %w", err)
	}
	return c, err
}

// refusesSettings reports whether a pooler does not take the settings of a session: for whoever
// starts, no waiting helps.
func refusesSettings(err error) bool {
	e := pq.As(err, pqerror.ProtocolViolation)
	return e != nil && strings.HasPrefix(e.Message, "unsupported startup parameter")
}
