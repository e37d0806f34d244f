package hub_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/internal/testhub"
	"relaymarket/protocol"
)

// junk is one message of each kind that a flood is made of.
func junk(t *testing.T, c *testhub.Clock, honest []byte) map[string][]byte {
	t.Helper()
	stranger := newRelay(t)
	good := stranger.says(t, c.Now(), 8, time.Hour)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-4] = "01"[(flipped[len(flipped)-4]+1)%2]
	idle := &relay{newRelay(t).PrivateKey, "idle.example", 0}
	priced := func(from, to string) []byte {
		r := newRelay(t)
		return testhub.Forge(t, r.PrivateKey, r.Public(), stamp(c), &protocol.Announcement{Addresses: []string{"https://" + r.host}, Network: network,
			Terms: []protocol.Terms{}, ValidUntil: stamp(c).Add(time.Hour), Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: 1000}},
			func(request string) string { return strings.Replace(request, from, to, 1) })
	}
	return map[string][]byte{
		"noise":                 bytes.Repeat([]byte{0xc3, 0x28}, 2000),
		"no work":               bytes.Replace(good, []byte(`"bits":8`), []byte(`"bits":99`), 1),
		"too little work":       idle.says(t, c.Now(), 7, time.Hour),
		"false signature":       flipped,
		"work over other bytes": bytes.Replace(honest, []byte(`"terms":[]`), []byte(`"terms":[{"payment":false,"type":"x"}]`), 1),
		"another signer":        bytes.Replace(good, []byte(stranger.Public().String()), []byte(idle.Public().String()), 1),
		"far future":            newRelay(t).says(t, c.Now().Add(time.Hour), 8, time.Hour),
		"expired":               newRelay(t).says(t, c.Now().Add(-time.Hour), 8, time.Minute),
		"valid too long":        newRelay(t).says(t, c.Now(), 8, 8*24*time.Hour),
		"large":                 bytes.Repeat([]byte("x"), 8000),
		"what is in the book":   honest,
		"negative price":        priced(`"storageMsatPerGBDay":1000`, `"storageMsatPerGBDay":-1000`),
		"overflowing price":     priced(`"openingPriceSat":0`, `"openingPriceSat":9000000000000000`),
		"price over 2^53":       bytes.Replace(priced("", ""), []byte(`"storageMsatPerGBDay":1000`), []byte(`"storageMsatPerGBDay":9007199254740993`), 1),
		"nothing":               nil,
	}
}

// floodSize is how many junk announcements are sent; a million differ in nothing but the time they take.
const floodSize = 60_000

// A flood of junk: the honest stay in the book and can renew what they say, the hub's memory and disk stay as they were, and the
// thousand keys of one host have its four places.
func TestFloodOfJunk(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.Start(t, c)
	conn := n.Stranger()
	want := map[protocol.PublicKey]int64{}
	honest := []*relay{}
	var sample []byte
	for range 30 {
		r := newRelay(t)
		sample = r.says(t, c.Now(), 8, time.Hour)
		if receipt := n.Send(conn, sample); !receipt.Taken {
			t.Fatalf("%+v", receipt)
		}
		honest, want[r.Public()] = append(honest, r), 1
	}
	kinds := junk(t, c, sample)
	changed := honest[len(honest)-2]
	kinds["old seq"] = changed.saysAgain(t, c.Now().Add(-time.Second), 8, time.Hour)
	if receipt := n.Send(conn, changed.says(t, c.Now(), 8, time.Hour)); !receipt.Taken {
		t.Fatalf("%+v", receipt)
	}
	want[changed.Public()] = changed.seq
	sent := 0
	began := time.Now()
	flood := n.Stranger()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil && sent < floodSize {
			for _, data := range kinds {
				if err := flood.Publish(broadcast.IngestSubject(network), data); err != nil {
					done <- err
					return
				}
				sent++
			}
		}
		done <- flood.FlushTimeout(patience)
	}()
	// Meanwhile the honest renew: who gets no receipt asks again.
	renewed := 0
	for _, r := range honest[:10] {
		data := r.says(t, c.Now(), 8, time.Hour)
		for tries := 0; ; tries++ {
			m, err := conn.Request(broadcast.IngestSubject(network), data, 2*time.Second)
			if err == nil && bytes.HasPrefix(m.Data, []byte(`{"taken":true`)) {
				break
			}
			if tries > 30 {
				t.Fatal("an honest relay is never heard")
			}
		}
		want[r.Public()] = r.seq
		renewed++
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	end()
	took := time.Since(began)
	dropped := func() int { return n.Counted("dropped_total", "") }
	testhub.Wait(t, "the hub is through, and has counted all", func() bool { return dropped() >= sent })
	if got := n.Book(); !maps.Equal(got, want) {
		t.Errorf("the book has %d relays, %d are honest", len(got), len(want))
	}
	relays, size := n.Size()
	if relays != len(want) || size > 4096*int64(relays) {
		t.Errorf("the hub remembers %d relays and %d bytes", relays, size)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 128<<20 {
		t.Errorf("%d MB in use after the flood", m.HeapAlloc>>20)
	}
	t.Logf("%d junk announcements in %s, %.1f µs each with their sender; %d not looked at; %d honest renewed meanwhile; heap %d MB",
		sent, took.Round(time.Millisecond), float64(took.Microseconds())/float64(sent), n.Counted("dropped_total", "flood"), renewed, m.HeapAlloc>>20)
}

// A thousand keys of one host.
func TestOneHostManyKeys(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.Start(t, c)
	conn := n.Stranger()
	taken := 0
	for i := range 1000 {
		r := newRelay(t)
		r.host = "crowd.example"
		if i%2 == 1 {
			r.host = fmt.Sprintf("[2001:db8::%x]", i)
		}
		if receipt := n.Send(conn, r.says(t, c.Now(), 8, time.Hour)); receipt.Taken {
			taken++
		} else if receipt.Reason != broadcast.ReasonHostFull {
			t.Fatalf("%+v", receipt)
		}
	}
	if book := n.Book(); taken != 8 || len(book) != 8 {
		t.Errorf("%d were taken, %d are in the book", taken, len(book))
	}
}
