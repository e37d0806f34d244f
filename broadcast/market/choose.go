package market

import (
	"cmp"
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Profile is what a user needs of each relay in a month of thirty days.
type Profile struct {
	Kept  int64 // bytes that are stored at a time, on average
	Moved int64 // bytes written, and pulled
}

// Month is the time that a [Profile] is for, and how long a contract usually runs, in milliseconds.
const Month = 30 * ledger.Day

// DefaultProfile is for who has sent nothing yet: a gigabyte kept, and two gigabytes moved.
func DefaultProfile() Profile { return Profile{Kept: ledger.GB, Moved: 2 * ledger.GB} }

// Cost is what a month costs on these terms: usage, rounded up once, and the opening price of one contract. The error is
// [ledger.ErrOverflow]: more than there is.
func (p Profile) Cost(o *protocol.ContractOffer) (btcutil.Amount, error) {
	prices := ledger.Prices{Storage: protocol.Msat(o.StorageMsatPerGBDay), Bandwidth: protocol.Msat(o.BandwidthMsatPerGB)}
	usage := ledger.Usage{Stored: ledger.Times(p.Kept, Month), Moved: ledger.Times(p.Moved, 1)}
	msat, err := prices.Cost(usage)
	if err != nil {
		return 0, err
	}
	sat := ledger.Sat(msat) + o.OpeningPrice // neither passes 2^62
	if sat > btcutil.MaxSatoshi {
		return 0, ledger.ErrOverflow
	}
	return sat, nil
}

// Want is what a relay has to be like. The zero value takes any that makes contracts.
type Want struct {
	RecordBytes int64          // that it has to take in one record
	LifetimeMs  int64          // that it has to keep a record
	BondPercent int64          // of the deposit at least
	Most        btcutil.Amount // a month may cost; 0: any
	Deposit     btcutil.Amount // that it has to take, and leave something of beyond the opening price; 0: any
	// Terms: one of these is met by what the relay offers; none: any. [Best] takes no contract that wants more than payment, content that is
	// not sealed or its notice shown, unless one of them puts up with that.
	Terms []protocol.Wish
	// Rented are relays that are not wanted, nor, by [Best], what is of their operator or at their place. Not are relays that are
	// just not wanted.
	Rented, Not []protocol.PublicKey
}

// takes tells whether a relay is like that, but for the price.
func (w Want) takes(l Listing) bool {
	c := l.Contracts
	switch {
	case c == nil, l.Limits.RecordBytes < w.RecordBytes, l.Limits.LifetimeMs < w.LifetimeMs, c.BondPercent < w.BondPercent:
		return false
	case w.Deposit != 0 && (c.MinPrepay > w.Deposit || c.OpeningPrice >= w.Deposit):
		return false
	}
	return !slices.Contains(w.Not, l.Relay) && !slices.Contains(w.Rented, l.Relay) && w.Offers(l)
}

// contract tells whether the user puts up with what the relay wants of a contract beside payment.
func (w Want) contract(l Listing) bool {
	plain := protocol.Wish{Type: protocol.TermsContract, Payment: true}
	said := false
	for i := range l.Terms {
		if l.Terms[i].Type != protocol.TermsContract {
			continue
		}
		said = true
		if ok, _ := plain.Meets(&l.Terms[i]); ok {
			return true
		}
		for _, wish := range w.Terms {
			if ok, _ := wish.Meets(&l.Terms[i]); ok {
				return true
			}
		}
	}
	return !said
}

// Offers tells whether a relay offers one of the wanted terms.
func (w Want) Offers(l Listing) bool {
	return len(w.Terms) == 0 || slices.ContainsFunc(w.Terms, func(wish protocol.Wish) bool {
		met, _ := wish.Match(l.Terms)
		return met != nil
	})
}

// Priced is a relay that makes contracts, and what a month costs.
type Priced struct {
	Listing
	Cost btcutil.Amount
}

// Rank is the relays that do, the cheapest first, then those with the larger bond, then those that have been known longest.
func Rank(listings []Listing, p Profile, want Want) []Priced {
	var ranked []Priced
	for _, l := range listings {
		if !want.takes(l) {
			continue
		}
		cost, err := p.Cost(l.Contracts)
		if err != nil || want.Most > 0 && cost > want.Most {
			continue
		}
		ranked = append(ranked, Priced{l, cost})
	}
	slices.SortFunc(ranked, func(a, b Priced) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.Contracts.BondPercent, a.Contracts.BondPercent),
			cmp.Compare(a.First, b.First), slices.Compare(a.Relay[:], b.Relay[:]))
	})
	return ranked
}

// Best is the n best relays that fail independently, as far as can be seen: no two of one operator (key or contact), and no two at one
// place (host, domain, or network of an IP address). There may be fewer.
func Best(listings []Listing, n int, p Profile, want Want) []Priced {
	taken := map[string]bool{}
	for _, l := range listings {
		if slices.Contains(want.Rented, l.Relay) {
			for _, m := range marksOf(l) {
				taken[m] = true
			}
		}
	}
	var best []Priced
	for _, candidate := range Rank(listings, p, want) {
		if len(best) == n {
			break
		}
		marks := marksOf(candidate.Listing)
		if !want.contract(candidate.Listing) || slices.ContainsFunc(marks, func(m string) bool { return taken[m] }) {
			continue
		}
		for _, m := range marks {
			taken[m] = true
		}
		best = append(best, candidate)
	}
	return best
}

// Best is [Best] of this book.
func (b *Book) Best(ctx context.Context, n int, p Profile, want Want) ([]Priced, error) {
	listings, err := b.Offers(ctx)
	if err != nil {
		return nil, err
	}
	return Best(listings, n, p, want), nil
}

// marksOf is what two relays that fail independently do not share.
func marksOf(l Listing) []string {
	marks := []string{"key " + l.Relay.String()}
	for _, t := range l.Terms {
		if contact := strings.ToLower(strings.TrimSpace(t.Contact)); contact != "" {
			marks = append(marks, "contact "+contact)
		}
	}
	for _, address := range l.Addresses {
		marks = append(marks, "place "+place(address))
	}
	return marks
}

// place is coarse: the IPv4 /16, the IPv6 /32, the last two labels of a name; on loopback the port, where a whole market is one machine.
func place(address string) string {
	host := hostname(address)
	ip, err := netip.ParseAddr(host)
	if err != nil {
		labels := strings.Split(host, ".")
		if host == "localhost" {
			return withPort(address)
		}
		return strings.Join(labels[max(0, len(labels)-2):], ".")
	}
	ip = ip.Unmap()
	if ip.IsLoopback() {
		return withPort(address)
	}
	length := 32
	if ip.Is4() {
		length = 16
	}
	prefix, err := ip.Prefix(length)
	if err != nil {
		return host
	}
	return prefix.String()
}

func withPort(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Host
}
