package records

import (
	"context"
	"math"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Pulls are counted by runs: records that one sender has for one reader, beside each other in his inbox, which were pulled together and
// have as many pulls left. So a page of a hundred is a row or two. A page that takes part of a run takes it apart. Runs of a pair
// never overlap, and only the transaction that makes a reader's page changes them: the reader is locked, and what it rests on is
// of the turn before its page's (see queuePages). What has ended gives its run back with the last record in it.

// run is a row of pulls. One without places is none: the record was never pulled.
type run struct {
	first, upto int64
	remaining   int32 // of each record in it
	last        int64 // when they were pulled
}

// nearest are the columns of nextRun, where there is one.
type nearest struct {
	first, upto, last *int64
	remaining         *int32
}

func (c *nearest) run() run {
	if c.first == nil {
		return run{}
	}
	return run{first: *c.first, upto: *c.upto, remaining: *c.remaining, last: *c.last}
}

// follow tells a record the first run that ends at it or after it, if there is one. Until then what remains of it is what it began with.
func (p *picked) follow(near run) {
	switch {
	case near.upto == 0:
		p.next = math.MaxInt64
	case near.first > p.n:
		p.next = near.first
	default:
		p.run, p.remaining, p.next = near, near.remaining, near.upto+1
	}
}

// joinPulls finds the run p of each record r, by itself: left to plan it as a join, with a table of counts that was empty when it
// was analyzed, Postgres reads all of them for the few. What r is has a receiver, a sender and a place.
const joinPulls = `LEFT JOIN LATERAL (SELECT * FROM ` + nextRun + ` p WHERE p.first <= r.n) p ON true`

// nextRun is the first run that ends at the record r or after it, wherever it begins.
const nextRun = `(SELECT first, upto, remaining, last FROM pulls WHERE receiver = r.receiver AND sender = r.sender AND upto >= r.n ORDER BY upto LIMIT 1)`

// piece is a part of a page that is counted by one row: records of one sender with none that is not in the page between them, and all
// of one run, or of none.
type piece struct {
	sender      protocol.PublicKey
	first, upto int64
	run         run   // they are in
	left        int32 // of each, before this page
	next        int64 // where the next run begins, if they are in none
	passed      int32 // records before them that have ended
}

// pieces are the parts of the selection, those of one sender in order.
func (sel *selection) pieces() (all []piece) {
	last := make(map[protocol.PublicKey]int)
	for i := range sel.records {
		r := &sel.records[i]
		if at, ok := last[r.sender]; ok {
			p := &all[at]
			if p.run == r.run && p.left == r.remaining && p.passed == r.passed && r.n < p.next {
				p.upto = r.n
				continue
			}
		}
		last[r.sender] = len(all)
		all = append(all, piece{sender: r.sender, first: r.n, upto: r.n, run: r.run, left: r.remaining, next: r.next, passed: r.passed})
	}
	return all
}

// rows are rows of pulls to be written, in columns.
type rows struct {
	readers, senders [][]byte
	firsts, uptos    []int64
	left             []int32
	lasts            []int64
}

func (r *rows) add(reader, sender *protocol.PublicKey, row run) {
	r.readers, r.senders = append(r.readers, reader[:]), append(r.senders, sender[:])
	r.firsts, r.uptos = append(r.firsts, row.first), append(r.uptos, row.upto)
	r.left, r.lasts = append(r.left, row.remaining), append(r.lasts, row.last)
}

// counts are the changes of runs that the pages of a group make.
type counts struct {
	now    int64
	whole  rows // pulled as they are
	broken rows // taken apart
	made   rows
	rests  rows // of broken ones, which may have no records any more
}

// count adds what one page changes.
func (c *counts) count(reader *protocol.PublicKey, sel *selection) {
	type place struct {
		sender protocol.PublicKey
		upto   int64
	}
	parts := make(map[place][]piece) // of runs that are taken apart
	pieces := sel.pieces()
	for i := range pieces {
		p := &pieces[i]
		switch {
		case p.run.upto > 0 && p.run.first == p.first && p.run.upto == p.upto:
			c.whole.add(reader, &p.sender, p.run)
			continue
		case p.run.upto > 0:
			at := place{p.sender, p.run.upto}
			parts[at] = append(parts[at], *p)
		}
		c.made.add(reader, &p.sender, run{first: p.first, upto: p.upto, remaining: p.left - 1, last: c.now})
	}
	for at, pulled := range parts {
		r := pulled[0].run
		c.broken.add(reader, &at.sender, r)
		from := r.first
		for _, p := range pulled {
			if from < p.first {
				c.rests.add(reader, &at.sender, run{first: from, upto: p.first - 1, remaining: r.remaining, last: r.last})
			}
			from = p.upto + 1
		}
		if from <= r.upto {
			c.rests.add(reader, &at.sender, run{first: from, upto: r.upto, remaining: r.remaining, last: r.last})
		}
	}
}

// theseRuns are the rows of pulls of these readers, senders and ends, each found by itself, as it is for joinPulls.
const theseRuns = `(SELECT f.place FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) AS t (receiver, sender, upto) CROSS JOIN LATERAL (
	  SELECT ctid AS place FROM pulls WHERE receiver = t.receiver AND sender = t.sender AND upto = t.upto OFFSET 0) f) t`

// queue writes the changes.
func (c *counts) queue(b *pgx.Batch) {
	if r := &c.whole; len(r.readers) > 0 {
		b.Queue(`UPDATE pulls p SET remaining = p.remaining - 1, last = $4 FROM `+theseRuns+` WHERE p.ctid = t.place`, r.readers, r.senders, r.uptos, c.now)
	}
	if r := &c.broken; len(r.readers) > 0 {
		b.Queue(`DELETE FROM pulls p USING `+theseRuns+` WHERE p.ctid = t.place`, r.readers, r.senders, r.uptos)
	}
	if r := &c.made; len(r.readers) > 0 {
		b.Queue(insertRuns, r.readers, r.senders, r.firsts, r.uptos, r.left, r.lasts)
	}
	if r := &c.rests; len(r.readers) > 0 {
		// A scalar, which cannot become a join.
		b.Queue(insertRuns+` WHERE (SELECT true FROM records r WHERE r.receiver = t.receiver AND r.sender = t.sender
			AND r.n >= t.first AND r.n <= t.upto AND r.state = 0 ORDER BY r.n LIMIT 1)`, r.readers, r.senders, r.firsts, r.uptos, r.left, r.lasts)
	}
}

const insertRuns = `INSERT INTO pulls (receiver, sender, first, upto, remaining, last) SELECT *
	FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::integer[], $6::bigint[]) AS t (receiver, sender, first, upto, remaining, last)`

// forgetPulls reads what was left of the pulls of records that have ended, which is what comes back of those released; one without any left
// ended with its last pull. Then it removes the runs in which no record is left.
func forgetPulls(ctx context.Context, tx pgx.Tx, victims []victim, releases map[int64]books.Release) error {
	k := len(victims)
	ns, receivers, senders := make([]int64, k), make([][]byte, k), make([][]byte, k)
	for i := range victims {
		v := &victims[i]
		ns[i], receivers[i], senders[i] = v.n, v.receiver[:], v.held.Writer[:]
	}
	b := &pgx.Batch{}
	b.Queue(`SELECT r.n, p.remaining, p.last FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS r (n, receiver, sender) CROSS JOIN LATERAL `+nextRun+` p
		WHERE p.first <= r.n`, ns, receivers, senders).Query(func(rows pgx.Rows) error {
		var n, last int64
		var left int32
		_, err := pgx.ForEachRow(rows, []any{&n, &left, &last}, func() error {
			if r, ok := releases[n]; ok {
				r.Pulls = int64(left)
				if left == 0 {
					r.Ended = min(r.Ended, protocol.Timestamp(last))
				}
				releases[n] = r
			}
			return nil
		})
		return err
	})
	b.Queue(`DELETE FROM pulls d USING (
		  SELECT DISTINCT p.place FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS r (n, receiver, sender) CROSS JOIN LATERAL (
		    SELECT ctid AS place, first FROM pulls WHERE receiver = r.receiver AND sender = r.sender AND upto >= r.n ORDER BY upto LIMIT 1) p
		  WHERE p.first <= r.n) t
		WHERE d.ctid = t.place AND (SELECT true FROM records r WHERE r.receiver = d.receiver AND r.sender = d.sender
		  AND r.n >= d.first AND r.n <= d.upto AND r.state = 0 ORDER BY r.n LIMIT 1) IS NULL`, ns, receivers, senders)
	return tx.SendBatch(ctx, b).Close()
}
