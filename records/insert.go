package records

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// pathIndex is the unique index that makes a write idempotent.
const pathIndex = "records_path"

// chargeAndPlace charges all accounts that can pay and takes places for their records, in this order:
// the cursor's row is the last to be locked. Its row is the last place, the accounts charged, and their bills.
var chargeAndPlace = books.NewPaidForms(func(paid string) string {
	return `WITH ` + paid + `,
	place AS (UPDATE relay_cursor c SET n = c.n + p.records FROM (SELECT coalesce(sum(records), 0)::bigint AS records FROM paid) p RETURNING c.n)
	SELECT n, ARRAY(SELECT key FROM paid), ARRAY(SELECT coalesce(bill, 0) FROM paid) FROM place`
})

var copyRecords = db.CopySQL("records", "n", "sender", "receiver", "id", "account", "bytes", "timestamp", "expires", "written",
	"max_pulls", "tag", "request_hash", "hash", "envelope", "admitted", "bill")

// storeUsual stores new records under distinct paths on their senders' accounts. It returns those
// that could not be stored so and have to be judged.
func (s *Store) storeUsual(ctx context.Context, items []*item) (rest []*item) {
	rest, err := s.store(ctx, items)
	if db.IsUniqueViolation(err, pathIndex) {
		// Somebody repeats what nobody remembers. He is judged, with all that he sends, and the others go on.
		s.metrics.careful.Inc()
		others, repeaters := s.withoutRepeaters(ctx, items)
		if len(others) == 0 {
			return items
		}
		if rest, err = s.store(ctx, others); db.IsUniqueViolation(err, pathIndex) {
			return items
		}
		if err == nil {
			return append(rest, repeaters...)
		}
		s.fail(others, err)
		return repeaters
	}
	if err != nil {
		s.fail(items, err)
		return nil
	}
	return rest
}

// withoutRepeaters parts the items of senders who have a record under one of their paths already. Without an
// answer all are taken for such.
func (s *Store) withoutRepeaters(ctx context.Context, items []*item) (others, repeaters []*item) {
	if err := s.lookUp(ctx, s.db.WritePool(), items); err != nil {
		return nil, items
	}
	repeat := make(map[protocol.PublicKey]struct{})
	for _, it := range items {
		if it.existing != nil {
			repeat[it.path.Sender] = struct{}{}
		}
	}
	return part(items, func(it *item) bool { _, does := repeat[it.path.Sender]; return !does })
}

// store is one attempt of storeUsual.
func (s *Store) store(ctx context.Context, items []*item) (rest []*item, err error) {
	charges := make([]books.Charge, len(items))
	for i, it := range items {
		charges[i] = it.charge()
	}
	payment := s.books.NewPayment(charges)
	for i, it := range items {
		it.account, it.counted = payment.Payer(i), payment.Counted()
	}
	if isFew(items) {
		return s.storeAtOnce(ctx, items, &payment)
	}
	var head int64
	var paid [][]byte
	var bills []int64
	var fresh []*item
	buffer := s.buffers.Get().(*[]byte)
	defer s.putBuffer(buffer)
	err = s.db.Load(ctx, db.Load{
		Statement: chargeAndPlace.Statement(&payment), Args: payment.Args(), Row: []any{&head, &paid, &bills},
		Copy: func() (string, []byte, error) {
			if fresh, rest = items, nil; len(paid) < payment.Accounts() {
				fresh, rest = partPaid(items, paid)
			}
			if len(fresh) == 0 {
				return "", nil, nil
			}
			bill(fresh, paid, bills)
			*buffer = s.encode(*buffer, fresh, head)
			return copyRecords, *buffer, nil
		},
	})
	if err != nil {
		return nil, err
	}
	s.stored(fresh)
	return rest, nil
}

func partPaid(items []*item, keys [][]byte) (paid, unpaid []*item) {
	able := make(map[protocol.PublicKey]struct{}, len(keys))
	for _, k := range keys {
		able[protocol.PublicKey(k)] = struct{}{}
	}
	return part(items, func(it *item) bool { _, ok := able[it.account]; return ok })
}

// bill notes on which bills items are.
func bill(items []*item, keys [][]byte, bills []int64) {
	of := make(map[protocol.PublicKey]int64, len(keys))
	for i, k := range keys {
		if bills[i] != 0 {
			of[protocol.PublicKey(k)] = bills[i]
		}
	}
	for _, it := range items {
		it.bill = of[it.account]
	}
}

// keptBuffer bounds the buffers that are used again.
const keptBuffer = 1 << 20

func (s *Store) putBuffer(b *[]byte) {
	if cap(*b) <= keptBuffer {
		s.buffers.Put(b)
	}
}

// insert takes places for the items and copies them in, within a transaction. From taking the places
// to COMMIT it holds the cursor's row: that is what makes the order of places the order of commits.
func (s *Store) insert(ctx context.Context, tx pgx.Tx, items []*item) error {
	var head int64
	if err := tx.QueryRow(ctx, `UPDATE relay_cursor SET n = n + $1 RETURNING n`, len(items)).Scan(&head); err != nil {
		return err
	}
	buffer := s.buffers.Get().(*[]byte)
	defer s.putBuffer(buffer)
	*buffer = s.encode(*buffer, items, head)
	copied, err := db.Copy(ctx, tx, copyRecords, *buffer)
	if err == nil && copied != int64(len(items)) {
		err = errors.New("COPY took fewer rows than were sent")
	}
	return err
}

// placeAt gives the items the last places up to head, and their outcomes.
func (s *Store) placeAt(items []*item, head int64) {
	first := head - int64(len(items)) + 1
	for i, it := range items {
		it.n = first + int64(i)
		it.outcome = Outcome{Cursor: s.cursor(it.n), Hash: it.hash}
	}
}

// encode gives the items the last places up to head, and their outcomes, and writes the rows into the buffer.
func (s *Store) encode(buffer []byte, items []*item, head int64) []byte {
	s.placeAt(items, head)
	rows := db.NewEncoder(buffer)
	for _, it := range items {
		e, w := it.in.Envelope, it.in.Write
		rows.Row(16)
		rows.Bigint(it.n)
		rows.Bytes(e.From[:])
		rows.Bytes(e.To[:])
		rows.Text(string(w.RecordID))
		rows.Bytes(it.account[:])
		rows.Integer(int32(e.Size()))
		rows.Bigint(int64(e.Timestamp))
		rows.Bigint(int64(w.Expires))
		rows.Bigint(it.counted.UnixMilli())
		rows.Integer(int32(w.MaxPulls))
		if w.Tag == nil {
			rows.Null()
		} else {
			rows.Text(string(*w.Tag))
		}
		rows.Bytes(it.request[:])
		rows.Bytes(it.hash[:])
		rows.Bytes(e.Bytes())
		rows.Bool(it.admitted)
		if it.bill == 0 {
			rows.Null()
		} else {
			rows.Bigint(it.bill)
		}
	}
	return rows.End()
}
