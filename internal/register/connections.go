package register

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/problem"
)

// Limits of connections, which cost memory and a file each, whether they are used or not.
const (
	maxConns     = 4096 // that are served
	maxTurned    = 1024 // more, which are told to come again later; beyond, they are closed
	otherFiles   = 128  // that the process needs: connections to the database, certificates
	leastIdle    = time.Second
	turnedAdvice = "too many connections at once; try again in a second"
)

// room returns how many connections there may be, and how many more, in a process that may
// have so many files open. Without a file for it a connection cannot even be closed: it
// stays outside, with all that come after it, health checks among them.
func room(files int) (most, turned int) {
	all := min(max(files-otherFiles, files/4), maxConns+maxTurned)
	turned = all * maxTurned / (maxConns + maxTurned)
	return all - turned, turned
}

// connections bounds how many there are. When there is no room, the one that has waited
// longest for its client makes some; where none has waited for a moment, the new one is
// turned away. Clients that are being served are in nobody's way.
type connections struct {
	most, turned int

	mu   sync.Mutex // guards the rest
	all  map[net.Conn]*connection
	idle list.List // of *connection, the one that has waited longest first
}

type connection struct {
	conn   net.Conn
	since  time.Time     // it has been idle
	place  *list.Element // in idle; nil while it is served
	turned bool          // away
}

func newConnections(most, turned int) *connections {
	return &connections{most: most, turned: turned, all: make(map[net.Conn]*connection)}
}

// track is http.Server's ConnState.
func (c *connections) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.all[conn]
	switch {
	case state == http.StateNew:
		x = &connection{conn: conn}
		c.all[conn] = x
		c.admit(x)
		c.wait(x)
	case x == nil: // it was closed to make room
	case state == http.StateIdle:
		c.wait(x)
	case state == http.StateActive:
		c.unwait(x)
	default: // closed, or no more of ours
		c.drop(x)
	}
}

// admit makes room for a new connection, or turns it away.
func (c *connections) admit(x *connection) {
	if len(c.all) <= c.most {
		return
	}
	if front := c.idle.Front(); front != nil {
		if longest, _ := front.Value.(*connection); time.Since(longest.since) >= leastIdle {
			c.drop(longest)
			_ = longest.conn.Close()
			return
		}
	}
	x.turned = true
	if len(c.all) > c.most+c.turned {
		_ = x.conn.Close() // it is dropped when its goroutine notices
	}
}

func (c *connections) wait(x *connection) {
	c.unwait(x)
	x.since = time.Now()
	x.place = c.idle.PushBack(x)
}

func (c *connections) unwait(x *connection) {
	if x.place != nil {
		c.idle.Remove(x.place)
		x.place = nil
	}
}

func (c *connections) drop(x *connection) {
	c.unwait(x)
	delete(c.all, x.conn)
}

type connKey struct{}

// remember is http.Server's ConnContext: a request can ask for its connection.
func (c *connections) remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// turnedAway reports whether a request came by a connection that there is no room for.
func (c *connections) turnedAway(r *http.Request) bool {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.all[conn]
	return x != nil && x.turned
}

// welcomed turns away what came by a connection too many, and closes that.
func (s *Server) welcomed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.conns.turnedAway(r) && !isHealth(r) {
			w.Header().Set("Connection", "close")
			s.fail(w, r, problem.TooManyRequests.Because(turnedAdvice))
			return
		}
		next.ServeHTTP(w, r)
	})
}
