package market_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"relaymarket/broadcast"
	"relaymarket/broadcast/hubserver"
	"relaymarket/broadcast/market"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testhub"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) { testpg.Main(m) }

// reader is a user with his file, who opens it again and again.
type reader struct {
	t    *testing.T
	c    *testhub.Clock
	path string
}

func newReader(t *testing.T, c *testhub.Clock) reader {
	return reader{t, c, filepath.Join(t.TempDir(), "market.db")}
}

func (r reader) open() *market.Book {
	r.t.Helper()
	b, err := market.Open(r.t.Context(), market.Config{Path: r.path, Network: testhub.Network, Clock: r.c.Now})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = b.Close() })
	return b
}

// with opens the book with hubs and reads them.
func (r reader) with(hubs ...string) (*market.Book, []market.Report) {
	r.t.Helper()
	b := r.open()
	for _, h := range hubs {
		if err := b.AddHub(r.t.Context(), h); err != nil {
			r.t.Fatal(err)
		}
	}
	reports, err := b.Refresh(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return b, reports
}

// seqs is what a book has.
func seqs(t *testing.T, b *market.Book) map[protocol.PublicKey]int64 {
	t.Helper()
	offers, err := b.Offers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[protocol.PublicKey]int64{}
	for _, o := range offers {
		found[o.Relay] = o.Seq
	}
	return found
}

// relay announces what a test wants.
type relay struct {
	*protocol.PrivateKey
	said protocol.Announcement
}

func newRelay(t *testing.T, host string) *relay {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &relay{key, protocol.Announcement{Addresses: []string{"https://" + host}, Network: testhub.Network, Terms: []protocol.Terms{},
		Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: 1000}}}
}

// next is its next announcement, valid for a time.
func (r *relay) next(t *testing.T, at time.Time, valid time.Duration) []byte {
	t.Helper()
	stamp := protocol.TimestampOf(at)
	r.said.Seq++
	r.said.ValidUntil = stamp.Add(valid)
	e, err := broadcast.Prover{}.Announce(t.Context(), r.PrivateKey, stamp, &r.said, 8)
	if err != nil {
		t.Fatal(err)
	}
	return e.Bytes()
}

func tell(t *testing.T, hub *testhub.Node, data []byte) {
	t.Helper()
	conn := hub.Stranger()
	defer conn.Close()
	if receipt := hub.Send(conn, data); !receipt.Taken {
		t.Fatalf("%+v", receipt)
	}
}

// Two hubs, of which each knows what the other does not, are one book; it is there after the program ended, and without any
// hub; what was withdrawn does not come back from a hub that has not heard of it.
func TestMergeAndRemember(t *testing.T) {
	c := testhub.NewClock()
	one, two := testhub.Start(t, c), testhub.Start(t, c)
	r := newReader(t, c)
	b := r.open()
	if _, err := b.Refresh(t.Context()); !errors.Is(err, market.ErrNoHubs) {
		t.Errorf("without a hub: %v", err)
	}
	left, right, both := newRelay(t, "left.example"), newRelay(t, "right.example"), newRelay(t, "both.example")
	tell(t, one, left.next(t, c.Now(), time.Hour))
	tell(t, two, right.next(t, c.Now(), time.Hour))
	older := both.next(t, c.Now(), 7*24*time.Hour)
	tell(t, one, older)
	tell(t, two, both.next(t, c.Now(), 2*time.Hour))

	b, reports := r.with(one.URL(), two.URL())
	for _, report := range reports {
		if report.Err != nil || report.Tally.Bad() != 0 {
			t.Errorf("%s: %+v %v", report.Hub.Address, report.Tally, report.Err)
		}
	}
	want := map[protocol.PublicKey]int64{left.Public(): 1, right.Public(): 1, both.Public(): 2}
	same(t, "both hubs", seqs(t, b), want)
	two.Halt()
	b, reports = r.with()
	for _, report := range reports {
		if (report.Err != nil) != (report.Hub.Address == two.URL()) {
			t.Errorf("%s: %v", report.Hub.Address, report.Err)
		}
		if report.Tally.Taken != 0 {
			t.Errorf("%s told something new: %+v", report.Hub.Address, report.Tally)
		}
	}
	same(t, "after a restart, with one hub away", seqs(t, b), want)

	c.Pass(61 * time.Minute)
	delete(want, left.Public())
	delete(want, right.Public())
	same(t, "after an hour", seqs(t, b), want)
	c.Pass(time.Hour)
	b, _ = r.with()
	same(t, "what was valid longer, but older", seqs(t, b), nil)
	if err := b.RemoveHub(t.Context(), two.URL()); err != nil {
		t.Error(err)
	}
	if err := b.RemoveHub(t.Context(), two.URL()); !errors.Is(err, market.ErrNoHub) {
		t.Error(err)
	}
	if hubs, err := b.Hubs(t.Context()); err != nil || len(hubs) != 1 || hubs[0].Heard == 0 {
		t.Errorf("%+v %v", hubs, err)
	}
}

func same(t *testing.T, when string, got, want map[protocol.PublicKey]int64) {
	t.Helper()
	if len(got) != len(want) || fmt.Sprint(got) != fmt.Sprint(want) && len(want) > 0 {
		t.Errorf("%s the book has %v, want %v", when, got, want)
	}
}

// A hub that checks nothing, and puts into its stream whatever it likes, brings nothing false into a reader's book.
func TestLyingHub(t *testing.T) {
	c := testhub.NewClock()
	server, err := hubserver.Start(hubserver.Config{Network: testhub.Network, Listen: "127.0.0.1:0", Folder: t.TempDir(), Bytes: 16 << 20, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: broadcast.StreamName(testhub.Network),
		Subjects: []string{broadcast.AnnounceWildcard(testhub.Network)}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	put := func(of protocol.PublicKey, data []byte) {
		if _, err := js.Publish(t.Context(), broadcast.AnnounceSubject(testhub.Network, of), data); err != nil {
			t.Fatal(err)
		}
	}
	honest, other := newRelay(t, "honest.example"), newRelay(t, "other.example")
	first := honest.next(t, c.Now(), time.Hour)
	put(honest.Public(), honest.next(t, c.Now(), time.Hour))
	put(honest.Public(), first)                               // old
	put(other.Public(), first)                                // on another's subject
	put(other.Public(), []byte("{}"))                         // none
	put(other.Public(), append([]byte(" "), first...))        // other bytes
	put(other.Public(), other.next(t, c.Now(), -time.Second)) // expired
	forged := other.next(t, c.Now(), time.Hour)
	forged[len(forged)-5] ^= 1
	put(other.Public(), forged)
	r := newReader(t, c)
	b, reports := r.with(server.URL())
	same(t, "of a lying hub", seqs(t, b), map[protocol.PublicKey]int64{honest.Public(): 2})
	if reports[0].Tally.Bad() < 4 || reports[0].Err != nil {
		t.Errorf("it is told as %+v, %v", reports[0].Tally, reports[0].Err)
	}
}

// Whoever watches hears of each change once, whichever hub tells it first, and has it in his book.
func TestWatch(t *testing.T) {
	c := testhub.NewClock()
	one := testhub.Start(t, c)
	two := testhub.Start(t, c, one.URL())
	r := newReader(t, c)
	a := newRelay(t, "a.example")
	tell(t, one, a.next(t, c.Now(), time.Hour))
	b, _ := r.with(one.URL(), two.URL())
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan market.Change, 100), make(chan error, 1)
	go func() {
		done <- b.Watch(ctx, func(change market.Change) error { changes <- change; return nil })
	}()
	n := newRelay(t, "n.example")
	tell(t, one, n.next(t, c.Now(), time.Hour))
	tell(t, one, n.next(t, c.Now(), time.Hour))
	tell(t, two, a.next(t, c.Now(), time.Hour))
	heard := map[protocol.PublicKey]int64{}
	for heard[n.Public()] != 2 || heard[a.Public()] != 2 {
		select {
		case change := <-changes:
			if heard[change.Offer.Relay] >= change.Offer.Seq {
				t.Errorf("seq %d after %d", change.Offer.Seq, heard[change.Offer.Relay])
			}
			if change.Hub != one.URL() && change.Hub != two.URL() {
				t.Errorf("told by %q", change.Hub)
			}
			heard[change.Offer.Relay] = change.Offer.Seq
			if seqs(t, b)[change.Offer.Relay] < change.Offer.Seq {
				t.Error("it is told before it is kept")
			}
		case <-time.After(3 * time.Minute):
			t.Fatalf("heard only %v", heard)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The same book over HTTP, of real relays; they are found by address and key, and probed.
func TestOverHTTP(t *testing.T) {
	hub := testnode.Start(t, testnode.Options{Setup: func(cfg *relaynode.Config) {
		cfg.Market = relaynode.Market{Network: testhub.Network, Hub: &relaynode.Hub{Listen: "127.0.0.1:0", Folder: t.TempDir()}}
	}})
	other := testnode.Start(t, testnode.Options{Setup: func(cfg *relaynode.Config) {
		cfg.Market = relaynode.Market{Network: testhub.Network, Hubs: []string{hub.HubURL}}
	}})
	r := newReader(t, testhub.NewClock())
	var b *market.Book
	testhub.Wait(t, "both are in the book", func() bool {
		if b != nil {
			_ = b.Close()
		}
		var reports []market.Report
		b, reports = r.with(hub.URL)
		if reports[0].Err != nil {
			t.Log(reports[0].Err)
		}
		return len(seqs(t, b)) == 2
	})
	for _, typed := range []string{other.Key.String(), other.Key.Bech32(), other.URL, other.Key.Bech32()[:14]} {
		if l, err := b.Find(t.Context(), typed); err != nil || l.Relay != other.Key {
			t.Errorf("%s finds %v, %v", typed, l, err)
		}
	}
	if _, err := b.Find(t.Context(), "http://127.0.0.1"); !errors.Is(err, market.ErrSeveral) {
		t.Error(err)
	}
	if _, err := b.Find(t.Context(), "https://none.example"); !errors.Is(err, market.ErrNoRelay) {
		t.Error(err)
	}
	if found, err := b.FoundHubs(t.Context()); err != nil || len(found) != 1 || found[0] != hub.HubURL {
		t.Errorf("%v, %v", found, err)
	}
	l, err := b.Find(t.Context(), other.URL)
	if err != nil {
		t.Fatal(err)
	}
	posing := *l
	posing.Offer = &broadcast.Offer{Announcement: &protocol.Announcement{Addresses: []string{hub.URL}}, Relay: l.Relay}
	other.Stop()
	gone := *l
	hubs, err := b.Find(t.Context(), hub.URL)
	if err != nil {
		t.Fatal(err)
	}
	probes := b.Probe(t.Context(), []market.Listing{*hubs, posing, gone})
	if probes[0].Err != nil || probes[0].Distance <= 0 || !errors.Is(probes[1].Err, market.ErrAnother) || probes[2].Err == nil {
		t.Errorf("%+v", probes)
	}
	if _, reports := r.with(other.URL); reports[1].Err == nil && reports[0].Err == nil {
		t.Error("a hub that is away is no fault")
	}
}

// offer is a listing for choosing from.
func offer(host, contact string, storage int64, first int) market.Listing {
	var key protocol.PublicKey
	copy(key[:], host)
	return market.Listing{First: protocol.Timestamp(first), Offer: &broadcast.Offer{Relay: key, Announcement: &protocol.Announcement{
		Addresses: []string{"https://" + host}, Terms: []protocol.Terms{{Type: "contract", Payment: true, Contact: contact}},
		Limits:    protocol.Limits{RecordBytes: 1 << 20, LifetimeMs: ledger.Day},
		Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: storage, BandwidthMsatPerGB: 50_000, OpeningPrice: 5000}}}}
}

func TestBest(t *testing.T) {
	grant := offer("grant.example", "", 0, 0)
	grant.Contracts = nil
	greedy := offer("greedy.example", "", 1<<53-1, 0)
	bond := offer("bond.example", "", 2000, 9)
	bond.Contracts.BondPercent = 10
	all := []market.Listing{grant, greedy, offer("a.one.example", "ann", 1000, 1), offer("b.one.example", "bob", 1001, 1), offer("two.example", "ANN ", 1002, 1),
		offer("10.1.2.3", "", 1500, 1), offer("10.1.9.9", "", 1501, 1), offer("[2001:db8::1]", "", 1600, 1), offer("[2001:db8:5::1]", "", 1601, 1),
		offer("old.test", "", 2000, 1), offer("new.test2", "", 2000, 2), bond}
	var hosts []string
	for _, p := range market.Best(all, 6, market.DefaultProfile(), market.Want{Most: 1_000_000}) {
		hosts = append(hosts, p.Address())
	}
	want := "[https://a.one.example https://10.1.2.3 https://[2001:db8::1] https://bond.example https://old.test https://new.test2]"
	if fmt.Sprint(hosts) != want {
		t.Errorf("chosen are %v,\nwant %s", hosts, want)
	}
	if got := market.Rank(all, market.DefaultProfile(), market.Want{BondPercent: 5}); len(got) != 1 || got[0].Relay != bond.Relay {
		t.Errorf("with a bond: %v", got)
	}
	if got := market.Rank(all, market.DefaultProfile(), market.Want{RecordBytes: 2 << 20}); len(got) != 0 {
		t.Errorf("with larger records: %v", got)
	}
	if got := market.Rank(all, market.DefaultProfile(), market.Want{LifetimeMs: 2 * ledger.Day}); len(got) != 0 {
		t.Errorf("with longer lives: %v", got)
	}
}

// Terms narrow the market, and who is chosen wants nothing but payment, unless the user puts up with more.
func TestBestOnTerms(t *testing.T) {
	reads, shows, kind, plain := offer("reads.test1", "", 1000, 1), offer("shows.test2", "", 2000, 1), offer("kind.test3", "", 3000, 1), offer("plain.test4", "", 4000, 1)
	reads.Terms[0].Plaintext, shows.Terms[0].Ads = true, true
	kind.Terms = append(kind.Terms, protocol.Terms{Type: protocol.TermsVolunteer, Topic: "weather"}, protocol.Terms{Type: "of the future"})
	all := []market.Listing{reads, shows, kind, plain}
	weather := protocol.Wish{Type: protocol.TermsVolunteer, Topic: "weather"}
	for _, c := range []struct {
		name       string
		terms      []protocol.Wish
		rank, best string
	}{
		{"any", nil, "reads shows kind plain", "kind plain"},
		{"a contract", []protocol.Wish{{Type: protocol.TermsContract, Payment: true}}, "kind plain", "kind plain"},
		{"a contract with ads", []protocol.Wish{{Type: protocol.TermsContract, Payment: true, Ads: true}}, "shows kind plain", "shows kind plain"},
		{"a volunteer for weather", []protocol.Wish{weather}, "kind", "kind"},
		{"a volunteer for sports", []protocol.Wish{{Type: protocol.TermsVolunteer, Topic: "sports"}}, "", ""},
		{"for weather, or paid", []protocol.Wish{weather, {Type: protocol.TermsContract, Payment: true}}, "kind plain", "kind plain"},
		{"a grant", []protocol.Wish{{Type: protocol.TermsGrant}}, "", ""},
	} {
		want := market.Want{Terms: c.terms}
		if got := names(market.Rank(all, market.DefaultProfile(), want)); got != c.rank {
			t.Errorf("%s: the market is %s", c.name, got)
		}
		if got := names(market.Best(all, 4, market.DefaultProfile(), want)); got != c.best {
			t.Errorf("%s: the best are %s", c.name, got)
		}
	}
}

// names are the first labels of their hosts.
func names(relays []market.Priced) string {
	var all []string
	for _, p := range relays {
		all = append(all, strings.TrimPrefix(strings.Split(p.Address(), ".")[0], "https://"))
	}
	return strings.Join(all, " ")
}

// 1 GB for 30 days at 1000 msat are 30 sat, 2 GB moved at 50,000 msat are 100 sat.
func TestCost(t *testing.T) {
	o := offer("x.example", "", 1000, 0).Contracts
	if got, err := market.DefaultProfile().Cost(o); got != 5130 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := (market.Profile{Kept: 1, Moved: 1}).Cost(o); got != 5001 || err != nil {
		t.Errorf("a byte costs %v, %v: it is rounded up once", got, err)
	}
	o.StorageMsatPerGBDay = 1<<53 - 1
	if _, err := (market.Profile{Kept: 1 << 62, Moved: 1 << 62}).Cost(o); !errors.Is(err, ledger.ErrOverflow) {
		t.Errorf("%v", err)
	}
}
