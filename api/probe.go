package api

import (
	"context"
	"net/http"
	"time"

	"relaymarket/protocol"
)

// Of what is tried for one relay, and for one address that asks: a few at once, then one in half a minute. A doctor asks once.
const (
	probesPerSecond = 1.0 / 30
	probeBurst      = 4
	// probeCost is what asking counts in the rates that all requests share.
	probeCost = 10
)

// Prober tries the addresses of other relays. *reach.Prober is one.
type Prober interface {
	// Admit judges the announcement that is presented for an address of a relay. Codes are those of a refusal.
	Admit(announcement []byte, relay protocol.PublicKey, address string) error
	// Try fetches what is announced there. The error has code [protocol.CodeOverloaded] when too much is tried, there or in all.
	Try(ctx context.Context, address string, relay protocol.PublicKey) (time.Duration, protocol.Unreached, error)
}

// Probe implements ServerInterface.
func (s *routes) Probe(w http.ResponseWriter, r *http.Request) {
	var ask protocol.Probe
	e, err := s.readProbe(exchangeOf(r), r, &ask)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	answer, err := s.probe(r.Context(), e, &ask)
	s.answerSigned(w, r, e.From, answer, err)
}

// readProbe reads what is asked, and who asks. The proof of work comes before anything that costs.
func (s *Server) readProbe(x *exchange, r *http.Request, ask *protocol.Probe) (*protocol.Envelope, error) {
	e, err := s.envelope(x, r, ask)
	if err != nil {
		return nil, err
	}
	if err := s.checkRequest(e, protocol.TypeProbe, func() error { return nil }); err != nil {
		return nil, err
	}
	if s.cfg.Prober == nil {
		return nil, protocol.Errorf(protocol.CodeNotFound, "this relay is in no market, and tries nobody's address")
	}
	if err := s.rateAddress(x, probeCost); err != nil {
		return nil, err
	}
	if err := s.cfg.Prober.Admit(ask.Announcement, e.From, ask.Address); err != nil {
		return nil, err
	}
	if err := e.Verify(); err != nil {
		return nil, err
	}
	if err := s.rateKey(e.From, probeCost); err != nil {
		return nil, err
	}
	return e, s.rateProbes(x, e.From)
}

// rateProbes is apart from the other rates: what is tried costs somebody else, too.
func (s *Server) rateProbes(x *exchange, key protocol.PublicKey) error {
	for _, by := range []struct {
		name [32]byte
		code protocol.Code
		drop dropReason
	}{{addressName(x.address), protocol.CodeRateAddress, dropRateAddress}, {key, protocol.CodeRateKey, dropRateKey}} {
		if wait := s.probes.take(by.name, 1, s.cfg.Clock()); wait > 0 {
			s.metrics.drop(by.drop)
			return &limited{protocol.Errorf(by.code, "addresses are tried seldom; try again in %d s", retryAfter(wait)), wait}
		}
	}
	return nil
}

func (s *Server) probe(ctx context.Context, e *protocol.Envelope, ask *protocol.Probe) (*protocol.ProbeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Bounds.WorkTimeout)
	defer cancel()
	took, why, err := s.cfg.Prober.Try(ctx, ask.Address, e.From)
	if err != nil {
		return nil, err
	}
	return &protocol.ProbeAnswer{Request: e.Hash(), Address: ask.Address, Reached: why == "", Unreached: why, TookMs: took.Milliseconds()}, nil
}
