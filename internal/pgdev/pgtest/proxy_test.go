package pgtest_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// echo is a server that repeats lines, until the test ends.
func echo(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// caller is one end of a connection through a proxy.
type caller struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, p *pgtest.Proxy) *caller {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p.Port))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return &caller{c, bufio.NewReader(c)}
}

// say sends a line; hears waits for what comes, for a moment or for as long as it takes.
func (c *caller) say(t *testing.T, line string) {
	t.Helper()
	_, err := c.Write([]byte(line + "\n"))
	require.NoError(t, err)
}

func (c *caller) hears(within time.Duration) (line string, err error) {
	_ = c.SetReadDeadline(time.Now().Add(within))
	return c.lines.ReadString('\n')
}

const (
	moment = 50 * time.Millisecond
	soon   = 20 * time.Second
)

func TestProxy(t *testing.T) {
	t.Parallel()
	p := pgtest.NewProxy(t, echo(t))
	heard := func(c *caller, want string) {
		t.Helper()
		got, err := c.hears(soon)
		require.NoError(t, err)
		require.Equal(t, want+"\n", got)
	}
	deaf := func(c *caller) {
		t.Helper()
		_, err := c.hears(moment)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	old := dial(t, p)
	old.say(t, "1")
	heard(old, "1")

	for _, silence := range []func(){p.Silence, p.SilenceAnswers} {
		silence()
		old.say(t, "2")
		deaf(old)
		young := dial(t, p) // it is taken
		young.say(t, "3")
		deaf(young)
		p.Heal()
		heard(old, "2")
		heard(young, "3")
	}

	p.Lose()
	old.say(t, "4")
	deaf(old)
	young := dial(t, p)
	young.say(t, "5")
	heard(young, "5")
	p.Silence()
	p.Heal()
	deaf(old)

	p.Cut()
	for _, c := range []*caller{old, young} {
		_, err := c.hears(soon)
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
}

func TestProxy_Fragile(t *testing.T) {
	t.Parallel()
	p := pgtest.NewProxy(t, echo(t))
	p.Fragile(100)
	for range 20 {
		c := dial(t, p)
		sent, err := 0, error(nil)
		for ; err == nil; sent += 10 {
			if _, err = c.Write([]byte("123456789\n")); err == nil {
				_, err = c.hears(soon)
			}
		}
		require.False(t, errors.Is(err, os.ErrDeadlineExceeded), err)
		require.LessOrEqual(t, sent, 110)
	}
	p.Fragile(0)
	c := dial(t, p)
	for range 100 {
		c.say(t, "123456789")
		_, err := c.hears(soon)
		require.NoError(t, err)
	}
}
