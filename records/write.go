package records

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// commitTimeout bounds one transaction of writes: a database that hangs must not hold its callers
// for ever. The outcome is then unknown, and writing again is safe.
const commitTimeout = 30 * time.Second

// maybeRepeat is the age from which a write is looked up before it is tried: a client repeats what
// it got no answer to after some seconds, under a newer timestamp or the old one. A younger repeat
// is caught by the unique index and costs a second transaction.
const maybeRepeat = 3 * time.Second

// item is one write on its way through the committer.
type item struct {
	in      Incoming
	path    protocol.Path
	request protocol.Hash
	hash    protocol.Hash

	// What follows is of one attempt.
	outcome  Outcome
	admitted bool // not the sender's account but the receiver's is asked
	looked   bool // existing was looked up in this transaction
	existing *existing
	twin     *item     // the same request, which comes before it in the same transaction
	counted  time.Time // when it was charged
	n        int64     // its place, once inserted
}

// existing is what stands under a write's path already.
type existing struct {
	n       int64
	request protocol.Hash
	hash    protocol.Hash
	live    bool
}

func newItem(in Incoming) *item {
	return &item{
		in:      in,
		path:    protocol.Path{Sender: in.Envelope.From, Receiver: in.Envelope.To, ID: in.Write.RecordID},
		request: in.Envelope.RequestHash(),
		hash:    in.Envelope.Hash(),
	}
}

func (it *item) charge() books.Charge {
	c := books.Charge{Account: it.path.Sender, Writer: it.path.Sender, Bytes: it.in.Envelope.Size(), Pulls: it.in.Write.MaxPulls}
	if it.admitted {
		c.Account = it.path.Receiver
	}
	return c
}

// commit decides every item, in as few transactions as there are kinds of payers: first the
// senders' own accounts, then, for senders without one, those of receivers who may admit them.
// However its items repeat or contradict each other, one request costs no more than that.
func (s *Store) commit(items []*item) {
	if again := s.decided(items, false); len(again) > 0 {
		s.decided(again, true)
	}
}

// decided gives every item its outcome, but those it returns, which are to be tried as admitted.
func (s *Store) decided(items []*item, admitted bool) (again []*item) {
	again, err := s.transact(items, admitted, false)
	if db.IsUniqueViolation(err, "records_path") {
		// Somebody wrote one of these moments ago. With the cursor's row locked first,
		// nobody can any more, and a look-up of all is exact.
		s.metrics.careful.Inc()
		again, err = s.transact(items, admitted, true)
	}
	if err != nil {
		s.log.Error("commit writes", "records", len(items), "err", err)
		for _, it := range items {
			it.outcome = Outcome{Err: err}
		}
		return nil
	}
	return again
}

// transact runs one transaction of writes: lock accounts → look up what may be a repeat → decide →
// update accounts → take places → COPY → COMMIT. In careful mode the cursor's row is locked before
// the look-up, which then is of all items.
func (s *Store) transact(items []*item, admitted, careful bool) (again []*item, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	var fresh []*item
	var first int64
	now := s.now()
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		again, fresh = nil, nil
		charges := make([]books.Charge, len(items))
		for i, it := range items {
			*it = item{in: it.in, path: it.path, request: it.request, hash: it.hash, admitted: admitted}
			charges[i] = it.charge()
		}
		batch, err := s.books.Lock(ctx, tx, charges)
		if err != nil {
			return err
		}
		if careful {
			if _, err := tx.Exec(ctx, `SELECT 1 FROM relay_cursor FOR UPDATE`); err != nil {
				return err
			}
		}
		if err := s.lookUp(ctx, tx, items, func(it *item) bool {
			return careful || it.in.Envelope.Timestamp < now.Add(-maybeRepeat)
		}); err != nil {
			return err
		}
		fresh, again = s.decide(items, batch, now)
		// A refusal is only right if the record is not there already.
		if err := s.lookUp(ctx, tx, items, func(it *item) bool { return it.outcome.Err != nil && !it.looked }); err != nil {
			return err
		}
		for _, it := range items {
			if it.existing != nil {
				it.settle(s)
			}
		}
		if len(fresh) == 0 {
			return nil
		}
		if err := batch.Save(ctx, tx); err != nil {
			return err
		}
		first, err = s.insert(ctx, tx, fresh)
		return err
	})
	if err != nil {
		return nil, wrap(err, "write %d records", len(items))
	}
	if len(fresh) > 0 {
		s.metrics.written.Add(float64(len(fresh)))
		s.tail.publish(first, s.entries(fresh))
	}
	for _, it := range items {
		if it.twin != nil {
			it.outcome = it.twin.outcome
			it.outcome.Replayed = true
		}
	}
	return again, nil
}

// decide splits items that are not there already into those to insert and those to try again as
// admitted; the rest gets its refusal, or follows an earlier item under its path.
func (s *Store) decide(items []*item, batch *books.Batch, now protocol.Timestamp) (fresh, again []*item) {
	claimed := make(map[protocol.Path]*item, len(items))
	for _, it := range items {
		if it.existing != nil {
			continue
		}
		w, size, earlier := it.in.Write, it.in.Envelope.Size(), claimed[it.path]
		switch {
		case !it.admitted && !batch.Active(it.path.Sender) && it.path.Sender != it.path.Receiver:
			again = append(again, it) // first, so that all under a path go there in their order
		case earlier != nil && earlier.request == it.request:
			it.twin = earlier
		case earlier != nil:
			it.outcome.Err = errConflict(it.path)
		case w.Expires <= now:
			it.outcome.Err = protocol.Errorf(protocol.CodeExpired, "expires has passed %d s ago", (now-w.Expires)/1000)
		case w.MaxPulls > s.limits.MaxPulls:
			it.outcome.Err = protocol.Errorf(protocol.CodeInvalidValue, "maxPulls is at most %d on this relay", s.limits.MaxPulls)
		case w.Expires > now.Add(s.limits.Lifetime):
			it.outcome.Err = protocol.Errorf(protocol.CodeInvalidValue, "expires is at most %s ahead on this relay", s.limits.Lifetime)
		case it.admitted && size > s.limits.AdmittedBytes && batch.Admits(it.path.Receiver, it.path.Sender):
			it.outcome.Err = protocol.Errorf(protocol.CodeTooLarge, "a record left by an admitted key has at most %d bytes", s.limits.AdmittedBytes)
		default:
			if it.outcome.Err = batch.Charge(it.charge()); it.outcome.Err == nil {
				it.counted = batch.Counted(it.charge().Account)
				claimed[it.path] = it
				fresh = append(fresh, it)
			}
		}
	}
	return fresh, again
}

func errConflict(path protocol.Path) error {
	return protocol.Errorf(protocol.CodeConflict, "another record is stored under %s", path)
}

// settle answers a write whose path is taken.
func (it *item) settle(s *Store) {
	switch e := it.existing; {
	case e.request != it.request:
		it.outcome = Outcome{Err: errConflict(it.path)}
	case !e.live:
		it.outcome = Outcome{Err: protocol.Errorf(protocol.CodeGone, "this record was stored before and has ended")}
	default:
		it.outcome = Outcome{Cursor: s.cursor(e.n), Hash: e.hash, Replayed: true}
	}
}

// lookUp fills existing of the items that want it.
func (s *Store) lookUp(ctx context.Context, tx pgx.Tx, items []*item, want func(*item) bool) error {
	var senders, receivers [][]byte
	var ids []string
	byPath := make(map[protocol.Path][]*item)
	for _, it := range items {
		if !want(it) {
			continue
		}
		it.looked = true
		if byPath[it.path] = append(byPath[it.path], it); len(byPath[it.path]) == 1 {
			senders, receivers = append(senders, it.path.Sender[:]), append(receivers, it.path.Receiver[:])
			ids = append(ids, string(it.path.ID))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT r.sender, r.receiver, r.id, r.n, r.request_hash, r.hash,
		       r.state = 0 AND r.expires > $4 AND coalesce(p.remaining, 1) > 0
		FROM unnest($1::bytea[], $2::bytea[], $3::text[]) AS t (sender, receiver, id)
		JOIN records r USING (sender, receiver, id) LEFT JOIN pulls p USING (n)`,
		senders, receivers, ids, int64(s.now()))
	if err != nil {
		return err
	}
	var sender, receiver, request, hash []byte
	var id string
	var e existing
	_, err = pgx.ForEachRow(rows, []any{&sender, &receiver, &id, &e.n, &request, &hash, &e.live}, func() error {
		found := e
		found.request, found.hash = protocol.Hash(request), protocol.Hash(hash)
		for _, it := range byPath[protocol.Path{Sender: protocol.PublicKey(sender), Receiver: protocol.PublicKey(receiver), ID: protocol.RecordID(id)}] {
			it.existing = &found
		}
		return nil
	})
	return err
}

// insert takes places for the items and copies them in. From taking the places to COMMIT it holds
// the cursor's row: that is what makes the order of places the order of commits.
func (s *Store) insert(ctx context.Context, tx pgx.Tx, items []*item) (first int64, err error) {
	var head int64
	err = tx.QueryRow(ctx, `UPDATE relay_cursor SET n = n + $1 RETURNING n`, len(items)).Scan(&head)
	if err != nil {
		return 0, err
	}
	first = head - int64(len(items)) + 1
	columns := []string{"n", "sender", "receiver", "id", "account", "bytes", "timestamp", "expires", "written",
		"max_pulls", "tag", "request_hash", "hash", "envelope"}
	copied, err := tx.CopyFrom(ctx, pgx.Identifier{"records"}, columns, pgx.CopyFromSlice(len(items), func(i int) ([]any, error) {
		it := items[i]
		it.n = first + int64(i)
		e, w, account := it.in.Envelope, it.in.Write, it.charge().Account
		it.outcome = Outcome{Cursor: s.cursor(it.n), Hash: it.hash}
		return []any{it.n, e.From[:], e.To[:], string(w.RecordID), account[:], int32(e.Size()), int64(e.Timestamp), int64(w.Expires),
			it.counted.UnixMilli(), int32(w.MaxPulls), (*string)(w.Tag), it.request[:], it.hash[:], e.Bytes()}, nil
	}))
	if err == nil && copied != int64(len(items)) {
		err = errors.New("COPY took fewer rows than were sent")
	}
	return first, err
}

func (s *Store) entries(items []*item) []*Entry {
	entries := make([]*Entry, len(items))
	for i, it := range items {
		entries[i] = &Entry{
			n: it.n, Cursor: s.cursor(it.n), Sender: it.path.Sender, Receiver: it.path.Receiver, ID: it.path.ID,
			Bytes: it.in.Envelope.Size(), Timestamp: it.in.Envelope.Timestamp, Expires: it.in.Write.Expires,
			MaxPulls: it.in.Write.MaxPulls, Tag: it.in.Write.Tag, Hash: it.hash,
		}
	}
	return entries
}
