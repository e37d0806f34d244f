package market

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"relaymarket/broadcast"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Listing is a relay in the book whose announcement is valid.
type Listing struct {
	*broadcast.Offer
	First   protocol.Timestamp // when this user first heard of the relay
	Changed protocol.Timestamp // when this announcement came
}

// Address is where the relay is, its first one.
func (l Listing) Address() string { return l.Addresses[0] }

// Offers lists every relay whose announcement is valid, those first that have been known longest.
func (b *Book) Offers(ctx context.Context) ([]Listing, error) {
	return b.offers(ctx, `until >= ? ORDER BY first, key`, b.now())
}

func (b *Book) offers(ctx context.Context, where string, args ...any) ([]Listing, error) {
	rows, err := sqlite.Collect(ctx, b.sql, func(scan func(...any) error) (r row, err error) {
		return r, scan(&r.envelope, &r.work, &r.listing.First, &r.listing.Changed)
	}, `SELECT envelope, work, first, changed FROM relays WHERE network = ? AND `+where, append([]any{b.cfg.Network}, args...)...)
	if err != nil {
		return nil, err
	}
	listings := make([]Listing, 0, len(rows))
	for _, r := range rows {
		l, err := r.open()
		if err != nil {
			return nil, fmt.Errorf("the book of the market is damaged, remove its file and read the hubs again: %w", err)
		}
		listings = append(listings, l)
	}
	return listings, nil
}

// row is a listing as it is kept.
type row struct {
	envelope []byte
	work     int
	listing  Listing
}

// open reads an announcement that was checked before it was kept.
func (r row) open() (Listing, error) {
	e, err := protocol.ParseEnvelope(r.envelope)
	if err != nil {
		return Listing{}, err
	}
	l := r.listing
	l.Offer = &broadcast.Offer{Announcement: &protocol.Announcement{}, Relay: e.From, Envelope: e, Hash: e.Hash(), Work: r.work}
	return l, e.Decode(l.Announcement)
}

// Find finds a relay by its key, by its address, or by the beginning of either if that is of one only. The errors are ErrNoRelay and
// ErrSeveral.
func (b *Book) Find(ctx context.Context, typed string) (*Listing, error) {
	if key, err := protocol.ParsePublicKey(typed); err == nil {
		found, err := b.offers(ctx, `key = ? AND until >= ?`, key[:], b.now())
		if err == nil && len(found) == 0 {
			err = ErrNoRelay
		}
		if err != nil {
			return nil, err
		}
		return &found[0], nil
	}
	all, err := b.Offers(ctx)
	if err != nil {
		return nil, err
	}
	var near []Listing
	for _, l := range all {
		for _, address := range l.Addresses {
			if address == typed {
				return &l, nil
			}
		}
		if beginsWith(l, typed) {
			near = append(near, l)
		}
	}
	switch {
	case len(near) == 0:
		return nil, ErrNoRelay
	case len(near) > 1:
		return nil, fmt.Errorf("%w: %s and %s, for example", ErrSeveral, near[0].Address(), near[1].Address())
	}
	return &near[0], nil
}

func beginsWith(l Listing, typed string) bool {
	if typed == "" {
		return false
	}
	if strings.HasPrefix(l.Relay.Bech32(), typed) || strings.HasPrefix(l.Relay.String(), typed) {
		return true
	}
	for _, address := range l.Addresses {
		_, host, _ := strings.Cut(address, "://")
		if strings.HasPrefix(address, typed) || strings.HasPrefix(host, typed) {
			return true
		}
	}
	return false
}

// FoundHubs are hubs that relays name in their announcements and the user does not have, those first that most name.
func (b *Book) FoundHubs(ctx context.Context) ([]string, error) {
	mine, err := b.Hubs(ctx)
	if err != nil {
		return nil, err
	}
	offers, err := b.Offers(ctx)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, o := range offers {
		for _, hub := range o.Hubs {
			count[hub]++
		}
	}
	for _, h := range mine {
		delete(count, h.Address)
	}
	found := make([]string, 0, len(count))
	for hub := range count {
		found = append(found, hub)
	}
	slices.SortFunc(found, func(a, b string) int { return cmp.Or(count[b]-count[a], cmp.Compare(a, b)) })
	return found, nil
}

// hostname is the host of an address, without a port.
func hostname(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Hostname()
}
