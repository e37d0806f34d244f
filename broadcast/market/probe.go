package market

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/protocol"
	"relaymarket/relaytls"
)

// ErrAnother: at the relay's address another relay answers.
var ErrAnother = errors.New("another relay answers there")

// probePatience is for a relay to answer, and parallelProbes are asked at once.
const (
	probePatience  = 10 * time.Second
	parallelProbes = 8
)

// Probe is what a relay answered when it was asked.
type Probe struct {
	Distance time.Duration // a round trip: how long a connection takes to be made
	Err      error         // it did not answer, or is not who it says (ErrAnother)
}

// Probe asks relays who they are, at their first addresses. They see this user's IP address, but not who he is. Probes are in the order of
// the listings.
func (b *Book) Probe(ctx context.Context, listings []Listing) []Probe {
	probes := make([]Probe, len(listings))
	var group errgroup.Group
	group.SetLimit(parallelProbes)
	for i, l := range listings {
		group.Go(func() error {
			probes[i] = b.probe(ctx, l)
			return nil
		})
	}
	_ = group.Wait() // they return none
	return probes
}

func (b *Book) probe(ctx context.Context, l Listing) (p Probe) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	// Another attempt at the connection may still end when the answer is there.
	var began, took atomic.Int64
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(string, string) { began.Store(time.Now().UnixNano()) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				took.CompareAndSwap(0, time.Now().UnixNano()-began.Load())
			}
		},
	})
	if secure, fits := b.http().Transport.(*relaytls.Transport); fits {
		_, host, _ := strings.Cut(l.Address(), "://")
		secure.Expect(host, l.Relay)
	}
	asked := time.Now()
	data, err := b.get(ctx, l.Address()+"/.well-known/relaymarket", protocol.MaxAnnouncementSize)
	if p.Distance = time.Duration(took.Load()); p.Distance == 0 {
		p.Distance = time.Since(asked) // the connection was there already
	}
	if err != nil {
		p.Err = err
		return p
	}
	e, _, err := protocol.ParseAnnouncement(data, b.now())
	switch {
	case err != nil:
		p.Err = fmt.Errorf("its announcement is not valid: %w", err)
	case e.From != l.Relay:
		p.Err = ErrAnother
	}
	return p
}
