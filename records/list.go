package records

import (
	"context"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// entryColumns are what scanEntry reads, of records r and pulls p.
const entryColumns = `r.n, r.sender, r.receiver, r.id, r.bytes, r.timestamp, r.expires, r.max_pulls,
	coalesce(p.remaining, r.max_pulls), r.tag, r.hash`

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

// maxLook is how many records one listing looks at for those of a time. Past it the page ends, full
// or not, and the next one reads on.
const maxLook = 10_000

// List is one page of an inventory, live records only, in cursor order.
func (s *Store) List(ctx context.Context, r ListRequest) (*Listing, error) {
	after, err := s.place(r.After)
	if err != nil {
		return nil, err
	}
	var receiver []byte
	where := `r.sender = $1`
	if r.Receiver != nil {
		receiver = r.Receiver[:]
		where = `r.sender = $1 AND r.receiver = $2`
	}
	var look *int64
	if r.AfterTs != nil || r.BeforeTs != nil {
		look = new(int64)
		*look = maxLook
	}
	where += ` AND ($2::bytea IS NULL OR r.receiver = $2) AND r.n > $3 AND r.state = 0`
	rows, err := s.db.Pool().Query(ctx, `
		SELECT c.n, (SELECT r.n FROM records r WHERE $8::bigint IS NOT NULL AND `+where+` ORDER BY r.n OFFSET $8 - 1 LIMIT 1), l.*
		FROM relay_cursor c LEFT JOIN LATERAL (
		  SELECT `+entryColumns+` FROM (SELECT * FROM records r WHERE `+where+` ORDER BY r.n LIMIT $8) r LEFT JOIN pulls p USING (n)
		  WHERE r.expires > $4 AND coalesce(p.remaining, 1) > 0
		    AND ($5::bigint IS NULL OR r.timestamp > $5) AND ($6::bigint IS NULL OR r.timestamp < $6)
		  ORDER BY r.n LIMIT $7) l ON true
		ORDER BY l.n`,
		r.Sender[:], receiver, after, int64(s.now()), (*int64)(r.AfterTs), (*int64)(r.BeforeTs), r.Limit+1, look)
	if err != nil {
		return nil, wrap(err, "list")
	}
	listing := &Listing{Entries: []Entry{}}
	var head int64
	var looked *int64 // up to here, when that is not all
	var row entryRow
	_, err = pgx.ForEachRow(rows, append([]any{&head, &looked}, row.targets()...), func() error {
		switch {
		case row.n == nil:
		case int64(len(listing.Entries)) == r.Limit:
			listing.More = true
		default:
			listing.Entries = append(listing.Entries, *row.entry(s))
		}
		return nil
	})
	if err != nil {
		return nil, wrap(err, "list")
	}
	if after > head {
		return nil, errEpoch()
	}
	switch {
	case listing.More:
		listing.Cursor = listing.Entries[len(listing.Entries)-1].Cursor
	case looked != nil:
		listing.Cursor, listing.More = s.cursor(*looked), true
	default:
		listing.Cursor = s.cursor(head)
	}
	return listing, nil
}
