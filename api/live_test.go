package api

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/protocol"
)

func (g *rig) announced() *protocol.Announcement {
	g.t.Helper()
	got := g.send(http.MethodGet, "/.well-known/relaymarket", "", "")
	if got.status != http.StatusOK {
		g.t.Fatalf("%d %s", got.status, got.body)
	}
	_, a, err := protocol.ParseAnnouncement(got.body, g.now())
	if err != nil {
		g.t.Fatal(err)
	}
	return a
}

// What is changed while the relay serves holds for the next request, and is announced at once under a higher seq.
func TestChange(t *testing.T) {
	g := newRig(t)
	from, to := newKey(t), newKey(t)
	g.grant(from)
	g.store(from, to, "before")
	first := g.announced()

	next := *g.server.live()
	next.Contact = "another@relay.example"
	next.Limits.RecordBytes, next.Limits.MaxPulls = 600, 5
	next.Rates.Address = Rate{PerSecond: 0.001, Burst: 3}
	next.Bounds.HeaderTimeout *= 2 // is the http.Server's: it stays
	if err := g.server.Change(next); err != nil {
		t.Fatal(err)
	}
	second := g.announced()
	if second.Terms[0].Contact != next.Contact || second.Limits.RecordBytes != 600 || second.Limits.MaxPulls != 5 || second.Seq <= first.Seq ||
		second.Limits.HeaderSeconds != first.Limits.HeaderSeconds {
		t.Errorf("it announces %+v, before %+v", second, first)
	}
	if again := g.announced(); again.Seq != second.Seq {
		t.Error("it announces itself anew although nothing has changed")
	}
	large := g.sign(from, to.Public(), &protocol.Write{Relay: g.key.Public(), RecordID: "large", Expires: g.now().Add(3_600_000_000_000), MaxPulls: 1,
		Content: strings.Repeat("aGVsbG8h", 100)})
	if got := g.put(recordPath(from, to, "large"), large); got.status != http.StatusRequestEntityTooLarge || !strings.Contains(string(got.body), "at most 600 bytes") {
		t.Errorf("a record over the new limit: %d %s", got.status, got.body)
	}
	// Two were spent on announcements, one more is left of the burst of 3.
	if got := g.put(recordPath(from, to, "x"), g.write(from, to, "x")); got.status != http.StatusCreated {
		t.Errorf("the last of the burst: %d %s", got.status, got.body)
	}
	if got := g.put(recordPath(from, to, "y"), g.write(from, to, "y")); got.status != http.StatusTooManyRequests {
		t.Errorf("over the new rate: %d %s", got.status, got.body)
	}
	next.Rates.Address = Rate{}
	next.TrustProxy = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	if err := g.server.Change(next); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if got := g.put(recordPath(from, to, strconv.Itoa(i)), g.write(from, to, strconv.Itoa(i))); got.status != http.StatusCreated {
			t.Errorf("without a rate: %d %s", got.status, got.body)
		}
	}
}

// Two changes within one moment of the clock are two announcements: readers tell them apart by seq.
func TestChangesInOneMoment(t *testing.T) {
	at := time.Now()
	g := newRig(t, func(c *Config) { c.Clock = func() time.Time { return at } })
	seq := g.announced().Seq
	for i := range 5 {
		next := *g.server.live()
		next.Limits.MaxPulls = int64(10 + i)
		if err := g.server.Change(next); err != nil {
			t.Fatal(err)
		}
		if a := g.announced(); a.Seq <= seq || a.Limits.MaxPulls != next.Limits.MaxPulls {
			t.Errorf("after seq %d it announces %+v", seq, a)
		} else {
			seq = a.Seq
		}
	}
}

// What cannot be announced is not taken, and nothing of it is.
func TestChangeIsRefusedWhole(t *testing.T) {
	g := newRig(t)
	before := g.server.live()
	for name, spoil := range map[string]func(*Live){
		"record over the protocol's": func(l *Live) { l.Limits.RecordBytes = protocol.MaxEnvelopeSize + 1 },
		"announcement too large":     func(l *Live) { l.Contact = strings.Repeat("x", protocol.MaxAnnouncementSize) },
		"offer without contracts":    func(l *Live) { l.Offer = &protocol.ContractOffer{} },
	} {
		next := *before
		next.Rates.Address = Rate{PerSecond: 1, Burst: 1}
		spoil(&next)
		if err := g.server.Change(next); err == nil {
			t.Errorf("%s: it is taken", name)
		}
		if g.server.live() != before || g.server.addresses.rate.Load().PerSecond != 0 {
			t.Errorf("%s: something has changed", name)
		}
	}
}

// Changes while many requests are at work: for the race detector.
func TestChangeUnderLoad(t *testing.T) {
	g := newRig(t)
	from, to := newKey(t), newKey(t)
	g.grant(from)
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 20 {
				id := strconv.Itoa(w) + "-" + strconv.Itoa(i)
				if got := g.put(recordPath(from, to, id), g.write(from, to, id)); got.status != http.StatusCreated && got.status != http.StatusTooManyRequests {
					t.Errorf("%d %s", got.status, got.body)
				}
			}
		})
	}
	for i := range 50 {
		next := *g.server.live()
		next.Rates.Key = Rate{PerSecond: float64(i % 3 * 1000), Burst: 100}
		next.Limits.MaxPulls = int64(1000 + i)
		next.Bounds.MaxListeners = 10 + i
		if err := g.server.Change(next); err != nil {
			t.Error(err)
		}
		g.announced()
	}
	group.Wait()
}
