package books

import (
	"bytes"
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Billed is what the ledger says of a record that is on a contract's bill.
type Billed struct {
	N    int64 // its place in the relay's order
	Bill int64 // see [Batch.Bill]; 0: none
	To   protocol.PublicKey
	ID   protocol.RecordID
	Hash protocol.Hash // of the envelope
}

// fact is a line that is to be posted.
type fact struct {
	Release
	kind int16
}

// end notes what the ledger says of a release.
func (b *Batch) end(r Release) {
	if r.Record.Bill == 0 {
		return
	}
	// As [ledger.Unused] reckons, whatever clocks said: stored for no less than no time, and not beyond its expiry.
	written := protocol.TimestampOf(r.Written)
	r.Ended = min(max(r.Ended, written), max(r.Expires, written))
	b.facts = append(b.facts, fact{r, factEnd})
}

// Lapse gives back pulls that were served and never acknowledged. Of the release it needs the account, the writer, the
// record, its bytes, and the pulls.
func (b *Batch) Lapse(r Release) { b.lapses = append(b.lapses, r) }

// takeLapses gives back what lapsed, but of records that were taken off their bill after they were served: they gave
// everything back then.
func (b *Batch) takeLapses(ctx context.Context, tx pgx.Tx) error {
	if len(b.lapses) == 0 {
		return nil
	}
	bills, hashes := make([]int64, len(b.lapses)), make([][]byte, len(b.lapses))
	for i := range b.lapses {
		bills[i], hashes[i] = b.lapses[i].Record.Bill, b.lapses[i].Record.Hash[:]
	}
	rows, err := tx.Query(ctx, `SELECT t.i FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS t (bill, hash, i) JOIN ledger_dropped d USING (bill, hash)`, bills, hashes)
	if err != nil {
		return err
	}
	off := make(map[int]bool)
	var at int
	if _, err := pgx.ForEachRow(rows, []any{&at}, func() error { off[at-1] = true; return nil }); err != nil {
		return err
	}
	for i, r := range b.lapses {
		if off[i] {
			continue
		}
		if u := b.payers.accounts[r.Account]; u != nil && u.account.Contract != nil && u.account.bill == r.Record.Bill {
			c := u.account.Contract
			if left, ok := c.Used.Minus(ledger.Usage{Moved: ledger.Times(r.Bytes, r.Pulls)}); ok {
				c.Used, u.changed = left, true
			}
		}
		b.facts = append(b.facts, fact{r, factLapse})
	}
	b.lapses = nil
	return nil
}

func (b *Batch) saveFacts(round *pgx.Batch) {
	k := len(b.facts)
	if k == 0 {
		return
	}
	ns, bills, kinds := make([]int64, k), make([]int64, k), make([]int16, k)
	senders, receivers, hashes, ids := make([][]byte, k), make([][]byte, k), make([][]byte, k), make([]string, k)
	sizes, pulls := make([]int32, k), make([]int32, k)
	written, expires, ended := make([]int64, k), make([]int64, k), make([]int64, k)
	for i := range b.facts {
		f := &b.facts[i]
		ns[i], bills[i], kinds[i], ids[i] = f.Record.N, f.Record.Bill, f.kind, string(f.Record.ID)
		senders[i], receivers[i], hashes[i] = bytes.Clone(f.Writer[:]), bytes.Clone(f.Record.To[:]), bytes.Clone(f.Record.Hash[:])
		sizes[i], pulls[i] = int32(f.Bytes), int32(f.Pulls)
		expires[i], ended[i] = int64(f.Expires), int64(f.Ended)
		if f.kind == factEnd {
			written[i] = f.Written.UnixMilli()
		}
	}
	round.Queue(`INSERT INTO ledger_facts (n, bill, kind, sender, receiver, id, hash, bytes, written, expires, ended, pulls)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bytea[], $5::bytea[], $6::text[], $7::bytea[], $8::integer[],
		  $9::bigint[], $10::bigint[], $11::bigint[], $12::integer[])`,
		ns, bills, kinds, senders, receivers, ids, hashes, sizes, written, expires, ended, pulls)
}
