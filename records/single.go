package records

import (
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// A single pull asks one sender for one record. All of it is one statement, and so are all of those that wait: what they
// have in common, to begin, to plan, to lock and to commit, costs more than one of them by itself.

// isSingle tells whether a pull may be served by serveSingles.
func (p *pull) isSingle() bool { return p.request.Limit == 1 && len(p.request.Senders) == 1 }

// What became of a single pull.
const (
	singleMade   = 1 // its page is stored, its record's pull counted, and what it acknowledges is
	singleNone   = 2 // there is nothing for it, and nothing was to be stored
	singleBusy   = 3 // its reader is at something else
	singleUnlike = 4 // none of these: nothing was done
)

// serveSingles serves what is usual of these pulls in one round trip, and returns the others: pages asked for again, records that
// have ended or are large or in a run with others, acknowledgements that come alone or are wrong. They are to be judged by statements
// that follow each other.
//
// The locks are a statement of their own in the same round trip, because a statement sees what was there before it began: one that locked
// and read would serve a record whose deletion it had waited for. The lock on the reader keeps deletions, pulls, acknowledgements and
// lapses from beginning until this is committed.
func (s *Store) serveSingles(ctx context.Context, group []*pull) (others []*pull, err error) {
	l := newSingles(group)
	b := &pgx.Batch{}
	b.Queue(lockSingles, l.locks)
	b.Queue(serveSingle, l.readers, l.pageIDs, l.senders, l.afters, l.gotIDs, l.gotRoots, l.gots, int64(s.now()), maxInline)
	br := s.db.Pool().SendBatch(ctx, b)
	defer br.Close()
	if _, err := br.Exec(); err != nil {
		return nil, err
	}
	rows, err := br.Query()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		row := rawRow{columns: rows.RawValues()}
		p := group[row.bigint(0)-1]
		switch row.integer(1) {
		case singleUnlike:
			others = append(others, p)
			continue
		case singleBusy:
			p.alone = true
			continue
		case singleMade:
			r := picked{n: row.bigint(4), sender: p.request.Senders[0], id: protocol.RecordID(row.columns[5]), hash: protocol.Hash(row.columns[6]),
				bytes: int32(len(row.columns[7])), envelope: p.room.copy(row.columns[7])}
			p.sel.records, p.sel.full = []picked{r}, row.boolean(3)
		}
		p.sel.head = row.bigint(2)
		p.page, p.gotStored = s.newPage(p.request.PageID, &p.sel), p.request.Got != nil
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return others, err
	}
	return others, br.Close() // committed, or not
}

// singles are pulls in columns.
type singles struct {
	locks, afters                    []int64
	readers, senders, gotRoots, gots [][]byte
	pageIDs                          []string
	gotIDs                           []*string // nil: nothing is acknowledged
}

func newSingles(group []*pull) *singles {
	k := len(group)
	l := &singles{locks: make([]int64, k), afters: make([]int64, k), readers: make([][]byte, k), senders: make([][]byte, k),
		gotRoots: make([][]byte, k), gots: make([][]byte, k), pageIDs: make([]string, k), gotIDs: make([]*string, k)}
	for i, p := range group {
		p.attempt = attempt{}
		r := &p.request
		l.locks[i], l.afters[i], l.readers[i], l.senders[i], l.pageIDs[i] = lockOf(r.Reader), p.after, r.Reader[:], r.Senders[0][:], string(r.PageID)
		if r.Got != nil {
			id := string(r.Got.PageID)
			l.gotIDs[i], l.gotRoots[i], l.gots[i] = &id, r.Got.Root[:], r.Got.Envelope.Bytes()
		}
	}
	return l
}

// lockSingles locks the readers that nobody else has locked, and notes for serveSingle, until the end of the transaction, which: a 1 or a 0 each.
const lockSingles = `SELECT set_config('relay.held', coalesce(string_agg(CASE WHEN pg_try_advisory_xact_lock(k) THEN '1' ELSE '0' END, '' ORDER BY i), ''), true)
	FROM unnest($1::bigint[]) WITH ORDINALITY AS t (k, i)`

// serveSingle finds the reader's last page l, whether there is a page k under the pull's id, the first record r after the place asked
// for, the run p that it is in or that follows it, and whether there is more to be had after it; a record there that has ended leaves that open. All of them are scalars or have a LIMIT, which cannot become joins. The root of a
// page of one is its record's hash.
const serveSingle = `WITH f AS MATERIALIZED (
	  SELECT t.*, l.turn, l.upto, l.records, l.on_bill, l.page_bytes, r.*, c.n AS head, p.first, p.place, m.more,
	    CASE WHEN substr(current_setting('relay.held'), t.i::integer, 1) = '0' THEN 3
	      WHEN k.known OR t.after > c.n THEN 4
	      WHEN t.got_id IS NULL AND l.open THEN 4
	      WHEN t.got_id IS NOT NULL AND (l.open AND l.page_id = t.got_id AND l.root = t.got_root) IS NOT TRUE THEN 4
	      WHEN r.n IS NULL THEN CASE WHEN t.got_id IS NULL THEN 2 ELSE 4 END
	      WHEN r.usual AND m.more IS NOT FALSE AND (p.first IS NULL OR p.first > r.n OR p.first = r.n AND p.upto = r.n AND p.remaining > 0) THEN 1
	      ELSE 4 END AS become
	  FROM relay_cursor c CROSS JOIN unnest($1::bytea[], $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::bytea[], $7::bytea[])
	    WITH ORDINALITY AS t (reader, page_id, sender, after, got_id, got_root, got, i)
	  LEFT JOIN LATERAL (
	    SELECT page_id, turn, root, got_at IS NULL AS open, cardinality(ns) AS records, CASE WHEN bills IS NOT NULL AND NOT lapsed THEN ns[cardinality(ns)] END AS upto, ` + oneBill + ` AS on_bill, bytes AS page_bytes
	    FROM pages WHERE reader = t.reader AND turn > 0 ORDER BY turn DESC LIMIT 1) l ON true
	  LEFT JOIN LATERAL (SELECT true AS known FROM pages WHERE reader = t.reader AND page_id = t.page_id LIMIT 1) k ON true
	  LEFT JOIN LATERAL (
	    SELECT n, id, hash, bytes, max_pulls, bill, envelope, expires > $8 AND bytes <= $9 AS usual FROM records WHERE receiver = t.reader AND sender = t.sender AND n > t.after AND state = 0 ORDER BY n LIMIT 1) r ON true
	  LEFT JOIN LATERAL (
	    SELECT ctid AS place, first, upto, remaining FROM pulls WHERE receiver = t.reader AND sender = t.sender AND upto >= r.n ORDER BY upto LIMIT 1) p ON true
	  LEFT JOIN LATERAL (
	    SELECT expires > $8 AND (p.first IS NULL OR (
	      SELECT first <= s.n AND remaining = 0 FROM pulls WHERE receiver = t.reader AND sender = t.sender AND upto >= s.n ORDER BY upto LIMIT 1) IS NOT TRUE) AS more
	    FROM records s WHERE receiver = t.reader AND sender = t.sender AND n > r.n AND state = 0 ORDER BY n LIMIT 1) m ON true),
	page AS (
	  INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, bills, turn, got_before)
	  SELECT reader, page_id, $8, ARRAY[n], sender, uvarint(octet_length(id)) || convert_to(id, 'UTF8') || uvarint(bytes), bytes, hash, hash, CASE WHEN more THEN n ELSE head END, coalesce(more, false), 1,
	    CASE WHEN bill IS NOT NULL THEN ARRAY[bill] END, coalesce(turn, 0) + 1, got FROM f WHERE become = 1),
	posted AS (
	  INSERT INTO ledger_acks (reader, page_id, upto, records, at, bill, bytes) SELECT reader, got_id, upto, records, $8, on_bill, page_bytes FROM f WHERE become = 1 AND got_id IS NOT NULL AND upto IS NOT NULL),
	once AS (
	  INSERT INTO pulls (receiver, sender, first, upto, remaining, last) SELECT reader, sender, n, n, max_pulls - 1, $8 FROM f WHERE become = 1 AND (first = n) IS NOT TRUE),
	again AS (
	  UPDATE pulls u SET remaining = u.remaining - 1, last = $8 FROM f WHERE u.ctid = f.place AND f.become = 1 AND f.first = f.n)
	SELECT i, become, head, coalesce(more, false), n, id, hash, CASE WHEN become = 1 THEN envelope END FROM f`
