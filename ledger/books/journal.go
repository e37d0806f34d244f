package books

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// The journal is the double entry of what contracts owe: each cause writes what it did to the accounts of one bill, in
// its own transaction, and a constraint holds that this balances. Debits are above 0, credits below:
//
//	usage     owed +, earned −, reserved −   lines were posted
//	payment   paid +, owed −                 a higher state is held
//	refusal   written_off +, owed −          lines were dropped; what they had reserved counts as earned, and is lost in the same row
//	renewal   carried ±, owed ∓              what is owed moves to the contract that renews this one: two rows, one sum of 0
//	close     reserved +, earned −           nothing comes back any more; or earned +, owed −: after a renewal, something did
//	loss      written_off +, owed −          nothing is paid any more
//
// So of any contract, at any time: owed = earned + reserved − paid − written off − carried on. Rows are by day (UTC), because
// an operator asks by day, and a row for every posting would be two a second.

// Cause is why an entry was written.
type Cause string

// The causes.
const (
	CauseUsage   Cause = "usage"
	CausePayment Cause = "payment"
	CauseRefusal Cause = "refusal"
	CauseRenewal Cause = "renewal"
	CauseClose   Cause = "close"
	CauseLoss    Cause = "loss"
)

// entry is what one cause does, in msat. Its members come to 0 together.
type entry struct{ owed, earned, reserved, paid, writtenOff, carried protocol.Msat }

// addEntry ends an INSERT INTO ledger_entries AS e: a day's row of one cause is one.
const addEntry = `ON CONFLICT (bill, day, cause) DO UPDATE SET owed = e.owed + excluded.owed, earned = e.earned + excluded.earned,
	reserved = e.reserved + excluded.reserved, paid = e.paid + excluded.paid, written_off = e.written_off + excluded.written_off, carried = e.carried + excluded.carried`

func (s *Store) write(ctx context.Context, tx pgx.Tx, bill int64, cause Cause, e entry) error {
	if e == (entry{}) {
		return nil
	}
	_, err := tx.Exec(ctx, `INSERT INTO ledger_entries AS e (bill, day, cause, owed, earned, reserved, paid, written_off, carried)
		VALUES ($1, $2::date, $3, $4, $5, $6, $7, $8, $9) `+addEntry, bill, string(DayOf(s.clock())), string(cause),
		int64(e.owed), int64(e.earned), int64(e.reserved), int64(e.paid), int64(e.writtenOff), int64(e.carried))
	return err
}

// money is what totals come to: what was used, and what that is with all that may be used yet. Each is rounded once.
type money struct{ used, all protocol.Msat }

func moneyOf(p ledger.Prices, t ledger.Totals) (m money, err error) {
	used, err := t.Used()
	if err != nil {
		return m, err
	}
	all, err := t.Reserved()
	if err != nil {
		return m, err
	}
	if m.used, err = p.Cost(used); err != nil {
		return m, err
	}
	m.all, err = p.Cost(all)
	return m, err
}

// since is the usage between two moments of a bill.
func (m money) since(before money) entry {
	owed, used := m.all-before.all, m.used-before.used
	return entry{owed: owed, earned: -used, reserved: used - owed}
}

// account is a bill in money, as the journal has it, locked.
type account struct {
	bill   int64
	closed bool
	entry
}

// readAccount locks the bill of a contract and reads its sums; nil: it has none, as nothing was used under it yet.
func readAccount(ctx context.Context, tx pgx.Tx, contract protocol.ContractID) (*account, error) {
	a := &account{}
	err := tx.QueryRow(ctx, `SELECT id, closed FROM bills WHERE contract = $1 FOR UPDATE`, contract[:]).Scan(&a.bill, &a.closed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// A statement of its own: it sees what whoever held the lock has written.
	err = tx.QueryRow(ctx, `SELECT coalesce(sum(owed), 0)::bigint, coalesce(sum(earned), 0)::bigint, coalesce(sum(reserved), 0)::bigint,
		coalesce(sum(paid), 0)::bigint, coalesce(sum(written_off), 0)::bigint, coalesce(sum(carried), 0)::bigint
		FROM ledger_entries WHERE bill = $1`, a.bill).Scan(&a.owed, &a.earned, &a.reserved, &a.paid, &a.writtenOff, &a.carried)
	return a, err
}

// Received notes, in the transaction that stores a state of a contract, what its states have paid for usage, all in all. It
// may be less than before: a renewal that does not come about takes its payments along. Repeated, it changes nothing.
func (s *Store) Received(ctx context.Context, tx pgx.Tx, contract protocol.ContractID, paid protocol.Msat) error {
	a, err := readAccount(ctx, tx, contract)
	if err == nil && a != nil {
		err = s.received(ctx, tx, a, paid)
	}
	return wrap(err, "note the payments of contract %s", contract.Short())
}

func (s *Store) received(ctx context.Context, tx pgx.Tx, a *account, paid protocol.Msat) error {
	more := paid - a.paid
	a.paid, a.owed = a.paid+more, a.owed-more
	return s.write(ctx, tx, a.bill, CausePayment, entry{paid: more, owed: -more})
}

// Close notes what was used under a contract when it ended, all in all and with what it was renewed with. From then on its
// lines are not counted in money: nothing that is reserved comes back. Repeated, it changes nothing.
func (s *Store) Close(ctx context.Context, tx pgx.Tx, contract protocol.ContractID, used protocol.Msat) error {
	a, err := readAccount(ctx, tx, contract)
	if err == nil && a != nil {
		err = s.closeAccount(ctx, tx, a, used)
	}
	return wrap(err, "close the account of contract %s", contract.Short())
}

func (s *Store) closeAccount(ctx context.Context, tx pgx.Tx, a *account, used protocol.Msat) error {
	// What is not posted yet is used all the same.
	e := entry{owed: used - a.owed - a.paid, reserved: -a.reserved}
	e.earned = -e.owed - e.reserved
	a.owed, a.earned, a.reserved, a.closed = a.owed+e.owed, a.earned+e.earned, 0, true
	if err := s.write(ctx, tx, a.bill, CauseClose, e); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE bills SET closed = true WHERE id = $1`, a.bill)
	return err
}

// Returned notes what came back under a contract that is closed, as its account was taken over by another: it had
// counted as used.
func (s *Store) Returned(ctx context.Context, tx pgx.Tx, contract protocol.ContractID, amount protocol.Msat) error {
	a, err := readAccount(ctx, tx, contract)
	if err == nil && a != nil && a.closed { // else its own lines say so
		err = s.write(ctx, tx, a.bill, CauseClose, entry{owed: -amount, earned: amount})
	}
	return wrap(err, "note what came back under contract %s", contract.Short())
}

// HandOver is how one contract takes the place of another.
type HandOver struct {
	From, To protocol.ContractID
	Used     protocol.Msat // under From, as for [Store.Close]
	PaidFrom protocol.Msat // of From's payments, what is not lost by the change
	PaidTo   protocol.Msat // by To's states
}

// HandOver moves what is owed under one contract to the one whose account it becomes.
func (s *Store) HandOver(ctx context.Context, tx pgx.Tx, h HandOver) error {
	from, err := readAccount(ctx, tx, h.From)
	if err == nil && from != nil {
		err = s.handOver(ctx, tx, from, h)
	}
	return wrap(err, "move what contract %s owes to %s", h.From.Short(), h.To.Short())
}

func (s *Store) handOver(ctx context.Context, tx pgx.Tx, from *account, h HandOver) error {
	to, err := readAccount(ctx, tx, h.To)
	if err == nil && to == nil {
		err = fmt.Errorf("contract %s has no bill", h.To.Short())
	}
	if err != nil {
		return err
	}
	if err := s.closeAccount(ctx, tx, from, h.Used); err != nil {
		return err
	}
	if err := s.received(ctx, tx, from, h.PaidFrom); err != nil {
		return err
	}
	if err := s.carry(ctx, tx, from.bill, to.bill, from.owed); err != nil {
		return err
	}
	if err := s.reopen(ctx, tx, to); err != nil {
		return err
	}
	return s.received(ctx, tx, to, h.PaidTo)
}

// Carry moves a part of what is owed under one contract to the one that renewed it; below 0: back.
func (s *Store) Carry(ctx context.Context, tx pgx.Tx, from, to protocol.ContractID, amount protocol.Msat) error {
	a, err := readAccount(ctx, tx, from)
	if err != nil || a == nil {
		return wrap(err, "move what contract %s owes to %s", from.Short(), to.Short())
	}
	b, err := readAccount(ctx, tx, to)
	if err == nil && b == nil {
		err = fmt.Errorf("contract %s has no bill", to.Short())
	}
	if err == nil {
		err = s.carry(ctx, tx, a.bill, b.bill, amount)
	}
	return wrap(err, "move what contract %s owes to %s", from.Short(), to.Short())
}

// carry moves an amount that is owed from one bill to another.
func (s *Store) carry(ctx context.Context, tx pgx.Tx, from, to int64, amount protocol.Msat) error {
	if err := s.write(ctx, tx, from, CauseRenewal, entry{owed: -amount, carried: amount}); err != nil {
		return err
	}
	return s.write(ctx, tx, to, CauseRenewal, entry{owed: amount, carried: -amount})
}

// reopen counts a bill in money again that was closed: its renewal was undone.
func (s *Store) reopen(ctx context.Context, tx pgx.Tx, a *account) error {
	if !a.closed {
		return nil
	}
	states, err := lockBills(ctx, tx, []int64{a.bill})
	if err != nil {
		return err
	}
	now, err := moneyOf(states[0].prices, states[0].totals)
	if err != nil {
		return err
	}
	reserved := now.all - now.used
	if err := s.write(ctx, tx, a.bill, CauseClose, entry{reserved: -reserved, earned: reserved}); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE bills SET closed = false WHERE id = $1`, a.bill)
	return err
}

// Lose writes off what a contract still owes: it is over, and nothing will be paid any more. Repeated, it changes nothing.
func (s *Store) Lose(ctx context.Context, tx pgx.Tx, contract protocol.ContractID) error {
	a, err := readAccount(ctx, tx, contract)
	if err == nil && a != nil && a.owed > 0 {
		err = s.write(ctx, tx, a.bill, CauseLoss, entry{writtenOff: a.owed, owed: -a.owed})
	}
	return wrap(err, "write off what contract %s owes", contract.Short())
}
