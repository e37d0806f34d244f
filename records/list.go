package records

import (
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// entryColumns are what scanEntry reads, of records r and pulls p.
const entryColumns = `r.n, r.sender, r.receiver, r.id, r.bytes, r.timestamp, r.expires, r.max_pulls,
	coalesce(p.remaining, r.max_pulls), r.tag, r.hash`

// looked are the columns of records that entryColumns and what chooses among them need.
const looked = `r.n, r.sender, r.receiver, r.id, r.bytes, r.timestamp, r.expires, r.max_pulls, r.tag, r.hash`

type entryRow struct {
	n                  *int64
	sender, receiver   []byte
	id                 *string
	bytes, max, left   *int32
	timestamp, expires *int64
	tag                *string
	hash               []byte
}

func (e *entryRow) targets() []any {
	return []any{&e.n, &e.sender, &e.receiver, &e.id, &e.bytes, &e.timestamp, &e.expires, &e.max, &e.left, &e.tag, &e.hash}
}

func (e *entryRow) entry(s *Store) *Entry {
	entry := &Entry{
		n: *e.n, Cursor: s.cursor(*e.n), Sender: protocol.PublicKey(e.sender), Receiver: protocol.PublicKey(e.receiver),
		ID: protocol.RecordID(*e.id), Bytes: int64(*e.bytes), Timestamp: protocol.Timestamp(*e.timestamp),
		Expires: protocol.Timestamp(*e.expires), MaxPulls: int64(*e.max), Pulls: int64(*e.max - *e.left), Hash: protocol.Hash(e.hash),
	}
	if e.tag != nil {
		tag := protocol.Tag(*e.tag)
		entry.Tag = &tag
	}
	return entry
}

// maxLook is how many records one look reads at most, or little more: a page of an inventory, a pull, a listener who reads
// what was before. Those that expired or were used up stay among the others until they are swept, and an
// inventory may be of a time. Past it the page ends, full or not, and the next one reads on.
const maxLook = 10_000

// List is one page of an inventory, live records only, in cursor order. It may be empty and have more.
func (s *Store) List(ctx context.Context, r ListRequest) (*Listing, error) {
	after, err := s.place(r.After)
	if err != nil {
		return nil, err
	}
	var receiver []byte
	where := `r.sender = $1 AND r.n > 0` // the index records_outbox
	if r.Receiver != nil {
		receiver = r.Receiver[:]
		where = `r.sender = $1 AND r.receiver = $2`
	}
	// The last record that is looked at is told of in any case.
	rows, err := s.db.Pool().Query(ctx, `
		SELECT c.n, l.* FROM relay_cursor c LEFT JOIN LATERAL (
		  SELECT * FROM (
		    SELECT r.place = $8 AS last,
		      r.expires > $4 AND coalesce(p.remaining, 1) > 0 AND ($5::bigint IS NULL OR r.timestamp > $5) AND ($6::bigint IS NULL OR r.timestamp < $6) AS listed,
		      `+entryColumns+`
		    FROM (
		      SELECT r.*, row_number() OVER (ORDER BY r.n) AS place FROM (
		        SELECT `+looked+` FROM records r
		        WHERE `+where+` AND ($2::bytea IS NULL OR r.receiver = $2) AND r.n > $3 AND r.state = 0
		        ORDER BY r.n LIMIT $8) r) r
		    `+joinPulls+`) r
		  WHERE listed OR last ORDER BY r.n LIMIT $7) l ON true
		ORDER BY l.n`,
		r.Sender[:], receiver, after, int64(s.now()), (*int64)(r.AfterTs), (*int64)(r.BeforeTs), r.Limit+1, int64(maxLook))
	if err != nil {
		return nil, wrap(err, "list")
	}
	listing := &Listing{Entries: []Entry{}}
	var head int64
	var last, listed *bool
	var row entryRow
	_, err = pgx.ForEachRow(rows, append([]any{&head, &last, &listed}, row.targets()...), func() error {
		if row.n == nil {
			return nil // nothing found: the row of the cursor alone
		}
		full := int64(len(listing.Entries)) == r.Limit
		if *listed && !full {
			listing.Entries = append(listing.Entries, *row.entry(s))
		}
		if listing.More = full || *last; *last && !(*listed && full) {
			listing.Cursor = s.cursor(*row.n) // all up to here was looked at
		} else if full {
			listing.Cursor = listing.Entries[r.Limit-1].Cursor
		}
		return nil
	})
	if err != nil {
		return nil, wrap(err, "list")
	}
	if after > head {
		return nil, errEpoch()
	}
	if !listing.More {
		listing.Cursor = s.cursor(head)
	}
	return listing, nil
}
