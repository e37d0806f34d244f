package records_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"relaymarket/protocol"
	"relaymarket/records"
)

// The ring gives back exactly what was put in or nothing, never holds more than its size, forgets the
// oldest first, and knows the path of whatever it holds.
func TestRecentIsItsModel(t *testing.T) {
	from, relay := key(t), key(t)
	incoming := func(id string, size int) records.Incoming {
		w := &protocol.Write{Relay: relay.Public(), RecordID: protocol.RecordID(id), Expires: 1 << 40, MaxPulls: 1, Content: strings.Repeat("AAAA", size)}
		e, err := protocol.Sign(from, from.Public(), 1<<40, w)
		if err != nil {
			t.Fatal(err)
		}
		return records.Incoming{Envelope: e, Write: w}
	}
	pool := make([]records.Incoming, 40)
	for i := range pool {
		pool[i] = incoming(fmt.Sprintf("r%d", i), 1+i*i)
	}
	rapid.Check(t, func(t *rapid.T) {
		const size = 16 << 10
		ring := records.NewRecent(size)
		var added []records.Incoming
		for n, i := range rapid.SliceOfN(rapid.IntRange(0, len(pool)-1), 1, 120).Draw(t, "records") {
			in := pool[i]
			ring.Add(int64(n), in)
			added = append(added, in)
			if count, held := ring.Held(); held > size || count == 0 && in.Envelope.Size() <= size/4 {
				t.Fatalf("%d records, %d bytes are held in a ring of %d", count, held, size)
			}
			if got := ring.Envelope(int64(n)); in.Envelope.Size() <= size/4 && !bytes.Equal(got, in.Envelope.Bytes()) {
				t.Fatalf("the newest record is not held whole")
			}
			forgotten := false // going back in time
			for m := n; m >= 0; m-- {
				got, want := ring.Envelope(int64(m)), added[m].Envelope.Bytes()
				switch {
				case got == nil:
					forgotten = forgotten || len(want) <= size/4
				case forgotten:
					t.Fatalf("record %d is held, and a newer one is not", m)
				case !bytes.Equal(got, want):
					t.Fatalf("record %d came back as other bytes", m)
				case !ring.Has(protocol.Path{Sender: added[m].Envelope.From, Receiver: added[m].Envelope.To, ID: added[m].Write.RecordID}):
					t.Fatalf("record %d is held, its path is not", m)
				}
			}
		}
	})
}
