package client

import (
	"context"
	"slices"

	"relaymarket/client/state"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Audited is what the audits of a contract found so far, reckoned until now, without asking the relay.
func (c *Client) Audited(ctx context.Context, m Metered) (*Audit, error) {
	bill, err := c.state.Bill(ctx, m.Contract)
	if err != nil {
		return nil, err
	}
	a := &Audit{Metered: m, At: c.now(), Lines: bill.Place.Last, Claimed: bill.Place.Totals, Accepted: bill.Accepted}
	s := &summary{audit: a, untellable: func(r *RefusedLine) bool { return c.state.Untellable(r, m.Writers) }, friends: map[protocol.PublicKey]*AuditedFriend{}, reasons: map[ledger.Reason]*AuditedReason{}}
	if s.pieces, err = c.state.PieceFriends(ctx); err != nil {
		return nil, err
	}
	if err := c.state.AuditedUnordered(ctx, m.Contract, s.record); err != nil {
		return nil, err
	}
	if err := c.state.Refusals(ctx, m.Contract, s.refusal); err != nil {
		return nil, err
	}
	unsaid, lines, err := c.unsaid(ctx, m.Contract)
	if err != nil {
		return nil, err
	}
	a.Unsaid = lines
	if a.Bill, err = ledger.SettleWaiting(m.Prices, a.Claimed, a.Accepted, unsaid, s.accrued); err != nil {
		return nil, err
	}
	return a, s.close()
}

// summary adds up an audit.
type summary struct {
	audit      *Audit
	untellable func(*RefusedLine) bool
	accrued    ledger.Quantity
	friends    map[protocol.PublicKey]*AuditedFriend
	reasons    map[ledger.Reason]*AuditedReason
	pieces     map[protocol.PublicKey]protocol.PublicKey // the friends to whom files go, by the keys of their pieces
}

// friend is that of a reader; a piece of a file counts for the friend to whom the file goes.
func (s *summary) friend(key protocol.PublicKey) *AuditedFriend {
	if to, ok := s.pieces[key]; ok {
		key = to
	}
	if s.friends[key] == nil {
		s.friends[key] = &AuditedFriend{Key: key}
	}
	return s.friends[key]
}

func (s *summary) record(r *AuditedRecord) error {
	f := s.friend(r.Path.Receiver)
	f.Records++
	f.Pulls += r.Pulled
	if r.Receipts > 0 {
		f.Receipts++
	}
	switch {
	case r.Pulled > 0 && r.Receipts == 0:
		s.audit.Unread++
	case r.Pulled == 0 && r.Receipts > 0:
		s.audit.Unbilled++
	}
	var ok bool
	if s.accrued, ok = s.accrued.Plus(r.Accrued(s.audit.At)); !ok {
		return ledger.ErrOverflow
	}
	used, err := f.Used.Plus(RecordUsage(r, s.audit.At))
	f.Used = used
	return err
}

// RecordUsage is what an audited record has used until now.
func RecordUsage(r *AuditedRecord, now protocol.Timestamp) ledger.Usage {
	u := ledger.Usage{Stored: r.Accrued(now), Moved: ledger.Times(r.Bytes, 1+r.Pulled)}
	if r.End != 0 {
		u.Stored = ledger.Times(r.Bytes, max(int64(r.Ended-r.Written), 0))
	}
	return u
}

func (s *summary) refusal(r *RefusedLine) error {
	switch {
	case r.Waiting:
		return nil // counted apart
	case r.Dropped != 0:
		s.audit.Dropped++
		return nil
	case r.Answer != "":
		s.audit.Named++
	case s.untellable(r):
		s.audit.Untold++
	}
	switch r.Answer {
	case protocol.RefusalDropped:
		s.audit.Promised++
	case protocol.RefusalClosed:
		s.audit.Ended = true
	}
	s.friend(r.Path.Receiver).Refused++
	if s.reasons[r.Reason] == nil {
		s.reasons[r.Reason] = &AuditedReason{Reason: r.Reason}
	}
	of := s.reasons[r.Reason]
	of.Lines++
	used, err := of.Used.Plus(r.Refused)
	of.Used = used
	return err
}

// close puts prices to the parts, each rounded by itself: only the bill adds up to the millisatoshi.
func (s *summary) close() (err error) {
	for _, f := range s.friends {
		if f.Cost, err = s.audit.Prices.Cost(f.Used); err != nil {
			return err
		}
		s.audit.Friends = append(s.audit.Friends, *f)
	}
	slices.SortFunc(s.audit.Friends, func(a, b AuditedFriend) int { return slices.Compare(a.Key[:], b.Key[:]) })
	for _, reason := range ledger.Reasons() {
		r := s.reasons[reason]
		if r == nil {
			continue
		}
		if r.Cost, err = s.audit.Prices.Cost(r.Used); err != nil {
			return err
		}
		s.audit.Reasons = append(s.audit.Reasons, *r)
	}
	return nil
}

// AuditedRecords visits the accepted records of a contract by reader, in the order they were written. visit must not use
// the client.
func (c *Client) AuditedRecords(ctx context.Context, contract protocol.ContractID, visit func(*AuditedRecord) error) error {
	return c.state.Audited(ctx, contract, visit)
}

// RefusedLines visits the lines of a contract of which something was refused. visit must not use the client.
func (c *Client) RefusedLines(ctx context.Context, contract protocol.ContractID, visit func(*RefusedLine) error) error {
	return c.state.Refusals(ctx, contract, visit)
}

// AuditPart chooses what of an audit is visited.
type AuditPart = state.Part

// AuditedPart visits accepted records of a contract in the order of their writes, in memory that does not grow with them.
// visit must not use the client.
func (c *Client) AuditedPart(ctx context.Context, contract protocol.ContractID, p AuditPart, visit func(*AuditedRecord) error) error {
	return c.state.AuditedPart(ctx, contract, p, visit)
}

// RefusedPart visits lines of a contract of which something was refused, in their order. visit must not use the client.
func (c *Client) RefusedPart(ctx context.Context, contract protocol.ContractID, p AuditPart, visit func(*RefusedLine) error) error {
	return c.state.RefusedPart(ctx, contract, p, visit)
}

// RecordOfLine is the id of the record that a line of a contract's ledger is about; empty for a line that gives back
// pulls, drops what was refused, or is not audited yet.
func (c *Client) RecordOfLine(ctx context.Context, contract protocol.ContractID, line int64) (protocol.RecordID, error) {
	return c.state.RecordOfLine(ctx, contract, line)
}
