package api

import (
	"fmt"
	"net/netip"
	"slices"

	"relaymarket/protocol"
	"relaymarket/records"
)

// Live is the part of a [Config] that can change while the server serves.
type Live struct {
	Limits     records.Limits
	Contact    string
	Offer      *protocol.ContractOffer
	Rates      Rates
	TrustProxy []netip.Prefix
	Bounds     Bounds // HeaderTimeout is the http.Server's: it stays what it was
}

// live is what holds of the configuration at this moment. A request may meet two of them, one after the other: each check
// looks once.
func (s *Server) live() *Live { return s.conf.Load() }

func liveOf(c *Config) *Live {
	return &Live{Limits: c.Limits, Contact: c.Contact, Offer: c.Offer, Rates: c.Rates, TrustProxy: c.TrustProxy, Bounds: c.Bounds}
}

// Check tells whether the server can change to this: the announcement that follows from it has to fit.
func (s *Server) Check(next Live) error {
	_, err := s.completed(next)
	return err
}

func (s *Server) completed(next Live) (*Live, error) {
	c := s.cfg
	c.Limits, c.Contact, c.Offer, c.Rates, c.TrustProxy, c.Bounds = next.Limits, next.Contact, next.Offer, next.Rates, next.TrustProxy, next.Bounds
	c.Bounds.HeaderTimeout = s.cfg.Bounds.HeaderTimeout
	if err := c.complete(); err != nil {
		return nil, err
	}
	made := liveOf(&c)
	if _, _, err := s.announcer.sign(s.cfg.Clock(), made, 0); err != nil {
		return nil, fmt.Errorf("announcement: %w", err)
	}
	return made, nil
}

// Change replaces what is live. What is at work goes on under what it began with; the announcement is made anew when it is
// asked for next. Rates that changed begin with full buckets.
func (s *Server) Change(next Live) error {
	made, err := s.completed(next)
	if err != nil {
		return err
	}
	s.conf.Store(made)
	s.addresses.change(made.Rates.Address)
	s.keys.change(made.Rates.Key)
	s.openings.change(openingRate(made.Rates))
	s.load.change(made.Bounds)
	s.listeners.change(made.Bounds)
	return nil
}

// openingRate is the rate of what an address is given for nothing.
func openingRate(r Rates) Rate {
	return Rate{PerSecond: float64(r.Opening) / (24 * 60 * 60), Burst: r.Opening}
}

// most is how large the body of an operation may be.
func (s *Server) most(op *operation) int64 {
	if op.record {
		return s.live().Limits.RecordBytes
	}
	return op.size
}

// saysAs tells whether both are announced in the same words.
func (l *Live) saysAs(other *Live) bool {
	return l.Limits == other.Limits && l.Contact == other.Contact && l.Bounds.HeaderTimeout == other.Bounds.HeaderTimeout &&
		l.Bounds.BodyTimeout == other.Bounds.BodyTimeout && slices.Equal(optional(l.Offer), optional(other.Offer))
}

func optional(o *protocol.ContractOffer) []protocol.ContractOffer {
	if o == nil {
		return nil
	}
	return []protocol.ContractOffer{*o}
}
