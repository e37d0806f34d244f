package main

import (
	"context"
	"fmt"

	"relaymarket/client"
	"relaymarket/protocol"
)

// auditItem is an audit in JSON. Amounts are msat in decimal, quantities of any size decimal too.
type auditItem struct {
	Contract     string           `json:"contract"`
	Relay        string           `json:"relay"`
	Address      string           `json:"address"`
	At           *string          `json:"at"`
	Lines        int64            `json:"lines"`
	New          int64            `json:"new"`
	AcceptedMsat string           `json:"acceptedMsat"`
	WaitingMsat  string           `json:"waitingMsat"`
	DisputedMsat string           `json:"disputedMsat"`
	ClaimedMsat  string           `json:"claimedMsat"`
	Reasons      []auditReason    `json:"reasons"`
	Friends      []auditFriend    `json:"friends"`
	Unread       int64            `json:"withoutReceipt"` // records with accepted pulls and no receipt
	Unbilled     int64            `json:"notBilled"`      // records with receipts and no pull on the bill
	Fault        *string          `json:"fault"`
	Proof        []map[string]any `json:"proof,omitempty"`
	PaidSat      int64            `json:"paidSat"`
	AskSat       int64            `json:"askSat"`
	ShortSat     int64            `json:"shortSat"`
	Unsaid       int64            `json:"waitingLines"` // that wait for the word of another writer
	Named        int64            `json:"namedLines"`   // refused, told to the relay, and still on the bill
	Dropped      int64            `json:"droppedLines"` // refused, and off the bill
	Untold       int64            `json:"unknownLines"` // refused, and named to the relay with --dispute only: they are just not known here
	Told         *auditTold       `json:"told,omitempty"`
	Closing      bool             `json:"closing"` // it is ended from this side
	Records      []auditRecord    `json:"records,omitempty"`
	Refused      []auditLine      `json:"refused,omitempty"`
	More         bool             `json:"more,omitempty"` // there are more records or lines than these
}

// auditTold is what a relay said when it was told which lines are refused. Amounts are msat in decimal.
type auditTold struct {
	Lines      int64   `json:"lines"` // told now
	Outcome    string  `json:"outcome"`
	WrittenOff string  `json:"writtenOffMsat"`
	Disputed   string  `json:"disputedMsat"`
	Most       string  `json:"mostMsat"`
	Error      *string `json:"error"` // why it could not be told
}

func toldJSON(a *auditedContract) *auditTold {
	if a.told == nil || a.told.Lines == 0 && a.untold == nil {
		return nil
	}
	item := &auditTold{Lines: a.told.Lines, Outcome: string(a.told.Outcome), WrittenOff: a.told.WrittenOff.String(), Disputed: a.told.Disputed.String(),
		Most: a.told.Most.String()}
	if a.untold != nil {
		text := a.untold.Error()
		item.Error = &text
	}
	return item
}

type auditReason struct {
	Reason string `json:"reason"`
	Lines  int64  `json:"lines"`
	Msat   string `json:"msat"`
}

type auditFriend struct {
	Key         string `json:"key"`
	Name        string `json:"name"`
	Records     int64  `json:"records"`
	Pulls       int64  `json:"pulls"`
	Receipts    int64  `json:"receipts"`
	Moved       string `json:"bytesMoved"`
	Stored      string `json:"byteMilliseconds"`
	Msat        string `json:"msat"`
	RefusedLine int64  `json:"refusedLines"`
}

type auditRecord struct {
	Line     int64   `json:"line"`
	From     string  `json:"from"`
	To       string  `json:"to"`
	Record   string  `json:"record"`
	Hash     string  `json:"hash"`
	Bytes    int64   `json:"bytes"`
	Written  *string `json:"written"`
	Ended    *string `json:"ended"`
	Pulls    int64   `json:"pulls"`
	Receipts int64   `json:"receipts"`
	Moved    string  `json:"bytesMoved"`
	Stored   string  `json:"byteMilliseconds"`
	Msat     string  `json:"msat"`
}

type auditLine struct {
	Line   int64  `json:"line"`
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	Why    string `json:"why"`
	From   string `json:"from"`
	To     string `json:"to"`
	Record string `json:"record"`
	Bytes  int64  `json:"bytes"`
	Moved  string `json:"bytesMoved"`
	Stored string `json:"byteMilliseconds"`
	Msat   string `json:"msat"`

	Waiting bool   `json:"waiting"` // for its writer's word
	Answer  string `json:"answer"`  // of the relay, once it was told
	Dropped int64  `json:"dropped"` // the line that drops it; 0: none
}

func auditJSON(a *auditedContract, names map[protocol.PublicKey]string) auditItem {
	b := a.audit.Bill
	item := auditItem{Contract: a.audit.Contract.String(), Relay: a.audit.Relay.String(), Address: a.address, At: stamp(a.audit.At), Lines: a.audit.Lines,
		New: a.audit.New, AcceptedMsat: b.Accepted.String(), WaitingMsat: b.Waiting.String(), DisputedMsat: b.Disputed.String(), ClaimedMsat: b.Claimed.String(),
		Reasons: []auditReason{}, Friends: []auditFriend{}, Unread: a.audit.Unread, Unbilled: a.audit.Unbilled,
		Unsaid: a.audit.Unsaid, Named: a.audit.Named, Dropped: a.audit.Dropped, Untold: a.audit.Untold, Told: toldJSON(a), Closing: a.closing,
		PaidSat: int64(a.paid), AskSat: int64(a.decision.Ask), ShortSat: int64(a.decision.Short)}
	for _, r := range a.audit.Reasons {
		item.Reasons = append(item.Reasons, auditReason{string(r.Reason), r.Lines, r.Cost.String()})
	}
	for _, f := range a.audit.Friends {
		item.Friends = append(item.Friends, auditFriend{Key: f.Key.String(), Name: nameOf(f.Key, names), Records: f.Records, Pulls: f.Pulls,
			Receipts: f.Receipts, Moved: f.Used.Moved.String(), Stored: f.Used.Stored.String(), Msat: f.Cost.String(), RefusedLine: f.Refused})
	}
	if a.audit.Fault != nil {
		text := a.audit.Fault.Error()
		item.Fault = &text
	}
	for _, e := range a.audit.Proof {
		item.Proof = append(item.Proof, map[string]any{"envelope": string(e.Bytes())})
	}
	return item
}

// part is what of an audit is to be shown, and one more, which tells that there is more.
func (o auditOptions) part(ctx context.Context, c *client.Client) (client.AuditPart, error) {
	part := client.AuditPart{Record: o.record, After: o.after}
	if o.most > 0 {
		part.Limit = o.most + 1
	}
	if o.friend != "" {
		f, err := c.FindFriend(ctx, o.friend)
		if err != nil {
			return part, err
		}
		part.Friend = &f.Key
	}
	return part, nil
}

// addParts adds the records and lines that the flags ask for.
func (item *auditItem) addParts(ctx context.Context, c *client.Client, a *auditedContract, o auditOptions) error {
	part, err := o.part(ctx, c)
	if err != nil {
		return err
	}
	if o.line != 0 {
		id, err := c.RecordOfLine(ctx, a.audit.Contract, o.line)
		if err != nil {
			return err
		}
		if id == "" {
			return fmt.Errorf("line %d of contract %s is about no record: it gives back what was reserved, or is not audited yet (%d lines are)",
				o.line, a.audit.Contract.Short(), a.audit.Lines)
		}
		o.record, part.Record = string(id), string(id)
	}
	if o.friend != "" || o.record != "" {
		item.Records = []auditRecord{}
		if err := c.AuditedPart(ctx, a.audit.Contract, part, func(r *client.AuditedRecord) error {
			one, err := recordJSON(a, r)
			item.Records = append(item.Records, one)
			return err
		}); err != nil {
			return err
		}
		if o.most > 0 && len(item.Records) > o.most {
			item.Records, item.More = item.Records[:o.most], true
		}
	}
	if o.refused || o.record != "" {
		item.Refused = []auditLine{}
		if err := c.RefusedPart(ctx, a.audit.Contract, part, func(r *client.RefusedLine) error {
			one, err := refusedJSON(a, r)
			item.Refused = append(item.Refused, one)
			return err
		}); err != nil {
			return err
		}
		if o.most > 0 && len(item.Refused) > o.most {
			item.Refused, item.More = item.Refused[:o.most], true
		}
	}
	return nil
}

func recordJSON(a *auditedContract, r *client.AuditedRecord) (auditRecord, error) {
	used := client.RecordUsage(r, a.audit.At)
	cost, err := a.audit.Prices.Cost(used)
	return auditRecord{Line: r.Write, From: r.Path.Sender.String(), To: r.Path.Receiver.String(), Record: string(r.Path.ID), Hash: r.Hash.String(),
		Bytes: r.Bytes, Written: stamp(r.Written), Ended: stamp(r.Ended), Pulls: r.Pulled, Receipts: r.Receipts,
		Moved: used.Moved.String(), Stored: used.Stored.String(), Msat: cost.String()}, err
}

func refusedJSON(a *auditedContract, r *client.RefusedLine) (auditLine, error) {
	cost, err := a.audit.Prices.Cost(r.Refused)
	return auditLine{Line: r.Line, Kind: string(r.Kind), Reason: string(r.Reason), Why: r.Why, From: r.Path.Sender.String(), To: r.Path.Receiver.String(),
		Record: string(r.Path.ID), Bytes: r.Bytes, Moved: r.Refused.Moved.String(), Stored: r.Refused.Stored.String(), Msat: cost.String(),
		Waiting: r.Waiting, Answer: string(r.Answer), Dropped: r.Dropped}, err
}
