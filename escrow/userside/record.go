package userside

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Step is how far the exchange that opens a contract has come, on this disk. Each step is stored before anything
// is done that relies on it.
type Step string

// The steps. drawn → answered → kept → signed → taken; restored stands for all of them; over is the end of an
// exchange that came to nothing.
const (
	StepDrawn    Step = "drawn"    // coins leased, request written down; the relay may have been asked
	StepAnswered Step = "answered" // the relay's part is checked
	StepKept     Step = "kept"     // the descriptor is in the backup
	StepSigned   Step = "signed"   // our witnesses and state 0 exist: the relay may have them
	StepTaken    Step = "taken"    // the relay said that it has them
	StepRestored Step = "restored" // from a backup: what was sent or not is unknown
	StepOver     Step = "over"     // nothing was signed, and nothing will be
)

// Record is a contract as it is on this disk.
type Record struct {
	ID        protocol.ContractID
	Network   protocol.Network
	Relay     protocol.PublicKey
	Address   string // of the relay
	State     protocol.ContractState
	Step      Step
	Foreign   bool   // the funding's inputs are of a wallet that this program cannot sign with
	Announced []byte // envelope of the announcement relied on; nil if restored
	Request   []byte // canonical contractOpen; nil if restored
	Answer    []byte // envelope of contractServerAddInputs; nil before it came, and if restored
	Document  []byte // backup document, JSON; nil before StepAnswered
	PSBT      protocol.PSBT
	Accepted  protocol.Msat  // cumulative usage that the user accepted
	Cushion   btcutil.Amount // how far payments may run ahead of it
	Renewed   *protocol.ContractID
	Told      []byte // envelope of the relay's last contractStatus
	Fault     string // why the exchange does not go on; empty if it does
	Created   protocol.Timestamp
	Changed   protocol.Timestamp

	Payments     []Payment     // in the order of seq
	Transactions []Transaction // in the order they were made or seen
}

// Payment is one state that we signed.
type Payment struct {
	Seq       int64
	Amount    btcutil.Amount
	Usage     *protocol.Msat // that it pays for; nil for none stated
	Signature protocol.ContractSignature
	Created   protocol.Timestamp
	Taken     bool // the relay said that it has it
}

// Transaction is one of a contract's transactions.
type Transaction struct {
	TxID    protocol.TxID
	Kind    string // one of protocol's Tx constants
	Raw     []byte // BIP144 serialization
	Fee     btcutil.Amount
	Ours    bool    // we broadcast it
	Height  *uint32 // of its block; nil for none
	Bid     uint32  // height of the chain when we made it
	Created protocol.Timestamp
}

// Last is the highest state that we signed, and false before there is one.
func (r *Record) Last() (Payment, bool) {
	if len(r.Payments) == 0 {
		return Payment{Seq: -1}, false
	}
	return r.Payments[len(r.Payments)-1], true
}

// Confirmed is the transaction of these kinds that is in a block, nil for none.
func (r *Record) Confirmed(kinds ...string) *Transaction {
	for i, t := range r.Transactions {
		if t.Height != nil && slices.Contains(kinds, t.Kind) {
			return &r.Transactions[i]
		}
	}
	return nil
}

// has tells whether there is a transaction of a kind, in a block or not.
func (r *Record) has(kind string) bool {
	return slices.ContainsFunc(r.Transactions, func(t Transaction) bool { return t.Kind == kind })
}

// Transaction finds one by its id, nil for none.
func (r *Record) Transaction(id protocol.TxID) *Transaction {
	for i := range r.Transactions {
		if r.Transactions[i].TxID == id {
			return &r.Transactions[i]
		}
	}
	return nil
}

const recordColumns = `SELECT id, network, relay, address, state, step, foreign_inputs, announced, request, answer, document, psbt,
	accepted, cushion, renewed_by, told, fault, created, changed FROM contracts `

func scanRecord(scan func(...any) error) (Record, error) {
	var r Record
	var id, relay, renewed []byte
	err := scan(&id, &r.Network, &relay, &r.Address, &r.State, &r.Step, &r.Foreign, &r.Announced, &r.Request, &r.Answer, &r.Document, &r.PSBT,
		&r.Accepted, &r.Cushion, &renewed, &r.Told, &r.Fault, &r.Created, &r.Changed)
	copy(r.ID[:], id)
	copy(r.Relay[:], relay)
	if renewed != nil {
		r.Renewed = new(protocol.ContractID)
		copy(r.Renewed[:], renewed)
	}
	return r, err
}

// insert adds a contract. One that is there already is left alone, and the answer false.
func (u *unit) insert(ctx context.Context, r *Record) (bool, error) {
	r.Created, r.Changed = u.now, u.now
	result, err := u.ExecContext(ctx, `INSERT INTO contracts (id, network, relay, address, state, step, foreign_inputs, announced, request, answer,
		document, psbt, accepted, cushion, renewed_by, told, fault, created, changed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		r.ID[:], r.Network, r.Relay[:], r.Address, r.State, r.Step, r.Foreign, r.Announced, r.Request, r.Answer, r.Document, r.PSBT,
		r.Accepted, r.Cushion, optionalID(r.Renewed), r.Told, r.Fault, r.Created, r.Changed)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// save writes back what of a contract changes.
func (u *unit) save(ctx context.Context, r *Record) error {
	r.Changed = u.now
	return u.exec(ctx, `UPDATE contracts SET address = ?, state = ?, step = ?, foreign_inputs = ?, answer = ?, document = ?, psbt = ?,
		accepted = ?, cushion = ?, renewed_by = ?, told = ?, fault = ?, changed = ? WHERE id = ?`,
		r.Address, r.State, r.Step, r.Foreign, r.Answer, r.Document, r.PSBT, r.Accepted, r.Cushion, optionalID(r.Renewed),
		r.Told, r.Fault, r.Changed, r.ID[:])
}

// pay writes down a state that was signed. A seq is used once: another amount or signature under it is an error.
func (u *unit) pay(ctx context.Context, r *Record, p Payment) error {
	if last, ok := r.Last(); ok && (p.Seq <= last.Seq || p.Amount < last.Amount) {
		return fmt.Errorf("contract %s: state %d of %d sat does not follow state %d of %d sat", r.ID.Short(), p.Seq, int64(p.Amount),
			last.Seq, int64(last.Amount))
	}
	p.Created = u.now
	err := u.exec(ctx, `INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?)`, r.ID[:], p.Seq, p.Amount, optionalMsat(p.Usage),
		[]byte(p.Signature), p.Created, p.Taken)
	if err == nil {
		r.Payments = append(r.Payments, p)
	}
	return err
}

// taken notes that the relay has the states up to seq.
func (u *unit) taken(ctx context.Context, r *Record, seq int64) error {
	for i := range r.Payments {
		r.Payments[i].Taken = r.Payments[i].Taken || r.Payments[i].Seq <= seq
	}
	return u.exec(ctx, `UPDATE payments SET taken = 1 WHERE contract = ? AND seq <= ? AND taken = 0`, r.ID[:], seq)
}

// lost notes that the relay has nothing above a state that it had taken: it was restored from a backup. What is above will be
// sent again.
func (u *unit) lost(ctx context.Context, r *Record, seq int64, amount btcutil.Amount) error {
	before, _ := r.Last()
	for i, p := range r.Payments {
		r.Payments[i].Taken = p.Taken && p.Seq <= seq && p.Amount <= amount
	}
	if last, _ := r.Last(); last.Taken == before.Taken {
		return nil
	}
	if err := u.note(ctx, r, "The relay says that it has %d sat, and was paid %d before: it is given that signature again.", int64(amount), int64(before.Amount)); err != nil {
		return err
	}
	return u.exec(ctx, `UPDATE payments SET taken = 0 WHERE contract = ? AND (seq > ? OR amount > ?)`, r.ID[:], seq, amount)
}

// track adds a transaction, or brings up to date what is known of it.
func (u *unit) track(ctx context.Context, r *Record, t Transaction) error {
	if known := r.Transaction(t.TxID); known != nil {
		t.Created, t.Ours, t.Bid = known.Created, t.Ours || known.Ours, max(t.Bid, known.Bid)
		*known = t
	} else {
		t.Created = u.now
		r.Transactions = append(r.Transactions, t)
	}
	return u.exec(ctx, `INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (contract, txid) DO UPDATE
		SET kind = excluded.kind, raw = excluded.raw, fee = excluded.fee, ours = excluded.ours, height = excluded.height`,
		r.ID[:], t.TxID[:], t.Kind, t.Raw, t.Fee, t.Ours, optionalHeight(t.Height), t.Bid, t.Created)
}

// disown stops broadcasting transactions of a kind again: something else is to happen.
func (u *unit) disown(ctx context.Context, r *Record, kind string) error {
	for i := range r.Transactions {
		r.Transactions[i].Ours = r.Transactions[i].Ours && r.Transactions[i].Kind != kind
	}
	return u.exec(ctx, `UPDATE transactions SET ours = 0 WHERE contract = ? AND kind = ?`, r.ID[:], kind)
}

// note tells the user of something that was done.
func (u *unit) note(ctx context.Context, r *Record, format string, args ...any) error {
	return u.exec(ctx, `INSERT INTO journal (contract, at, text, told) VALUES (?, ?, ?, 0)`, r.ID[:], u.now, fmt.Sprintf(format, args...))
}

// load reads contracts whole, oldest first.
func load(ctx context.Context, q sqlite.Querier, where string, args ...any) ([]Record, error) {
	records, err := sqlite.Collect(ctx, q, scanRecord, recordColumns+where+` ORDER BY created, id`, args...)
	if err != nil {
		return nil, err
	}
	for i := range records {
		if err := complete(ctx, q, &records[i]); err != nil {
			return nil, err
		}
	}
	return records, nil
}

func complete(ctx context.Context, q sqlite.Querier, r *Record) (err error) {
	r.Payments, err = sqlite.Collect(ctx, q, func(scan func(...any) error) (Payment, error) {
		var p Payment
		var usage sql.NullInt64
		var signature []byte
		err := scan(&p.Seq, &p.Amount, &usage, &signature, &p.Created, &p.Taken)
		p.Signature = signature
		if usage.Valid {
			p.Usage = (*protocol.Msat)(&usage.Int64)
		}
		return p, err
	}, `SELECT seq, amount, usage, signature, created, taken FROM payments WHERE contract = ? ORDER BY seq`, r.ID[:])
	if err != nil {
		return err
	}
	r.Transactions, err = sqlite.Collect(ctx, q, func(scan func(...any) error) (Transaction, error) {
		var t Transaction
		var id []byte
		var height sql.NullInt64
		err := scan(&id, &t.Kind, &t.Raw, &t.Fee, &t.Ours, &height, &t.Bid, &t.Created)
		copy(t.TxID[:], id)
		if height.Valid {
			h := uint32(height.Int64)
			t.Height = &h
		}
		return t, err
	}, `SELECT txid, kind, raw, fee, ours, height, bid, created FROM transactions WHERE contract = ? ORDER BY created, kind, txid`, r.ID[:])
	return err
}

// Contract reads one. ErrNoContract.
func (s *Store) Contract(ctx context.Context, id protocol.ContractID) (*Record, error) {
	return one(load(ctx, s.sql, `WHERE id = ?`, id[:]))
}

func (u *unit) contract(ctx context.Context, id protocol.ContractID) (*Record, error) {
	return one(load(ctx, u, `WHERE id = ?`, id[:]))
}

func one(records []Record, err error) (*Record, error) {
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, ErrNoContract
	}
	return &records[0], nil
}

// Contracts reads all, oldest first.
func (s *Store) Contracts(ctx context.Context) ([]Record, error) { return load(ctx, s.sql, ``) }

// Find finds contracts by the first digits of their id.
func (s *Store) Find(ctx context.Context, typed string) ([]Record, error) {
	return load(ctx, s.sql, `WHERE lower(hex(id)) LIKE ? || '%' ESCAPE '\'`, likeText(typed))
}

// update changes one contract in a transaction of its own and returns it as it is then.
func (s *Store) update(ctx context.Context, id protocol.ContractID, change func(*unit, *Record) error) (*Record, error) {
	var r *Record
	err := s.do(ctx, func(u *unit) (err error) {
		if r, err = u.contract(ctx, id); err != nil {
			return err
		}
		if err := change(u, r); err != nil {
			return err
		}
		return u.save(ctx, r)
	})
	if errors.Is(err, ErrNoContract) {
		return nil, fmt.Errorf("%w: %s", err, id.Short())
	}
	return r, err
}

func optionalID(id *protocol.ContractID) any {
	if id == nil {
		return nil
	}
	return id[:]
}

func optionalMsat(m *protocol.Msat) any {
	if m == nil {
		return nil
	}
	return int64(*m)
}

func optionalHeight(h *uint32) any {
	if h == nil {
		return nil
	}
	return *h
}
