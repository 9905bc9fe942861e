package commandtest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var givenPorts sync.Map // that somebody may be about to use

// FreePort returns a port that stays free until a program listens there, and that nobody
// else is given: it is below those that the system has for the ends of connections, of which
// there are many in tests. Another process of tests draws from the same ones, by chance.
func FreePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 15_000 + rand.IntN(15_000)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		if l, err := net.Listen("tcp", "localhost:"+strconv.Itoa(port)); err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	require.FailNow(t, "there is no free port")
	return 0
}
