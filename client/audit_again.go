package client

import (
	"context"
	"slices"
	"time"

	"relaymarket/client/state"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

const (
	// WaitForWriters is how long lines about records that another writer may have written wait for his word.
	WaitForWriters = 3 * 24 * time.Hour
	againLines     = 1024 // that are judged again at a time
)

// again judges the lines that waited for their writers' word, which is asked for first: those that came are accepted or refused as
// any, and what waited for too long is refused, if all relays were heard where the word could be.
func (a *auditor) again(ctx context.Context) error {
	waiting, err := a.c.state.LinesWaiting(ctx, a.m.Contract, 0, 1)
	if err != nil || len(waiting) == 0 {
		return err
	}
	heard, err := a.c.hear(ctx)
	if err != nil {
		return err
	}
	bill, err := a.c.state.Bill(ctx, a.m.Contract)
	if err != nil {
		return err
	}
	return a.c.state.AuditReport(ctx, a.m.Contract, a.m.Relay, a.m.Writers, func(memory *state.Audit) error {
		now := a.c.now()
		audit, witness := ledger.NewAudit(a.m.Relay, memory, now, bill.Accepted), ledger.NewWitness(a.m.Relay)
		for after := int64(0); ; {
			some, err := memory.LinesWaiting(after, againLines)
			if err != nil {
				return err
			}
			if err := rejudge(memory, audit, witness, some, func(w *state.WaitingLine, from protocol.PublicKey) bool {
				return now < w.Audited.Add(WaitForWriters) || !heard(from)
			}); err != nil {
				return err
			}
			if len(some) < againLines {
				return memory.Judged(audit.Accepted())
			}
			after = some[len(some)-1].Line
		}
	})
}

// hear pulls what writers, and other devices of the owner, left to be read, and tells of whom all relays answered: his own, and
// ours.
func (c *Client) hear(ctx context.Context) (heard func(writer protocol.PublicKey) bool, err error) {
	reports, err := c.pullAll(ctx, nil)
	if err != nil {
		return nil, err
	}
	silent := map[protocol.PublicKey]bool{}
	for i := range reports {
		if reports[i].Err != nil {
			silent[reports[i].Relay] = true
		}
	}
	own, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	ours := !slices.ContainsFunc(own, func(r state.Relay) bool { return silent[r.Key] })
	friends, err := c.Friends(ctx)
	if err != nil {
		return nil, err
	}
	deaf := map[protocol.PublicKey]bool{}
	for i := range friends {
		deaf[friends[i].Key] = slices.ContainsFunc(friends[i].Card.Relays, func(r protocol.RelayRef) bool { return silent[r.PubKey] })
	}
	return func(writer protocol.PublicKey) bool { return ours && (writer == c.Key() || !deaf[writer]) }, nil
}

// rejudge judges lines that waited, but those that still do.
func rejudge(memory *state.Audit, audit *ledger.Audit, witness *ledger.Witness, lines []state.WaitingLine,
	waits func(w *state.WaitingLine, from protocol.PublicKey) bool) error {
	readings := make([]ledger.Reading, len(lines))
	for i, w := range lines {
		r, err := witness.Read(w.Raw)
		if err != nil {
			return err
		}
		readings[i] = r
	}
	if err := expect(memory, readings); err != nil {
		return err
	}
	for i := range readings {
		own, err := memory.Own(readings[i].Line.Hash)
		if err != nil {
			return err
		}
		if own == nil && waits(&lines[i], readings[i].Line.From) {
			continue
		}
		verdict, err := audit.JudgeRead(&readings[i])
		if err != nil {
			return err
		}
		if err := memory.Settle(lines[i].Line, verdict); err != nil {
			return err
		}
	}
	return nil
}

// unsaid adds up the lines that wait for their writers' word.
func (c *Client) unsaid(ctx context.Context, contract protocol.ContractID) (totals ledger.Totals, lines int64, err error) {
	for after := int64(0); ; {
		some, err := c.state.LinesWaiting(ctx, contract, after, againLines)
		if err != nil {
			return totals, lines, err
		}
		for _, w := range some {
			l, err := ledger.ParseLine(w.Raw)
			if err != nil {
				return totals, lines, err
			}
			// A line that gives back what was never taken says nothing that could be hoped for.
			_ = totals.Apply(l)
			lines, after = lines+1, w.Line
		}
		if len(some) < againLines {
			return totals, lines, nil
		}
	}
}
