package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// row is a record as the database has it.
type row struct {
	n        int64
	path     protocol.Path
	account  protocol.PublicKey
	bytes    int64
	maxPulls int64
	left     int64 // pulls; of a deleted record all, for nothing is counted there any more
	pages    int64 // that name it
	hash     protocol.Hash
	request  protocol.Hash
	state    int
	envelope []byte
}

// States of a record's row, as records defines them.
const (
	stateLive    = 0
	stateDeleted = 1
	stateUsedUp  = 2
)

// rowsOf reads all that a cohort's keys have written, the forger's among them.
func rowsOf(ctx context.Context, d *db.DB, writers, readers [][]byte) ([]*row, error) {
	rows, err := d.Pool().Query(ctx, `
		WITH named AS (SELECT n, count(*) AS pages FROM pages p CROSS JOIN LATERAL unnest(p.ns) AS n WHERE p.reader = ANY($2) GROUP BY n)
		SELECT r.n, r.sender, r.receiver, r.id, r.account, r.bytes, r.max_pulls, coalesce(l.remaining, r.max_pulls),
		       coalesce(p.pages, 0), r.hash, r.request_hash, r.state, r.envelope
		FROM records r LEFT JOIN pulls l ON l.receiver = r.receiver AND l.sender = r.sender AND r.n BETWEEN l.first AND l.upto LEFT JOIN named p USING (n) WHERE r.sender = ANY($1) ORDER BY r.n`, writers, readers)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(c pgx.CollectableRow) (*row, error) {
		var r row
		var sender, receiver, account, hash, request []byte
		var id string
		err := c.Scan(&r.n, &sender, &receiver, &id, &account, &r.bytes, &r.maxPulls, &r.left, &r.pages, &hash, &request, &r.state, &r.envelope)
		if err == nil {
			r.path = protocol.Path{Sender: protocol.PublicKey(sender), Receiver: protocol.PublicKey(receiver), ID: protocol.RecordID(id)}
			r.account, r.hash, r.request = protocol.PublicKey(account), protocol.Hash(hash), protocol.Hash(request)
		}
		return &r, err
	})
}

func raw(keys ...[]*protocol.PrivateKey) (all [][]byte) {
	for _, group := range keys {
		for _, k := range group {
			key := k.Public()
			all = append(all, key[:])
		}
	}
	return all
}

// checkInside holds the database against the history, and returns what is kept of the cohort for later looks.
func (c *cohort) checkInside(ctx context.Context, w *world, readers []*reader) (*settledCohort, error) {
	var kept *settledCohort
	early := c.isBroken() // people have stopped in the middle
	err := w.withDB(ctx, func(ctx context.Context, d *db.DB) error {
		kept = &settledCohort{number: c.number, writers: raw(c.writers(), []*protocol.PrivateKey{c.forger}), readers: raw(c.readers),
			accounts: raw(c.senders, c.readers[:1]), moved: map[protocol.PublicKey]int64{}}
		rows, err := rowsOf(ctx, d, kept.writers, kept.readers)
		if err != nil {
			return err
		}
		c.counts.looked.Add(int64(len(rows)))
		c.checkRows(rows)
		kept.digest = digestOf(rows)
		for _, r := range readers {
			if !early {
				r.checkSeen(rows)
			}
			if err := r.checkPages(ctx, d); err != nil {
				return err
			}
		}
		var head int64
		if err := d.Pool().QueryRow(ctx, `SELECT n FROM relay_cursor`).Scan(&head); err != nil {
			return err
		}
		if len(rows) > 0 && head < rows[len(rows)-1].n {
			c.fault(promiseOrder, "the cursor stands at %d, and %s has place %d", head, rows[len(rows)-1].path, rows[len(rows)-1].n)
		}
		if err := c.checkAccounts(ctx, d, rows, kept); err != nil {
			return err
		}
		return c.checkBill(ctx, d)
	})
	return kept, err
}

// checkRows wants one row for each path that was acknowledged, as it was acknowledged, and no other.
func (c *cohort) checkRows(rows []*row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := make(map[protocol.Path]*row, len(rows))
	for _, r := range rows {
		if other := found[r.path]; other != nil {
			c.faultLocked(promiseOnce, "%s is stored twice, at %d and at %d", r.path, other.n, r.n)
			continue
		}
		found[r.path] = r
		known := c.records[r.path]
		switch {
		case known != nil:
			c.checkRow(r, known)
		case c.forged[r.path]:
			c.faultLocked(promiseGenuine, "%s is forged, and stored at %d", r.path, r.n)
		default:
			c.faultLocked(promiseGenuine, "%s is stored at %d, and nobody wrote it", r.path, r.n)
		}
	}
	for path, known := range c.records {
		if found[path] == nil && (known.stored != nil || known.ended) {
			n := int64(-1)
			if known.stored != nil {
				n = known.stored.n
			}
			c.faultLocked(promiseKept, "%s was acknowledged at %d and is not there", path, n)
		}
	}
}

// checkRow holds one row against what is known of its path.
func (c *cohort) checkRow(r *row, known *record) {
	a := known.tried[r.hash]
	switch {
	case known.stored == nil && !known.ended:
		c.faultLocked(promiseSettle, "%s is stored at %d, and all its writes were refused", r.path, r.n)
	case known.stored != nil && (known.stored.n != r.n || known.stored.hash != r.hash):
		c.faultLocked(promiseKept, "%s was acknowledged at %d as %s, and stands at %d as %s", r.path, known.stored.n, known.stored.hash, r.n, r.hash)
	case a == nil || r.request != a.envelope.RequestHash() || r.bytes != a.envelope.Size() || r.maxPulls != a.write.MaxPulls:
		c.faultLocked(promiseKept, "%s stands at %d as %s with %d bytes and %d pulls, which is none of the writes", r.path, r.n, r.hash, r.bytes, r.maxPulls)
	case known.deleted && r.state != stateDeleted, !known.deleting && r.state == stateDeleted:
		c.faultLocked(promiseDeleted, "%s at %d: deleted %t, state %d", r.path, r.n, known.deleted, r.state)
	case r.state == stateLive && !bytes.Equal(r.envelope, a.envelope.Bytes()):
		c.faultLocked(promiseKept, "%s at %d is not what was written: %.200q", r.path, r.n, r.envelope)
	case r.state == stateLive && r.left != r.maxPulls-r.pages:
		c.faultLocked(promisePage, "%s at %d is in %d pages, and has %d of %d pulls left", r.path, r.n, r.pages, r.left, r.maxPulls)
	case r.pages < int64(known.pages), r.pages > int64(known.pages+c.lost[r.path.Receiver]):
		c.faultLocked(promisePage, "%s at %d came in %d pages, and %d are counted", r.path, r.n, known.pages, r.pages)
	case known.ended && r.state != stateDeleted && r.left > 0:
		c.faultLocked(promiseRefuse, "%s at %d was said to have ended, and has %d pulls left", r.path, r.n, r.left)
	}
}

// checkAccounts wants each account to count exactly what is stored: now, and in the month that the round was in.
func (c *cohort) checkAccounts(ctx context.Context, d *db.DB, rows []*row, kept *settledCohort) error {
	stored, moved := map[protocol.PublicKey]int64{}, map[protocol.PublicKey]int64{}
	var guestBytes, guestRecords int64
	for _, r := range rows {
		pulls := r.maxPulls
		if r.state == stateDeleted {
			pulls = r.pages // the others were given back
		}
		moved[r.account] += r.bytes * (1 + pulls)
		if r.state != stateLive {
			continue
		}
		stored[r.account] += r.bytes
		if r.path.Sender == c.guest.Public() {
			guestBytes, guestRecords = guestBytes+r.bytes, guestRecords+1
		}
	}
	b := books.New(books.Config{DB: d, Clock: time.Now})
	for _, key := range kept.accounts {
		k := protocol.PublicKey(key)
		a, err := b.Get(ctx, k)
		if err != nil {
			c.fault(promiseKept, "the account of %s: %v", k, err)
			continue
		}
		if a.Stored != stored[k] {
			c.fault(promiseCount, "the account of %s counts %d bytes stored, and there are %d", k, a.Stored, stored[k])
		}
		if a.Month == c.month && a.Moved != moved[k] { // at the end of a month it begins anew
			c.fault(promiseCount, "the account of %s counts %d bytes moved, and there were %d", k, a.Moved, moved[k])
		}
		kept.moved[k] = a.Moved
		if k != c.readers[0].Public() {
			continue
		}
		if len(a.Admitted) != 1 || a.Admitted[0].UsedBytes != guestBytes || a.Admitted[0].UsedRecords != guestRecords {
			c.fault(promiseCount, "%s admits %+v, and %d bytes in %d records are there", k, a.Admitted, guestBytes, guestRecords)
		}
	}
	return nil
}

// waits tells whether a record is there for its reader.
func (r *row) waits(reader protocol.PublicKey) bool {
	return r.path.Receiver == reader && r.state == stateLive && r.left > 0
}

// checkSeen wants all that this reader may still pull to have come to him before: he has pulled up to the end.
func (r *reader) checkSeen(rows []*row) {
	for _, row := range rows {
		if row.waits(r.key.Public()) && !r.seen[row.path] {
			r.cohort.fault(promiseKept, "%s stands at %d, and never came to its reader, who has pulled up to the end", row.path, row.n)
		}
	}
}

// checkPages wants the pages that the reader has, acknowledged as he acknowledged them, and no other.
func (r *reader) checkPages(ctx context.Context, d *db.DB) error {
	key := r.key.Public()
	rows, err := d.Pool().Query(ctx, `SELECT page_id, root, served, cardinality(ns), coalesce(got, lead(got_before) OVER (ORDER BY turn)) FROM pages WHERE reader = $1`, key[:])
	if err != nil {
		return err
	}
	found := map[protocol.PageID]bool{}
	var id string
	var root, got []byte
	var served, leaves int
	_, err = pgx.ForEachRow(rows, []any{&id, &root, &served, &leaves, &got}, func() error {
		p := r.pages[protocol.PageID(id)]
		switch {
		case p == nil && r.late[protocol.PageID(id)] != nil: // its attempt came after his last pull
		case p == nil:
			r.cohort.fault(promisePage, "page %s of %s with %d records is counted, and he never had it", id, key, leaves)
			return nil
		case p.root != protocol.Hash(root), !p.unknown && p.leaves != leaves, served < 1, served > protocol.MaxPageServes:
			r.cohort.fault(promisePage, "page %s of %s: root %x over %d records, served %d times; he has %s over %d", id, key, root, leaves, served, p.root, p.leaves)
		case p.acked && !p.gots[string(got)]:
			r.cohort.fault(promisePage, "page %s of %s was acknowledged, and there is %.100q as evidence", id, key, got)
		}
		found[p.id] = true
		return nil
	})
	for id := range r.pages {
		if err == nil && !found[id] {
			r.cohort.fault(promisePage, "page %s of %s is not there", id, key)
		}
	}
	return err
}

// settledCohort is what is kept of a cohort that was found in order: enough to see whether it still is.
type settledCohort struct {
	number           int
	writers, readers [][]byte
	accounts         [][]byte
	digest           [sha256.Size]byte
	moved            map[protocol.PublicKey]int64
}

// digestOf stands for all rows: place, record, and whether it was deleted. What is used up is freed in time.
func digestOf(rows []*row) [sha256.Size]byte {
	h := sha256.New()
	for _, r := range rows {
		var fixed [9]byte
		binary.BigEndian.PutUint64(fixed[:], uint64(r.n))
		if r.state == stateDeleted {
			fixed[8] = 1
		}
		h.Write(fixed[:])
		h.Write(r.hash[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// checkStill looks at an earlier cohort again.
func (k *settledCohort) checkStill(ctx context.Context, w *world, counts *tally) error {
	return w.withDB(ctx, func(ctx context.Context, d *db.DB) error {
		rows, err := rowsOf(ctx, d, k.writers, k.readers)
		if err != nil {
			return err
		}
		counts.looked.Add(int64(len(rows)))
		if digestOf(rows) != k.digest {
			return &brokenError{promiseKept, "what was written in round " + numbered(k.number) + " is not what it was after that round"}
		}
		stored := map[protocol.PublicKey]int64{}
		for _, r := range rows {
			if r.state != stateLive {
				continue
			}
			stored[r.account] += r.bytes
			e, err := protocol.ParseEnvelope(r.envelope)
			if err != nil || e.Hash() != r.hash {
				return &brokenError{promiseKept, r.path.String() + " at " + numbered(int(r.n)) + " is no longer what was written"}
			}
		}
		b := books.New(books.Config{DB: d, Clock: time.Now})
		for _, key := range k.accounts {
			account := protocol.PublicKey(key)
			a, err := b.Get(ctx, account)
			if err != nil {
				return err
			}
			if a.Stored != stored[account] || a.Moved != k.moved[account] && a.Moved != 0 {
				return &brokenError{promiseCount, "the account of " + account.String() + " of round " + numbered(k.number) + " is not what it was"}
			}
		}
		return nil
	})
}
