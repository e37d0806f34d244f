package records

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
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

// serve answers a group of pulls of different readers with one transaction of two round trips: lock
// the readers, store their acknowledgements, look for open pages and for records; then store
// the pages, count the pulls, and commit. What a reader asks again, and what fails, is left to a
// transaction of its own.
func (s *Store) serve(ctx context.Context, group []*pull) {
	err := s.db.Rounds(ctx, func(b *pgx.Batch) { s.look(b, group) }, func(b *pgx.Batch) error { return s.makePages(b, group) })
	for _, p := range group {
		switch {
		case err != nil && len(group) > 1:
			p.alone, p.gotStored = true, false // whose fault it is will show
		case err != nil:
			p.err = err
		case p.page != nil:
			s.metrics.pulled.Add(float64(len(p.page.Lines)))
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
	s.storeGots(b, group)
	s.findPages(b, group)
	s.findRecords(b, group)
}

// lockOf is the name of the advisory lock of a reader.
func lockOf(reader protocol.PublicKey) int64 { return int64(binary.BigEndian.Uint64(reader[:8])) }

// storeGots queues the acknowledgements that ride along. One that does not take effect is judged alone.
func (s *Store) storeGots(b *pgx.Batch, group []*pull) {
	byReader := make(map[protocol.PublicKey]*pull)
	var readers, roots, gots [][]byte
	var ids []string
	for _, p := range group {
		got := p.request.Got
		if got == nil {
			continue
		}
		p.alone = true
		byReader[p.request.Reader] = p
		readers, ids = append(readers, p.request.Reader[:]), append(ids, string(got.PageID))
		roots, gots = append(roots, got.Root[:]), append(gots, got.Envelope.Bytes())
	}
	if len(readers) == 0 {
		return
	}
	// Not "got IS NULL": the planner would begin with the index of all open pages.
	b.Queue(`UPDATE pages p SET got = t.got, got_at = $5
		FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::bytea[]) AS t (reader, page_id, root, got)
		WHERE p.reader = t.reader AND p.page_id = t.page_id AND p.root = t.root AND p.got_at IS NULL
		RETURNING p.reader`, readers, ids, roots, gots, int64(s.now())).Query(func(rows pgx.Rows) error {
		var reader []byte
		_, err := pgx.ForEachRow(rows, []any{&reader}, func() error {
			p := byReader[protocol.PublicKey(reader)]
			p.alone, p.gotStored = false, true
			return nil
		})
		return err
	})
}

// findPages queues the look for pages that exist under a pull's id, which are served again alone, and
// for pages that wait for their acknowledgement, which refuse it.
func (s *Store) findPages(b *pgx.Batch, group []*pull) {
	readers, ids := make([][]byte, len(group)), make([]string, len(group))
	for i, p := range group {
		readers[i], ids[i] = p.request.Reader[:], string(p.request.PageID)
	}
	b.Queue(`SELECT t.i, p.page_id FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY AS t (reader, page_id, i) CROSS JOIN LATERAL (
		SELECT page_id FROM pages WHERE reader = t.reader AND page_id = t.page_id
		UNION ALL SELECT page_id FROM pages WHERE reader = t.reader AND got IS NULL) p`, readers, ids).Query(func(rows pgx.Rows) error {
		var i int
		var id string
		_, err := pgx.ForEachRow(rows, []any{&i, &id}, func() error {
			p := group[i-1]
			if protocol.PageID(id) == p.request.PageID {
				p.alone = true
			}
			p.err = errOpen(id)
			return nil
		})
		for _, p := range group {
			if p.alone {
				p.err = nil
			}
		}
		return err
	})
}

// findRecords queues the look for each pull's records, in cursor order and one more than it may have. Of
// many senders it reads only some each: a pull that finds that many of one is served alone, and so is one that finds
// so many because some of them have ended. A large envelope, and one that may be among the recent records, is not
// read here.
func (s *Store) findRecords(b *pgx.Batch, group []*pull) {
	readers, senders := make([][]byte, len(group)), make([][]byte, len(group))
	afters := make([]int64, len(group))
	limits, each, inline := make([]int32, len(group)), make([]int32, len(group)), make([]int32, len(group))
	for i, p := range group {
		r := p.request
		readers[i], afters[i], limits[i] = r.Reader[:], p.after, int32(r.Limit+1)
		each[i] = int32(lookFor(r.Limit+1, len(r.Senders)))
		if len(r.Senders) <= inlineSenders {
			inline[i] = maxInline
		}
		for k := range r.Senders {
			senders[i] = append(senders[i], r.Senders[k][:]...)
		}
	}
	b.Queue(`SELECT t.i, c.n, f.n, f.sender, f.id, f.hash, f.bytes, f.max_pulls, f.remaining, f.live, f.envelope
		FROM relay_cursor c CROSS JOIN unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::integer[], $5::integer[], $6::integer[])
		  WITH ORDINALITY AS t (reader, senders, after, most, each, inline, i)
		LEFT JOIN LATERAL (
		  SELECT r.* FROM generate_series(1, octet_length(t.senders) - 31, 32) AS k CROSS JOIN LATERAL (
		    SELECT r.n, r.sender, r.id, r.hash, r.bytes, r.max_pulls, p.remaining, r.expires > $8 AND coalesce(p.remaining, 1) > 0 AS live,
		      CASE WHEN r.n < $7 AND r.bytes <= t.inline THEN r.envelope END AS envelope
		    FROM records r LEFT JOIN pulls p ON p.n = r.n
		    WHERE r.receiver = t.reader AND r.sender = substring(t.senders FROM k FOR 32) AND r.n > t.after AND r.state = 0
		    ORDER BY r.n LIMIT t.each) r
		  ORDER BY r.n LIMIT t.most) f ON true`,
		readers, senders, afters, limits, each, inline, s.recent.oldest(), int64(s.now())).Query(func(rows pgx.Rows) error { return readFound(rows, group) })
}

func readFound(rows pgx.Rows, group []*pull) error {
	var i int
	var head int64
	var n *int64
	var id *string
	var sender, hash, envelope []byte
	var size, most, remaining *int32
	var live *bool
	_, err := pgx.ForEachRow(rows, []any{&i, &head, &n, &sender, &id, &hash, &size, &most, &remaining, &live, &envelope}, func() error {
		p := group[i-1]
		p.sel.head = head
		if n == nil {
			return nil
		}
		if !*live {
			p.ended = append(p.ended, protocol.PublicKey(sender))
			return nil
		}
		r := picked{n: *n, sender: protocol.PublicKey(sender), id: protocol.RecordID(*id), hash: protocol.Hash(hash),
			bytes: *size, remaining: *most, envelope: envelope}
		if remaining != nil {
			r.remaining, r.pulled = *remaining, true
		}
		p.sel.records = append(p.sel.records, r)
		envelope = nil
		return nil
	})
	return err
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

// makePages decides what each pull gets and queues what the second round trip stores.
func (s *Store) makePages(b *pgx.Batch, group []*pull) error {
	var made []*pull
	absent := make(map[int64]*Line)
	left := int64(maxGroupBytes)
	for _, p := range group {
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
	}
	if len(made) > 0 {
		now := int64(s.now())
		queuePages(b, made, now)
		queuePulls(b, made, now)
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
			line.Envelope = s.recent.envelope(r.n, r.hash)
		}
		if line.Envelope == nil {
			absent[r.n] = line
			size += int64(r.bytes)
		}
	}
	return absent, size
}

// queuePages stores the pages. Arrays within arrays are no type of PostgreSQL: they travel as text.
func queuePages(b *pgx.Batch, made []*pull, now int64) {
	k := len(made)
	readers, senders, hashes, roots := make([][]byte, k), make([][]byte, k), make([][]byte, k), make([][]byte, k)
	pageIDs, ns, ids, sizes := make([]string, k), make([]string, k), make([]string, k), make([]string, k)
	ends, more := make([]int64, k), make([]bool, k)
	for i, p := range made {
		c := p.sel.columns()
		readers[i], pageIDs[i] = p.request.Reader[:], string(p.request.PageID)
		senders[i], hashes[i], roots[i] = c.senders, c.hashes, p.page.Header.Root[:]
		ns[i], ids[i], sizes[i] = arrayOf(c.ns), `{"`+strings.Join(c.ids, `","`)+`"}`, arrayOf(c.sizes) // an id has no quotes
		ends[i], more[i] = p.sel.end()
	}
	b.Queue(`INSERT INTO pages (reader, page_id, made, ns, senders, ids, sizes, hashes, root, after_n, more, served)
		SELECT reader, page_id, $1, ns::bigint[], senders, ids::text[], sizes::integer[], hashes, root, after_n, more, 1
		FROM unnest($2::bytea[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::bytea[], $9::bytea[], $10::bigint[], $11::boolean[])
		  AS t (reader, page_id, ns, senders, ids, sizes, hashes, root, after_n, more)`,
		now, readers, pageIDs, ns, senders, ids, sizes, hashes, roots, ends, more)
}

func arrayOf[I int32 | int64](numbers []I) string {
	text := []byte{'{'}
	for i, n := range numbers {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(n), 10)
	}
	return string(append(text, '}'))
}

// queuePulls counts one pull of each record. Its reader is locked, so whether it was pulled before
// is known.
func queuePulls(b *pgx.Batch, made []*pull, now int64) {
	var first, again []int64
	var left []int32
	for _, p := range made {
		for i := range p.sel.records {
			if r := &p.sel.records[i]; r.pulled {
				again = append(again, r.n)
			} else {
				first, left = append(first, r.n), append(left, r.remaining-1)
			}
		}
	}
	if len(first) > 0 {
		b.Queue(`INSERT INTO pulls (n, remaining, last) SELECT n, remaining, $3 FROM unnest($1::bigint[], $2::integer[]) AS t (n, remaining)`, first, left, now)
	}
	if len(again) > 0 {
		b.Queue(`UPDATE pulls SET remaining = remaining - 1, last = $2 WHERE n = ANY($1)`, again, now)
	}
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
