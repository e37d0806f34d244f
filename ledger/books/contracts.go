package books

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// The methods of this file are for who runs contracts. They take his transaction, so that what becomes of a contract
// and of its account is one effect. Each names the contract: one that is over, or renewed, says nothing about the
// account any more, and gets [ErrNotInForce].

// ErrNotInForce: the payer's account is under another contract, or none.
var ErrNotInForce = errors.New("the account is not under this contract")

// Opening is a contract that becomes the account of its payer.
type Opening struct {
	ID      protocol.ContractID
	Payer   protocol.PublicKey
	Writers []protocol.PublicKey // whom it pays for beside the payer; each has consented
	Prices  ledger.Prices
	Renews  *protocol.ContractID // the contract in force that this one takes the place of
	// Pending is a contract whose funding is in no block yet: it takes nobody anything. A grant in force stays so, and who writes on
	// another's contract, be it the payer or a writer, still does, until the contract is opened again, not pending.
	Pending bool
}

// OpenContract makes the contract the account of its payer and writers. It takes writes as soon as it has credit,
// which is 0 until [Store.SetCredit]. It counts from 0: what was written before, under a grant or the contract that it
// renews, is not on its bill. Opened again, it keeps its count. It takes the place of a grant until it is closed. The error has code
// [protocol.CodeConflict] when the payer has another contract here that it does not renew.
func (s *Store) OpenContract(ctx context.Context, tx pgx.Tx, o Opening) error {
	if err := o.Prices.Validate(); err != nil {
		return fmt.Errorf("open contract %s: %w", o.ID.Short(), err)
	}
	var renews []byte
	if o.Renews != nil {
		renews = o.Renews[:]
	}
	// A record is on the bill if it was written from since on. Clocks of several processes differ, so since is
	// later than all that was charged here, whatever this clock says.
	tag, err := tx.Exec(ctx, `
		WITH b AS (INSERT INTO bills (contract, payer, storage_price, bandwidth_price) VALUES ($2, $1, $4, $5)
		  ON CONFLICT (contract) DO UPDATE SET payer = bills.payer RETURNING id)
		INSERT INTO accounts AS a (key, kind, quota_stored, quota_moved, last_day, contract, taking, since, storage_price, bandwidth_price, bill)
		SELECT $1, 'contract', 0, 0, '0001-01-01', $2, NOT ($7 AND EXISTS (SELECT FROM writers w JOIN accounts p ON p.key = w.account
		  WHERE w.key = $1 AND p.kind = 'contract' AND p.taking)), $3, $4, $5, id FROM b
		ON CONFLICT (key) DO UPDATE SET kind = 'contract', contract = $2, taking = excluded.taking, bill = excluded.bill,
		  since = greatest($3, a.latest + 1, a.since + 1), storage_price = $4, bandwidth_price = $5, credit = 0, used_stored = 0, used_moved = 0
		WHERE (a.contract IS NULL OR a.contract = $6)
		  AND NOT ($7 AND a.kind = 'grant' AND NOT a.revoked AND a.last_day >= $8::date)`,
		o.Payer[:], o.ID[:], s.clock().UnixMilli(), int64(o.Prices.Storage), int64(o.Prices.Bandwidth), renews, o.Pending, string(DayOf(s.clock())))
	if err != nil {
		return wrap(err, "open contract %s", o.ID.Short())
	}
	if tag.RowsAffected() == 0 {
		return s.opened(ctx, tx, o)
	}
	return wrap(s.setWriters(ctx, tx, o), "set the writers of contract %s", o.ID.Short())
}

// opened is [Store.OpenContract] where the account was left as it is: it is under this contract already, or has a grant that
// a pending one leaves in force.
func (s *Store) opened(ctx context.Context, tx pgx.Tx, o Opening) error {
	var current []byte
	if err := tx.QueryRow(ctx, `SELECT contract FROM accounts WHERE key = $1`, o.Payer[:]).Scan(&current); err != nil {
		return wrap(err, "open contract %s", o.ID.Short())
	}
	switch {
	case current == nil && o.Pending:
		return nil
	case bytes.Equal(current, o.ID[:]):
		// A pending one may have taken nothing, for another's contract did. What has used something was stopped for good.
		if _, err := tx.Exec(ctx, `UPDATE accounts SET taking = true WHERE key = $1 AND contract = $2 AND NOT $3
			AND NOT taking AND used_stored = 0 AND used_moved = 0`, o.Payer[:], o.ID[:], o.Pending); err != nil {
			return wrap(err, "open contract %s", o.ID.Short())
		}
		return wrap(s.setWriters(ctx, tx, o), "set the writers of contract %s", o.ID.Short())
	}
	return protocol.Errorf(protocol.CodeConflict, "%s has the contract %x here already: renew it, or close it first", o.Payer.Bech32(), current)
}

func (s *Store) setWriters(ctx context.Context, tx pgx.Tx, o Opening) error {
	if _, err := tx.Exec(ctx, `DELETE FROM writers WHERE account = $1`, o.Payer[:]); err != nil {
		return err
	}
	var keys [][]byte
	for _, w := range o.Writers {
		if w != o.Payer {
			keys = append(keys, bytes.Clone(w[:]))
		}
	}
	slices.SortFunc(keys, bytes.Compare) // one order for all who set writers
	keys = slices.CompactFunc(keys, bytes.Equal)
	_, err := tx.Exec(ctx, `INSERT INTO writers AS w (key, account) SELECT k, $2 FROM unnest($1::bytea[]) AS t (k)
		ON CONFLICT (key) DO UPDATE SET account = CASE WHEN $3 THEN w.account ELSE excluded.account END`, keys, o.Payer[:], o.Pending)
	return err
}

// SetCredit sets how much may be owed: a write is taken while the cost of all that is used and reserved is not more.
// That is the credit limit and what was paid for usage, less what is carried over from a contract before; it may be
// negative. What is stored already stays. The error may be [ErrNotInForce].
func (s *Store) SetCredit(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id protocol.ContractID, credit protocol.Msat) error {
	return inForce(ctx, tx, "set credit", id, `UPDATE accounts SET credit = $3 WHERE key = $1 AND contract = $2`, payer[:], id[:], int64(credit))
}

// StopTaking ends new writes: the contract nears its expiry, or is being closed. What is stored stays readable until
// it expires. The error may be [ErrNotInForce].
func (s *Store) StopTaking(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id protocol.ContractID) error {
	return inForce(ctx, tx, "stop taking writes", id, `UPDATE accounts SET taking = false WHERE key = $1 AND contract = $2`, payer[:], id[:])
}

// StartTaking undoes [Store.StopTaking]. The error may be [ErrNotInForce].
func (s *Store) StartTaking(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id protocol.ContractID) error {
	return inForce(ctx, tx, "take writes", id, `UPDATE accounts SET taking = true WHERE key = $1 AND contract = $2`, payer[:], id[:])
}

// CloseContract forgets a contract that is settled, with its writers: the payer may open another, or be given a
// grant; one that he had before and that has not ended is in force again, unless it was revoked, before or meanwhile. What is stored
// stays readable until it expires. The error may be [ErrNotInForce].
func (s *Store) CloseContract(ctx context.Context, tx pgx.Tx, payer protocol.PublicKey, id protocol.ContractID) error {
	if err := inForce(ctx, tx, "close", id, `UPDATE accounts SET taking = false, contract = NULL, bill = NULL,
		kind = CASE WHEN revoked OR last_day >= $3::date THEN 'grant' ELSE kind END WHERE key = $1 AND contract = $2`, payer[:], id[:], string(DayOf(s.clock()))); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM writers WHERE account = $1`, payer[:])
	return wrap(err, "remove the writers of contract %s", id.Short())
}

func inForce(ctx context.Context, tx pgx.Tx, what string, id protocol.ContractID, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNotInForce
	}
	return wrap(err, "%s of contract %s", what, id.Short())
}

// ContractUse is what a contract account has used.
type ContractUse struct {
	ID     protocol.ContractID
	Taking bool
	Prices ledger.Prices
	Credit protocol.Msat // that Cost may come to
	Since  time.Time     // records written before are not counted
	Used   ledger.Usage  // with what is reserved
	Cost   protocol.Msat // of Used, rounded up once
}

// Owed is what the payer's contract has used. Within a transaction that changed the account before, by
// [Store.StopTaking] say, it is final until the transaction ends; otherwise the next write changes it. The error may
// be [ErrNotInForce].
func (s *Store) Owed(ctx context.Context, q Querier, payer protocol.PublicKey, id protocol.ContractID) (ContractUse, error) {
	rows, err := q.Query(ctx, `SELECT `+accountColumns+` FROM accounts WHERE key = $1 AND contract = $2`, payer[:], id[:])
	if err != nil {
		return ContractUse{}, wrap(err, "read what contract %s owes", id.Short())
	}
	a, err := pgx.CollectExactlyOneRow(rows, s.scan)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotInForce
	}
	if err != nil {
		return ContractUse{}, wrap(err, "read what contract %s owes", id.Short())
	}
	return *a.Contract, nil
}

// Billed is what a contract's bill comes to by now. It is what the account had used under it, less what came back since of
// records that ended, be the account under this contract or a later one. ok is false while a record of it is not
// posted yet, or nothing is: then it says nothing.
func (s *Store) Billed(ctx context.Context, q Querier, id protocol.ContractID) (cost protocol.Msat, ok bool, err error) {
	rows, err := q.Query(ctx, `SELECT b.storage_price, b.bandwidth_price, b.last > 0 AND NOT EXISTS (
		SELECT FROM records r WHERE r.n > (SELECT n FROM ledger_posted) AND r.bill = b.id), `+totalsColumns+` FROM bills b WHERE contract = $1`, id[:])
	if err != nil {
		return 0, false, wrap(err, "read the bill of contract %s", id.Short())
	}
	var prices ledger.Prices
	var text [5]string
	var posted bool
	_, err = pgx.ForEachRow(rows, []any{&prices.Storage, &prices.Bandwidth, &posted, &text[0], &text[1], &text[2], &text[3], &text[4]}, func() error {
		totals, err := totalsOf(text)
		if err != nil || !posted {
			return err
		}
		all, err := totals.Reserved()
		if err != nil {
			return err
		}
		cost, err = prices.Cost(all)
		ok = err == nil
		return err
	})
	return cost, ok, wrap(err, "read the bill of contract %s", id.Short())
}

// Costs is what has been used, with what is reserved, under each contract that is an account: [ContractUse.Cost] of all.
func (s *Store) Costs(ctx context.Context, q Querier) (map[protocol.ContractID]protocol.Msat, error) {
	rows, err := q.Query(ctx, `SELECT `+accountColumns+` FROM accounts WHERE contract IS NOT NULL`)
	if err != nil {
		return nil, wrap(err, "read what contracts owe")
	}
	all, err := pgx.CollectRows(rows, s.scan)
	if err != nil {
		return nil, wrap(err, "read what contracts owe")
	}
	costs := make(map[protocol.ContractID]protocol.Msat, len(all))
	for _, a := range all {
		costs[a.Contract.ID] = a.Contract.Cost
	}
	return costs, nil
}
