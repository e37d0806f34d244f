package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// AnswerGone stands for the relay's word to lines that it was told too late: it does not keep them any more.
const AnswerGone protocol.RefusalOutcome = "gone"

// Refused is what a relay said when it was told which lines are not paid for.
type Refused struct {
	Lines   int64                   // that it was told now
	Outcome protocol.RefusalOutcome // the last; empty: there was nothing to tell
	// As it says, of the contract since it began: what dropped lines came to, what refused lines come to that it stands by, and
	// the most that it would write off.
	WrittenOff, Disputed, Most protocol.Msat
}

// NameRefused tells the relay which lines of its bill are not paid for and against which something speaks. Lines of which this
// folder only does not know who wrote the record are not paid either, but they may be right: they may end the contract of somebody
// who restored his keys, or writes from two folders. [Client.NameAllRefused] names them, too.
func (c *Client) NameRefused(ctx context.Context, m Metered) (*Refused, error) {
	return c.nameRefused(ctx, m, false)
}

// NameAllRefused tells the relay which lines of its bill are not paid for, those that it was not told before, in as many
// messages as that takes. Told twice, they are refused once. What it says is noted, message by message; the error is
// a [*RelayError] if it could not be told, or not all.
func (c *Client) NameAllRefused(ctx context.Context, m Metered) (*Refused, error) {
	return c.nameRefused(ctx, m, true)
}

func (c *Client) nameRefused(ctx context.Context, m Metered, all bool) (*Refused, error) {
	relay, err := c.ContractRelay(m.Relay, m.Address)
	if err != nil {
		return nil, err
	}
	told := &Refused{}
	for {
		lines, raw, err := c.state.Unnamed(ctx, m.Contract, m.Writers, all)
		if err != nil || len(lines) == 0 {
			return told, err
		}
		report, err := protocol.ParseEnvelope(raw)
		if err != nil {
			return told, fmt.Errorf("the stored report with line %d: %w", lines[0].Line, err)
		}
		for len(lines) > 0 {
			ranges, used := refusedRanges(lines)
			refusal := &protocol.UsageRefusal{Contract: m.Contract, Report: report.Hash(), Lines: ranges}
			if err := relay.refuse(ctx, refusal, told); err != nil {
				return told, err
			}
			if err := c.state.Named(ctx, m.Contract, ranges, told.Outcome); err != nil {
				return told, err
			}
			told.Lines += int64(used)
			lines = lines[used:]
		}
	}
}

// refusedRanges are the ranges that one message has room for, and how many lines they are.
func refusedRanges(lines []state.Refusal) (ranges []protocol.RefusedLines, used int) {
	for i := range lines {
		l := &lines[i]
		if last := len(ranges) - 1; last >= 0 && l.Until == 0 && ranges[last].Until == 0 &&
			ranges[last].Last == l.Line-1 && ranges[last].Reason == protocol.RefusalReason(l.Reason) {
			ranges[last].Last = l.Line
			continue
		}
		if len(ranges) == protocol.MaxRefusedRanges {
			return ranges, i
		}
		ranges = append(ranges, protocol.RefusedLines{First: l.Line, Last: l.Line, Reason: protocol.RefusalReason(l.Reason), Until: l.Until})
	}
	return ranges, len(lines)
}

// refuse sends one message and adds what the relay says to it.
func (r *ContractRelay) refuse(ctx context.Context, refusal *protocol.UsageRefusal, told *Refused) error {
	e, err := r.ask(ctx, r.p.signed(refusal), func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
		return r.p.rest.RefuseUsageWithBody(ctx, refusal.Contract, contentJSON, bytes.NewReader(e.Bytes()))
	})
	if errors.Is(err, protocol.CodeGone) {
		told.Outcome = AnswerGone
		return nil
	}
	if err != nil {
		return err
	}
	var answer protocol.UsageRefused
	if err := e.Decode(&answer); err != nil {
		return r.p.tampered("its answer to a refusal: %v", err)
	}
	if answer.Contract != refusal.Contract || answer.Report != refusal.Report {
		return r.p.tampered("it answers another refusal than the one that it was sent")
	}
	told.Outcome, told.WrittenOff, told.Disputed, told.Most = answer.Outcome, answer.WrittenOff, answer.Disputed, answer.Most
	return nil
}
