package relayside_test

import (
	"sync"
	"testing"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// A user who was cut off signs again while his first request is still at work. Both make the one contract: a refusal would have him spend
// the coins of a funding that is on its way.
func TestSignedAgainMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, coin)
	d.offer(nil)
	h.retry(func() error { return d.open(nil) })
	d.witness(nil)
	var requests [4]*protocol.Envelope
	for i := range requests {
		requests[i] = u.envelope(d.signed)
	}
	begin := make(chan struct{})
	var all sync.WaitGroup
	for _, e := range requests {
		all.Go(func() {
			<-begin
			if s, err := h.manager.Signed(t.Context(), e, d.signed); err != nil || s.Funding == nil {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
	close(begin)
	all.Wait()
	if n := h.count(`SELECT count(*) FROM contracts`); n != 1 {
		t.Errorf("there are %d contracts", n)
	}
	h.inMempool(d.out.Hash)
	h.mine(6)
	d.reaches(escrow.Active)
}
