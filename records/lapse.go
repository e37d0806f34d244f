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

// findUnsigned are the pages with records on bills that are due from $1 to $2, oldest first, $3 at most.
const findUnsigned = `SELECT made, reader, page_id, bills FROM pages p
	WHERE ` + isOpen + ` AND made > 0 AND made >= $1 AND made <= $2 AND bills IS NOT NULL AND NOT lapsed ORDER BY made LIMIT $3`

// lapse gives back what pages held that were not acknowledged in time.
func (w *sweeper) lapse(ctx context.Context, e *ending) (done swept, err error) {
	took, err := w.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		done = swept{}
		readers, ids, payers, last, err := unsigned(ctx, tx, e.from, w.due(e))
		if err != nil || len(ids) == 0 {
			return err
		}
		done.last, done.more = last, len(ids) == sweepPagesBatch
		if readers, ids, err = lockReaders(ctx, tx, readers, ids); err != nil || len(ids) == 0 {
			return err
		}
		done.ended, err = w.store.lapsePages(ctx, tx, readers, ids, payers)
		return err
	})
	if err != nil || done.ended == 0 {
		return swept{}, err
	}
	return done, w.pause(ctx, took, e, done.last)
}

// unsigned finds pages that are due, and who pays the bills in them.
func unsigned(ctx context.Context, tx pgx.Tx, from, due int64) (readers [][]byte, ids []string, payers map[int64]protocol.PublicKey, last int64, err error) {
	rows, err := tx.Query(ctx, findUnsigned, from, due, sweepPagesBatch)
	if err != nil {
		return nil, nil, nil, 0, err
	}
	var reader []byte
	var id string
	var bills, all []int64
	if _, err := pgx.ForEachRow(rows, []any{&last, &reader, &id, &bills}, func() error {
		readers, ids, all = append(readers, bytes.Clone(reader)), append(ids, id), append(all, bills...)
		return nil
	}); err != nil || len(ids) == 0 {
		return nil, nil, nil, 0, err
	}
	rows, err = tx.Query(ctx, `SELECT id, payer FROM bills WHERE id = ANY($1)`, all)
	if err != nil {
		return nil, nil, nil, 0, err
	}
	payers = make(map[int64]protocol.PublicKey)
	var bill int64
	var payer []byte
	_, err = pgx.ForEachRow(rows, []any{&bill, &payer}, func() error {
		payers[bill] = protocol.PublicKey(payer)
		return nil
	})
	return readers, ids, payers, last, err
}

// lockReaders locks the readers of pages, and returns the pages of those that are at nothing else: one who is may be acknowledging
// his. Those of others are looked at again another time.
func lockReaders(ctx context.Context, tx pgx.Tx, readers [][]byte, ids []string) (locked [][]byte, of []string, err error) {
	locks := make([]int64, len(readers))
	for i, reader := range readers {
		locks[i] = lockOf(protocol.PublicKey(reader))
	}
	rows, err := tx.Query(ctx, `SELECT i FROM unnest($1::bigint[]) WITH ORDINALITY AS t (k, i) WHERE pg_try_advisory_xact_lock(k)`, locks)
	if err != nil {
		return nil, nil, err
	}
	var i int
	_, err = pgx.ForEachRow(rows, []any{&i}, func() error {
		locked, of = append(locked, readers[i-1]), append(of, ids[i-1])
		return nil
	})
	return locked, of, err
}

// lapsePages marks pages as lapsed, but those that were acknowledged meanwhile, and gives back what they held.
func (s *Store) lapsePages(ctx context.Context, tx pgx.Tx, readers [][]byte, ids []string, payers map[int64]protocol.PublicKey) (int, error) {
	var held []books.Held
	for _, payer := range payers {
		held = append(held, books.Held{Account: payer})
	}
	batch, err := s.books.LockHeld(ctx, tx, held) // accounts first: the order of locks that writes have
	if err != nil {
		return 0, err
	}
	rows, err := tx.Query(ctx, `UPDATE pages p SET lapsed = true FROM unnest($1::bytea[], $2::text[]) AS t (reader, page_id)
		WHERE p.reader = t.reader AND p.page_id = t.page_id AND `+isOpen+` AND NOT p.lapsed
		RETURNING p.reader, p.ns, p.bills, p.senders, p.names, p.hashes`, readers, ids)
	if err != nil {
		return 0, err
	}
	var reader, senders, names, hashes []byte
	var ns, bills []int64
	lapsed := 0
	_, err = pgx.ForEachRow(rows, []any{&reader, &ns, &bills, &senders, &names, &hashes}, func() error {
		lapsed++
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
		return 0, err
	}
	return lapsed, batch.Save(ctx, tx)
}
