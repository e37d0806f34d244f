package market_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/broadcast"
	"relaymarket/broadcast/market"
	"relaymarket/protocol"
)

// town is a market whose relays answer what a test wants.
type town struct {
	t        *testing.T
	relays   []*relay
	listings []market.Listing
	answers  map[protocol.PublicKey]func(*protocol.Announcement) error // changes what it announces, or fails
}

// newTown has relays of rising prices, each in a domain of its own.
func newTown(t *testing.T, relays int) *town {
	t.Helper()
	v := &town{t: t, answers: map[protocol.PublicKey]func(*protocol.Announcement) error{}}
	for i := range relays {
		r := newRelay(t, fmt.Sprintf("relay.test%d", i))
		r.said.Contracts = &protocol.ContractOffer{StorageMsatPerGBDay: int64(1000 * (i + 1)), MinPrepay: 10_000}
		r.said.Limits = protocol.Limits{RecordBytes: 1 << 20}
		v.relays = append(v.relays, r)
		v.listings = append(v.listings, listing(t, r))
	}
	return v
}

// listing is what a book has of a relay.
func listing(t *testing.T, r *relay) market.Listing {
	t.Helper()
	said := r.said
	contracts := *said.Contracts
	said.Contracts = &contracts
	e, err := protocol.Sign(r.PrivateKey, r.Public(), protocol.TimestampOf(time.Now()), &said)
	if err != nil {
		t.Fatal(err)
	}
	return market.Listing{Offer: &broadcast.Offer{Relay: r.Public(), Announcement: &said, Envelope: e, Hash: e.Hash()}}
}

// ask is how its relays answer.
func (v *town) ask(_ context.Context, l market.Listing) (*protocol.Envelope, *protocol.Announcement, error) {
	for _, r := range v.relays {
		if r.Public() != l.Relay {
			continue
		}
		now := *l.Announcement
		contracts := *l.Contracts
		now.Contracts = &contracts
		if change := v.answers[l.Relay]; change != nil {
			if err := change(&now); err != nil {
				return nil, nil, err
			}
		}
		e, err := protocol.Sign(r.PrivateKey, r.Public(), l.Envelope.Timestamp, &now)
		return e, &now, err
	}
	return nil, nil, errors.New("nobody is there")
}

func (v *town) best(n int, want market.Want) (chosen []int, passed []market.Passed) {
	v.t.Helper()
	best, passed, err := market.BestNow(v.t.Context(), v.listings, n, market.DefaultProfile(), want, v.ask)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, b := range best {
		for i, r := range v.relays {
			if r.Public() == b.Relay {
				chosen = append(chosen, i)
			}
		}
	}
	return chosen, passed
}

func sameRelays(a []int, b ...int) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// Those that are gone, are others, or make no contracts any more are passed over; who became dearer falls behind.
func TestBestNow(t *testing.T) {
	v := newTown(t, 6)
	if got, passed := v.best(2, market.Want{}); !sameRelays(got, 0, 1) || len(passed) != 0 {
		t.Errorf("all are there: %v, %v", got, passed)
	}
	gone := errors.New("gone")
	v.answers[v.relays[0].Public()] = func(*protocol.Announcement) error { return gone }
	v.answers[v.relays[1].Public()] = func(a *protocol.Announcement) error { a.Contracts.OpeningPrice = 1000; return nil }
	v.answers[v.relays[2].Public()] = func(a *protocol.Announcement) error { a.Contracts = nil; return nil }
	got, passed := v.best(2, market.Want{})
	if !sameRelays(got, 3, 4) || len(passed) != 2 || !errors.Is(passed[0].Err, gone) || !errors.Is(passed[1].Err, market.ErrNoContracts) {
		t.Errorf("two are gone and one is dearer: %v, %v", got, passed)
	}
	if got, passed := v.best(6, market.Want{}); !sameRelays(got, 3, 4, 5, 1) || len(passed) != 2 {
		t.Errorf("more than there are: %v, %v", got, passed)
	}
	v.answers[v.relays[3].Public()] = func(a *protocol.Announcement) error { a.Network = protocol.Mainnet; return nil }
	if got, _ := v.best(1, market.Want{}); !sameRelays(got, 4) {
		t.Errorf("one is on another network: %v", got)
	}
}

// A listing is asked where it is, and another that answers there is not taken for it.
func TestBestNowAnother(t *testing.T) {
	v := newTown(t, 2)
	other := newRelay(t, "other.example")
	best, passed, err := market.BestNow(t.Context(), v.listings, 1, market.DefaultProfile(), market.Want{},
		func(ctx context.Context, l market.Listing) (*protocol.Envelope, *protocol.Announcement, error) {
			e, a, err := v.ask(ctx, l)
			if err == nil && l.Relay == v.relays[0].Public() {
				e, err = protocol.Sign(other.PrivateKey, other.Public(), l.Envelope.Timestamp, a)
			}
			return e, a, err
		})
	if err != nil || len(best) != 1 || best[0].Relay != v.relays[1].Public() || len(passed) != 1 || !errors.Is(passed[0].Err, market.ErrAnother) {
		t.Errorf("%v %v %v", best, passed, err)
	}
}

// What is rented already takes its operator and its place with it, and a deposit has to be enough.
func TestBestRentedAndDeposit(t *testing.T) {
	v := newTown(t, 4)
	v.relays[1].said.Terms = []protocol.Terms{{Type: "contract", Contact: "anna"}}
	v.relays[3].said.Terms = []protocol.Terms{{Type: "contract", Contact: " Anna "}}
	for i, r := range v.relays {
		v.listings[i] = listing(t, r)
	}
	if got, _ := v.best(4, market.Want{Rented: []protocol.PublicKey{v.relays[1].Public()}}); !sameRelays(got, 0, 2) {
		t.Errorf("one of Anna's is rented: %v", got)
	}
	if got, _ := v.best(4, market.Want{Not: []protocol.PublicKey{v.relays[1].Public()}}); !sameRelays(got, 0, 2, 3) {
		t.Errorf("one of Anna's is not wanted: %v", got)
	}
	for deposit, n := range map[btcutil.Amount]int{9_999: 0, 10_000: 3} {
		if got, _ := v.best(4, market.Want{Deposit: deposit}); len(got) != n {
			t.Errorf("with %d sat: %v", int64(deposit), got)
		}
	}
	v.listings[0].Contracts.OpeningPrice = 10_000
	if got, _ := v.best(4, market.Want{Deposit: 10_000}); len(got) != 2 {
		t.Errorf("the opening price takes all: %v", got)
	}
}
