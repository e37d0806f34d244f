package records

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

const (
	serveTimeout  = 30 * time.Second // for one transaction of pulls
	maxInline     = 16 << 10         // bytes of an envelope that is read while records are looked for
	inlineSenders = 4                // most senders of a pull whose envelopes are: more means sorting them
	maxGroupBytes = 32 << 20         // of other envelopes in one transaction
)

// serve answers a group of pulls of different readers: single ones in one statement, what is left of them and all others in one
// transaction of two round trips: lock the readers, look for their last pages and for records; then store the pages and the
// acknowledgements, count the pulls, and commit. What a reader asks again, and what fails, is left to a transaction of its own.
func (s *Store) serve(ctx context.Context, group []*pull) {
	singles, rest := partPulls(group)
	if len(singles) > 0 {
		others, err := s.serveSingles(ctx, singles)
		if rest = append(rest, others...); err != nil {
			rest = rest[:len(rest)-len(others)]
		}
		for _, p := range singles {
			if err != nil {
				p.page, p.alone, p.gotStored = nil, true, false // whose fault it is will show
			}
		}
	}
	if len(rest) > 0 {
		s.serveRest(ctx, rest)
	}
	for _, p := range group {
		if p.page != nil {
			s.metrics.pulled.Add(float64(len(p.page.Lines)))
		}
	}
}

func partPulls(group []*pull) (singles, others []*pull) {
	for _, p := range group {
		if p.isSingle() {
			singles = append(singles, p)
		} else {
			others = append(others, p)
		}
	}
	return singles, others
}

func (s *Store) serveRest(ctx context.Context, group []*pull) {
	err := s.db.Rounds(ctx, func(b *pgx.Batch) { s.look(b, group) }, func(b *pgx.Batch) error { return s.makePages(b, group) })
	if err == nil {
		return
	}
	for _, p := range group {
		p.page, p.gotStored = nil, false
		if p.alone = len(group) > 1; !p.alone {
			p.err = err
		}
	}
}

// look queues what the first round trip asks.
func (s *Store) look(b *pgx.Batch, group []*pull) {
	locks := make([]int64, len(group))
	for i, p := range group {
		p.attempt = attempt{}
		locks[i] = lockOf(p.request.Reader)
	}
	// A reader who is at something else already would make all the others wait: he is served alone.
	b.Queue(`SELECT i, pg_try_advisory_xact_lock(k) FROM unnest($1::bigint[]) WITH ORDINALITY AS t (k, i)`, locks).Query(func(rows pgx.Rows) error {
		var i int
		var locked bool
		_, err := pgx.ForEachRow(rows, []any{&i, &locked}, func() error {
			group[i-1].locked = locked
			return nil
		})
		return err
	})
	s.findPages(b, group)
	s.findRecords(b, group)
}

// lockOf is the name of the advisory lock of a reader.
func lockOf(reader protocol.PublicKey) int64 { return int64(binary.BigEndian.Uint64(reader[:8])) }

// findPages queues the look for pages that exist under a pull's id, which are served again alone, and for each reader's last page: the
// one that a pull acknowledges, or which refuses it if it is open. An acknowledgement of any other page is judged alone.
func (s *Store) findPages(b *pgx.Batch, group []*pull) {
	readers, ids := make([][]byte, len(group)), make([]string, len(group))
	for i, p := range group {
		readers[i], ids[i] = p.request.Reader[:], string(p.request.PageID)
		p.alone = p.request.Got != nil // without a last page
	}
	b.Queue(`SELECT t.i, l.page_id, l.turn, l.open, l.root, `+ackedColumns+`, p.known
		FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY AS t (reader, page_id, i)
		LEFT JOIN LATERAL (SELECT true AS known FROM pages WHERE reader = t.reader AND page_id = t.page_id LIMIT 1) p ON true
		LEFT JOIN LATERAL (`+lastPage+`) l ON true WHERE l.turn IS NOT NULL OR p.known`, readers, ids).Query(func(rows pgx.Rows) error {
		var i int
		var id *string
		var turn, upto, bill, bytesOf *int64
		var open, known *bool
		var root []byte
		var records *int32
		_, err := pgx.ForEachRow(rows, []any{&i, &id, &turn, &open, &root, &upto, &records, &bill, &bytesOf, &known}, func() error {
			p := group[i-1]
			got := p.request.Got
			if known != nil {
				p.alone = true
				return nil
			}
			switch p.turn = *turn; {
			case got == nil && *open:
				p.err = errOpen(*id)
			case got != nil && *open && string(got.PageID) == *id && bytes.Equal(got.Root[:], root):
				p.alone, p.acks = false, &acked{upto: upto, records: *records, bill: bill, bytes: *bytesOf}
			}
			return nil
		})
		return err
	})
}

// findRecords queues the look for each pull's records, in cursor order and one more than it may have. Of
// many senders it reads only some each: a pull that finds that many of one is served alone, and so is one that finds
// so many because some of them have ended. A large envelope, and one that may be among the recent records, is not
// read here.
func (s *Store) findRecords(b *pgx.Batch, group []*pull) {
	var ofOne, ofSeveral lookups
	for _, p := range group {
		if len(p.request.Senders) == 1 {
			ofOne.add(p)
		} else {
			ofSeveral.add(p)
		}
	}
	recent, now := s.recent.oldest(), int64(s.now())
	if l := &ofOne; len(l.pulls) > 0 {
		// First the runs: what ends in between is gone from records, and has not lost its count.
		b.Queue(findRuns, l.readers, l.senders, l.afters, l.limits).Query(l.readRuns)
		b.Queue(findOfOne, l.readers, l.senders, l.afters, l.limits, maxInline, recent, now).Query(l.read)
	}
	if l := &ofSeveral; len(l.pulls) > 0 {
		b.Queue(findOfSeveral, l.readers, l.senders, l.afters, l.limits, l.inline, recent, now, l.each).Query(l.read)
	}
}

// foundColumns are what lookups.read reads, of records r.
const foundColumns = `r.n, r.sender, r.id, r.hash, r.bytes, r.max_pulls, r.expires > $7 AS unexpired, r.bill`

// What one sender has for a reader comes in order out of the index, and so do its runs; what several have is sorted, and each record's run is
// found by itself, because most of them have nothing.
const (
	findRuns = `SELECT t.i, p.* FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::integer[]) WITH ORDINALITY AS t (reader, sender, after, most, i)
		CROSS JOIN LATERAL (
		  SELECT first, upto, remaining, last FROM pulls WHERE receiver = t.reader AND sender = t.sender AND upto > t.after
		  ORDER BY upto LIMIT t.most) p`
	findOfOne = `SELECT t.i, c.n, f.*
		FROM relay_cursor c CROSS JOIN unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::integer[]) WITH ORDINALITY AS t (reader, sender, after, most, i)
		LEFT JOIN LATERAL (
		  SELECT ` + foundColumns + `, CASE WHEN r.n < $6 AND r.bytes <= $5 THEN r.envelope END AS envelope
		  FROM records r
		  WHERE r.receiver = t.reader AND r.sender = t.sender AND r.n > t.after AND r.state = 0
		  ORDER BY r.n LIMIT t.most) f ON true`
	findOfSeveral = `SELECT t.i, c.n, f.*
		FROM relay_cursor c CROSS JOIN unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::integer[], $5::integer[], $8::integer[])
		  WITH ORDINALITY AS t (reader, senders, after, most, inline, each, i)
		LEFT JOIN LATERAL (
		  SELECT r.* FROM generate_series(1, octet_length(t.senders) - 31, 32) AS k CROSS JOIN LATERAL (
		    SELECT ` + foundColumns + `, CASE WHEN r.n < $6 AND r.bytes <= t.inline THEN r.envelope END AS envelope, p.*
		    FROM records r LEFT JOIN LATERAL ` + nextRun + ` p ON true
		    WHERE r.receiver = t.reader AND r.sender = substring(t.senders FROM k FOR 32) AND r.n > t.after AND r.state = 0
		    ORDER BY r.n LIMIT t.each) r
		  ORDER BY r.n LIMIT t.most) f ON true`
)

// lookups are pulls whose records are looked for by one statement.
type lookups struct {
	pulls                []*pull
	readers, senders     [][]byte // all senders of a pull, one after the other
	afters               []int64
	limits, each, inline []int32
}

func (l *lookups) add(p *pull) {
	r := &p.request
	l.pulls = append(l.pulls, p)
	l.readers, l.afters, l.limits = append(l.readers, r.Reader[:]), append(l.afters, p.after), append(l.limits, int32(r.Limit+1))
	senders := r.Senders[0][:]
	if len(r.Senders) > 1 {
		senders = make([]byte, 0, 32*len(r.Senders))
		for k := range r.Senders {
			senders = append(senders, r.Senders[k][:]...)
		}
	}
	inline := int32(0)
	if len(r.Senders) <= inlineSenders {
		inline = maxInline
	}
	l.senders, l.inline = append(l.senders, senders), append(l.inline, inline)
	l.each = append(l.each, int32(lookFor(r.Limit+1, len(r.Senders))))
}

// readRuns reads each pull's runs, in order.
func (l *lookups) readRuns(rows pgx.Rows) error {
	for rows.Next() {
		row := rawRow{columns: rows.RawValues()}
		p := l.pulls[row.bigint(0)-1]
		p.runs = append(p.runs, row.run(1))
	}
	return rows.Err()
}

// nearest is the first of the pull's runs that ends at a place or after it. ok is false if it was not read. Places are asked for in order.
func (p *pull) nearest(n int64) (near run, ok bool) {
	for p.pastRuns < len(p.runs) {
		if r := p.runs[p.pastRuns]; r.upto >= n {
			return r, true
		}
		p.pastRuns++
	}
	return run{}, len(p.runs) <= int(p.request.Limit)
}

// read reads the rows as they came: there may be thousands, and converting each column by itself costs more than what
// is done with it.
func (l *lookups) read(rows pgx.Rows) error {
	for rows.Next() {
		row := rawRow{columns: rows.RawValues()}
		p := l.pulls[row.bigint(0)-1]
		p.sel.head = row.bigint(1)
		if row.columns[2] == nil {
			continue
		}
		r := picked{n: row.bigint(2), sender: protocol.PublicKey(row.columns[3]), bytes: row.integer(6), remaining: row.integer(7)}
		near, ok := run{}, true
		switch {
		case len(row.columns) == 11: // findOfOne
			near, ok = p.nearest(r.n)
		case row.columns[11] != nil:
			near = row.run(11)
		}
		if !ok {
			p.alone = true
			continue
		}
		if r.follow(near); !row.boolean(8) || r.remaining == 0 {
			p.ended = append(p.ended, r.sender)
			continue
		}
		r.id, r.hash, r.passed = protocol.RecordID(row.columns[4]), protocol.Hash(row.columns[5]), int32(len(p.ended))
		if row.columns[9] != nil {
			r.bill = row.bigint(9)
		}
		// One more than the limit only tells that there is more.
		if envelope := row.columns[10]; envelope != nil && int64(len(p.sel.records)) < p.request.Limit {
			r.envelope = p.room.copy(envelope)
		}
		if p.sel.records == nil {
			p.sel.records = make([]picked, 0, min(p.request.Limit+1, keptRows))
		}
		p.sel.records = append(p.sel.records, r)
	}
	return rows.Err()
}

// room is where the envelopes of one page are copied to, many to a piece of memory. It begins empty.
type room struct{ free []byte }

// roomPiece is that of a page of many records. The first envelope has a piece of its own: most pages of one record are asked for as such.
const roomPiece = 32 << 10

func (r *room) copy(data []byte) []byte {
	if len(data) > len(r.free) {
		if first := r.free == nil; first || len(data) > roomPiece {
			if first {
				r.free = []byte{}
			}
			return bytes.Clone(data)
		}
		r.free = make([]byte, roomPiece)
	}
	held := r.free[:len(data):len(data)]
	r.free = r.free[len(data):]
	copy(held, data)
	return held
}

// keptRows is how many records of a pull there is room for at first.
const keptRows = 128

// rawRow is a row in PostgreSQL's binary format, in which pgx asks for all types that it knows.
type rawRow struct{ columns [][]byte }

func (r *rawRow) bigint(i int) int64  { return int64(binary.BigEndian.Uint64(r.columns[i])) }
func (r *rawRow) integer(i int) int32 { return int32(binary.BigEndian.Uint32(r.columns[i])) }
func (r *rawRow) boolean(i int) bool  { return r.columns[i][0] != 0 }

// bigints reads a bigint[] without nulls.
func (r *rawRow) bigints(i int) []int64 {
	const head, each = 20, 12 // dimensions, flags, type, size and lower bound; each has a length before it
	raw := r.columns[i]
	numbers := make([]int64, 0, max(len(raw)-head, 0)/each)
	for at := head; at+each <= len(raw); at += each {
		numbers = append(numbers, int64(binary.BigEndian.Uint64(raw[at+4:])))
	}
	return numbers
}

// run reads first, upto, remaining and last from a column on.
func (r *rawRow) run(i int) run {
	return run{first: r.bigint(i), upto: r.bigint(i + 1), remaining: r.integer(i + 2), last: r.bigint(i + 3)}
}

// complete tells whether the page may be made of what was found: nothing was left out because one sender has many, or
// because records that have ended were found in its place.
func (p *pull) complete() bool {
	limit, each := int(p.request.Limit), int(lookFor(p.request.Limit+1, len(p.request.Senders)))
	switch {
	case len(p.ended) == 0 && each > limit:
		return true
	case len(p.ended) > 0 && len(p.ended)+len(p.sel.records) > limit:
		return false
	}
	counts := make(map[protocol.PublicKey]int, len(p.request.Senders))
	for i := range p.sel.records {
		counts[p.sel.records[i].sender]++
	}
	for _, sender := range p.ended {
		counts[sender]++
	}
	for _, n := range counts {
		if n == each {
			return false
		}
	}
	return true
}

// cut keeps of what was found what one page may hold.
func (sel *selection) cut(limit int64) {
	slices.SortFunc(sel.records, func(a, b picked) int { return cmp.Compare(a.n, b.n) })
	size, keep := int64(0), 0
	for keep < len(sel.records) && int64(keep) < limit {
		if size += int64(sel.records[keep].bytes); keep > 0 && size > protocol.MaxPageBytes {
			break
		}
		keep++
	}
	sel.full = keep < len(sel.records)
	sel.records = sel.records[:keep]
}

// makePages decides what each pull gets and queues what the second round trip stores. What an acknowledgement says holds, whatever
// becomes of the pull that it rides on.
func (s *Store) makePages(b *pgx.Batch, group []*pull) error {
	var made, bare []*pull
	absent := make(map[int64]*Line)
	left := int64(maxGroupBytes)
	for _, p := range group {
		if p.locked && p.acks != nil {
			p.gotStored = true
			bare = append(bare, p)
		}
		switch {
		case !p.locked:
			p.alone, p.err = true, nil
			continue
		case p.alone || p.err != nil:
			continue
		case p.after > p.sel.head:
			p.err = errEpoch()
			continue
		case !p.complete():
			p.alone = true
			continue
		}
		p.sel.cut(p.request.Limit)
		if p.page = s.newPage(p.request.PageID, &p.sel); len(p.sel.records) == 0 {
			continue
		}
		missing, size := s.fill(p)
		if size > left && len(made) > 0 {
			p.page, p.alone = nil, true
			continue
		}
		left -= size
		maps.Copy(absent, missing)
		made = append(made, p)
		if p.gotStored {
			bare = bare[:len(bare)-1] // it is stored with the page
		}
	}
	now := int64(s.now())
	if len(made) > 0 {
		queueMade(b, made, now)
	}
	if len(bare) > 0 {
		queueAcks(b, bare, now)
	}
	if len(absent) > 0 {
		queueEnvelopes(b, absent)
	}
	return nil
}

// fill puts the recent records' envelopes into the page, and returns the lines that still lack one, by the
// records' places, and the bytes that these take.
func (s *Store) fill(p *pull) (absent map[int64]*Line, size int64) {
	absent = make(map[int64]*Line)
	for i := range p.sel.records {
		r, line := &p.sel.records[i], &p.page.Lines[i]
		if line.Envelope == nil {
			line.Envelope = s.recent.envelope(r.n, r.hash, &p.room)
		}
		if line.Envelope == nil {
			absent[r.n] = line
			size += int64(r.bytes)
		}
	}
	return absent, size
}

// queueMade stores the pages and counts their records' pulls.
func queueMade(b *pgx.Batch, made []*pull, now int64) {
	queuePages(b, made, now)
	queuePosts(b, made, now)
	c := counts{now: now}
	for _, p := range made {
		c.count(&p.request.Reader, &p.sel)
	}
	c.queue(b)
}

// queuePages stores the pages, each with the turn after that of its reader's page before: two that rest on the same one cannot both
// be stored, whatever has become of the lock on the reader. Arrays within arrays are no type of PostgreSQL: they travel as text.
func queuePages(b *pgx.Batch, made []*pull, now int64) {
	k := len(made)
	readers, senders, hashes, roots := make([][]byte, k), make([][]byte, k), make([][]byte, k), make([][]byte, k)
	pageIDs, ns, names, bytes := make([]string, k), make([]string, k), make([][]byte, k), make([]int64, k)
	ends, turns, more, bills, gots := make([]int64, k), make([]int64, k), make([]bool, k), make([]*string, k), make([][]byte, k)
	for i, p := range made {
		c := p.sel.columns()
		readers[i], pageIDs[i] = p.request.Reader[:], string(p.request.PageID)
		senders[i], hashes[i], roots[i] = c.senders, c.hashes, p.page.Header.Root[:]
		ns[i], names[i], bytes[i] = arrayOf(c.ns), c.names, c.bytes
		ends[i], more[i] = p.sel.end()
		if turns[i] = p.turn + 1; p.acks != nil {
			gots[i] = p.request.Got.Envelope.Bytes()
		}
		if c.bills != nil {
			text := arrayOf(c.bills)
			bills[i] = &text
		}
	}
	b.Queue(`INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, bills, turn, got_before)
		SELECT reader, page_id, $1, ns::bigint[], senders, names, bytes, hashes, root, after_n, more, 1, bills::bigint[], turn, got
		FROM unnest($2::bytea[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bigint[], $11::boolean[], $12::text[], $13::bigint[], $14::bytea[])
		  AS t (reader, page_id, ns, senders, names, bytes, hashes, root, after_n, more, bills, turn, got)`,
		now, readers, pageIDs, ns, senders, names, bytes, hashes, roots, ends, more, bills, turns, gots)
}

func arrayOf(numbers []int64) string {
	text := []byte{'{'}
	for i, n := range numbers {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, n, 10)
	}
	return string(append(text, '}'))
}

// queueEnvelopes reads the envelopes that neither the first round trip nor the recent records gave.
func queueEnvelopes(b *pgx.Batch, absent map[int64]*Line) {
	b.Queue(`SELECT n, envelope FROM records WHERE n = ANY($1) AND state = 0`, slices.Collect(maps.Keys(absent))).Query(func(rows pgx.Rows) error {
		var n int64
		var envelope []byte
		_, err := pgx.ForEachRow(rows, []any{&n, &envelope}, func() error {
			absent[n].Envelope = envelope
			delete(absent, n)
			envelope = nil
			return nil
		})
		if err == nil && len(absent) > 0 {
			err = fmt.Errorf("%d records ended while their reader was locked", len(absent))
		}
		return err
	})
}
