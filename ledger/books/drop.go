package books

import (
	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// drop takes the refused lines off the bill, and tells what it came down by. waived is all that was dropped by then.
func (d *dropping) drop(waived ledger.Usage) (protocol.Msat, error) {
	before, err := moneyOf(d.bill.prices, d.bill.totals)
	if err != nil {
		return 0, err
	}
	if err := d.note(true); err != nil {
		return 0, err
	}
	if err := d.dropRecords(); err != nil {
		return 0, err
	}
	postings := make([]posting, len(d.refused))
	for i := range d.refused {
		one := &d.refused[i]
		back := one.back.Wire()
		l := ledger.Line{Kind: ledger.KindDrop, From: one.line.From, To: one.line.To, RecordID: one.line.RecordID, Hash: one.line.Hash, Bytes: one.line.Bytes,
			Of: one.line.Seq, Back: &back}
		postings[i] = posting{line: l}
	}
	b := &pgx.Batch{}
	if _, err := d.bill.add(d.ctx, d.tx, postings, nil); err != nil { // there is no pull among them
		return 0, err
	}
	d.bill.append(b, postings)
	t := d.bill.totals
	b.Queue(`UPDATE bills SET last = $2, written = $3::text::numeric, pulled = $4::text::numeric, stored = $5::text::numeric,
		reserved_pulled = $6::text::numeric, reserved_stored = $7::text::numeric, waived_stored = $8::text::numeric, waived_moved = $9::text::numeric WHERE id = $1`,
		d.bill.id, d.bill.last, t.Written.String(), t.Pulled.String(), t.Stored.String(), t.ReservedPulled.String(), t.ReservedStored.String(),
		waived.Stored.String(), waived.Moved.String())
	if err := d.tx.SendBatch(d.ctx, b).Close(); err != nil {
		return 0, err
	}
	after, err := moneyOf(d.bill.prices, t)
	if err != nil {
		return 0, err
	}
	given := before.all - after.all
	if err := d.giveBack(given); err != nil {
		return 0, err
	}
	e := entry{owed: -given, writtenOff: given}
	if !d.bill.closed { // what was reserved of it will not be
		e.reserved = (before.all - before.used) - (after.all - after.used)
		e.earned = -e.reserved
	}
	return given, d.s.write(d.ctx, d.tx, d.bill.id, CauseRefusal, e)
}

// giveBack takes what was given off the account, while that is under this contract. A contract whose renewal was undone has the account
// a second time, which counts from 0: what it does not count is carried.
func (d *dropping) giveBack(given protocol.Msat) error {
	u := d.account.payers.accounts[d.r.Payer]
	if u == nil || u.account.Contract == nil || u.account.bill != d.bill.id {
		return nil
	}
	c := u.account.Contract
	before, err := c.Prices.Cost(c.Used)
	if err != nil {
		return err
	}
	short := false
	for i := range d.refused {
		left, ok := c.Used.Minus(d.refused[i].sum)
		if !ok {
			short = true
			left.Stored, _ = c.Used.Stored.Minus(d.refused[i].sum.Stored) // 0 if that is more
			left.Moved, _ = c.Used.Moved.Minus(d.refused[i].sum.Moved)
		}
		c.Used = left
	}
	if short {
		after, err := c.Prices.Cost(c.Used)
		if err != nil {
			return err
		}
		d.uncounted = max(given-(before-after), 0)
	}
	u.changed = true
	return d.account.Save(d.ctx, d.tx)
}

// dropRecords takes records off the bill whose writes are refused: nothing that becomes of them is on it any more.
func (d *dropping) dropRecords() error {
	var hashes, senders, receivers [][]byte
	var ids []string
	for i := range d.refused {
		if l := d.refused[i].line; l.Kind == ledger.KindWrite {
			hashes, senders, receivers, ids = append(hashes, l.Hash[:]), append(senders, l.From[:]), append(receivers, l.To[:]), append(ids, string(l.RecordID))
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO ledger_dropped (bill, hash) SELECT $1, h FROM unnest($2::bytea[]) AS t (h)`, d.bill.id, hashes)
	b.Queue(`UPDATE bills SET drops = drops + $2 WHERE id = $1`, d.bill.id, len(hashes))
	b.Queue(`UPDATE records r SET bill = NULL FROM unnest($2::bytea[], $3::bytea[], $4::text[], $5::bytea[]) AS t (sender, receiver, id, hash)
		WHERE r.sender = t.sender AND r.receiver = t.receiver AND r.id = t.id AND r.hash = t.hash AND r.bill = $1`, d.bill.id, senders, receivers, ids, hashes)
	return d.tx.SendBatch(d.ctx, b).Close()
}

// note keeps what was refused, for the operator and so that it counts once.
func (d *dropping) note(dropped bool) error {
	k := len(d.refused)
	lines, kinds, reasons, stored, moved := make([]int64, k), make([]string, k), make([]string, k), make([]string, k), make([]string, k)
	for i := range d.refused {
		one := &d.refused[i]
		lines[i], kinds[i], reasons[i] = one.line.Seq, string(one.line.Kind), string(one.reason)
		stored[i], moved[i] = one.sum.Stored.String(), one.sum.Moved.String()
	}
	_, err := d.tx.Exec(d.ctx, `INSERT INTO ledger_refusals (bill, line, kind, reason, stored, moved, dropped, at)
		SELECT $1, line, kind, reason, stored::numeric, moved::numeric, $7, $8 FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
		  AS t (line, kind, reason, stored, moved)`, d.bill.id, lines, kinds, reasons, stored, moved, dropped, d.s.clock().UnixMilli())
	return err
}
