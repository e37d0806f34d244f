package records

import (
	"bytes"
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// A page that its reader never acknowledged is the relay's own loss, a page a reader at most: what its records' payers
// had reserved for it goes back to them, and an acknowledgement that comes later bills nobody.

// findUnsigned are the last pages of the readers $1 that are open, with records on bills, and were made up to $2.
const findUnsigned = `SELECT t.reader, l.page_id, l.bills FROM unnest($1::bytea[]) AS t (reader) CROSS JOIN LATERAL (
	  SELECT page_id, made, got_at, bills, lapsed FROM pages WHERE reader = t.reader AND turn > 0 ORDER BY turn DESC LIMIT 1) l
	WHERE l.got_at IS NULL AND l.made <= $2 AND l.bills IS NOT NULL AND NOT l.lapsed`

// lapse gives back what the pages of these readers held that were not acknowledged in time, and returns whose they were. It is the
// caller who has locked them.
func (s *Store) lapse(ctx context.Context, tx pgx.Tx, readers [][]byte, due int64) (of [][]byte, err error) {
	of, ids, payers, err := unsigned(ctx, tx, readers, due)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return of, s.lapsePages(ctx, tx, of, ids, payers)
}

// unsigned finds pages that are due, and who pays the bills in them.
func unsigned(ctx context.Context, tx pgx.Tx, readers [][]byte, due int64) (of [][]byte, ids []string, payers map[int64]protocol.PublicKey, err error) {
	rows, err := tx.Query(ctx, findUnsigned, readers, due)
	if err != nil {
		return nil, nil, nil, err
	}
	var reader []byte
	var id string
	var bills, all []int64
	if _, err := pgx.ForEachRow(rows, []any{&reader, &id, &bills}, func() error {
		of, ids, all = append(of, bytes.Clone(reader)), append(ids, id), append(all, bills...)
		return nil
	}); err != nil || len(ids) == 0 {
		return nil, nil, nil, err
	}
	rows, err = tx.Query(ctx, `SELECT id, payer FROM bills WHERE id = ANY($1)`, all)
	if err != nil {
		return nil, nil, nil, err
	}
	payers = make(map[int64]protocol.PublicKey)
	var bill int64
	var payer []byte
	_, err = pgx.ForEachRow(rows, []any{&bill, &payer}, func() error {
		payers[bill] = protocol.PublicKey(payer)
		return nil
	})
	return of, ids, payers, err
}

// lapsePages marks pages as lapsed, and gives back what they held.
func (s *Store) lapsePages(ctx context.Context, tx pgx.Tx, readers [][]byte, ids []string, payers map[int64]protocol.PublicKey) error {
	var held []books.Held
	for _, payer := range payers {
		held = append(held, books.Held{Account: payer})
	}
	batch, err := s.books.LockHeld(ctx, tx, held) // after the readers: the order of locks that deletions have
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `UPDATE pages p SET lapsed = true FROM unnest($1::bytea[], $2::text[]) AS t (reader, page_id)
		WHERE p.reader = t.reader AND p.page_id = t.page_id AND `+isOpen+` AND NOT p.lapsed
		RETURNING p.reader, p.ns, p.bills, p.senders, p.names, p.hashes`, readers, ids)
	if err != nil {
		return err
	}
	var reader, senders, names, hashes []byte
	var ns, bills []int64
	_, err = pgx.ForEachRow(rows, []any{&reader, &ns, &bills, &senders, &names, &hashes}, func() error {
		ids, sizes, err := books.ReadNames(names, len(ns))
		if err != nil {
			return err
		}
		for i := range ns {
			bill := bills[min(i, len(bills)-1)] // one is all records'
			if bill == 0 {
				continue
			}
			batch.Lapse(books.Release{
				Held: books.Held{Account: payers[bill], Writer: senderOf(senders, i)},
				Record: books.Billed{N: ns[i], Bill: bill, To: protocol.PublicKey(reader), ID: protocol.RecordID(ids[i]),
					Hash: protocol.Hash(hashes[32*i : 32*i+32])},
				Bytes: int64(sizes[i]), Pulls: 1,
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return batch.Save(ctx, tx)
}
