package records

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
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
	run       run   // it is in, if it was part of a page before
	next      int64 // where the next run of its sender's begins, if it is in none
	passed    int32 // records of its sender's that were looked at before it and have ended
	bill      int64 // that it is on; 0: none
	envelope  []byte
}

// selection is what a new page will hold.
type selection struct {
	records []picked
	full    bool  // there is no room for more that was found
	edge    int64 // everything up to here was looked at, and not what is beyond; 0: up to head
	head    int64 // the last place there is
}

// Pull answers one page of what the senders have for the reader. Asked again with its page id it
// is the same page, up to [protocol.MaxPageServes] times. An empty page is not kept.
func (s *Store) Pull(ctx context.Context, r PullRequest) (*Page, error) {
	after, err := s.place(r.After)
	if err == nil && s.pageRoom != nil {
		err = s.pageRoom()
	}
	if err != nil {
		return nil, err
	}
	page, alone, gotStored, err := s.grouped(ctx, r, after)
	if err != nil || !alone {
		return page, wrap(err, "pull")
	}
	if gotStored {
		r.Got = nil
	}
	page, err = s.page(ctx, r.Reader, r.PageID, nil, r.Got, func(tx pgx.Tx) (selection, error) {
		return s.selectPage(ctx, tx, r, after)
	})
	return page, wrap(err, "pull")
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
		turn, err := refuseOpen(ctx, tx, reader)
		if err != nil {
			return err
		}
		sel, err := pick(tx)
		if err != nil {
			return err
		}
		page, err = s.makePage(ctx, tx, reader, id, turn, sel)
		return err
	})
	if err == nil {
		s.metrics.pulled.Add(float64(len(page.Lines)))
	}
	return page, err
}

// lockReader makes the transactions of one reader wait for each other, without a row for him.
func lockReader(ctx context.Context, tx pgx.Tx, reader protocol.PublicKey) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockOf(reader))
	return err
}

// refuseOpen tells the turn of the reader's last page, 0 without one.
func refuseOpen(ctx context.Context, tx pgx.Tx, reader protocol.PublicKey) (turn int64, err error) {
	var id string
	var open bool
	err = tx.QueryRow(ctx, `SELECT page_id, turn, open FROM (SELECT $1::bytea AS reader) t CROSS JOIN LATERAL (`+lastPage+`) p`, reader[:]).Scan(&id, &turn, &open)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, nil
	case err == nil && open:
		err = errOpen(id)
	}
	return turn, err
}

func errOpen(id string) error {
	return &PageError{Code: protocol.CodePageOpen, PageID: protocol.PageID(id),
		Detail: fmt.Sprintf("page %s waits for its acknowledgement: send got for it, or pull it again", id)}
}

// found is the first $6 records in cursor order, after $3 and up to $4, of what the senders have for
// the reader. It reads a few ($7) of each sender, and more only of those who had that many within
// the first $6: reading $6 of each of a thousand senders takes half a second. Records that expired or were used
// up lie among the others until they are swept, and are read and passed over; so that thousands of them cost no
// more than others do, it reads not many more than $8 in all. Then it finds nothing beyond edge: up to there everything
// was read. passed is how many of its sender's records before it were passed over.
const found = `
	WITH looked AS (
	  SELECT s.key, f.* FROM unnest($2::bytea[]) AS s (key) CROSS JOIN LATERAL (
	    SELECT r.n, r.bytes, r.expires > $5 AND coalesce(p.remaining, 1) > 0 AS live FROM (
	      SELECT r.receiver, r.sender, r.n, r.bytes, r.expires FROM records r
	      WHERE r.receiver = $1 AND r.sender = s.key AND r.n > $3 AND r.n <= $4 AND r.state = 0
	      ORDER BY r.n LIMIT $7) r ` + joinPulls + `) f),
	cut AS (SELECT n FROM looked WHERE live ORDER BY n OFFSET $6 - 1 LIMIT 1),
	full_of AS (
	  SELECT key, max(n) AS last, greatest($7, $8 / count(*) OVER ()) AS most FROM looked GROUP BY key HAVING count(*) = $7),
	rest AS (
	  SELECT s.key, s.most, f.* FROM full_of s CROSS JOIN LATERAL (
	    SELECT r.n, r.bytes, r.expires > $5 AND coalesce(p.remaining, 1) > 0 AS live FROM (
	      SELECT r.receiver, r.sender, r.n, r.bytes, r.expires FROM records r
	      WHERE r.receiver = $1 AND r.sender = s.key AND r.n > s.last AND r.n <= coalesce((SELECT n FROM cut), $4) AND r.state = 0
	      ORDER BY r.n LIMIT s.most) r ` + joinPulls + `) f),
	edge AS (SELECT min(n) AS n FROM (SELECT max(n) AS n FROM rest GROUP BY key, most HAVING count(*) = most) s),
	found AS (
	  SELECT n, bytes, passed FROM (
	    SELECT n, bytes, live, count(*) FILTER (WHERE NOT live) OVER (PARTITION BY key ORDER BY n) AS passed FROM (
	      SELECT key, n, bytes, live FROM looked UNION ALL SELECT key, n, bytes, live FROM rest) f) f
	  WHERE live AND n <= coalesce((SELECT n FROM edge), $4) ORDER BY n LIMIT $6)`

// lookFor is how many records of each sender are read at first, to find so many of all.
func lookFor(records int64, senders int) int64 {
	return min(records, max(16, 4*records/int64(max(senders, 1))))
}

// selectPage chooses the records of a page: per sender by index, merged in cursor order, cut at
// the limit and at [protocol.MaxPageBytes]; one record always fits.
func (s *Store) selectPage(ctx context.Context, tx pgx.Tx, r PullRequest, after int64) (selection, error) {
	senders := make([][]byte, len(r.Senders))
	for i := range r.Senders {
		senders[i] = r.Senders[i][:]
	}
	rows, err := tx.Query(ctx, `
		`+found+`,
		page AS (
		  SELECT n, passed, row_number() OVER w AS place, sum(bytes) OVER w AS upto, (SELECT count(*) FROM found) AS total
		  FROM found WINDOW w AS (ORDER BY n))
		SELECT c.n, coalesce((SELECT n FROM edge), 0), r.n, r.sender, r.id, r.hash, r.bytes, r.max_pulls, p.first, p.upto, p.remaining, p.last, page.passed::integer, r.bill, r.envelope, page.total
		FROM relay_cursor c LEFT JOIN page ON page.place < $6 AND (page.place = 1 OR page.upto <= $9)
		LEFT JOIN records r ON r.n = page.n LEFT JOIN LATERAL `+nextRun+` p ON true
		ORDER BY r.n`,
		r.Reader[:], senders, after, int64(protocol.MaxInteger), int64(s.now()), r.Limit+1, lookFor(r.Limit+1, len(senders)), int64(maxLook), int64(protocol.MaxPageBytes))
	if err != nil {
		return selection{}, err
	}
	var sel selection
	var n, bill, total *int64
	var sender, hash, envelope []byte
	var id *string
	var size, most, passed *int32
	var near nearest
	columns := []any{&sel.head, &sel.edge, &n, &sender, &id, &hash, &size, &most, &near.first, &near.upto, &near.remaining, &near.last, &passed, &bill, &envelope, &total}
	_, err = pgx.ForEachRow(rows, columns, func() error {
		if n == nil {
			return nil // nothing found: the row of the cursor alone
		}
		p := picked{n: *n, sender: protocol.PublicKey(sender), id: protocol.RecordID(*id),
			hash: protocol.Hash(hash), bytes: *size, remaining: *most, passed: *passed, bill: orNone(bill), envelope: envelope}
		p.follow(near.run())
		sel.records = append(sel.records, p)
		sel.full = *total > int64(len(sel.records))
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
	var near nearest
	err := tx.QueryRow(ctx, `
		SELECT r.n, r.hash, r.bytes, r.max_pulls, p.first, p.upto, p.remaining, p.last, coalesce(r.bill, 0), r.envelope, r.state = 0 AND r.expires > $4
		FROM records r LEFT JOIN LATERAL `+nextRun+` p ON true WHERE r.sender = $1 AND r.receiver = $2 AND r.id = $3`,
		path.Sender[:], path.Receiver[:], string(path.ID), int64(s.now())).
		Scan(&p.n, &hash, &p.bytes, &p.remaining, &near.first, &near.upto, &near.remaining, &near.last, &p.bill, &p.envelope, &live)
	if errors.Is(err, pgx.ErrNoRows) {
		return selection{}, protocol.Errorf(protocol.CodeNotFound, "there is no record %s", path)
	}
	if err != nil {
		return selection{}, err
	}
	if p.follow(near.run()); !live || p.remaining == 0 {
		return selection{}, protocol.Errorf(protocol.CodeGone, "%s has ended", path)
	}
	p.hash = protocol.Hash(hash)
	return selection{records: []picked{p}, head: p.n}, nil
}

// end is the cursor of a page of the selection, and whether there is or may be more after it. A page that ends where
// looking ended may be empty.
func (sel *selection) end() (n int64, more bool) {
	switch {
	case sel.full && len(sel.records) > 0:
		return sel.records[len(sel.records)-1].n, true
	case sel.edge > 0:
		return sel.edge, true
	}
	return sel.head, false
}

// orNone is the bill of a column that may be null.
func orNone(bill *int64) int64 {
	if bill == nil {
		return 0
	}
	return *bill
}

// columns are the selection as a row of pages has it.
type columns struct {
	ns, bills       []int64 // no bills: all are grants'; one: all records are on it
	names           []byte  // with their sizes
	bytes           int64   // of all records
	senders, hashes []byte  // one sender: all records are his
}

func (sel *selection) columns() columns {
	k := len(sel.records)
	c := columns{ns: make([]int64, k), names: make([]byte, 0, 48*k), senders: make([]byte, 0, 32*k), hashes: make([]byte, 0, 32*k)}
	for i := range sel.records {
		r := &sel.records[i]
		c.ns[i], c.names, c.bytes = r.n, books.AppendName(c.names, string(r.id), r.bytes), c.bytes+int64(r.bytes)
		c.senders, c.hashes = append(c.senders, r.sender[:]...), append(c.hashes, r.hash[:]...)
		if r.bill != 0 && c.bills == nil {
			c.bills = make([]int64, k)
		}
		if r.bill != 0 {
			c.bills[i] = r.bill
		}
	}
	first := &sel.records[0]
	if !slices.ContainsFunc(sel.records, func(r picked) bool { return r.sender != first.sender }) {
		c.senders = c.senders[:32]
	}
	if c.bills != nil && !slices.ContainsFunc(c.bills, func(bill int64) bool { return bill != first.bill }) {
		c.bills = c.bills[:1]
	}
	return c
}

// senderOf is the sender of the record with that index in a page.
func senderOf(senders []byte, i int) protocol.PublicKey {
	if len(senders) > 32 {
		senders = senders[32*i:]
	}
	return protocol.PublicKey(senders[:32])
}

// newPage is the page of a selection, served for the first time.
func (s *Store) newPage(id protocol.PageID, sel *selection) *Page {
	end, more := sel.end()
	page := &Page{Header: protocol.PageHeader{PageID: id, Cursor: s.cursor(end), More: more, Records: int64(len(sel.records))}}
	if len(sel.records) == 0 {
		return page
	}
	leaves := make([]protocol.Hash, len(sel.records))
	page.Lines = make([]Line, len(sel.records))
	for i := range sel.records {
		leaves[i], page.Lines[i].Envelope = sel.records[i].hash, sel.records[i].envelope
	}
	root := protocol.MerkleRoot(leaves)
	page.Header.Root, page.Header.Served = &root, 1
	return page
}

// makePage stores the page after that of a turn, and counts one pull of each of its records.
func (s *Store) makePage(ctx context.Context, tx pgx.Tx, reader protocol.PublicKey, id protocol.PageID, turn int64, sel selection) (*Page, error) {
	page := s.newPage(id, &sel)
	if len(sel.records) == 0 {
		return page, nil
	}
	b := &pgx.Batch{}
	queueMade(b, []*pull{{request: PullRequest{Reader: reader, PageID: id}, attempt: attempt{page: page, turn: turn, sel: sel}}}, int64(s.now()))
	return page, tx.SendBatch(ctx, b).Close()
}
