package market

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

// Ask asks a relay, at its first address, what it announces now: a verified announcement, its signer's.
type Ask func(ctx context.Context, l Listing) (*protocol.Envelope, *protocol.Announcement, error)

// Passed is a relay that would have been among the best, and why it is not.
type Passed struct {
	Listing
	Err error // it did not answer, is another (ErrAnother), or makes no contracts on this network any more (ErrNoContracts)
}

// ErrNoContracts: a relay makes no contracts on this network, whatever it said before.
var ErrNoContracts = errors.New("it makes no contracts on this network any more")

// BestNow is [Best] of the relays that answer, at what they ask now: each relay that would be among the best is asked, until all of
// them were. Best are listings with what the relays said; passed are those that were left out, in the order in which they were asked.
// The error is ctx's.
func BestNow(ctx context.Context, listings []Listing, n int, p Profile, want Want, ask Ask) (best []Priced, passed []Passed, err error) {
	listings = slices.Clone(listings)
	want.Not = slices.Clone(want.Not)
	asked := map[protocol.PublicKey]bool{}
	for {
		best = Best(listings, n, p, want)
		ahead := slices.DeleteFunc(slices.Clone(best), func(c Priced) bool { return asked[c.Relay] })
		if len(ahead) == 0 {
			return best, passed, nil
		}
		offers, faults := askAll(ctx, ahead, ask)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		for i, c := range ahead {
			asked[c.Relay] = true
			if faults[i] != nil {
				want.Not = append(want.Not, c.Relay)
				passed = append(passed, Passed{c.Listing, faults[i]})
				continue
			}
			at := slices.IndexFunc(listings, func(l Listing) bool { return l.Relay == c.Relay })
			listings[at].Offer = offers[i]
		}
	}
}

// askAll asks several relays at once.
func askAll(ctx context.Context, candidates []Priced, ask Ask) (offers []*broadcast.Offer, faults []error) {
	offers, faults = make([]*broadcast.Offer, len(candidates)), make([]error, len(candidates))
	var group errgroup.Group
	group.SetLimit(parallelProbes)
	for i, c := range candidates {
		group.Go(func() error {
			offers[i], faults[i] = askOne(ctx, c.Listing, ask)
			return nil
		})
	}
	_ = group.Wait() // they return none
	return offers, faults
}

func askOne(ctx context.Context, l Listing, ask Ask) (*broadcast.Offer, error) {
	e, a, err := ask(ctx, l)
	switch {
	case err != nil:
		return nil, err
	case e.From != l.Relay:
		return nil, ErrAnother
	case a.Contracts == nil || a.Network != l.Network:
		return nil, ErrNoContracts
	}
	now := *l.Offer
	now.Announcement, now.Envelope, now.Hash = a, e, e.Hash()
	if len(a.Addresses) == 0 {
		kept := *a
		kept.Addresses = l.Addresses // where it was found
		now.Announcement = &kept
	}
	return &now, nil
}
