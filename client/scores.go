package client

import (
	"context"
	"math/bits"
	"slices"

	"relaymarket/client/state"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// AuditResult is what audits of one contract found, once or several times.
type AuditResult = state.AuditResult

// AuditScore is how a relay did in my audits, over all my contracts with it.
type AuditScore struct {
	Relay     protocol.PublicKey
	Address   string // where it was last
	Contracts int64
	Audits    int64
	Faults    int64              // audits that met a report which cannot be true
	Last      protocol.Timestamp // of the last audit
	Accepted  protocol.Msat      // by the last audit of each contract
	Disputed  protocol.Msat      // the most that was in dispute in each contract, whatever became of it
	Open      protocol.Msat      // what is in dispute after the last audit of each
}

// DisputedPercent is the disputed share of what was accepted and disputed, rounded up: 0 only if nothing was.
func (s AuditScore) DisputedPercent() int64 {
	whole := sumMsat(s.Accepted, s.Disputed)
	if s.Disputed <= 0 || whole <= 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(s.Disputed), 100) // a liar's figures may be of any size
	low, carry := bits.Add64(low, uint64(whole-1), 0)
	share, _ := bits.Div64(high+carry, low, uint64(whole))
	return int64(share)
}

// Bad tells whether a relay ever billed what was not owed.
func (s AuditScore) Bad() bool { return s.Disputed > 0 || s.Faults > 0 }

// AuditScores tells how each relay did in my audits, by the relays' keys. It asks no relay and needs no keys.
func (c *Client) AuditScores(ctx context.Context) (map[protocol.PublicKey]AuditScore, error) {
	results, err := c.state.AuditResults(ctx)
	if err != nil {
		return nil, err
	}
	type course struct {
		last AuditResult
		most protocol.Msat
	}
	courses := map[protocol.ContractID]*course{}
	scores := map[protocol.PublicKey]AuditScore{}
	for _, r := range results {
		s := scores[r.Relay]
		s.Relay, s.Address, s.Last = r.Relay, r.Address, max(s.Last, r.Last)
		s.Audits += r.Times
		if r.Fault != "" {
			s.Faults += r.Times
		}
		scores[r.Relay] = s
		one := courses[r.Contract]
		if one == nil {
			one = &course{}
			courses[r.Contract] = one
		}
		one.last, one.most = r, max(one.most, r.Bill.Disputed)
	}
	for _, one := range courses {
		s := scores[one.last.Relay]
		s.Contracts++
		s.Accepted = sumMsat(s.Accepted, one.last.Bill.Accepted)
		s.Open = sumMsat(s.Open, one.last.Bill.Disputed)
		s.Disputed = sumMsat(s.Disputed, one.most)
		scores[one.last.Relay] = s
	}
	return scores, nil
}

// sumMsat adds amounts of which a liar may have named some: it stops at [ledger.MaxMsat].
func sumMsat(a, b protocol.Msat) protocol.Msat {
	if a > ledger.MaxMsat-min(b, ledger.MaxMsat) {
		return ledger.MaxMsat
	}
	return a + b
}

// AuditHistory lists what the audits of a contract found, oldest first; of every contract if it is zero. It needs no keys.
func (c *Client) AuditHistory(ctx context.Context, contract protocol.ContractID) ([]AuditResult, error) {
	results, err := c.state.AuditResults(ctx)
	if err != nil || contract == (protocol.ContractID{}) {
		return results, err
	}
	return slices.DeleteFunc(results, func(r AuditResult) bool { return r.Contract != contract }), nil
}
