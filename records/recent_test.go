package records_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relaymarket/protocol"
	"relaymarket/records"
)

// The ring gives back exactly what was put in or nothing, never holds more than its size, and forgets the
// oldest first.
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
			if got := ring.Envelope(int64(n), in.Envelope.Hash()); in.Envelope.Size() <= size/4 && !bytes.Equal(got, in.Envelope.Bytes()) {
				t.Fatalf("the newest record is not held whole")
			}
			if ring.Envelope(int64(n), protocol.Hash{1}) != nil {
				t.Fatal("another record's bytes came back for its place")
			}
			forgotten := false // going back in time
			for m := n; m >= 0; m-- {
				got, want := ring.Envelope(int64(m), added[m].Envelope.Hash()), added[m].Envelope.Bytes()
				switch {
				case got == nil:
					forgotten = forgotten || len(want) <= size/4
				case forgotten:
					t.Fatalf("record %d is held, and a newer one is not", m)
				case !bytes.Equal(got, want):
					t.Fatalf("record %d came back as other bytes", m)
				}
			}
		}
	})
}

// A path stored since the oldest that is remembered is known, what was signed before that is taken for a repeat, and
// nearly nothing else is.
func TestWrittenPaths(t *testing.T) {
	const size = 256
	start := time.UnixMilli(1_000_000)
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Millisecond) }
	path := func(i int) protocol.Path { return protocol.Path{ID: protocol.RecordID(fmt.Sprint("p", i))} }
	w := records.NewWritten(size, start)
	fresh := protocol.TimestampOf(at(1 << 20))
	if w.MayHave(path(0), fresh) || !w.MayHave(path(0), protocol.TimestampOf(start)-1) {
		t.Fatal("an empty memory knows only that it does not know what came before it")
	}
	mistaken := 0
	for i := range 10 * size {
		w.Add(path(i), at(i))
		w.Add(path(i), at(i)) // takes no more room
		for back := range size {
			if i >= back && !w.MayHave(path(i-back), fresh) {
				t.Fatalf("of %d paths, number %d is forgotten", i+1, i-back)
			}
		}
		if w.MayHave(path(-1-i), fresh) {
			mistaken++
		}
		if i > 2*size {
			if !w.MayHave(path(i-2*size), protocol.TimestampOf(at(i-2*size))) {
				t.Fatalf("path %d is neither remembered nor taken for old", i-2*size)
			}
			if w.MayHave(path(-1), protocol.TimestampOf(at(i))) {
				t.Fatal("what was signed just now is taken for old")
			}
		}
	}
	if mistaken > 2 {
		t.Errorf("%d paths that never were are known", mistaken)
	}
}
