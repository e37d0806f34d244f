package broadcast_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/internal/leakcheck"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

var rules = broadcast.Rules{Network: protocol.Regtest, Bits: 8}

const now protocol.Timestamp = 1763683200000

func newKey(t testing.TB) *protocol.PrivateKey {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// announcement is a usual one, as its relay would word it.
func announcement(host string, seq int64) *protocol.Announcement {
	return &protocol.Announcement{Addresses: []string{"https://" + host}, Network: protocol.Regtest,
		Terms: []protocol.Terms{{Type: "grant"}}, Seq: seq, ValidUntil: now.Add(24 * time.Hour)}
}

// announce proves and signs.
func announce(t testing.TB, key *protocol.PrivateKey, a *protocol.Announcement, bits int) *protocol.Envelope {
	t.Helper()
	e, err := broadcast.Prover{}.Announce(t.Context(), key, now, a, bits)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func check(t testing.TB, e *protocol.Envelope) *broadcast.Offer {
	t.Helper()
	o, err := rules.Check(e.Bytes(), now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A proof of work is found, is true, and is over all of the message but itself.
func TestProve(t *testing.T) {
	key := newKey(t)
	for bits := range 13 {
		e := announce(t, key, announcement("relay.example", 1), bits)
		subject, work, err := e.WorkSubject()
		if err != nil || work == nil || work.Bits != int64(bits) || work.Nonce.Bits(subject) < bits {
			t.Errorf("%d bits: %+v, %v", bits, work, err)
		}
		bare := announcement("relay.example", 1)
		draft, err := protocol.Sign(key, key.Public(), now, bare)
		if err != nil {
			t.Fatal(err)
		}
		if other, none, err := draft.WorkSubject(); err != nil || none != nil || other != subject {
			t.Errorf("%d bits: the subject is %s with the proof and %s without, %v", bits, subject, other, err)
		}
	}
	one := announce(t, key, announcement("relay.example", 1), 0)
	two := announce(t, key, announcement("relay.example", 2), 0)
	first, _, _ := one.WorkSubject()
	second, _, _ := two.WorkSubject()
	if first == second {
		t.Error("another message has the same subject")
	}
}

// Work that would take years ends when it is told to, and tells how far it is.
func TestProveIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reported := make(chan broadcast.Progress, 1)
	p := broadcast.Prover{Workers: 2, Every: time.Millisecond, Report: func(p broadcast.Progress) {
		select {
		case reported <- p:
		default:
		}
		if p.Tried > 0 {
			cancel()
		}
	}}
	if _, err := p.Prove(ctx, protocol.Hash{1}, 200); err == nil {
		t.Fatal("it proves 200 bits")
	}
	if got := <-reported; got.Expected != 1<<63 {
		t.Errorf("it reports %+v", got)
	}
}

// The index never passes its bounds, remembers the winners, and lets go of the least work first.
func TestIndexKeepsItsBounds(t *testing.T) {
	bounds := broadcast.Bounds{Relays: 50, Bytes: 40_000, Host: 4}
	x := broadcast.NewIndex(bounds)
	random := rand.New(rand.NewPCG(1, 2))
	at := now
	for i := range 20_000 {
		at = at.Add(time.Second)
		e := &broadcast.Entry{Work: random.IntN(8), Size: 400 + random.Int64N(2000), ValidUntil: at.Add(time.Duration(random.IntN(3000)) * time.Second),
			Forget: at.Add(time.Hour), Hosts: []string{fmt.Sprint("host", random.IntN(30))}, Known: broadcast.Known{Seq: int64(i), Is: true}}
		e.Relay[0], e.Relay[1] = byte(random.IntN(2)), byte(random.IntN(100))
		displaced, err := x.Room(e, at)
		if err != nil {
			continue
		}
		for _, relay := range displaced {
			gone := x.Entry(relay)
			if gone.Work >= e.Work && gone.ValidUntil > at {
				t.Fatalf("work of %d bits gives way to %d", gone.Work, e.Work)
			}
			x.Remove(relay)
		}
		x.Put(e, at)
		if x.Len() > bounds.Relays || x.Bytes() > bounds.Bytes {
			t.Fatalf("%d relays, %d bytes", x.Len(), x.Bytes())
		}
		if x.Known(e.Relay).Seq != int64(i) {
			t.Fatal("what was put in is not known")
		}
		if i%10 == 0 {
			for _, e := range x.Expire(at) {
				if e.Forget >= at {
					t.Fatal("it is forgotten too early")
				}
			}
		}
	}
	if x.Len() < bounds.Relays/4 {
		t.Errorf("only %d relays are in a book for %d", x.Len(), bounds.Relays)
	}
	x.Expire(at.Add(2 * time.Hour))
	if x.Len() != 0 || x.Bytes() != 0 {
		t.Errorf("%d relays, %d bytes are left when all are forgotten", x.Len(), x.Bytes())
	}
}

// A host has a few places, first come first served, and one is free when its relay has expired.
func TestOneHost(t *testing.T) {
	x := broadcast.NewIndex(broadcast.Bounds{Relays: 1000, Bytes: 1 << 20, Host: 4})
	refused := 0
	for i := range 1000 {
		o := check(t, announce(t, newKey(t), announcement("crowd.example", int64(i)), 8))
		e := broadcast.EntryOf(o, 0, now)
		e.Work = 8 + i%20 // more work helps nobody here
		if _, err := x.Room(e, now); broadcast.ReasonOf(err) == broadcast.ReasonHostFull {
			refused++
			continue
		}
		x.Put(e, now)
	}
	if x.Len() != 4 || refused != 996 {
		t.Errorf("%d of a thousand are in, %d were refused", x.Len(), refused)
	}
	later := now.Add(25 * time.Hour)
	x.Expire(later)
	e := broadcast.EntryOf(check(t, announce(t, newKey(t), announcement("crowd.example", 1), 8)), 0, later)
	if _, err := x.Room(e, later); err != nil {
		t.Errorf("when all have expired: %v", err)
	}
}

// A relay that changes its mind all the time is held up, and only itself.
func TestRateOfChanges(t *testing.T) {
	x := broadcast.NewIndex(broadcast.DefaultBounds())
	key := newKey(t)
	taken := 0
	try := func(seq int64, at protocol.Timestamp) error {
		e := broadcast.EntryOf(check(t, announce(t, key, announcement("relay.example", seq), 8)), 0, at)
		_, err := x.Room(e, at)
		if err == nil {
			x.Put(e, at)
			taken++
		}
		return err
	}
	for seq := range int64(20) {
		if err := try(seq, now); err != nil && broadcast.ReasonOf(err) != broadcast.ReasonRate {
			t.Fatal(err)
		}
	}
	if taken != 6 {
		t.Errorf("%d changes at once", taken)
	}
	if err := try(21, now.Add(61*time.Second)); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}
