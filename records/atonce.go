package records

import (
	"bytes"
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
)

// Few records are stored by one statement, which is a transaction by itself: it takes one round trip, nothing to begin and to end, and
// plans that are made already, where COPY reads the catalogue anew. Of many records each is cheaper by COPY.
const (
	atOnce      = 16       // records at most
	atOnceBytes = 64 << 10 // and bytes of their envelopes
)

// insertPaid charges and takes places as chargeAndPlace does, and stores the records of those who pay, in their order. Its rows are the
// last place, and each account that pays with its bill. From taking the places to its end it holds the cursor's row.
var insertPaid = books.NewPaidForms(func(paid string) string {
	return `WITH ` + paid + `,
	place AS (UPDATE relay_cursor c SET n = c.n + p.records FROM (SELECT sum(records)::bigint AS records FROM paid) p WHERE p.records > 0 RETURNING c.n, p.records),
	stored AS (INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, tag, request_hash, hash, envelope, bill)
	  SELECT p.n - p.records + r.i, r.sender, r.receiver, r.id, r.account, octet_length(r.envelope), r.timestamp, r.expires, $8, r.max_pulls, r.tag, r.request_hash, r.hash, r.envelope, r.bill
	  FROM place p CROSS JOIN (SELECT t.*, a.bill, row_number() OVER (ORDER BY t.at) AS i
	    FROM unnest($11::bytea[], $12::bytea[], $13::text[], $14::bytea[], $15::bigint[], $16::bigint[], $17::integer[], $18::text[], $19::bytea[], $20::bytea[], $21::bytea[])
	      WITH ORDINALITY AS t (sender, receiver, id, account, timestamp, expires, max_pulls, tag, request_hash, hash, envelope, at)
	    JOIN paid a ON a.key = t.account) r)
	SELECT p.n, a.key, coalesce(a.bill, 0) FROM place p CROSS JOIN paid a`
})

// isFew tells whether items are stored at once.
func isFew(items []*item) bool {
	size := int64(0)
	for _, it := range items {
		size += it.in.Envelope.Size()
	}
	return len(items) <= atOnce && size <= atOnceBytes
}

// storeAtOnce stores the items whose accounts can pay, which are new and under distinct paths, and returns the others.
func (s *Store) storeAtOnce(ctx context.Context, items []*item, payment *books.Payment) (rest []*item, err error) {
	k := len(items)
	senders, receivers, accounts, requests, hashes, envelopes := make([][]byte, k), make([][]byte, k), make([][]byte, k), make([][]byte, k), make([][]byte, k), make([][]byte, k)
	ids, tags, stamps, expires, pulls := make([]string, k), make([]*string, k), make([]int64, k), make([]int64, k), make([]int32, k)
	for i, it := range items {
		e, w := it.in.Envelope, it.in.Write
		senders[i], receivers[i], accounts[i], requests[i], hashes[i], envelopes[i] = e.From[:], e.To[:], it.account[:], it.request[:], it.hash[:], e.Bytes()
		ids[i], stamps[i], expires[i], pulls[i] = string(w.RecordID), int64(e.Timestamp), int64(w.Expires), int32(w.MaxPulls)
		if w.Tag != nil {
			tag := string(*w.Tag)
			tags[i] = &tag
		}
	}
	args := append(payment.Args(), senders, receivers, ids, accounts, stamps, expires, pulls, tags, requests, hashes, envelopes)
	var head, on int64
	var key []byte
	paid, bills := make([][]byte, 0, payment.Accounts()), make([]int64, 0, payment.Accounts())
	err = s.db.LoadOne(ctx, insertPaid.Statement(payment), args, func(rows pgx.Rows) error {
		paid, bills = paid[:0], bills[:0]
		_, err := pgx.ForEachRow(rows, []any{&head, &key, &on}, func() error {
			paid, bills = append(paid, bytes.Clone(key)), append(bills, on)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	fresh := items
	if len(paid) < payment.Accounts() {
		fresh, rest = partPaid(items, paid)
	}
	bill(fresh, paid, bills)
	s.placeAt(fresh, head)
	s.stored(fresh)
	return rest, nil
}
