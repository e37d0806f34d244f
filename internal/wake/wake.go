// Package wake carries word of commits between the relayd that share a database, over NATS, so that the listeners of each are told at
// once of what another stored.
//
// # What travels
//
//	subject   relaymarket.v1.wake.<public key of the relay, 64 hex digits>.<epoch of its database>
//	message   <origin, 26 characters> <n, decimal>       at most 48 bytes
//
// n is the newest committed place of the relay's cursor; the origin names the process, which thereby knows its own messages. Nothing is
// in it of people, of records, or of who listens. Relays of other keys, and other lives of the same database, do not meet.
//
// # What it is worth
//
// A wake-up is a hint. Whoever gets one reads the database from where he is; the order and the completeness of what listeners are
// told come from there alone. So one that is lost costs time (package records looks every 250 ms anyway), and one that
// is doubled, late, out of order or forged costs at most a query, which records bounds. A commit never waits for one: Committed
// notes the number, and one goroutine sends the newest.
//
// relaynode makes a [Waker] where NATS is shared; records calls it.
package wake

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/internal/natsnode"
	"relaymarket/protocol"
	"relaymarket/records"
)

// What may wait for the goroutine that hears: more is dropped and counted, which loses nothing that the next one does not say.
const (
	maxHeard      = 1024
	maxHeardBytes = 256 << 10
)

// maxMessage is the longest wake-up that is looked at.
const maxMessage = 64

// dropReason is why a wake-up was not sent, or not heard.
type dropReason string

const (
	dropAway      dropReason = "away"      // NATS was not connected, or refused
	dropNewer     dropReason = "newer"     // not sent by itself: the next one said it too
	dropMalformed dropReason = "malformed" // heard, and no wake-up
	dropFlood     dropReason = "flood"     // more came than was looked at
)

// Waker is one process's end. It is safe for concurrent use.
type Waker struct {
	node    *natsnode.Node
	relay   protocol.PublicKey
	origin  string
	newest  atomic.Int64
	due     chan struct{} // capacity 1: newest is to be sent
	said    int64         // the last that was sent; Run's own
	metrics *metrics
}

var _ records.Waker = (*Waker)(nil)

// New makes a waker for the processes of one relay. It starts nothing: [Waker.Run] does. A nil registerer keeps metrics and does not
// show them.
func New(node *natsnode.Node, relay protocol.PublicKey, r prometheus.Registerer) *Waker {
	return &Waker{node: node, relay: relay, origin: rand.Text(), due: make(chan struct{}, 1), metrics: newMetrics(r)}
}

// Subject is where the wake-ups of a relay are, in one life of its database.
func Subject(relay protocol.PublicKey, epoch string) string {
	return "relaymarket.v1.wake." + relay.String() + "." + epoch
}

// Committed implements [records.Waker].
func (w *Waker) Committed(n int64) {
	for {
		before := w.newest.Load()
		if n <= before {
			return
		}
		if w.newest.CompareAndSwap(before, n) {
			break
		}
	}
	select {
	case w.due <- struct{}{}:
	default:
		w.metrics.drop(dropNewer)
	}
}

// Run implements [records.Waker]. When ctx is done it sends what is due and returns.
func (w *Waker) Run(ctx context.Context, epoch string, heard func(n int64)) error {
	subject := Subject(w.relay, epoch)
	flooded := 0
	sub, err := w.node.Conn().Subscribe(subject, func(m *nats.Msg) {
		if dropped, err := m.Sub.Dropped(); err == nil && dropped > flooded {
			w.metrics.dropped.WithLabelValues(string(dropFlood)).Add(float64(dropped - flooded))
			flooded = dropped
		}
		w.hear(m.Data, heard)
	})
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(maxHeard, maxHeardBytes); err != nil {
		return err
	}
	for {
		select {
		case <-w.due:
			w.send(subject)
		case <-ctx.Done():
			select {
			case <-w.due:
				w.send(subject)
			default:
			}
			return w.leave(sub)
		}
	}
}

// leave ends a subscription. Where there is no connection the node's end is the subscription's too, and nothing is waited for.
func (w *Waker) leave(sub *nats.Subscription) error {
	if !w.node.Connected() {
		return nil
	}
	if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
		return err
	}
	return nil
}

func (w *Waker) send(subject string) {
	n := w.newest.Load()
	if n == w.said {
		return // it was newest already when due was set
	}
	w.said = n
	message := w.origin + " " + strconv.FormatInt(n, 10)
	if !w.node.Connected() || w.node.Conn().Publish(subject, []byte(message)) != nil {
		w.metrics.drop(dropAway)
		return
	}
	w.metrics.sent.Inc()
}

func (w *Waker) hear(message []byte, heard func(n int64)) {
	origin, n, ok := parse(message)
	switch {
	case !ok:
		w.metrics.drop(dropMalformed)
	case origin != w.origin:
		w.metrics.received.Inc()
		heard(n)
	}
}

// parse reads a message; anything but the form above is none.
func parse(message []byte) (origin string, n int64, ok bool) {
	if len(message) > maxMessage {
		return "", 0, false
	}
	origin, digits, ok := strings.Cut(string(message), " ")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || origin == "" || err != nil || n < 1 || strconv.FormatInt(n, 10) != digits {
		return "", 0, false
	}
	return origin, n, true
}
