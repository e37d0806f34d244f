package hub_test

import (
	"fmt"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/internal/leakcheck"
	"relaymarket/internal/testhub"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const (
	patience = 3 * time.Minute
	network  = testhub.Network
)

var rules = testhub.Rules

// relay is somebody who announces.
type relay struct {
	*protocol.PrivateKey
	host string
	seq  int64
}

var hostCount int

func newRelay(t *testing.T) *relay {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	hostCount++
	return &relay{key, fmt.Sprintf("relay-%d.example", hostCount), 0}
}

// says is the relay's next announcement.
func (r *relay) says(t *testing.T, at time.Time, bits int, valid time.Duration) []byte {
	t.Helper()
	r.seq++
	return r.saysAgain(t, at, bits, valid)
}

func (r *relay) saysAgain(t *testing.T, at time.Time, bits int, valid time.Duration) []byte {
	t.Helper()
	stamp := protocol.TimestampOf(at)
	e, err := broadcast.Prover{}.Announce(t.Context(), r.PrivateKey, stamp, &protocol.Announcement{Addresses: []string{"https://" + r.host},
		Network: network, Seq: r.seq, Terms: []protocol.Terms{}, ValidUntil: stamp.Add(valid)}, bits)
	if err != nil {
		t.Fatal(err)
	}
	return e.Bytes()
}

func stamp(c *testhub.Clock) protocol.Timestamp { return protocol.TimestampOf(c.Now()) }
