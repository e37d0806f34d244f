package books

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// A page whose records are all on one bill and of one sender goes into the ledger without leaving the database: its acknowledgement says
// what it adds to the bill. All others are read and taken apart.

// pageRef is an acknowledged page that has not been read.
type pageRef struct {
	reader  []byte
	id      string
	records int32
	bytes   int64 // of all records
}

// served is a page that was acknowledged, as its row has it.
type served struct {
	reader  protocol.PublicKey
	got     []byte
	hashes  []byte // 32 bytes a record
	senders []byte // 32 bytes a record, or 32 if all are of one sender
	ids     [][]byte
	sizes   []int32
}

func (p *served) records() int { return len(p.sizes) }

func (p *served) sender(at int32) protocol.PublicKey {
	if len(p.senders) == 32 {
		at = 0
	}
	return protocol.PublicKey(p.senders[32*at:])
}

func (p *served) hash(at int32) protocol.Hash { return protocol.Hash(p.hashes[32*at:]) }

// bytesOf is what these of its records have together.
func (p *served) bytesOf(records []int32) (sum int64) {
	for _, at := range records {
		sum += int64(p.sizes[at])
	}
	return sum
}

// readAcks notes the acknowledgements: of pages on one bill what they add to it, and which others are to be read.
func (r *round) readAcks(rows pgx.Rows) error {
	var ref pageRef
	var bill, bytes *int64
	pages, pulls := 0, 0
	_, err := pgx.ForEachRow(rows, []any{&ref.reader, &ref.id, &ref.records, &bill, &bytes}, func() error {
		pages, pulls = pages+1, pulls+int(ref.records)
		one := ref
		one.reader = slices.Clone(ref.reader)
		if bill == nil || bytes == nil || *bytes < 0 || r.wary {
			r.unread = append(r.unread, one)
			return nil
		}
		one.bytes = *bytes
		r.add(*bill, posting{ref: &one})
		return nil
	})
	r.full = r.full || pages == postPages || pulls >= postPulls
	return err
}

// pagesOf reads pages that were acknowledged.
const pagesOf = `SELECT p.reader, p.bills, p.senders, p.names, p.hashes, p.evidence FROM unnest($1::bytea[], $2::text[]) AS a (reader, page_id) CROSS JOIN LATERAL
	(SELECT *, ` + evidence + ` AS evidence FROM pages p WHERE reader = a.reader AND page_id = a.page_id OFFSET 0) p WHERE p.evidence IS NOT NULL`

// readPages reads pages and gives each bill's pulls in them to take. One that is gone or damaged is on no bill, and keeps no other waiting.
func readPages(ctx context.Context, tx pgx.Tx, refs []pageRef, take func(bill int64, p posting), log *slog.Logger) error {
	if len(refs) == 0 {
		return nil
	}
	readers, ids := make([][]byte, len(refs)), make([]string, len(refs))
	for i := range refs {
		readers[i], ids[i] = refs[i].reader, refs[i].id
	}
	rows, err := tx.Query(ctx, pagesOf, readers, ids)
	if err != nil {
		return err
	}
	var reader, senders, names, hashes, got []byte
	var bills []int64
	read := 0
	_, err = pgx.ForEachRow(rows, []any{&reader, &bills, &senders, &names, &hashes, &got}, func() error {
		page, err := newServed(reader, senders, names, hashes, got)
		if err == nil {
			err = page.part(bills, take)
		}
		if err != nil {
			log.Error("a page is left out of all bills", "err", err)
		}
		read++
		return nil
	})
	if err == nil && read < len(refs) {
		log.Error("pages are left out of all bills: they are gone", "pages", len(refs)-read)
	}
	return err
}

// newServed takes a copy of a row.
func newServed(reader, senders, names, hashes, got []byte) (*served, error) {
	ids, sizes, err := ReadNames(slices.Clone(names), len(hashes)/32)
	if err != nil {
		return nil, err
	}
	if records := len(sizes); len(reader) != 32 || len(hashes) != 32*records || len(senders) != 32 && len(senders) != 32*records {
		return nil, fmt.Errorf("a page of %x has %d records", reader, records)
	}
	return &served{reader: protocol.PublicKey(reader), got: slices.Clone(got), hashes: slices.Clone(hashes), senders: slices.Clone(senders), ids: ids, sizes: sizes}, nil
}

// part gives each bill's pulls to take. The bills are those of the records, or one for all.
func (p *served) part(bills []int64, take func(bill int64, p posting)) error {
	if len(bills) != 1 && len(bills) != p.records() {
		return fmt.Errorf("a page of %s has %d records, and %d bills", p.reader, p.records(), len(bills))
	}
	byBill := make(map[int64][]int32, 1)
	for at := range int32(p.records()) {
		if bill := bills[min(int(at), len(bills)-1)]; bill != 0 {
			byBill[bill] = append(byBill[bill], at)
		}
	}
	for bill, pulls := range byBill {
		take(bill, posting{page: p, pulls: pulls})
	}
	return nil
}

// read replaces postings of unread pages by what is in these pages. They are one after the other.
func (s *billState) read(ctx context.Context, tx pgx.Tx, postings []posting) ([]posting, error) {
	first := slices.IndexFunc(postings, func(p posting) bool { return p.ref != nil })
	if first < 0 {
		return postings, nil
	}
	var refs []pageRef
	all, after := slices.Clone(postings[:first]), []posting(nil)
	for _, p := range postings[first:] {
		if p.ref != nil {
			refs = append(refs, *p.ref)
		} else {
			after = append(after, p)
		}
	}
	strange := false
	err := readPages(ctx, tx, refs, func(bill int64, p posting) {
		all, strange = append(all, p), strange || bill != s.id
	}, s.log)
	if err == nil && strange {
		err = errPageGone
	}
	return append(all, after...), err
}

// line is a pull of all the bytes of a page, for adding up.
func (p *pageRef) line() *ledger.Line { return &ledger.Line{Kind: ledger.KindPull, Bytes: p.bytes} }

// errPageGone: what was noted of a page is not what is there. The round is undone, and begun again by one that reads all pages.
var errPageGone = errors.New("a page is not what was noted of it")

// insertPages stores a block of whole pages, which are on one bill and of one sender each. It stores nothing if one of them is gone.
const insertPages = `INSERT INTO ledger_blocks (bill, last, lines)
	SELECT $1, $2, string_agg('\x09'::bytea || uvarint(octet_length(p.evidence)) || p.evidence || uvarint(cardinality(p.ns)) || p.hashes || p.reader || p.senders || p.names, ''::bytea)
	FROM unnest($3::bytea[], $4::text[]) AS a (reader, page_id) CROSS JOIN LATERAL
	  (SELECT *, ` + evidence + ` AS evidence FROM pages p WHERE reader = a.reader AND page_id = a.page_id OFFSET 0) p
	WHERE p.evidence IS NOT NULL AND p.bills = ARRAY[$1::bigint] AND octet_length(p.senders) = 32 AND octet_length(p.hashes) = 32 * cardinality(p.ns)
	HAVING count(*) = cardinality($4) AND sum(cardinality(p.ns)) = $5 AND sum(p.bytes)::bigint = $6`

// queuePages queues a block of pages.
func (s *billState) queuePages(b *pgx.Batch, postings []posting, lines int) {
	readers, ids, bytes := make([][]byte, len(postings)), make([]string, len(postings)), int64(0)
	for i := range postings {
		ref := postings[i].ref
		readers[i], ids[i], bytes = ref.reader, ref.id, bytes+ref.bytes
	}
	b.Queue(insertPages, s.id, s.last, readers, ids, int64(lines), bytes).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return errPageGone
		}
		return nil
	})
}
