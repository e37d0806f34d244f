package hub_test

import (
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/protocol"
)

// A newcomer gets the whole book, in more than one page; whoever follows hears of what is new, and of nothing twice.
func TestNewcomer(t *testing.T) {
	c := newClock()
	n := startNode(t, c)
	conn := n.stranger()
	relays := map[protocol.PublicKey]int64{}
	const many = feed.PageRelays + 50
	for range many {
		r := newRelay(t)
		if receipt := n.send(conn, r.says(t, c.now(), 8, time.Hour)); !receipt.Taken || receipt.Reason != "" {
			t.Fatalf("%+v", receipt)
		}
		relays[r.Public()] = 1
	}
	if got := n.book(); !maps.Equal(got, relays) {
		t.Fatalf("a newcomer finds %d of %d", len(got), len(relays))
	}
	r := newRelay(t)
	live, err := conn.SubscribeSync(broadcast.AnnounceWildcard(network))
	if err != nil {
		t.Fatal(err)
	}
	first := r.says(t, c.now(), 8, time.Hour)
	for range 3 {
		if receipt := n.send(conn, first); !receipt.Taken {
			t.Errorf("%+v", receipt)
		}
	}
	second := r.says(t, c.now(), 8, time.Hour)
	n.send(conn, second)
	if receipt := n.send(conn, first); receipt.Taken || receipt.Reason != broadcast.ReasonOld || receipt.Seq != 2 {
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
	if got := n.book()[r.Public()]; got != 2 {
		t.Errorf("seq %d is in the book", got)
	}
}

// The book outlives a restart, and so does what is known of the past: an announcement that was withdrawn stays so.
func TestRestart(t *testing.T) {
	c := newClock()
	n := startNode(t, c)
	conn := n.stranger()
	staying, leaving := newRelay(t), newRelay(t)
	n.send(conn, staying.says(t, c.now(), 8, 24*time.Hour))
	before := leaving.says(t, c.now(), 8, 7*24*time.Hour)
	n.send(conn, before)
	if r := n.send(conn, leaving.says(t, c.now(), 8, time.Second)); !r.Taken {
		t.Fatalf("%+v", r)
	}
	c.pass(2 * time.Second)
	want := map[protocol.PublicKey]int64{staying.Public(): 1}
	for range 2 {
		if got := n.book(); !maps.Equal(got, want) {
			t.Fatalf("the book has %v", got)
		}
		conn = n.stranger()
		if r := n.send(conn, before); r.Taken || r.Reason != broadcast.ReasonOld {
			t.Errorf("what was withdrawn: %+v", r)
		}
		n.halt()
		n.start()
	}
}

// Three hubs that take from each other in a circle end with the same book, and what goes round dies.
func TestLoopOfThree(t *testing.T) {
	c := newClock()
	ends := []*node{startNode(t, c), startNode(t, c), startNode(t, c)}
	for i, n := range ends {
		n.halt()
		n.peers = []string{"nats://" + ends[(i+1)%3].listen, "nats://" + ends[(i+2)%3].listen}
	}
	for _, n := range ends {
		n.start()
	}
	want := map[protocol.PublicKey]int64{}
	for _, n := range ends {
		conn := n.stranger()
		for range 20 {
			r := newRelay(t)
			n.send(conn, r.says(t, c.now(), 8, time.Hour))
			n.send(conn, r.says(t, c.now(), 8, time.Hour))
			want[r.Public()] = 2
		}
	}
	for i, n := range ends {
		wait(t, "all books are equal", func() bool { return maps.Equal(n.book(), want) })
		if taken := n.counted("taken_total", ""); taken > 2*len(want) {
			t.Errorf("hub %d took %d announcements, there were %d", i, taken, 2*len(want))
		}
	}
	quietAt := func() (sum int) {
		for _, n := range ends {
			sum += n.counted("taken_total", "") + n.counted("dropped_total", "")
		}
		return sum
	}
	at := quietAt()
	wait(t, "nothing goes round", func() bool {
		before := at
		time.Sleep(300 * time.Millisecond)
		at = quietAt()
		return at == before
	})
}

// Two hubs that could not reach each other for five minutes have equal books soon afterwards.
func TestPartition(t *testing.T) {
	c := newClock()
	a := startNode(t, c)
	b := startNode(t, c, a.server.URL())
	want := map[protocol.PublicKey]int64{}
	r := newRelay(t)
	a.send(a.stranger(), r.says(t, c.now(), 8, time.Hour))
	want[r.Public()] = 1
	wait(t, "b has it", func() bool { return maps.Equal(b.book(), want) })
	a.halt()
	c.pass(5 * time.Minute)
	// Meanwhile, on both sides.
	other := newRelay(t)
	b.send(b.stranger(), other.says(t, c.now(), 8, time.Hour))
	a.peers = []string{b.server.URL()}
	a.start()
	a.send(a.stranger(), r.says(t, c.now(), 8, time.Hour))
	want[r.Public()], want[other.Public()] = 2, 1
	wait(t, "both books are equal", func() bool { return maps.Equal(a.book(), want) && maps.Equal(b.book(), want) })
}

// When the book is full the least work goes, and who worked as little as the others does not come in.
func TestFullBook(t *testing.T) {
	c := newClock()
	n := newNode(t, c)
	n.bounds = broadcast.Bounds{Relays: 20, Bytes: 1 << 20, Host: 4}
	n.start()
	t.Cleanup(n.halt)
	conn := n.stranger()
	strong := newRelay(t)
	n.send(conn, strong.says(t, c.now(), 12, time.Hour))
	for range 19 {
		n.send(conn, newRelay(t).says(t, c.now(), 9, time.Hour))
	}
	if r := n.send(conn, newRelay(t).says(t, c.now(), 9, time.Hour)); r.Reason != broadcast.ReasonBookFull || r.Bits != 10 {
		t.Errorf("as little work as the others: %+v", r)
	}
	late := newRelay(t)
	if r := n.send(conn, late.says(t, c.now(), 10, time.Hour)); !r.Taken {
		t.Errorf("more work: %+v", r)
	}
	book := n.book()
	if len(book) != 20 || book[strong.Public()] != 1 || book[late.Public()] != 1 || n.counted("dropped_total", "displaced") != 1 {
		t.Errorf("%d in the book, %d displaced", len(book), n.counted("dropped_total", "displaced"))
	}
	c.pass(2 * time.Hour)
	wait(t, "who has expired gives way", func() bool { return n.send(conn, newRelay(t).says(t, c.now(), 8, time.Hour)).Taken })
}

// One who does not read is cut off; others are served as before.
func TestSlowSubscriber(t *testing.T) {
	c := newClock()
	n := startNode(t, c)
	slow := stalled(t, n.listen)
	conn := n.stranger()
	live := make(chan *nats.Msg, 100_000)
	if _, err := conn.ChanSubscribe(broadcast.AnnounceWildcard(network), live); err != nil {
		t.Fatal(err)
	}
	r := newRelay(t)
	n.send(conn, r.says(t, c.now(), 8, time.Hour))
	<-live
	// He asks for the book again and again, and reads nothing of it.
	for range 200 {
		n.send(conn, newRelay(t).says(t, c.now(), 8, time.Hour))
	}
	slow(t)
	wait(t, "he is cut off", func() bool { return n.server.Slow() > 0 })
	began := time.Now()
	if receipt := n.send(conn, r.says(t, c.now(), 8, time.Hour)); !receipt.Taken {
		t.Errorf("%+v", receipt)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("another was held up for %s", took)
	}
}
