package records

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/protocol"
)

// A single pull asks one sender for one record. All of it is one statement, and so are all of those that wait: what they
// have in common, to begin, to plan, to lock and to commit, costs more than one of them by itself.

// isSingle tells whether a pull may be served by serveSingles.
func (p *pull) isSingle() bool { return p.request.Limit == 1 && len(p.request.Senders) == 1 }

// carefulFor is how long page ids are looked for after one was asked for again.
const carefulFor = time.Minute

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
//
// A pull that is asked again nearly always shows by what it acknowledges. One that asks for a new page under the id of an old one does not, and runs
// into the key of the pages: then all are done again, and for a while each id is looked for. So whoever does that on purpose can spoil a group a
// minute, or the few that are under way.
func (s *Store) serveSingles(ctx context.Context, group []*pull) (others []*pull, err error) {
	now := time.Now()
	if until := s.careful.Load(); until != nil && now.Before(*until) {
		return s.trySingles(ctx, serveSingleKnown, group)
	}
	others, err = s.trySingles(ctx, serveSingle, group)
	if db.IsUniqueViolationIn(err, "pages") {
		until := now.Add(carefulFor)
		s.careful.Store(&until)
		s.metrics.pullCareful.Inc()
		return s.trySingles(ctx, serveSingleKnown, group)
	}
	return others, err
}

// trySingles serves them by one of the two statements. It has its connection before it looks at the bookmarks, which a new one empties.
func (s *Store) trySingles(ctx context.Context, statement string, group []*pull) (others []*pull, err error) {
	conn, err := s.db.Pool().Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	s.bookmarks.of(s.db.Pool().Stat().NewConnsCount())
	l := s.newSingles(group)
	made := make([]bookmark, len(group))
	defer func() { s.bookmarks.follow(group, made, err) }()
	b := &pgx.Batch{}
	b.Queue(lockSingles, l.locks)
	b.Queue(statement, l.readers, l.pageIDs, l.senders, l.afters, l.gotIDs, l.gotRoots, l.gots, int64(s.now()), maxInline, l.turns, l.firsts)
	br := conn.SendBatch(ctx, b)
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
		i := row.bigint(0) - 1
		p := group[i]
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
			if l.next[i] == nil {
				l.next[i] = row.bigints(8)
			}
			made[i] = bookmark{turn: row.bigint(9), sender: r.sender, after: r.n, next: l.next[i][1:]}
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
	turns                            []int64   // as bookmarks have them
	next                             [][]int64
	firsts                           []*int64 // of next; nil: to be looked for
}

func (s *Store) newSingles(group []*pull) *singles {
	k := len(group)
	l := &singles{locks: make([]int64, k), afters: make([]int64, k), readers: make([][]byte, k), senders: make([][]byte, k),
		gotRoots: make([][]byte, k), gots: make([][]byte, k), pageIDs: make([]string, k), gotIDs: make([]*string, k), turns: make([]int64, k), next: make([][]int64, k), firsts: make([]*int64, k)}
	for i, p := range group {
		p.attempt = attempt{}
		r := &p.request
		l.locks[i], l.afters[i], l.readers[i], l.senders[i], l.pageIDs[i] = lockOf(r.Reader), p.after, r.Reader[:], r.Senders[0][:], string(r.PageID)
		if l.turns[i], l.next[i] = s.bookmarks.find(p); l.next[i] != nil {
			l.firsts[i] = &l.next[i][0]
		}
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

// pageKnown is true if there is a page under the pull's id.
const pageKnown = `(SELECT true FROM pages WHERE reader = t.reader AND page_id = t.page_id LIMIT 1)`

// serveSingle serves pulls of which none asks for a page that exists; with serveSingleKnown some may.
var serveSingle, serveSingleKnown = singlesBut("false"), singlesBut(pageKnown)

// singlesBut is the statement that serves single pulls, but those for which known is true. It finds the reader's last page l, the places of the
// first records after the one asked for, unless a bookmark tells them, the record r at the first of them, and the run p that it is in or that
// follows it. All of them are scalars or have a LIMIT, which cannot become joins; and r is found by its place alone, whatever else it must be: with
// little to go by, the planner might walk all that its sender has. Whether the record after it has ended is not asked: then the next pull finds less
// than was promised. The root of a page of one is its record's hash.
func singlesBut(known string) string {
	return `WITH f AS MATERIALIZED (
	  SELECT t.*, l.turn, l.upto, l.records, l.on_bill, l.page_bytes, r.*, c.n AS head, p.first, p.place, next, t.first_n IS NOT NULL OR cardinality(next) > 1 AS more,
	    CASE WHEN substr(current_setting('relay.held'), t.i::integer, 1) = '0' THEN 3
	      WHEN ` + known + ` OR t.after > c.n OR t.least_turn > 0 AND l.turn IS NULL THEN 4
	      WHEN t.got_id IS NULL AND l.open THEN 4
	      WHEN t.got_id IS NOT NULL AND (l.open AND l.page_id = t.got_id AND l.root = t.got_root) IS NOT TRUE THEN 4
	      WHEN cardinality(next) = 0 THEN CASE WHEN t.got_id IS NULL AND ` + pageKnown + ` IS NULL THEN 2 ELSE 4 END
	      WHEN r.usual AND (p.first IS NULL OR p.first > r.n OR p.first = r.n AND p.upto = r.n AND p.remaining > 0) THEN 1
	      ELSE 4 END AS become
	  FROM relay_cursor c CROSS JOIN unnest($1::bytea[], $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::bytea[], $7::bytea[], $10::bigint[], $11::bigint[])
	    WITH ORDINALITY AS t (reader, page_id, sender, after, got_id, got_root, got, least_turn, first_n, i)
	  LEFT JOIN LATERAL (
	    SELECT page_id, turn, root, got_at IS NULL AS open, cardinality(ns) AS records, CASE WHEN bills IS NOT NULL AND NOT lapsed THEN ns[cardinality(ns)] END AS upto, ` + oneBill + ` AS on_bill, bytes AS page_bytes
	    FROM pages WHERE reader = t.reader AND turn > 0 AND turn >= t.least_turn ORDER BY turn DESC LIMIT 1) l ON true
	  CROSS JOIN LATERAL (
	    SELECT CASE WHEN t.first_n IS NULL THEN ARRAY(
	      SELECT n FROM records WHERE receiver = t.reader AND sender = t.sender AND n > t.after AND state = 0 ORDER BY n LIMIT ` + maxNext + `) END AS next OFFSET 0) s
	  LEFT JOIN LATERAL (
	    SELECT n, id, hash, bytes, max_pulls, bill, envelope,
	      receiver = t.reader AND sender = t.sender AND n > t.after AND state = 0 AND expires > $8 AND bytes <= $9 AS usual FROM records WHERE n = coalesce(t.first_n, next[1]) LIMIT 1) r ON true
	  LEFT JOIN LATERAL (
	    SELECT ctid AS place, first, upto, remaining FROM pulls WHERE receiver = t.reader AND sender = t.sender AND upto >= r.n ORDER BY upto LIMIT 1) p ON true),
	page AS (
	  INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, bills, turn, got_before)
	  SELECT reader, page_id, $8, ARRAY[n], sender, uvarint(octet_length(id)) || convert_to(id, 'UTF8') || uvarint(bytes), bytes, hash, hash, CASE WHEN more THEN n ELSE head END, more, 1,
	    CASE WHEN bill IS NOT NULL THEN ARRAY[bill] END, coalesce(turn, 0) + 1, got FROM f WHERE become = 1),
	posted AS (
	  INSERT INTO ledger_acks (reader, page_id, upto, records, at, bill, bytes) SELECT reader, got_id, upto, records, $8, on_bill, page_bytes FROM f WHERE become = 1 AND got_id IS NOT NULL AND upto IS NOT NULL),
	once AS (
	  INSERT INTO pulls (receiver, sender, first, upto, remaining, last) SELECT reader, sender, n, n, max_pulls - 1, $8 FROM f WHERE become = 1 AND (first = n) IS NOT TRUE),
	again AS (
	  UPDATE pulls u SET remaining = u.remaining - 1, last = $8 FROM f WHERE u.ctid = f.place AND f.become = 1 AND f.first = f.n)
	SELECT i, become, head, more, n, id, hash, CASE WHEN become = 1 THEN envelope END, next, coalesce(turn, 0) + 1 FROM f`
}
