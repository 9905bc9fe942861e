package program

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// newTestDialer returns the dialer of an allow list, which resolves names by lookup and
// counts the connections that its guard let pass.
func newTestDialer(t *testing.T, list string, lookup func(name string) string) (*net.Dialer, *atomic.Int32) {
	t.Helper()
	allow, err := ParseAllow(list)
	require.NoError(t, err)
	dialer := newDialer(allow)
	var passed atomic.Int32
	guard := dialer.Control
	dialer.Control = func(network, address string, conn syscall.RawConn) error {
		err := guard(network, address, conn)
		if err == nil {
			passed.Add(1)
		}
		return err
	}
	dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answerDNS(server, lookup)
		return client, nil
	}}
	return dialer, &passed
}

// answerDNS answers one question, as over TCP: A with what lookup says, others with
// nothing.
func answerDNS(conn net.Conn, lookup func(name string) string) {
	defer conn.Close()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return
	}
	var labels []string
	end := 12 // of the header
	for query[end] != 0 {
		n := int(query[end])
		labels = append(labels, string(query[end+1:end+1+n]))
		end += 1 + n
	}
	isA := query[end+2] == 1
	question := query[12 : end+5]

	answer := append([]byte{0, 0}, query[:2]...)
	answer = append(answer, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0) // one question, no answer
	answer = append(answer, question...)
	if isA {
		answer[9] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the name asked for, A, IN, no TTL
		answer = append(answer, netip.MustParseAddr(lookup(strings.Join(labels, "."))).AsSlice()...)
	}
	binary.BigEndian.PutUint16(answer, uint16(len(answer)-2))
	_, _ = conn.Write(answer)
}
