package register

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startSmall starts a server with room for some connections, and some more that are turned
// away.
func startSmall(t *testing.T, most, turned int, store Store, sites ...Site) (address string, s *Server) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s = New(Config{Host: "127.0.0.1"}, store, slog.New(slog.DiscardHandler), sites...)
	s.conns, s.reading = newConnections(most, turned), time.Second
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l, prepared) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		require.Eventually(t, func() bool { all, idle := s.conns.count(); return all == 0 && idle == 0 }, 10*time.Second,
			time.Millisecond, "nothing is remembered")
	})
	return l.Addr().String(), s
}

// rawClient is a connection of its own.
type rawClient struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, address string) rawClient {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return rawClient{conn, bufio.NewReader(conn)}
}

// ask sends a request by it and returns the answer's status, 0 if it was closed, and its
// headers.
func (c rawClient) ask(t *testing.T, path string) (status int, header http.Header) {
	t.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return 0, nil
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = io.Copy(io.Discard, answer.Body)
	require.NoError(t, err)
	if answer.Close {
		answer.Header.Set("Connection", "close")
	}
	return answer.StatusCode, answer.Header
}

func (c *connections) count() (all, idle int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all), c.idle.Len()
}

func TestServe_SecG3_ANewConnectionTakesTheRoomOfTheLongestIdle(t *testing.T) {
	t.Parallel()
	address, s := startSmall(t, 3, 2, fakeStore{})
	var clients []rawClient
	for range 3 {
		c := dial(t, address)
		status, _ := c.ask(t, "/")
		require.Equal(t, http.StatusOK, status)
		clients = append(clients, c)
		require.Eventually(t, func() bool { _, idle := s.conns.count(); return idle == len(clients) }, 10*time.Second,
			time.Millisecond, "the server knows that it has answered")
	}
	s.conns.mu.Lock() // all have been idle for a moment
	for e := s.conns.idle.Front(); e != nil; e = e.Next() {
		e.Value.(*connection).since = time.Now().Add(-leastIdle) //nolint:errcheck,forcetypeassert // it is
	}
	s.conns.mu.Unlock()
	next := dial(t, address)
	status, _ := next.ask(t, "/")
	require.Equal(t, http.StatusOK, status)
	status, _ = clients[0].ask(t, "/")
	require.Zero(t, status, "it was closed")
	status, _ = clients[1].ask(t, "/")
	require.Equal(t, http.StatusOK, status, "the others are served")
	all, _ := s.conns.count()
	require.Equal(t, 3, all)
}

func TestServe_SecG3_WithoutRoomTheNewOnesAreTurnedAway(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	entered := make(chan struct{}, 3)
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		w.WriteHeader(http.StatusNoContent)
	})
	address, s := startSmall(t, 3, 2, fakeStore{}, Site{Prefix: "/slow/", Handler: slow})
	statuses := make(chan int, 3)
	for range 3 { // in use
		c := dial(t, address)
		go func() {
			status, _ := c.ask(t, "/slow/")
			statuses <- status
		}()
		<-entered
	}
	for range 2 {
		turned := dial(t, address)
		status, header := turned.ask(t, "/")
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Equal(t, "1", header.Get("Retry-After"))
		require.Equal(t, "close", header.Get("Connection"))
	}
	require.Eventually(t, func() bool { all, _ := s.conns.count(); return all == 3 }, 10*time.Second, time.Millisecond,
		"they are gone")
	health := dial(t, address)
	status, _ := health.ask(t, "/healthz")
	require.Equal(t, http.StatusOK, status, "a busy server is not a dead one")

	silent := dial(t, address) // both places of those to be turned away are taken, and nobody says anything
	require.Eventually(t, func() bool { all, _ := s.conns.count(); return all == 5 }, 10*time.Second, time.Millisecond)
	status, _ = dial(t, address).ask(t, "/")
	require.Zero(t, status, "beyond, it is closed")
	_ = silent.Close()

	close(release)
	for range 3 {
		require.Equal(t, http.StatusNoContent, <-statuses)
	}
}

// However few files a process may have, some are left for the rest of it.
func TestRoom(t *testing.T) {
	t.Parallel()
	for files, want := range map[int][2]int{1 << 30: {maxConns, maxTurned}, 5248: {4096, 1024}, 1024: {717, 179}, 256: {103, 25}, 64: {13, 3}} {
		most, turned := room(files)
		require.Equal(t, want, [2]int{most, turned}, files)
	}
}
