package books

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// A block names the pages of which the bill has all that it can, instead of saying again what is in their rows: these are kept for it. The
// sweeper removes no page that was acknowledged since the first one that a block names, nor any that came after it. Most
// bills are paid, and their blocks dropped, before that matters; what is still there after keepNamed is written out, so that a bill
// that nobody pays does not keep the pages of all others.

const (
	keepNamed  = keepPaid + 10*24*time.Hour // pages of a block, after they were acknowledged
	writeBatch = 2                          // blocks in one transaction: each may name two thousand pages, which are on disk only
)

// notedPages are pages that are about to be named by blocks though nobody has read them.
type notedPages struct {
	readers [][]byte
	ids     []string
	bills   []int64
	pulls   []int32
	bytes   []int64
}

func (n *notedPages) add(bill int64, postings []posting) {
	for i := range postings {
		if ref := postings[i].ref; ref != nil {
			n.readers, n.ids, n.bills = append(n.readers, ref.reader), append(n.ids, ref.id), append(n.bills, bill)
			n.pulls, n.bytes = append(n.pulls, ref.pulls), append(n.bytes, ref.bytes)
		}
	}
}

// countNoted counts those pages that are what was noted of them.
const countNoted = `SELECT count(*) FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::integer[], $5::bigint[]) AS a (reader, page_id, bill, pulls, bytes) CROSS JOIN LATERAL
	(SELECT *, ` + evidence + ` AS evidence FROM pages p WHERE reader = a.reader AND page_id = a.page_id OFFSET 0) p
	WHERE p.evidence IS NOT NULL AND p.bills = ARRAY[a.bill] AND octet_length(p.senders) = 32 AND cardinality(p.ns) = a.pulls AND octet_length(p.hashes) = 32 * a.pulls AND p.bytes = a.bytes`

// queue has the batch fail with errPageGone if one of them is not what was noted of it.
func (n *notedPages) queue(b *pgx.Batch) {
	if len(n.ids) == 0 {
		return
	}
	b.Queue(countNoted, n.readers, n.ids, n.bills, n.pulls, n.bytes).QueryRow(func(row pgx.Row) error {
		var right int
		if err := row.Scan(&right); err != nil {
			return err
		}
		if right != len(n.ids) {
			return errPageGone
		}
		return nil
	})
}

// lines are the lines of a block, which have no number yet. The error is errPageGone if one of the pages that it names is not there, or not what
// it was: it may have been written out since the block was read.
func (b block) lines(ctx context.Context, q Querier, bill int64) ([]*ledger.Line, error) {
	var lines []*ledger.Line
	var refs []*pageRef
	var places []int // of their lines
	err := decodeBlock(b.Lines, func(l *ledger.Line) error {
		lines = append(lines, l)
		return nil
	}, func(page namedPage) error {
		refs, places = append(refs, &page.pageRef), append(places, len(lines))
		lines = append(lines, make([]*ledger.Line, page.pulls)...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return lines, namedPages(ctx, q, bill, refs, func(i int, page *served, pulls []int32) error {
		page.appendLines(lines[places[i]:places[i]], pulls)
		return nil
	})
}

// namedPages reads pages that a bill's block names, and gives each with its pulls that are on the bill to visit.
func namedPages(ctx context.Context, q Querier, bill int64, refs []*pageRef, visit func(i int, page *served, pulls []int32) error) error {
	read := 0
	err := visitPages(ctx, q, refs, func(i int, page *served, bills []int64, err error) error {
		if err != nil {
			return fmt.Errorf("%w: %w", errPageGone, err)
		}
		read++
		var pulls []int32
		page.part(bills, func(of int64, p posting) {
			if of == bill {
				pulls = p.pulls
			}
		})
		if ref := refs[i]; len(pulls) != int(ref.pulls) || page.bytesOf(pulls) != ref.bytes {
			return fmt.Errorf("%w: page %s of %x has %d pulls on bill %d, want %d", errPageGone, ref.id, ref.reader, len(pulls), bill, ref.pulls)
		}
		return visit(i, page, pulls)
	})
	if err == nil && read != len(refs) {
		err = fmt.Errorf("%w: of %d pages that bill %d names %d are gone", errPageGone, len(refs), bill, len(refs)-read)
	}
	return err
}

// appendLines appends the lines of pulls of the page.
func (p *served) appendLines(lines []*ledger.Line, pulls []int32) {
	t := p.tree()
	for _, at := range pulls {
		lines = append(lines, &ledger.Line{Kind: ledger.KindPull, From: p.sender(at), To: p.reader, RecordID: protocol.RecordID(p.ids[at]), Hash: p.hash(at), Bytes: int64(p.sizes[at]),
			Evidence: &ledger.Evidence{Got: p.got, Records: int64(p.records()), Index: int64(at), Path: t.path(int(at))}})
	}
}

// writeOut writes the pages into blocks that have named them for long, until there is none left or ctx is done. It takes half of a connection's
// time at most.
func (s *Store) writeOut(ctx context.Context) error {
	for {
		began := time.Now()
		blocks := 0
		if err := s.db.Tx(ctx, func(tx pgx.Tx) (err error) {
			blocks, err = s.writeSome(ctx, tx)
			return err
		}); err != nil || blocks < writeBatch {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Since(began)):
		}
	}
}

func (s *Store) writeSome(ctx context.Context, tx pgx.Tx) (int, error) {
	rows, err := tx.Query(ctx, `SELECT bill, last, lines FROM ledger_blocks WHERE acked <= $1 ORDER BY acked LIMIT $2 FOR UPDATE SKIP LOCKED`, s.clock().Add(-keepNamed).UnixMilli(), writeBatch)
	if err != nil {
		return 0, err
	}
	blocks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		Bill int64
		block
	}])
	if err != nil {
		return 0, err
	}
	b := &pgx.Batch{}
	for _, found := range blocks {
		whole, err := found.whole(ctx, tx, found.Bill, s.log)
		if err != nil {
			return 0, err
		}
		b.Queue(`UPDATE ledger_blocks SET lines = $3, acked = NULL WHERE bill = $1 AND last = $2`, found.Bill, found.Last, whole)
	}
	return len(blocks), tx.SendBatch(ctx, b).Close()
}

// whole is the block with all that it names. A page that is gone or damaged is lost: it must not keep those of others.
func (b block) whole(ctx context.Context, q Querier, bill int64, log *slog.Logger) ([]byte, error) {
	var named []namedPage
	if err := decodeBlock(b.Lines, func(*ledger.Line) error { return nil }, func(page namedPage) error {
		named = append(named, page)
		return nil
	}); err != nil {
		log.Error("a bill cannot be written out: it is damaged", "bill", bill, "line", b.Last, "err", err)
		return b.Lines, nil
	}
	pages, err := copies(ctx, q, bill, named)
	if errors.Is(err, errPageGone) {
		pages, err = nil, nil
		for i := range named {
			one, err := copies(ctx, q, bill, named[i:i+1])
			if errors.Is(err, errPageGone) {
				log.Error("evidence of a bill is lost: a page is gone or damaged", "bill", bill, "err", err)
				one, err = [][]byte{appendNamed(nil, entryLost, &named[i].pageRef)}, nil
			}
			if err != nil {
				return nil, err
			}
			pages = append(pages, one...)
		}
	}
	if err != nil {
		return nil, err
	}
	var whole []byte
	done := 0
	for i, page := range named {
		whole, done = append(append(whole, b.Lines[done:page.from]...), pages[i]...), page.to
	}
	return append(whole, b.Lines[done:]...), nil
}

// copies are the pages as a block has them that says all that is in them.
func copies(ctx context.Context, q Querier, bill int64, named []namedPage) ([][]byte, error) {
	refs, pages := make([]*pageRef, len(named)), make([][]byte, len(named))
	for i := range named {
		refs[i] = &named[i].pageRef
	}
	return pages, namedPages(ctx, q, bill, refs, func(i int, page *served, pulls []int32) error {
		pages[i] = appendPage(nil, page, pulls)
		return nil
	})
}
