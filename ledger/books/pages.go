package books

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// A page whose records are all on one bill and of one sender goes into the ledger unread: its acknowledgement says what it adds to the
// bill. All others are read and taken apart.

// pageRef is an acknowledged page by its name.
type pageRef struct {
	reader []byte
	id     string
	acked  int64 // when it was acknowledged, by the relay's clock
	pulls  int32 // of it on the bill
	bytes  int64 // of these
}

// served is a page that was acknowledged, as its row has it.
type served struct {
	reader  protocol.PublicKey
	id      string
	acked   int64
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
	_, err := pgx.ForEachRow(rows, []any{&ref.reader, &ref.id, &ref.acked, &ref.pulls, &bill, &bytes}, func() error {
		pages, pulls = pages+1, pulls+int(ref.pulls)
		one := ref
		one.reader = slices.Clone(ref.reader)
		if bill == nil || bytes == nil || *bytes < 0 || r.wary {
			r.unread = append(r.unread, &one)
			return nil
		}
		one.bytes = *bytes
		r.add(*bill, posting{ref: &one})
		return nil
	})
	r.full, r.taken = r.full || pages == postPages || pulls >= postPulls, r.taken+pages
	return err
}

// pagesOf reads pages that were acknowledged.
const pagesOf = `SELECT a.i, p.reader, p.page_id, CASE WHEN array_position(p.bills, NULL) IS NULL THEN p.bills END, p.senders, p.names, p.hashes, p.evidence FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY AS a (reader, page_id, i) CROSS JOIN LATERAL
	(SELECT *, ` + evidence + ` AS evidence FROM pages p WHERE reader = a.reader AND page_id = a.page_id OFFSET 0) p WHERE p.evidence IS NOT NULL`

// visitPages reads pages, in any order, and gives each with the bills of its records to visit, or why it cannot be read; those that are gone are
// not visited.
func visitPages(ctx context.Context, q Querier, refs []*pageRef, visit func(i int, p *served, bills []int64, err error) error) error {
	if len(refs) == 0 {
		return nil
	}
	readers, ids := make([][]byte, len(refs)), make([]string, len(refs))
	for i, ref := range refs {
		readers[i], ids[i] = ref.reader, ref.id
	}
	rows, err := q.Query(ctx, pagesOf, readers, ids)
	if err != nil {
		return err
	}
	var i int
	var reader, senders, names, hashes, got []byte
	var id string
	var bills []int64
	_, err = pgx.ForEachRow(rows, []any{&i, &reader, &id, &bills, &senders, &names, &hashes, &got}, func() error {
		page, err := newServed(reader, senders, names, hashes, got)
		if err == nil && len(bills) != 1 && len(bills) != page.records() {
			err = fmt.Errorf("a page of %s has %d records, and %d bills", page.reader, page.records(), len(bills))
		}
		if err == nil {
			page.id, page.acked = id, refs[i-1].acked
		}
		return visit(i-1, page, bills, err)
	})
	return err
}

// readPages reads pages and gives each bill's pulls in them to take. One that is gone or damaged is on no bill, and keeps no other waiting.
func readPages(ctx context.Context, tx pgx.Tx, refs []*pageRef, take func(bill int64, p posting), log *slog.Logger) error {
	read := 0
	err := visitPages(ctx, tx, refs, func(_ int, page *served, bills []int64, err error) error {
		if read++; err != nil {
			log.Error("a page is left out of all bills", "err", err)
			return nil
		}
		page.part(bills, take)
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
func (p *served) part(bills []int64, take func(bill int64, p posting)) {
	byBill := make(map[int64][]int32, 1)
	for at := range int32(p.records()) {
		if bill := bills[min(int(at), len(bills)-1)]; bill != 0 {
			byBill[bill] = append(byBill[bill], at)
		}
	}
	for bill, pulls := range byBill {
		take(bill, posting{page: p, pulls: pulls, all: len(pulls)})
	}
}

// read replaces postings of unread pages by what is in these pages. They are one after the other.
func (s *billState) read(ctx context.Context, tx pgx.Tx, postings []posting) ([]posting, error) {
	first := slices.IndexFunc(postings, func(p posting) bool { return p.ref != nil })
	if first < 0 {
		return postings, nil
	}
	var refs []*pageRef
	all, after := slices.Clone(postings[:first]), []posting(nil)
	for _, p := range postings[first:] {
		if p.ref != nil {
			refs = append(refs, p.ref)
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
