package main

import (
	"context"
	"encoding/csv"
	"fmt"

	"github.com/dustin/go-humanize"

	"relaymarket/client"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

func (p *program) showAudits(ctx context.Context, c *client.Client, shown []*auditedContract, names map[protocol.PublicKey]string, o auditOptions) error {
	if o.csv {
		return p.auditCSV(ctx, c, shown, names)
	}
	items := make([]auditItem, 0, len(shown))
	for _, a := range shown {
		item := auditJSON(a, names)
		if err := item.addParts(ctx, c, a, o); err != nil {
			return err
		}
		items = append(items, item)
	}
	if p.json {
		return p.printJSON(map[string]any{"audits": items})
	}
	if len(items) == 0 {
		return p.say("You have no contract that is in force. See: relay contract list\n")
	}
	for i := range items {
		if err := p.auditText(&items[i], shown[i], names, o); err != nil {
			return err
		}
	}
	return nil
}

// auditText is the one screen.
func (p *program) auditText(item *auditItem, a *auditedContract, names map[protocol.PublicKey]string, o auditOptions) error {
	if err := p.say("Contract %s with %s: %d lines, %d of them new\n", a.audit.Contract.Short(), escape(a.address), item.Lines, item.New); err != nil {
		return err
	}
	b := a.audit.Bill
	rows := [][]string{{"  accepted", msat(int64(b.Accepted)), "used and proven"}, {"  waiting", msat(int64(b.Waiting)), "reserved: used later, or back"},
		{"  disputed", msat(int64(b.Disputed)), "refused"}}
	for _, r := range a.audit.Reasons {
		rows = append(rows, []string{"    " + string(r.Reason), msat(int64(r.Cost)), count(int(r.Lines), "line") + " used, its reservations apart"})
	}
	if err := p.table(rows); err != nil {
		return err
	}
	if err := p.auditNotes(item, a); err != nil {
		return err
	}
	switch {
	case o.friend != "" || o.refused || o.record != "" || o.line != 0:
		return p.partsText(item, names, o)
	case len(a.audit.Friends) == 0:
		return p.say("\n")
	}
	rows = [][]string{{"FRIEND", "RECORDS", "READ", "RECEIPTS", "MOVED", "COST", "REFUSED"}}
	for i, f := range a.audit.Friends {
		rows = append(rows, []string{escape(item.Friends[i].Name), fmt.Sprint(f.Records), fmt.Sprint(f.Pulls), fmt.Sprint(f.Receipts), size(f.Used.Moved),
			msat(int64(f.Cost)), fmt.Sprint(f.Refused)})
	}
	return p.headless(rows)
}

// auditNotes is what needs saying beside the amounts.
func (p *program) auditNotes(item *auditItem, a *auditedContract) error {
	var notes []string
	if item.Fault != nil {
		notes = append(notes, "The relay's next report cannot be true, and nothing of it is accepted: "+escape(*item.Fault))
		if len(item.Proof) > 0 {
			notes = append(notes, "Two reports that it signed for one period prove it to anybody: relay audit --json has them.")
		}
		if !a.closing {
			notes = append(notes, "Pay nothing more, and close the contract: relay contract close "+a.audit.Contract.Short())
		}
	}
	if a.audit.Unread > 0 {
		notes = append(notes, fmt.Sprintf("%s signed for by readers who left no receipt: they use another program, or not yet.", count(int(a.audit.Unread), "record")))
	}
	notes = append(notes, a.disputeNotes()...)
	if a.paid > 0 {
		notes = append(notes, fmt.Sprintf("Paid %s.", sat(a.paid)))
	}
	if a.decision.Ask > 0 && a.paid == 0 {
		notes = append(notes, fmt.Sprintf("To pay: relay contract pay %s --accept %d", a.audit.Contract.Short(), int64(ledger.Sat(a.audit.Bill.Accepted))))
	}
	if a.decision.Short > 0 {
		notes = append(notes, fmt.Sprintf("The relay asks for %s more than was accepted: it may take no new messages until reservations come back.", sat(a.decision.Short)))
	}
	for _, n := range notes {
		if err := p.say("  %s\n", n); err != nil {
			return err
		}
	}
	return nil
}

// disputeNotes say what became of refused lines.
func (a *auditedContract) disputeNotes() (notes []string) {
	id := a.audit.Contract.Short()
	if n := a.audit.Unsaid; n > 0 {
		notes = append(notes, fmt.Sprintf("Waiting: %s about records that are not known here: of other writers or devices who have not told yet what they wrote, or from before you restored your keys. They are not paid, and waited for, %d days from when they were audited.",
			count(int(n), "line"), int(client.WaitForWriters.Hours())/24))
	}
	if n := a.audit.Untold; n > 0 {
		notes = append(notes, fmt.Sprintf("Not named to the relay, and not paid: %s about records that are not known here and may be yours, from another folder or from before you restored your keys. If they are not: relay audit %s --dispute",
			count(int(n), "refused line"), id))
	}
	if n := a.audit.Dropped; n > 0 {
		notes = append(notes, "Off the bill: "+count(int(n), "refused line")+", which the relay dropped.")
	}
	named := a.audit.Named > 0
	switch told := a.told; {
	case a.untold != nil:
		notes = append(notes, "The relay could not be told which lines are refused: "+escape(a.untold.Error()))
	case told != nil && told.Lines > 0:
		notes = append(notes, fmt.Sprintf("The relay was told of %s: %s.", count(int(told.Lines), "refused line"), outcomeText(told)))
		named = false
	}
	if named && a.audit.Bill.Disputed > 0 {
		what := "and they are still on the bill"
		switch {
		case a.audit.Ended:
			what = "and it ends the contract with what it was paid"
		case a.audit.Promised == a.audit.Named:
			what = "and it said that it drops them: the bill does not say so yet"
		}
		notes = append(notes, fmt.Sprintf("The relay was told before of %s, %s. relay audit %s --refused", count(int(a.audit.Named), "refused line"), what, id))
	}
	switch {
	case a.closing:
		notes = append(notes, "The contract is being ended at what was accepted: relay contract show "+id)
	case a.unclosed != nil:
		notes = append(notes, "It could not be ended with the relay: "+escape(a.unclosed.Error())+". Your deposit comes back to you alone in the end: relay contract refund "+id)
	case a.stands() && a.audit.Fault == nil:
		notes = append(notes, fmt.Sprintf("The relay neither dropped them nor ended the contract. End it: relay audit %s --close-on-dispute", id))
	}
	return notes
}

// outcomeText is a relay's answer to a refusal, for people.
func outcomeText(told *client.Refused) string {
	switch told.Outcome {
	case protocol.RefusalDropped:
		return "it drops them, and the next lines of the bill say so"
	case protocol.RefusalClosed:
		return "it stands by them, and ends the contract with what it was paid"
	case client.AnswerGone:
		return "it does not keep them any more"
	}
	return "it answers " + escape(string(told.Outcome))
}

func size(q ledger.Quantity) string {
	n, ok := q.Int64()
	if !ok {
		return q.String() + " B"
	}
	return humanize.Bytes(uint64(n))
}

// partsText shows records and lines, and how to see those that follow.
func (p *program) partsText(item *auditItem, names map[protocol.PublicKey]string, o auditOptions) error {
	last := int64(0)
	if item.Records != nil && (len(item.Records) > 0 || o.record == "" && o.line == 0) {
		if err := p.recordsText(item.Records); err != nil {
			return err
		}
		if n := len(item.Records); n > 0 {
			last = item.Records[n-1].Line
		}
	}
	if item.Refused != nil && (len(item.Refused) > 0 || o.record == "" && o.line == 0) {
		if err := p.refusedText(item.Refused, names); err != nil {
			return err
		}
		if n := len(item.Refused); n > 0 {
			last = item.Refused[n-1].Line
		}
	}
	switch {
	case item.More:
		return p.say("There is more: --after %d, or --limit-lines 0 for all, or --csv\n", last)
	case o.record != "" && last == 0:
		return p.say("The bill says nothing of a record whose id ends with %s.\n", escape(o.record))
	}
	return nil
}

func (p *program) recordsText(records []auditRecord) error {
	rows := [][]string{{"LINE", "RECORD", "BYTES", "WRITTEN", "ENDED", "READ", "RECEIPTS", "MSAT"}}
	for _, r := range records {
		written, ended := "", "stored"
		if r.Written != nil {
			written = *r.Written
		}
		if r.Ended != nil {
			ended = *r.Ended
		}
		rows = append(rows, []string{fmt.Sprint(r.Line), escape(r.Record), fmt.Sprint(r.Bytes), written, ended, fmt.Sprint(r.Pulls), fmt.Sprint(r.Receipts), r.Msat})
	}
	return p.headless(rows)
}

func (p *program) refusedText(lines []auditLine, names map[protocol.PublicKey]string) error {
	rows := [][]string{{"LINE", "KIND", "REASON", "TO", "RECORD", "BYTES", "MSAT", "RELAY SAYS", "WHY"}}
	for _, l := range lines {
		var to protocol.PublicKey
		if err := to.UnmarshalText([]byte(l.To)); err != nil {
			return err
		}
		rows = append(rows, []string{fmt.Sprint(l.Line), l.Kind, l.Reason, escape(nameOf(to, names)), escape(l.Record), fmt.Sprint(l.Bytes), l.Msat, l.state(), escape(l.Why)})
	}
	return p.headless(rows)
}

// state is what became of a refused line.
func (l *auditLine) state() string {
	switch {
	case l.Waiting:
		return "not asked: waits for its writer"
	case l.Dropped != 0:
		return fmt.Sprintf("dropped by line %d", l.Dropped)
	case l.Answer == "":
		return "not told"
	}
	return escape(l.Answer)
}

// auditCSV prints every accepted record and every refused line, one a row. Amounts are msat, each rounded by itself.
func (p *program) auditCSV(ctx context.Context, c *client.Client, shown []*auditedContract, names map[protocol.PublicKey]string) error {
	w := csv.NewWriter(p.out)
	head := []string{"contract", "outcome", "line", "kind", "from", "to", "friend", "record", "bytes", "written", "ended", "pulls", "receipts",
		"bytesMoved", "byteMilliseconds", "msat", "reason", "why", "answer", "dropped"}
	if err := w.Write(head); err != nil {
		return err
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	for _, a := range shown {
		id := a.audit.Contract.String()
		if err := c.AuditedRecords(ctx, a.audit.Contract, func(r *client.AuditedRecord) error {
			j, err := recordJSON(a, r)
			if err != nil {
				return err
			}
			return w.Write([]string{id, "accepted", fmt.Sprint(j.Line), "record", j.From, j.To, cell(nameOf(r.Path.Receiver, names)), j.Record, fmt.Sprint(j.Bytes),
				text(j.Written), text(j.Ended), fmt.Sprint(j.Pulls), fmt.Sprint(j.Receipts), j.Moved, j.Stored, j.Msat, "", "", "", ""})
		}); err != nil {
			return err
		}
		if err := c.RefusedLines(ctx, a.audit.Contract, func(r *client.RefusedLine) error {
			j, err := refusedJSON(a, r)
			if err != nil {
				return err
			}
			outcome := "disputed"
			switch {
			case j.Waiting:
				outcome = "waiting"
			case j.Dropped != 0:
				outcome = "dropped"
			}
			return w.Write([]string{id, outcome, fmt.Sprint(j.Line), j.Kind, j.From, j.To, cell(nameOf(r.Path.Receiver, names)), j.Record, fmt.Sprint(j.Bytes),
				"", "", "", "", j.Moved, j.Stored, j.Msat, j.Reason, j.Why, j.Answer, fmt.Sprint(j.Dropped)})
		}); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// cell keeps a spreadsheet from taking a name for a formula.
func cell(name string) string {
	if name != "" && (name[0] == '=' || name[0] == '+' || name[0] == '-' || name[0] == '@') {
		return "'" + name
	}
	return name
}
