package relaynode

import (
	"net/netip"
	"time"

	"relaymarket/api"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
	"relaymarket/records"
)

// Live is the part of a [Config] that a running relay can change, through [Ready].Change.
type Live struct {
	Contact         string
	TrustedProxies  []netip.Prefix
	Limits          records.Limits // Lifetime stays what it was
	Rates           api.Rates
	Bounds          api.Bounds              // HeaderTimeout stays what it was
	Offer           *protocol.ContractOffer // of no effect without a Bitcoin node
	Volunteer       willing.Policy
	Keep            int64 // see Database.Keep
	ShutdownTimeout time.Duration
}

// Live is the part of a configuration that can change.
func (c *Config) Live() Live {
	return Live{Contact: c.Contact, TrustedProxies: c.TrustedProxies, Limits: c.Limits, Rates: c.Rates, Bounds: c.Bounds, Offer: c.Bitcoin.Offer,
		Volunteer: c.Volunteer, Keep: c.Database.Keep, ShutdownTimeout: c.ShutdownTimeout}
}

// change checks everything before it changes anything. What is announced follows by itself: here at the next request, on hubs once the
// proof of work is done.
func (n *node) change(next Live) error {
	next.Limits.Lifetime = n.cfg.Limits.Lifetime
	if n.bitcoin == nil {
		next.Offer = nil
	}
	public := api.Live{Limits: next.Limits, Contact: next.Contact, Offer: next.Offer, Rates: next.Rates, TrustProxy: next.TrustedProxies, Bounds: next.Bounds}
	if err := n.api.Check(public); err != nil {
		return err
	}
	if err := n.willing.Change(next.Volunteer); err != nil { // it checks first, and is the only one left that can fail
		return err
	}
	n.records.Change(next.Limits)
	if n.room != nil {
		n.room.Keep(next.Keep)
	}
	n.patience.Store(int64(next.ShutdownTimeout))
	return n.api.Change(public)
}
