package pqguard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"
)

// network is a dialer for lib/pq whose connections read along what the server says, so
// that they know when the driver waits for something that never comes, and can fail at a
// chosen message.
type network struct {
	mu    sync.Mutex
	wires []*wire

	deaf     atomic.Bool // the driver has waited for what never comes
	swallow  atomic.Bool // once: the next answer is taken from the server and lost
	cutError atomic.Bool // once: the connection is lost right behind the next error
}

// newNetwork makes a network whose connections are closed when the test ends.
func newNetwork(t *testing.T) *network {
	n := &network{}
	t.Cleanup(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, w := range n.wires {
			_ = w.Close()
		}
	})
	return n
}

func (n *network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: c, network: n}
	w.asked.Store(true) // the server speaks first
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires = append(n.wires, w)
	return w, nil
}

func (n *network) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

func (n *network) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return n.DialContext(ctx, network, address)
}

var _ pq.DialerContext = (*network)(nil)

// errDeaf ends what would otherwise wait for ever: the server has said all it had to say,
// nothing was asked since, and yet the driver waits.
var errDeaf = errors.New("the driver waits for an answer that it has already had")

// wire is one connection. Only one goroutine at a time reads from it.
type wire struct {
	net.Conn
	network *network
	asked   atomic.Bool // something was sent since the server was last ready for a query
	over    bool        // the connection is lost for the reader

	head []byte // of the message that is being read: its type and its length
	left int    // of its body
}

func (w *wire) Write(p []byte) (int, error) {
	w.asked.Store(true)
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	if w.over {
		return 0, io.EOF
	}
	if !w.asked.Load() {
		w.network.deaf.Store(true)
		return 0, errDeaf
	}
	n, err := w.Conn.Read(p)
	if n > 0 && w.network.swallow.CompareAndSwap(true, false) {
		w.over = true
		_ = w.Conn.Close()
		return 0, io.EOF
	}
	return w.follow(p[:n]), err
}

// follow goes through the messages in p and returns how much of it the driver gets.
func (w *wire) follow(p []byte) int {
	for i := 0; i < len(p); {
		if len(w.head) < 5 {
			w.head = append(w.head, p[i])
			i++
			if len(w.head) == 5 {
				w.left = int(binary.BigEndian.Uint32(w.head[1:])) - 4
				spareMemory(w.head[0], w.left, p[i:])
			}
		} else {
			step := min(w.left, len(p)-i)
			w.left -= step
			i += step
		}
		if len(w.head) < 5 || w.left > 0 {
			continue
		}
		kind := w.head[0]
		w.head = w.head[:0]
		switch {
		case kind == 'Z': // ready for a query
			w.asked.Store(false)
		case kind == 'E' && w.network.cutError.CompareAndSwap(true, false):
			w.over = true
			_ = w.Conn.Close()
			return i
		}
	}
	return len(p)
}

// spareMemory changes a few bytes in errors that are too long for lib/pq. It goes on
// reading in the midst of them, at "VERROR", and takes "ERRO" for the length of a message:
// 1.1 GB, which it allocates. 16 MB show the same.
func spareMemory(kind byte, length int, body []byte) {
	if kind != 'E' || length <= 30_000 {
		return
	}
	if i := bytes.Index(body, []byte("\x00VERROR\x00")); i >= 0 {
		copy(body[i+2:], "\x00\xff\xff\xff")
	}
}
