package pgtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy is a network between a client and a server that a test can break.
//
// Where it is silent, every connection stays open and takes what it is sent, as that of a
// peer does whose kernel answers and whose process does not; no end learns that the other
// one has closed, and new connections are taken, too.
type Proxy struct {
	Port int // on 127.0.0.1

	to    string // the server's address
	pumps sync.WaitGroup

	mu       sync.Mutex // guards the rest
	over     bool
	links    map[*link]bool
	requests chan struct{} // closed: they pass
	answers  chan struct{}
	fragile  int
}

// link is one connection through a proxy.
type link struct {
	lost context.Context // ended: nothing passes any more, for ever
	lose context.CancelFunc
	end  context.Context // ended: the connection has, or was cut
	stop context.CancelCauseFunc
	left atomic.Int64 // bytes until it is cut
}

// NewProxy makes a proxy in front of a server, until the test ends.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("pgtest: listen for a proxy: %v", err)
	}
	p := &Proxy{
		Port: l.Addr().(*net.TCPAddr).Port, to: server, links: make(map[*link]bool),
		requests: make(chan struct{}), answers: make(chan struct{}),
	}
	p.Heal()
	p.pumps.Go(func() { p.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
		p.Cut()
		p.pumps.Wait()
	})
	return p
}

// Proxy makes a proxy in front of the database's server, and returns the database's URL
// through it.
func (d *DB) Proxy(t testing.TB) (p *Proxy, through string) {
	t.Helper()
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	p = NewProxy(t, u.Host)
	u.Host = fmt.Sprintf("127.0.0.1:%d", p.Port)
	return p, u.String()
}

// Silence stops everything.
func (p *Proxy) Silence() { p.silence(&p.requests, &p.answers) }

// SilenceAnswers lets requests pass and stops the answers.
func (p *Proxy) SilenceAnswers() { p.silence(&p.answers) }

func (p *Proxy) silence(gates ...*chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range gates {
		if isClosed(*g) {
			*g = make(chan struct{})
		}
	}
}

// Heal ends a silence: what was held back is delivered.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range []chan struct{}{p.requests, p.answers} {
		if !isClosed(g) {
			close(g)
		}
	}
}

// Lose makes the present connections silent for ever, whatever heals: a firewall that was
// started anew has forgotten them.
func (p *Proxy) Lose() {
	for _, l := range p.present() {
		l.lose()
	}
}

// Cut resets the present connections.
func (p *Proxy) Cut() {
	for _, l := range p.present() {
		l.stop(errCut)
	}
}

// Fragile has each new connection reset after at most so many bytes, in the midst of
// whatever that is; 0 ends this for those that come.
func (p *Proxy) Fragile(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fragile = bytes
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (p *Proxy) present() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return // the test is over
		}
		p.pumps.Go(func() { p.serve(c) })
	}
}

// serve joins a client with the server, of which in a silence it does not know whether it
// is there.
func (p *Proxy) serve(client net.Conn) {
	l := p.enter()
	defer p.leave(l)
	defer closing(l, client)()
	if !p.pass(l, &p.requests) {
		return
	}
	server, err := (&net.Dialer{}).DialContext(l.end, "tcp", p.to)
	if err != nil {
		return
	}
	defer closing(l, server)()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		p.pump(l, client, server, &p.answers)
	}()
	p.pump(l, server, client, &p.requests)
	<-answered
}

func (p *Proxy) enter() *link {
	l := &link{}
	l.lost, l.lose = context.WithCancel(context.Background())
	l.end, l.stop = context.WithCancelCause(context.Background())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l] = true
	l.left.Store(math.MaxInt64)
	if p.fragile > 0 {
		l.left.Store(1 + rand.Int64N(int64(p.fragile)))
	}
	if p.over {
		l.stop(errCut)
	}
	return l
}

func (p *Proxy) leave(l *link) {
	l.stop(nil)
	l.lose()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// errCut is why a link ends with a reset.
var errCut = errors.New("cut")

// closing closes one side of a link with the link, which ends at the latest when the
// function that it returns is called.
func closing(l *link, c net.Conn) (end func()) {
	done := make(chan struct{})
	context.AfterFunc(l.end, func() {
		defer close(done)
		if errors.Is(context.Cause(l.end), errCut) {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		_ = c.Close()
	})
	return func() {
		l.stop(nil)
		<-done
	}
}

// pass waits until a gate is open, and reports whether the link lets anything pass.
func (p *Proxy) pass(l *link, gate *chan struct{}) bool {
	p.mu.Lock()
	open := *gate
	p.mu.Unlock()
	select {
	case <-open:
	case <-l.end.Done():
	}
	if l.lost.Err() != nil {
		<-l.end.Done()
	}
	return l.end.Err() == nil
}

// pump hands on what one side sends to the other, until one of them ends.
func (p *Proxy) pump(l *link, to, from net.Conn, gate *chan struct{}) {
	defer l.stop(nil)
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if !p.pass(l, gate) {
			return
		}
		last := l.left.Add(-int64(n)) <= 0
		if last {
			n = rand.IntN(n + 1)
		}
		_, writeErr := to.Write(buf[:n])
		if last {
			l.stop(errCut)
		}
		if last || err != nil || writeErr != nil {
			return
		}
	}
}
