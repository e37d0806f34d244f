package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"relaymarket/client/rest"
	"relaymarket/client/state"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// maxReports bounds what one audit takes from a relay, which may be a liar that always has more: a million lines and a half.
const maxReports = 100

// Metered is a contract whose bill is to be audited.
type Metered struct {
	Contract protocol.ContractID
	Relay    protocol.PublicKey
	Address  string
	Prices   ledger.Prices        // that the contract was opened on
	Writers  []protocol.PublicKey // whom it pays for beside the payer
}

// Audit is what became of auditing a bill.
type Audit struct {
	Metered
	At       protocol.Timestamp
	Bill     ledger.Bill
	Lines    int64 // of the ledger, up to which this goes
	New      int64 // of them, audited now
	Claimed  ledger.Totals
	Accepted ledger.Totals
	Friends  []AuditedFriend // by key
	Reasons  []AuditedReason // in the order of [ledger.Reasons]
	// Unread are records with accepted pulls for which their readers left no receipt (yet); Unbilled are those with
	// receipts and no pull on the bill.
	Unread, Unbilled int64
	// Unsaid are lines about records that somebody who writes on the account may have written, the owner from another folder
	// among them, of which nothing is known here yet: they wait for [WaitForWriters], then they are refused.
	Unsaid int64
	// Dropped are refused lines that later lines of the ledger take off the bill; Named are those that the relay was told and
	// that are still on it, and Promised those of them that it said it drops.
	Dropped, Named, Promised int64
	// Untold are refused lines that [Client.NameRefused] does not name, because nothing but this folder's not knowing them speaks
	// against them.
	Untold int64
	// Ended is set when the relay answered to refused lines that it ends the contract.
	Ended bool
	// Fault is set when the relay's report is not one that can be true: the rest is what was audited before. Proof, if
	// any, are two reports that prove it to anybody.
	Fault error
	Proof []*protocol.Envelope
}

// AuditedFriend is a part of a bill: what was written to one reader.
type AuditedFriend struct {
	Key      protocol.PublicKey
	Records  int64
	Pulls    int64        // accepted
	Receipts int64        // records that he left one for
	Used     ledger.Usage // accepted, until now
	Cost     protocol.Msat
	Refused  int64 // lines that are on the bill
}

// AuditedReason is what was refused for one reason and is on the bill.
type AuditedReason struct {
	Reason ledger.Reason
	Lines  int64
	Used   ledger.Usage
	Cost   protocol.Msat
}

// AuditedRecord and RefusedLine are the parts of an audit, one by one.
type (
	AuditedRecord = state.Audited
	RefusedLine   = state.Refusal
)

// Audit takes the relay's reports on a contract since the last audit, checks them line by line against what was written
// from this device, the signatures of readers and the lines before, and says what the bill comes to. If lines wait for their writers'
// word, it first pulls what friends left, as Sync does. What it found is on disk report
// by report, and goes on from there the next time.
//
// What a relay reports that cannot be true is in the result (Fault). The error is a [*RelayError] if it could not be
// asked; the result is then what was audited before.
func (c *Client) Audit(ctx context.Context, m Metered) (*Audit, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	p, err := c.peer(m.Relay, m.Address)
	if err != nil {
		return nil, err
	}
	auditor := &auditor{c: c, p: p, m: m, who: ledger.Parties{Relay: m.Relay, Payer: c.Key(), Contract: m.Contract}}
	if err := auditor.again(ctx); err != nil {
		return nil, err
	}
	asked := auditor.run(ctx)
	a, err := c.Audited(ctx, m)
	if err != nil {
		return nil, err
	}
	a.New = auditor.lines
	switch {
	case ctx.Err() != nil, asked != nil && !untrue(asked):
		return a, asked
	case asked != nil:
		a.Fault, a.Proof = asked, auditor.prove(ctx)
	}
	return a, c.remember(ctx, a)
}

// remember adds what an audit found to the history.
func (c *Client) remember(ctx context.Context, a *Audit) error {
	r := &state.AuditResult{Contract: a.Contract, Relay: a.Relay, Address: a.Address, Last: a.At, Lines: a.Lines, Bill: a.Bill}
	if a.Fault != nil {
		r.Fault = a.Fault.Error()
	}
	return c.state.NoteAudit(ctx, r)
}

// untrue tells whether an error says that a report cannot be true.
func untrue(err error) bool {
	return errors.Is(err, ledger.ErrReport) || errors.Is(err, ledger.ErrChain) || errors.Is(err, ledger.ErrLine) || errors.Is(err, ledger.ErrOverflow)
}

// auditor audits one contract.
type auditor struct {
	c     *Client
	p     *peer
	m     Metered
	who   ledger.Parties
	lines int64              // audited
	last  *protocol.Envelope // the report that it stopped at
}

func (a *auditor) run(ctx context.Context) error {
	for range maxReports {
		more, err := a.report(ctx)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// report audits the next report, in one transaction with what it found.
func (a *auditor) report(ctx context.Context) (more bool, err error) {
	bill, err := a.c.state.Bill(ctx, a.m.Contract)
	if err != nil {
		return false, err
	}
	if bill.Place.Last > 0 && bill.Relay != a.m.Relay {
		return false, fmt.Errorf("contract %s is with the relay %s, not %s", a.m.Contract.Short(), bill.Relay.Short(), a.m.Relay.Short())
	}
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = a.p.usage(limited, a.m.Contract, bill.Place.Last, func(h *protocol.UsageHeader, line func() ([]byte, error)) error {
		a.last = h.Report
		if h.Report == nil {
			return nil
		}
		v, err := ledger.NewVerifier(h.Report, a.who, bill.Place)
		if err != nil {
			return err
		}
		if h.Lines == 0 {
			return fmt.Errorf("%w: it shows no lines for report %d, of which nothing was paid", ledger.ErrReport, bill.Place.Last+1)
		}
		more = h.More
		spool, err := newSpool()
		if err != nil {
			return err
		}
		defer spool.close()
		if err := spool.fill(v.Lines(), line); err != nil {
			return err
		}
		return a.c.state.AuditReport(ctx, a.m.Contract, a.m.Relay, a.m.Writers, func(memory *state.Audit) error {
			return a.judge(ctx, h.Report, v, &bill, memory, spool.line)
		})
	})
	return more, err
}

// judge takes the lines of one report.
func (a *auditor) judge(ctx context.Context, e *protocol.Envelope, v *ledger.Verifier, bill *state.Bill, memory *state.Audit, line func() ([]byte, error)) error {
	audit := ledger.NewAudit(a.m.Relay, memory, a.c.now(), bill.Accepted)
	err := readLines(ctx, a.m.Relay, v.Lines(), line, func(lines []ledger.Reading) error {
		if err := expect(memory, lines); err != nil {
			return err
		}
		for i := range lines {
			if err := v.Take(&lines[i]); err != nil {
				return err
			}
			verdict, err := audit.JudgeRead(&lines[i])
			if err != nil {
				return err
			}
			if err := a.note(memory, &lines[i], verdict); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := v.End()
	if err != nil {
		return err
	}
	a.lines += v.Lines()
	return memory.Done(e, bill.Place.Last+1, after, audit.Accepted(), a.c.now())
}

// note keeps what became of a line that was not accepted whole.
func (a *auditor) note(memory *state.Audit, r *ledger.Reading, verdict ledger.Verdict) error {
	var raw []byte
	switch {
	case r.Line.Kind == ledger.KindDrop:
		return memory.Drop(r.Line)
	case verdict.Reason == "":
		return nil
	case verdict.Reason == ledger.Unknown, verdict.Reason == ledger.NotWritten:
		hopeful, err := memory.Hopeful(r.Line)
		if err != nil {
			return err
		}
		if hopeful {
			raw = r.Raw
		}
	}
	return memory.Refuse(r.Line, verdict, raw, a.c.now())
}

// expect has what lines ask for looked up at once.
func expect(memory *state.Audit, lines []ledger.Reading) error {
	records := make([]protocol.Hash, 0, len(lines))
	var pulled []protocol.Hash
	var pages []protocol.PageID
	for i := range lines {
		records = append(records, lines[i].Line.Hash)
		if lines[i].Page != "" {
			pulled, pages = append(pulled, lines[i].Line.Hash), append(pages, lines[i].Page)
		}
	}
	return memory.Expect(records, pulled, pages)
}

// prove looks for two reports with one predecessor: the one at hand, or what the relay shows now for the last that was
// audited.
func (a *auditor) prove(ctx context.Context) []*protocol.Envelope {
	bill, err := a.c.state.Bill(ctx, a.m.Contract)
	if err != nil || bill.Place.Last == 0 {
		return nil
	}
	first, raw, err := a.c.state.Report(ctx, a.m.Contract, bill.Place.Last)
	if err != nil || raw == nil {
		return nil
	}
	known, err := protocol.ParseEnvelope(raw)
	if err != nil {
		return nil
	}
	if a.last != nil && ledger.Lie(known, a.last) {
		return []*protocol.Envelope{known, a.last}
	}
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var now *protocol.Envelope
	err = a.p.usage(limited, a.m.Contract, first-1, func(h *protocol.UsageHeader, _ func() ([]byte, error)) error {
		now = h.Report
		return nil
	})
	if err != nil || now == nil || !ledger.Lie(known, now) {
		return nil
	}
	return []*protocol.Envelope{known, now}
}

// usage asks for the report after a line. take is called with the header and a function that reads the next line,
// which is valid until it is called again.
func (p *peer) usage(ctx context.Context, contract protocol.ContractID, after int64, take func(*protocol.UsageHeader, func() ([]byte, error)) error) error {
	params := &rest.GetUsageParams{Contract: contract.String(), After: &after}
	request, err := rest.NewGetUsageRequest(p.address, params)
	if err != nil {
		return err
	}
	return p.do(ctx, exchange{
		build: p.signed(&protocol.Targeted{Type: protocol.TypeUsage, Target: protocol.Target(http.MethodGet, request.URL.RequestURI())}),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.GetUsage(ctx, params, authorize(e))
		},
		read: func(reply *http.Response) error {
			lines := bufio.NewReaderSize(reply.Body, protocol.MaxUsageLine+1)
			line := func() ([]byte, error) { return p.readUsageLine(lines) }
			first, err := line()
			if err != nil {
				return err
			}
			header, err := protocol.ParseUsageHeader(first)
			if err != nil {
				return fmt.Errorf("%w: %w", ledger.ErrReport, err)
			}
			return take(header, line)
		},
	})
}

func (p *peer) readUsageLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("%w: a line has more than %d bytes", ledger.ErrReport, protocol.MaxUsageLine)
	case errors.Is(err, io.EOF):
		return nil, p.fail(errors.New("the report was cut off: it is taken again next time"))
	case err != nil:
		return nil, p.fail(fmt.Errorf("the report was cut off: %w", plainCause(err)))
	}
	return line[:len(line)-1], nil
}
