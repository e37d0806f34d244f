package books

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// Charge is what one write would use.
type Charge struct {
	Account protocol.PublicKey // who pays
	Writer  protocol.PublicKey // who writes: Account itself, or a key it admits
	Bytes   int64              // of the envelope
	Pulls   int64              // reserved
}

func (c Charge) moved() int64 { return c.Bytes * (1 + c.Pulls) }

// Batch decides on the charges of one transaction. It holds the accounts' rows from [Store.Lock]
// to the end of the transaction, so its decisions are exact.
type Batch struct {
	now      time.Time
	accounts map[protocol.PublicKey]*use
	admitted map[admission]*admittedUse
}

type use struct {
	account Account
	month   int
	changed bool
}

type admission struct{ owner, key protocol.PublicKey }

type admittedUse struct {
	AdmittedUse
	changed bool
}

// Lock reads the accounts that will pay, and locks them in the order of their keys, which is the
// one order everywhere. Admissions are read for those charges whose writer is not the account.
//
// It runs in the caller's transaction, and the caller must end with [Batch.Save]: a write and what
// it costs are one effect.
func (s *Store) Lock(ctx context.Context, tx pgx.Tx, charges []Charge) (*Batch, error) {
	b := &Batch{now: s.clock(), accounts: make(map[protocol.PublicKey]*use), admitted: make(map[admission]*admittedUse)}
	for _, c := range charges {
		b.accounts[c.Account] = nil
		if c.Writer != c.Account {
			b.admitted[admission{c.Account, c.Writer}] = nil
		}
	}
	rows, err := tx.Query(ctx, `SELECT `+accountColumns+` FROM accounts WHERE key = ANY($1) ORDER BY key FOR UPDATE`, sortedKeys(b.accounts))
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Account, error) { return scanAt(row, b.now) })
	if err != nil {
		return nil, err
	}
	for _, a := range found {
		b.accounts[a.Key] = &use{account: a, month: max(monthOf(b.now), parseMonth(a.Month))}
	}
	if len(b.admitted) == 0 {
		return b, nil
	}
	return b, b.lockAdmitted(ctx, tx)
}

// LockAccount is [Store.Lock] for one account and no charge.
func (s *Store) LockAccount(ctx context.Context, tx pgx.Tx, key protocol.PublicKey) (*Batch, error) {
	return s.Lock(ctx, tx, []Charge{{Account: key, Writer: key}})
}

func (b *Batch) lockAdmitted(ctx context.Context, tx pgx.Tx) error {
	var owners, keys [][]byte
	for a := range b.admitted {
		owners, keys = append(owners, bytes.Clone(a.owner[:])), append(keys, bytes.Clone(a.key[:]))
	}
	// The owner's account is locked, and nothing else changes his admissions: no lock of their own.
	rows, err := tx.Query(ctx, `
		SELECT a.owner, a.key, a.max_bytes, a.max_records, a.used_bytes, a.used_records
		FROM unnest($1::bytea[], $2::bytea[]) AS t (owner, key) JOIN admissions a USING (owner, key)`, owners, keys)
	if err != nil {
		return err
	}
	var owner, key []byte
	var u AdmittedUse
	_, err = pgx.ForEachRow(rows, []any{&owner, &key, &u.Bytes, &u.Records, &u.UsedBytes, &u.UsedRecords}, func() error {
		a := admission{protocol.PublicKey(owner), protocol.PublicKey(key)}
		u.Key = a.key
		b.admitted[a] = &admittedUse{AdmittedUse: u}
		return nil
	})
	return err
}

// Active tells whether a key has an account that takes writes today.
func (b *Batch) Active(key protocol.PublicKey) bool {
	u := b.accounts[key]
	return u != nil && u.account.Active
}

// Admits tells whether an active account lets a key leave records on its cost. It is known of the
// charges that [Store.Lock] was given.
func (b *Batch) Admits(owner, key protocol.PublicKey) bool {
	adm := b.admitted[admission{owner, key}]
	return b.Active(owner) && adm != nil && adm.Records > 0
}

// Counted is the instant that a charge of this batch counts at, for [Release]: now, or the beginning
// of the account's month when the clock of the process that charged before was ahead.
func (b *Batch) Counted(account protocol.PublicKey) time.Time {
	u := b.accounts[account]
	if u == nil || u.month <= monthOf(b.now) {
		return b.now
	}
	return time.Date(u.month/100, time.Month(u.month%100), 1, 0, 0, 0, 0, time.UTC)
}

// Charge takes what a write uses, or refuses with [protocol.CodeNoAccount],
// [protocol.CodeQuotaStored], [protocol.CodeQuotaMoved] or [protocol.CodeQuotaAdmitted]. A refused
// charge changes nothing.
func (b *Batch) Charge(c Charge) error {
	if !b.Active(c.Account) {
		return NoAccount(c.Writer)
	}
	u := b.accounts[c.Account]
	var adm *admittedUse
	if c.Writer != c.Account {
		adm = b.admitted[admission{c.Account, c.Writer}]
		if adm == nil || adm.Records == 0 {
			return NoAccount(c.Writer)
		}
		if adm.UsedBytes+c.Bytes > adm.Bytes || adm.UsedRecords+1 > adm.Records {
			return protocol.Errorf(protocol.CodeQuotaAdmitted, "%d of %d bytes and %d of %d records are used until they expire",
				adm.UsedBytes, adm.Bytes, adm.UsedRecords, adm.Records)
		}
	}
	if u.account.Stored+c.Bytes > u.account.QuotaStored {
		return protocol.Errorf(protocol.CodeQuotaStored, "%d of %d bytes are stored, this record has %d: delete some or wait for them to expire",
			u.account.Stored, u.account.QuotaStored, c.Bytes)
	}
	if u.account.Moved+c.moved() > u.account.QuotaMoved {
		return protocol.Errorf(protocol.CodeQuotaMoved, "%d of %d bytes of this month are used, this record reserves %d with its pulls: allow fewer pulls",
			u.account.Moved, u.account.QuotaMoved, c.moved())
	}
	u.account.Stored += c.Bytes
	u.account.Moved += c.moved()
	u.changed = true
	if adm != nil {
		adm.UsedBytes += c.Bytes
		adm.UsedRecords++
		adm.changed = true
	}
	return nil
}

// Release is what comes back when a record ends.
type Release struct {
	Charge            // Pulls: those that were reserved and never made
	Written time.Time // when it was charged
}

// Release gives back. Moved bytes come back only within the month they were counted in.
func (b *Batch) Release(r Release) {
	if u := b.accounts[r.Account]; u != nil {
		u.account.Stored = max(u.account.Stored-r.Bytes, 0)
		if monthOf(r.Written) == u.month {
			u.account.Moved = max(u.account.Moved-r.Bytes*r.Pulls, 0)
		}
		u.changed = true
	}
	if r.Writer == r.Account {
		return
	}
	if adm := b.admitted[admission{r.Account, r.Writer}]; adm != nil {
		adm.UsedBytes = max(adm.UsedBytes-r.Bytes, 0)
		adm.UsedRecords = max(adm.UsedRecords-1, 0)
		adm.changed = true
	}
}

// Save writes what the batch changed: one statement for accounts, one for admissions.
func (b *Batch) Save(ctx context.Context, tx pgx.Tx) error {
	var keys [][]byte
	var stored, moved []int64
	var months []int32
	for k, u := range b.accounts {
		if u != nil && u.changed {
			keys, stored = append(keys, bytes.Clone(k[:])), append(stored, u.account.Stored)
			moved, months = append(moved, u.account.Moved), append(months, int32(u.month))
		}
	}
	if len(keys) > 0 {
		if _, err := tx.Exec(ctx, `
			UPDATE accounts a SET stored = t.stored, moved = t.moved, month = t.month
			FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::integer[]) AS t (key, stored, moved, month)
			WHERE a.key = t.key`, keys, stored, moved, months); err != nil {
			return err
		}
	}
	return b.saveAdmitted(ctx, tx)
}

func (b *Batch) saveAdmitted(ctx context.Context, tx pgx.Tx) error {
	var owners, keys [][]byte
	var used, records []int64
	for a, u := range b.admitted {
		if u != nil && u.changed {
			owners, keys = append(owners, bytes.Clone(a.owner[:])), append(keys, bytes.Clone(a.key[:]))
			used, records = append(used, u.UsedBytes), append(records, u.UsedRecords)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		UPDATE admissions a SET used_bytes = t.used_bytes, used_records = t.used_records
		FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[]) AS t (owner, key, used_bytes, used_records)
		WHERE a.owner = t.owner AND a.key = t.key`, owners, keys, used, records)
	return err
}

func sortedKeys[V any](m map[protocol.PublicKey]V) [][]byte {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b protocol.PublicKey) int { return bytes.Compare(a[:], b[:]) })
	raw := make([][]byte, len(keys))
	for i := range keys {
		raw[i] = keys[i][:]
	}
	return raw
}

func parseMonth(s string) int {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return 0
	}
	return monthOf(t)
}
