package records

import (
	"bytes"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// A page is acknowledged when its reader's next page is there, whose row has the acknowledgement that it rests on (got_before), or when it
// has one of its own (got, got_at), which came by itself or with a pull that made no page. Only a reader's last page can be open. Whoever
// acknowledges a page holds the lock on its reader, and so does who lets one lapse: else the ledger could be told twice. Turns are
// told apart by a constraint besides.

// isOpen tells whether the page p waits for its acknowledgement. A scalar, which cannot become a join.
const isOpen = `p.got_at IS NULL AND (SELECT true FROM pages l WHERE l.reader = p.reader AND l.turn > 0 AND l.turn > p.turn ORDER BY l.turn LIMIT 1) IS NULL`

// lastPage is the last page of a reader, the only one that may be open.
const lastPage = `SELECT page_id, turn, got_at IS NULL AS open, root, ns, bills, senders, bytes, lapsed FROM pages WHERE reader = t.reader AND turn > 0 ORDER BY turn DESC LIMIT 1`

// ackedColumns are what acknowledging the page l means to the ledger: its last place, null if that is nothing, its records, the bill
// that all of them are on, null if it has to look, and their bytes.
const ackedColumns = `CASE WHEN l.bills IS NOT NULL AND NOT l.lapsed THEN l.ns[cardinality(l.ns)] END, cardinality(l.ns), ` + oneBill + `, l.bytes`

// oneBill is the bill of a page that is on one and of one sender.
const oneBill = `CASE WHEN cardinality(bills) = 1 AND octet_length(senders) = 32 THEN bills[1] END`

// acked is the page that a pull acknowledges, its reader's last.
type acked struct {
	upto    *int64 // its last place; nil: it is on no bill
	records int32
	bill    *int64 // all records are on; nil: the ledger has to look
	bytes   int64
}

// queuePosts has the ledger post what the pages cost that these pulls acknowledge.
func queuePosts(b *pgx.Batch, made []*pull, now int64) {
	var readers [][]byte
	var ids []string
	var uptos, bytes []int64
	var records []int32
	var bills []*int64
	for _, p := range made {
		if p.acks != nil && p.acks.upto != nil {
			readers, ids = append(readers, p.request.Reader[:]), append(ids, string(p.request.Got.PageID))
			uptos, records = append(uptos, *p.acks.upto), append(records, p.acks.records)
			bills, bytes = append(bills, p.acks.bill), append(bytes, p.acks.bytes)
		}
	}
	if len(readers) > 0 {
		b.Queue(`INSERT INTO ledger_acks (reader, page_id, upto, records, at, bill, bytes) SELECT reader, page_id, upto, records, $5, bill, bytes
			FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::integer[], $6::bigint[], $7::bigint[]) AS t (reader, page_id, upto, records, bill, bytes)`,
			readers, ids, uptos, records, now, bills, bytes)
	}
}

// queueAcks stores the acknowledgements of pulls that make no page.
func queueAcks(b *pgx.Batch, group []*pull, now int64) {
	k := len(group)
	readers, ids, roots, gots := make([][]byte, k), make([]string, k), make([][]byte, k), make([][]byte, k)
	for i, p := range group {
		got := p.request.Got
		readers[i], ids[i], roots[i], gots[i] = p.request.Reader[:], string(got.PageID), got.Root[:], got.Envelope.Bytes()
	}
	b.Queue(storeAcks, readers, ids, roots, gots, now)
}

// storeAcks stores acknowledgements at the pages they are about, if these are open, and has the ledger post what their records cost their
// bills, in the same statement and at no cost to pages of grants. Each page is found by itself: with a table that was
// empty when it was analyzed, the planner walks all pages for all that it is to update.
const storeAcks = `WITH l AS (UPDATE pages p SET got = t.got, got_at = $5
	FROM (SELECT t.got, f.place FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::bytea[]) AS t (reader, page_id, root, got) CROSS JOIN LATERAL (
	  SELECT ctid AS place FROM pages p WHERE p.reader = t.reader AND p.page_id = t.page_id AND p.root = t.root AND ` + isOpen + ` OFFSET 0) f) t
	WHERE p.ctid = t.place AND p.got_at IS NULL RETURNING p.reader, p.page_id, p.bills, p.lapsed, p.ns, p.senders, p.bytes),
	posted AS (INSERT INTO ledger_acks (reader, page_id, upto, records, at, bill, bytes)
	  SELECT reader, page_id, upto, records, $5, bill, bytes FROM (SELECT reader, page_id, ` + ackedColumns + ` FROM l) a (reader, page_id, upto, records, bill, bytes) WHERE upto IS NOT NULL)
	SELECT reader FROM l`

// Got stores a reader's acknowledgement of a page. The same acknowledgement again is fine. Errors
// have code [protocol.CodeNotFound] or [protocol.CodeRootMismatch].
func (s *Store) Got(ctx context.Context, reader protocol.PublicKey, ack Acknowledgement) error {
	return wrap(s.db.Tx(ctx, func(tx pgx.Tx) error {
		if err := lockReader(ctx, tx, reader); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, storeAcks, [][]byte{reader[:]}, []string{string(ack.PageID)}, [][]byte{ack.Root[:]}, [][]byte{ack.Envelope.Bytes()}, int64(s.now()))
		if err != nil || tag.RowsAffected() == 1 {
			return err
		}
		var root []byte
		err = tx.QueryRow(ctx, `SELECT root FROM pages WHERE reader = $1 AND page_id = $2`, reader[:], string(ack.PageID)).Scan(&root)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return protocol.Errorf(protocol.CodeNotFound, "there is no page %s of yours", ack.PageID)
		case err != nil:
			return err
		case !bytes.Equal(root, ack.Root[:]):
			return protocol.Errorf(protocol.CodeRootMismatch, "the root acknowledged is not that of page %s", ack.PageID)
		}
		return nil
	}), "acknowledge page %s", ack.PageID)
}
