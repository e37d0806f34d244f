package records

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// PageError is a refusal that names a page: [protocol.CodePageOpen] the one that waits for its
// acknowledgement, [protocol.CodePageSpent] the one that was served as often as pages are. Its
// root lets a reader whose replies were all cut acknowledge the page and go on; the pages' bytes
// were sent, and he is the one who says so.
type PageError struct {
	Code   protocol.Code
	PageID protocol.PageID
	Root   *protocol.Hash
	Detail string
}

// Error implements error.
func (e *PageError) Error() string { return string(e.Code) + ": " + e.Detail }

// Unwrap makes errors.Is and errors.As see the code.
func (e *PageError) Unwrap() error { return &protocol.Error{Code: e.Code, Detail: e.Detail} }

// picked is a record chosen for a new page.
type picked struct {
	n         int64
	sender    protocol.PublicKey
	id        protocol.RecordID
	hash      protocol.Hash
	bytes     int32
	remaining int32 // before this page
	envelope  []byte
}

// selection is what a new page will hold.
type selection struct {
	records []picked
	more    bool
	head    int64 // everything up to here was looked at, when there is no more
}

// Pull answers one page of what the senders have for the reader. Asked again with its page id it
// is the same page, up to [protocol.MaxPageServes] times. An empty page is not kept.
func (s *Store) Pull(ctx context.Context, r PullRequest) (*Page, error) {
	after, err := s.place(r.After)
	if err != nil {
		return nil, err
	}
	senders := make([][]byte, len(r.Senders))
	for i := range r.Senders {
		senders[i] = r.Senders[i][:]
	}
	if r.Got == nil {
		head, idle, err := s.idle(ctx, r, senders, after)
		if err != nil {
			return nil, wrap(err, "pull")
		}
		if idle {
			return &Page{Header: protocol.PageHeader{Cursor: s.cursor(max(head, after)), PageID: r.PageID}}, nil
		}
	}
	page, err := s.page(ctx, r.Reader, r.PageID, nil, r.Got, func(tx pgx.Tx) (selection, error) {
		return s.selectPage(ctx, tx, r, senders, after)
	})
	return page, wrap(err, "pull")
}

// idle tells, without touching a row, that there is nothing to do: no such page, none open, nothing
// new. It is what most polls meet, and what a stranger's polls meet always.
func (s *Store) idle(ctx context.Context, r PullRequest, senders [][]byte, after int64) (head int64, idle bool, err error) {
	err = s.db.Pool().QueryRow(ctx, `
		SELECT c.n,
		  NOT EXISTS (SELECT 1 FROM pages WHERE reader = $1 AND (got IS NULL OR page_id = $2)) AND
		  NOT EXISTS (SELECT 1 FROM unnest($3::bytea[]) AS s (key) CROSS JOIN LATERAL (
		    SELECT 1 FROM records r WHERE r.receiver = $1 AND r.sender = s.key AND r.n > $4 AND r.state = 0 AND r.expires > $5
		      AND NOT EXISTS (SELECT 1 FROM pulls p WHERE p.n = r.n AND p.remaining = 0)
		    LIMIT 1) x)
		FROM relay_cursor c`,
		r.Reader[:], string(r.PageID), senders, after, int64(s.now())).Scan(&head, &idle)
	if err == nil && after > head {
		return 0, false, errEpoch()
	}
	return head, idle, err
}

// Read pulls one record, a page of one. The caller has checked that the reader is the receiver.
func (s *Store) Read(ctx context.Context, path protocol.Path, id protocol.PageID) ([]byte, error) {
	page, err := s.page(ctx, path.Receiver, id, &path, nil, func(tx pgx.Tx) (selection, error) {
		return s.selectRecord(ctx, tx, path)
	})
	if err != nil {
		return nil, wrap(err, "read %s", path)
	}
	line := page.Lines[0]
	if line.Gone != nil {
		return nil, protocol.Errorf(protocol.CodeGone, "%s has ended", path)
	}
	return line.Envelope, nil
}

// page serves a page that exists, or makes one of what pick selects. The reader's pulls run one
// after the other; that order is what makes maxPulls exact.
func (s *Store) page(ctx context.Context, reader protocol.PublicKey, id protocol.PageID, only *protocol.Path, got *Acknowledgement,
	pick func(pgx.Tx) (selection, error)) (*Page, error) {
	var page *Page
	// What the acknowledgement says holds, whatever becomes of the pull that it rides on.
	if got != nil {
		if err := s.Got(ctx, reader, *got); err != nil {
			return nil, err
		}
	}
	err := s.db.Tx(ctx, func(tx pgx.Tx) error {
		page = nil
		if err := lockReader(ctx, tx, reader); err != nil {
			return err
		}
		again, err := s.serveAgain(ctx, tx, reader, id, only)
		if again != nil || err != nil {
			page = again
			return err
		}
		if err := refuseOpen(ctx, tx, reader); err != nil {
			return err
		}
		sel, err := pick(tx)
		if err != nil {
			return err
		}
		page, err = s.makePage(ctx, tx, reader, id, sel)
		return err
	})
	if err == nil {
		s.metrics.pulled.Add(float64(len(page.Lines)))
	}
	return page, err
}

// lockReader makes the transactions of one reader wait for each other, without a row for him.
func lockReader(ctx context.Context, tx pgx.Tx, reader protocol.PublicKey) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(binary.BigEndian.Uint64(reader[:8])))
	return err
}

func refuseOpen(ctx context.Context, tx pgx.Tx, reader protocol.PublicKey) error {
	var id string
	err := tx.QueryRow(ctx, `SELECT page_id FROM pages WHERE reader = $1 AND got IS NULL`, reader[:]).Scan(&id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return &PageError{Code: protocol.CodePageOpen, PageID: protocol.PageID(id),
		Detail: fmt.Sprintf("page %s waits for its acknowledgement: send got for it, or pull it again", id)}
}

// found is the first $6 records in cursor order, after $3 and up to $4, of what the senders have for
// the reader. It reads a few ($7) of each sender, and more only of those who had that many within
// the first $6: reading $6 of each of a thousand senders takes half a second.
const found = `
	WITH looked AS (
	  SELECT s.key, f.n, f.bytes FROM unnest($2::bytea[]) AS s (key) CROSS JOIN LATERAL (
	    SELECT r.n, r.bytes FROM records r
	    WHERE r.receiver = $1 AND r.sender = s.key AND r.n > $3 AND r.n <= $4 AND r.state = 0 AND r.expires > $5
	      AND NOT EXISTS (SELECT 1 FROM pulls p WHERE p.n = r.n AND p.remaining = 0)
	    ORDER BY r.n LIMIT $7) f),
	cut AS (SELECT n FROM looked ORDER BY n OFFSET $6 - 1 LIMIT 1),
	rest AS (
	  SELECT f.n, f.bytes FROM (SELECT key, max(n) AS last FROM looked GROUP BY key HAVING count(*) = $7) s CROSS JOIN LATERAL (
	    SELECT r.n, r.bytes FROM records r
	    WHERE r.receiver = $1 AND r.sender = s.key AND r.n > s.last AND r.n <= coalesce((SELECT n FROM cut), $4) AND r.state = 0 AND r.expires > $5
	      AND NOT EXISTS (SELECT 1 FROM pulls p WHERE p.n = r.n AND p.remaining = 0)
	    ORDER BY r.n LIMIT $6) f),
	found AS (
	  SELECT n, bytes FROM (SELECT n, bytes FROM looked UNION ALL SELECT n, bytes FROM rest) f ORDER BY n LIMIT $6)`

// lookFor is how many records of each sender are read at first, to find so many of all.
func lookFor(records int64, senders int) int64 {
	return min(records, max(16, 4*records/int64(max(senders, 1))))
}

// selectPage chooses the records of a page: per sender by index, merged in cursor order, cut at
// the limit and at [protocol.MaxPageBytes]; one record always fits.
func (s *Store) selectPage(ctx context.Context, tx pgx.Tx, r PullRequest, senders [][]byte, after int64) (selection, error) {
	rows, err := tx.Query(ctx, `
		`+found+`,
		page AS (
		  SELECT n, row_number() OVER w AS place, sum(bytes) OVER w AS upto, (SELECT count(*) FROM found) AS total
		  FROM found WINDOW w AS (ORDER BY n))
		SELECT c.n, r.n, r.sender, r.id, r.hash, r.bytes, coalesce(p.remaining, r.max_pulls), r.envelope, page.total
		FROM relay_cursor c LEFT JOIN page ON page.place < $6 AND (page.place = 1 OR page.upto <= $8)
		LEFT JOIN records r ON r.n = page.n LEFT JOIN pulls p ON p.n = page.n
		ORDER BY r.n`,
		r.Reader[:], senders, after, int64(protocol.MaxInteger), int64(s.now()), r.Limit+1, lookFor(r.Limit+1, len(senders)), int64(protocol.MaxPageBytes))
	if err != nil {
		return selection{}, err
	}
	var sel selection
	var n, total *int64
	var sender, hash, envelope []byte
	var id *string
	var size, remaining *int32
	_, err = pgx.ForEachRow(rows, []any{&sel.head, &n, &sender, &id, &hash, &size, &remaining, &envelope, &total}, func() error {
		if n == nil {
			return nil // nothing found: the row of the cursor alone
		}
		sel.records = append(sel.records, picked{n: *n, sender: protocol.PublicKey(sender), id: protocol.RecordID(*id),
			hash: protocol.Hash(hash), bytes: *size, remaining: *remaining, envelope: envelope})
		sel.more = *total > int64(len(sel.records))
		envelope = nil
		return nil
	})
	if err == nil && after > sel.head {
		err = errEpoch()
	}
	return sel, err
}

// selectRecord chooses the one record of a single pull.
func (s *Store) selectRecord(ctx context.Context, tx pgx.Tx, path protocol.Path) (selection, error) {
	p := picked{sender: path.Sender, id: path.ID}
	var hash []byte
	var live bool
	err := tx.QueryRow(ctx, `
		SELECT r.n, r.hash, r.bytes, coalesce(p.remaining, r.max_pulls), r.envelope, r.state = 0 AND r.expires > $4
		FROM records r LEFT JOIN pulls p USING (n) WHERE r.sender = $1 AND r.receiver = $2 AND r.id = $3`,
		path.Sender[:], path.Receiver[:], string(path.ID), int64(s.now())).
		Scan(&p.n, &hash, &p.bytes, &p.remaining, &p.envelope, &live)
	if errors.Is(err, pgx.ErrNoRows) {
		return selection{}, protocol.Errorf(protocol.CodeNotFound, "there is no record %s", path)
	}
	if err != nil {
		return selection{}, err
	}
	if !live || p.remaining == 0 {
		return selection{}, protocol.Errorf(protocol.CodeGone, "%s has ended", path)
	}
	p.hash = protocol.Hash(hash)
	return selection{records: []picked{p}, head: p.n}, nil
}

// makePage stores the page and counts one pull of each of its records.
func (s *Store) makePage(ctx context.Context, tx pgx.Tx, reader protocol.PublicKey, id protocol.PageID, sel selection) (*Page, error) {
	page := &Page{Header: protocol.PageHeader{PageID: id, More: sel.more, Records: int64(len(sel.records))}}
	end := sel.head
	if sel.more {
		end = sel.records[len(sel.records)-1].n
	}
	page.Header.Cursor = s.cursor(end)
	if len(sel.records) == 0 {
		return page, nil
	}
	k := len(sel.records)
	ns, left, sizes, ids := make([]int64, k), make([]int32, k), make([]int32, k), make([]string, k)
	senders, hashes := make([]byte, 0, 32*k), make([]byte, 0, 32*k)
	leaves := make([]protocol.Hash, k)
	page.Lines = make([]Line, k)
	for i, r := range sel.records {
		ns[i], left[i], sizes[i], ids[i], leaves[i] = r.n, r.remaining-1, r.bytes, string(r.id), r.hash
		senders, hashes = append(senders, r.sender[:]...), append(hashes, r.hash[:]...)
		page.Lines[i].Envelope = r.envelope
	}
	root := protocol.MerkleRoot(leaves)
	page.Header.Root, page.Header.Served = &root, 1
	now := int64(s.now())
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO pages (reader, page_id, made, ns, senders, ids, sizes, hashes, root, after_n, more, served)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1)`,
		reader[:], string(id), now, ns, senders, ids, sizes, hashes, root[:], end, sel.more)
	b.Queue(`INSERT INTO pulls (n, remaining, last) SELECT n, left_over, $3 FROM unnest($1::bigint[], $2::integer[]) AS t (n, left_over)
		ON CONFLICT (n) DO UPDATE SET remaining = pulls.remaining - 1, last = excluded.last`, ns, left, now)
	return page, tx.SendBatch(ctx, b).Close()
}
