package records

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// commitTimeout bounds the transactions of one group of writes: a database that hangs must not hold its callers
// for ever. The outcome is then unknown, and writing again is safe.
const commitTimeout = 30 * time.Second

// item is one write on its way through the committer.
type item struct {
	in      Incoming
	path    protocol.Path
	request protocol.Hash
	hash    protocol.Hash

	// What follows is of one attempt.
	outcome  Outcome
	admitted bool  // not the sender's account but the receiver's is asked
	unpaid   error // why the sender's own account, if any, does not pay
	existing *existing
	twin     *item              // the same request, which comes before it in the same transaction
	account  protocol.PublicKey // that was charged
	counted  time.Time          // when it was charged
	bill     int64              // that it is on; 0: none
	n        int64              // its place, once inserted
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
	c := books.Charge{Owner: it.path.Sender, Writer: it.path.Sender, Bytes: it.in.Envelope.Size(), Pulls: it.in.Write.MaxPulls, Expires: it.in.Write.Expires,
		Tag: it.in.Write.Tag, Sealed: it.in.Envelope.Sealed()}
	if it.admitted {
		c.Owner = it.path.Receiver
	}
	return c
}

// commit decides every item. Nearly all are new records of account holders who have room for them,
// and go into one transaction of two round trips; what is left is judged one by one, in as few
// transactions as there are kinds of payers: first the senders' own accounts, then, for senders
// without one, those of receivers who may admit them. However items repeat or contradict each
// other, one request costs no more than that.
func (s *Store) commit(ctx context.Context, items []*item) {
	if items = s.settleRepeats(ctx, items); len(items) == 0 {
		return
	}
	usual, rest := s.split(items)
	if len(usual) > 0 {
		rest = append(rest, s.storeUsual(ctx, usual)...)
	}
	if len(rest) == 0 {
		return
	}
	if again := s.onlyAdmitted(ctx, s.judge(ctx, rest, false)); len(again) > 0 {
		s.judge(ctx, again, true)
	}
}

// onlyAdmitted refuses the items whose receivers admit nobody of their sender's key, and returns the others. A
// stranger's writes must not lock the accounts of all whom he names.
func (s *Store) onlyAdmitted(ctx context.Context, items []*item) (admitted []*item) {
	if len(items) == 0 {
		return nil
	}
	charges := make([]books.Charge, len(items))
	for i, it := range items {
		it.admitted = true
		charges[i] = it.charge()
	}
	admits, err := s.books.Admits(ctx, s.db.WritePool(), charges)
	if err != nil {
		s.fail(items, err)
		return nil
	}
	now := s.now()
	for i, it := range items {
		if admits[i] {
			admitted = append(admitted, it)
		} else if it.outcome.Err = s.refusal(it, now); it.outcome.Err == nil {
			it.outcome.Err = it.unpaid
		}
	}
	return admitted
}

// settleRepeats answers those items that are likely to be stored already, and are. Records do not
// change, so no transaction is needed to say so.
func (s *Store) settleRepeats(ctx context.Context, items []*item) []*item {
	var likely []*item
	for _, it := range items {
		if s.written.mayHave(it.path, it.in.Envelope.Timestamp) {
			likely = append(likely, it)
		}
	}
	if len(likely) == 0 {
		return items
	}
	if err := s.lookUp(ctx, s.db.WritePool(), likely); err != nil {
		return items // the transaction that follows fails too, or finds them
	}
	var left []*item
	for _, it := range items {
		if it.existing != nil {
			it.settle(s)
			continue
		}
		left = append(left, it)
	}
	return left
}

// split parts what may go into one transaction together from what has to be judged: all of a sender
// who has two writes under one path here, or one that may be refused for what it is. So each
// sender's writes keep their order.
func (s *Store) split(items []*item) (usual, rest []*item) {
	now := s.now()
	paths := make(map[protocol.Path]struct{}, len(items))
	odd := make(map[protocol.PublicKey]struct{})
	for _, it := range items {
		paths[it.path] = struct{}{}
		if s.refusal(it, now) != nil {
			odd[it.path.Sender] = struct{}{}
		}
	}
	if len(paths) == len(items) && len(odd) == 0 {
		return items, nil
	}
	for _, it := range items {
		if _, first := paths[it.path]; !first {
			odd[it.path.Sender] = struct{}{}
		}
		delete(paths, it.path)
	}
	return part(items, func(it *item) bool { _, isOdd := odd[it.path.Sender]; return !isOdd })
}

// part splits items, in their order.
func part(items []*item, which func(*item) bool) (these, others []*item) {
	for _, it := range items {
		if which(it) {
			these = append(these, it)
		} else {
			others = append(others, it)
		}
	}
	return these, others
}

// refusal is what this relay's limits say of a write that is not there already.
func (s *Store) refusal(it *item, now protocol.Timestamp) error {
	limits := s.limits.Load()
	switch w := it.in.Write; {
	case w.Expires <= now:
		return protocol.Errorf(protocol.CodeExpired, "expires has passed %d s ago", (now-w.Expires)/1000)
	case w.MaxPulls > limits.MaxPulls:
		return protocol.Errorf(protocol.CodeInvalidValue, "maxPulls is at most %d on this relay", limits.MaxPulls)
	case w.Expires > now.Add(limits.Lifetime):
		return protocol.Errorf(protocol.CodeInvalidValue, "expires is at most %s ahead on this relay", limits.Lifetime)
	}
	return nil
}

// judge gives every item its outcome, but those it returns, which are to be tried as admitted.
func (s *Store) judge(ctx context.Context, items []*item, admitted bool) (again []*item) {
	again, err := s.transact(ctx, items, admitted, false)
	if db.IsUniqueViolation(err, pathIndex) {
		// Somebody wrote one of these since the look-up, on another's account. With the cursor's row
		// locked first, nobody can any more, and a look-up of all is exact.
		s.metrics.careful.Inc()
		again, err = s.transact(ctx, items, admitted, true)
	}
	if err != nil {
		s.fail(items, err)
		return nil
	}
	return again
}

func (s *Store) fail(items []*item, err error) {
	err = wrap(err, "write %d records", len(items))
	s.seldom.Do(func() { s.log.Error("commit writes; told at most once a second", "records", len(items), "err", err) })
	for _, it := range items {
		it.outcome = Outcome{Err: err}
	}
	s.written.add(items, s.clock()) // perhaps they are: their clients will repeat them
}

// transact runs one transaction that judges: lock accounts → look up → decide → update accounts →
// take places → COPY → COMMIT. In careful mode the cursor's row is locked before the look-up.
func (s *Store) transact(ctx context.Context, items []*item, admitted, careful bool) (again []*item, err error) {
	var fresh []*item
	now := s.now()
	err = s.db.WriteTx(ctx, func(tx pgx.Tx) error {
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
		// A refusal is only right if the record is not there already.
		if err := s.lookUp(ctx, tx, items); err != nil {
			return err
		}
		fresh, again = s.decide(items, batch, now)
		if len(fresh) == 0 {
			return nil
		}
		if err := batch.Save(ctx, tx); err != nil {
			return err
		}
		return s.insert(ctx, tx, fresh)
	})
	if err != nil {
		return nil, err
	}
	s.stored(fresh)
	found, _ := part(items, func(it *item) bool { return it.existing != nil })
	s.written.add(found, s.clock()) // so that the next repeat spoils no transaction
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
	admittedBytes := s.limits.Load().AdmittedBytes
	for _, it := range items {
		size, earlier := it.in.Envelope.Size(), claimed[it.path]
		refused := s.refusal(it, now) // asked once: the limits may change
		switch {
		case it.existing != nil:
			it.settle(s)
		case !it.admitted && !batch.Active(it.path.Sender) && it.path.Sender != it.path.Receiver:
			it.unpaid = batch.Refusal(it.path.Sender)
			again = append(again, it) // first, so that all under a path go there in their order
		case earlier != nil && earlier.request == it.request:
			it.twin = earlier
		case earlier != nil:
			it.outcome.Err = errConflict(it.path)
		case refused != nil:
			it.outcome.Err = refused
		case it.admitted && size > admittedBytes && batch.Admits(it.path.Receiver, it.path.Sender):
			it.outcome.Err = protocol.Errorf(protocol.CodeTooLarge, "a record left by an admitted key has at most %d bytes", admittedBytes)
		default:
			if it.outcome.Err = batch.Charge(it.charge()); it.outcome.Err == nil {
				it.account, it.counted, it.bill = batch.Payer(it.charge().Owner), batch.Counted(it.charge().Owner), batch.Bill(it.charge().Owner)
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

// querier is a transaction, or the pool.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// lookUp fills existing of the items.
func (s *Store) lookUp(ctx context.Context, q querier, items []*item) error {
	var senders, receivers [][]byte
	var ids []string
	byPath := make(map[protocol.Path][]*item, len(items))
	for _, it := range items {
		if byPath[it.path] = append(byPath[it.path], it); len(byPath[it.path]) == 1 {
			senders, receivers = append(senders, it.path.Sender[:]), append(receivers, it.path.Receiver[:])
			ids = append(ids, string(it.path.ID))
		}
	}
	rows, err := q.Query(ctx, `
		SELECT r.* FROM unnest($1::bytea[], $2::bytea[], $3::text[]) AS t (sender, receiver, id) CROSS JOIN LATERAL (
		  SELECT r.sender, r.receiver, r.id, r.n, r.request_hash, r.hash,
		    r.state = 0 AND r.expires > $4 AND coalesce(p.remaining, 1) > 0
		  FROM records r `+joinPulls+` WHERE r.sender = t.sender AND r.receiver = t.receiver AND r.id = t.id OFFSET 0) r`,
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

// stored is what follows a commit.
func (s *Store) stored(items []*item) {
	if len(items) == 0 {
		return
	}
	s.metrics.written.Add(float64(len(items)))
	s.recent.add(items)
	s.written.add(items, s.clock())
	s.tail.publish(items[0].n, s.entries(items))
}

func (s *Store) entries(items []*item) []*Entry {
	entries := make([]*Entry, len(items))
	for i, it := range items {
		entries[i] = &Entry{
			n: it.n, Cursor: it.outcome.Cursor, Sender: it.path.Sender, Receiver: it.path.Receiver, ID: it.path.ID,
			Bytes: it.in.Envelope.Size(), Timestamp: it.in.Envelope.Timestamp, Expires: it.in.Write.Expires,
			MaxPulls: it.in.Write.MaxPulls, Tag: it.in.Write.Tag, Hash: it.hash,
		}
	}
	return entries
}
