package hub_test

import (
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/internal/testhub"
	"relaymarket/protocol"
)

// A newcomer gets the whole book, in more than one page; whoever follows hears of what is new, and of nothing twice.
func TestNewcomer(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.Start(t, c)
	conn := n.Stranger()
	relays := map[protocol.PublicKey]int64{}
	const many = feed.PageRelays + 50
	for range many {
		r := newRelay(t)
		if receipt := n.Send(conn, r.says(t, c.Now(), 8, time.Hour)); !receipt.Taken || receipt.Reason != "" {
			t.Fatalf("%+v", receipt)
		}
		relays[r.Public()] = 1
	}
	if got := n.Book(); !maps.Equal(got, relays) {
		t.Fatalf("a newcomer finds %d of %d", len(got), len(relays))
	}
	r := newRelay(t)
	live, err := conn.SubscribeSync(broadcast.AnnounceWildcard(network))
	if err != nil {
		t.Fatal(err)
	}
	first := r.says(t, c.Now(), 8, time.Hour)
	for range 3 {
		if receipt := n.Send(conn, first); !receipt.Taken {
			t.Errorf("%+v", receipt)
		}
	}
	second := r.says(t, c.Now(), 8, time.Hour)
	n.Send(conn, second)
	if receipt := n.Send(conn, first); receipt.Taken || receipt.Reason != broadcast.ReasonOld || receipt.Seq != 2 {
		t.Errorf("an older one: %+v", receipt)
	}
	for _, want := range [][]byte{first, second} {
		if m, err := live.NextMsg(patience); err != nil || string(m.Data) != string(want) || m.Subject != broadcast.AnnounceSubject(network, r.Public()) {
			t.Fatalf("heard %v, %v", m, err)
		}
	}
	if m, err := live.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("more is heard: %s", m.Data)
	}
	if got := n.Book()[r.Public()]; got != 2 {
		t.Errorf("seq %d is in the book", got)
	}
}

// The book outlives a restart, and so does what is known of the past: an announcement that was withdrawn stays so.
func TestRestart(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.Start(t, c)
	conn := n.Stranger()
	staying, leaving := newRelay(t), newRelay(t)
	n.Send(conn, staying.says(t, c.Now(), 8, 24*time.Hour))
	before := leaving.says(t, c.Now(), 8, 7*24*time.Hour)
	n.Send(conn, before)
	if r := n.Send(conn, leaving.says(t, c.Now(), 8, time.Second)); !r.Taken {
		t.Fatalf("%+v", r)
	}
	c.Pass(2 * time.Second)
	want := map[protocol.PublicKey]int64{staying.Public(): 1}
	for range 2 {
		if got := n.Book(); !maps.Equal(got, want) {
			t.Fatalf("the book has %v", got)
		}
		conn = n.Stranger()
		if r := n.Send(conn, before); r.Taken || r.Reason != broadcast.ReasonOld {
			t.Errorf("what was withdrawn: %+v", r)
		}
		n.Halt()
		n.Start()
	}
}

// Three hubs that take from each other in a circle end with the same book, and what goes round dies.
func TestLoopOfThree(t *testing.T) {
	c := testhub.NewClock()
	ends := []*testhub.Node{testhub.Start(t, c), testhub.Start(t, c), testhub.Start(t, c)}
	for i, n := range ends {
		n.Halt()
		n.Peers = []string{ends[(i+1)%3].URL(), ends[(i+2)%3].URL()}
	}
	for _, n := range ends {
		n.Start()
	}
	want := map[protocol.PublicKey]int64{}
	for _, n := range ends {
		conn := n.Stranger()
		for range 20 {
			r := newRelay(t)
			n.Send(conn, r.says(t, c.Now(), 8, time.Hour))
			n.Send(conn, r.says(t, c.Now(), 8, time.Hour))
			want[r.Public()] = 2
		}
	}
	for i, n := range ends {
		testhub.Wait(t, "all books are equal", func() bool { return maps.Equal(n.Book(), want) })
		if taken := n.Counted("taken_total", ""); taken > 2*len(want) {
			t.Errorf("hub %d took %d announcements, there were %d", i, taken, 2*len(want))
		}
	}
	quietAt := func() (sum int) {
		for _, n := range ends {
			sum += n.Counted("taken_total", "") + n.Counted("dropped_total", "")
		}
		return sum
	}
	at := quietAt()
	testhub.Wait(t, "nothing goes round", func() bool {
		before := at
		time.Sleep(300 * time.Millisecond)
		at = quietAt()
		return at == before
	})
}

// Two hubs that could not reach each other for five minutes have equal books soon afterwards.
func TestPartition(t *testing.T) {
	c := testhub.NewClock()
	a := testhub.Start(t, c)
	b := testhub.Start(t, c, a.URL())
	want := map[protocol.PublicKey]int64{}
	r := newRelay(t)
	a.Send(a.Stranger(), r.says(t, c.Now(), 8, time.Hour))
	want[r.Public()] = 1
	testhub.Wait(t, "b has it", func() bool { return maps.Equal(b.Book(), want) })
	a.Halt()
	c.Pass(5 * time.Minute)
	// Meanwhile, on both sides.
	other := newRelay(t)
	b.Send(b.Stranger(), other.says(t, c.Now(), 8, time.Hour))
	a.Peers = []string{b.URL()}
	a.Start()
	a.Send(a.Stranger(), r.says(t, c.Now(), 8, time.Hour))
	want[r.Public()], want[other.Public()] = 2, 1
	testhub.Wait(t, "both books are equal", func() bool { return maps.Equal(a.Book(), want) && maps.Equal(b.Book(), want) })
}

// When the book is full the least work goes, and who worked as little as the others does not come in.
func TestFullBook(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.New(t, c)
	n.Bounds = broadcast.Bounds{Relays: 20, Bytes: 1 << 20, Host: 4}
	n.Start()
	conn := n.Stranger()
	strong := newRelay(t)
	n.Send(conn, strong.says(t, c.Now(), 12, time.Hour))
	for range 19 {
		n.Send(conn, newRelay(t).says(t, c.Now(), 9, time.Hour))
	}
	if r := n.Send(conn, newRelay(t).says(t, c.Now(), 9, time.Hour)); r.Reason != broadcast.ReasonBookFull || r.Bits != 10 {
		t.Errorf("as little work as the others: %+v", r)
	}
	late := newRelay(t)
	if r := n.Send(conn, late.says(t, c.Now(), 10, time.Hour)); !r.Taken {
		t.Errorf("more work: %+v", r)
	}
	book := n.Book()
	if len(book) != 20 || book[strong.Public()] != 1 || book[late.Public()] != 1 || n.Counted("dropped_total", "displaced") != 1 {
		t.Errorf("%d in the book, %d displaced", len(book), n.Counted("dropped_total", "displaced"))
	}
	c.Pass(2 * time.Hour)
	testhub.Wait(t, "who has expired gives way", func() bool { return n.Send(conn, newRelay(t).says(t, c.Now(), 8, time.Hour)).Taken })
}

// One who does not read is cut off; others are served as before.
func TestSlowSubscriber(t *testing.T) {
	c := testhub.NewClock()
	n := testhub.Start(t, c)
	slow := stalled(t, n.Address())
	conn := n.Stranger()
	live := make(chan *nats.Msg, 100_000)
	if _, err := conn.ChanSubscribe(broadcast.AnnounceWildcard(network), live); err != nil {
		t.Fatal(err)
	}
	r := newRelay(t)
	n.Send(conn, r.says(t, c.Now(), 8, time.Hour))
	<-live
	// He asks for the book again and again, and reads nothing of it.
	for range 200 {
		n.Send(conn, newRelay(t).says(t, c.Now(), 8, time.Hour))
	}
	slow(t)
	testhub.Wait(t, "he is cut off", func() bool { return n.Server.Slow() > 0 })
	began := time.Now()
	if receipt := n.Send(conn, r.says(t, c.Now(), 8, time.Hour)); !receipt.Taken {
		t.Errorf("%+v", receipt)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("another was held up for %s", took)
	}
}
