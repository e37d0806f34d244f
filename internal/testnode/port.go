package testnode

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// FreeAddress is host:port of loopback where nothing listens, for a server that a test ends and starts again. Its port is below those that the system
// gives to connections: one of those may be taken while nobody listens there, or, when it is connected to, by the connection
// itself.
func FreeAddress(t testing.TB) string {
	t.Helper()
	const first, last = 15_000, 32_000
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(last-first)))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatalf("testnode: no free port from %d to %d", first, last)
	return ""
}
