package books

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Charge is what one write would use.
type Charge struct {
	Owner   protocol.PublicKey // whose account pays: the writer, or the receiver who admits him
	Writer  protocol.PublicKey
	Bytes   int64 // of the envelope
	Pulls   int64 // reserved
	Expires protocol.Timestamp
	Tag     *protocol.Tag
	Sealed  bool // the content is sealed: the relay cannot read it
}

func (c Charge) moved() int64 { return c.Bytes * (1 + c.Pulls) }

// Batch decides on the charges of one transaction. It holds the accounts' rows from [Store.Lock]
// to the end of the transaction, so its decisions are exact.
type Batch struct {
	now      time.Time
	payers   payers
	admitted map[admission]*admittedUse
	facts    []fact // for the ledger
	lapses   []Release
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

func (s *Store) newBatch() *Batch {
	return &Batch{now: s.clock(), admitted: make(map[admission]*admittedUse),
		payers: payers{writers: make(map[protocol.PublicKey]protocol.PublicKey), accounts: make(map[protocol.PublicKey]*use)}}
}

// Lock reads the accounts that may pay, and locks them in the order of their keys, which is the
// one order everywhere. Admissions are read for those charges whose writer is not the owner.
//
// It runs in the caller's transaction, and the caller must end with [Batch.Save]: a write and what
// it costs are one effect.
func (s *Store) Lock(ctx context.Context, tx pgx.Tx, charges []Charge) (*Batch, error) {
	b := s.newBatch()
	owners := make(map[protocol.PublicKey]struct{}, len(charges))
	for _, c := range charges {
		owners[c.Owner] = struct{}{}
		if c.Writer != c.Owner {
			b.admitted[admission{c.Owner, c.Writer}] = nil
		}
	}
	keys := sortedKeys(owners)
	round := &pgx.Batch{}
	b.payers.read(round, keys)
	b.queue(round, payableBy, keys)
	if err := tx.SendBatch(ctx, round).Close(); err != nil {
		return nil, err
	}
	for owner := range owners {
		s.delegates.learn(owner, b.payers.of(owner))
	}
	return b, b.lockAdmitted(ctx, tx)
}

// LockAccount is [Store.Lock] for one account and no charge.
func (s *Store) LockAccount(ctx context.Context, tx pgx.Tx, key protocol.PublicKey) (*Batch, error) {
	return s.Lock(ctx, tx, []Charge{{Owner: key, Writer: key}})
}

// LockHeld is [Store.Lock] for what was charged before, to [Batch.Release] it.
func (s *Store) LockHeld(ctx context.Context, tx pgx.Tx, held []Held) (*Batch, error) {
	b := s.newBatch()
	accounts := make(map[protocol.PublicKey]struct{}, len(held))
	for _, h := range held {
		accounts[h.Account] = struct{}{}
		if h.Admitted != nil {
			b.admitted[admission{*h.Admitted, h.Writer}] = nil
		}
	}
	round := &pgx.Batch{}
	b.queue(round, `SELECT `+accountColumns+` FROM accounts WHERE key = ANY($1) ORDER BY key FOR UPDATE`, sortedKeys(accounts))
	if err := tx.SendBatch(ctx, round).Close(); err != nil {
		return nil, err
	}
	return b, b.lockAdmitted(ctx, tx)
}

func (b *Batch) queue(round *pgx.Batch, sql string, keys [][]byte) {
	round.Queue(sql, keys).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Account, error) { return scanAt(row, b.now) })
		for _, a := range found {
			b.payers.accounts[a.Key] = &use{account: a, month: max(monthOf(b.now), parseMonth(a.Month))}
		}
		return err
	})
}

func (b *Batch) lockAdmitted(ctx context.Context, tx pgx.Tx) error {
	if len(b.admitted) == 0 {
		return nil
	}
	var owners, keys [][]byte
	for a := range b.admitted {
		owners, keys = append(owners, bytes.Clone(a.owner[:])), append(keys, bytes.Clone(a.key[:]))
	}
	// The account is locked, but an owner's account may have been another when what is released was charged.
	rows, err := tx.Query(ctx, `
		SELECT a.owner, a.key, a.max_bytes, a.max_records, a.used_bytes, a.used_records
		FROM unnest($1::bytea[], $2::bytea[]) AS t (owner, key) JOIN admissions a USING (owner, key)
		ORDER BY a.owner, a.key FOR UPDATE OF a`, owners, keys)
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

// payer is the account of an owner; nil if there is none.
func (b *Batch) payer(owner protocol.PublicKey) *use { return b.payers.accounts[b.payers.of(owner)] }

// Payer is the key of the account that pays for an owner.
func (b *Batch) Payer(owner protocol.PublicKey) protocol.PublicKey { return b.payers.of(owner) }

// Bill is the bill that a charge to an owner's account is on; 0: none, it is a grant's.
func (b *Batch) Bill(owner protocol.PublicKey) int64 {
	if u := b.payer(owner); u != nil && u.account.Contract != nil {
		return u.account.bill
	}
	return 0
}

// Active tells whether a key has an account that takes writes today.
func (b *Batch) Active(key protocol.PublicKey) bool {
	u := b.payer(key)
	return u != nil && u.account.Active
}

// Refusal is why a key that is not active is refused: [protocol.CodeContractEnded] or [protocol.CodeNoAccount].
func (b *Batch) Refusal(key protocol.PublicKey) error {
	if u := b.payer(key); u != nil && u.account.Contract != nil {
		return protocol.Errorf(protocol.CodeContractEnded, "the contract %s takes no new writes: open another, or renew it in time", u.account.Contract.ID.Short())
	}
	return NoAccount(key)
}

// Admits tells whether an active account lets a key leave records on its cost. It is known of the
// charges that [Store.Lock] was given.
func (b *Batch) Admits(owner, key protocol.PublicKey) bool {
	adm := b.admitted[admission{owner, key}]
	return b.Active(owner) && adm != nil && adm.Records > 0
}

// Counted is the instant that a charge of this batch counts at, for [Release]: now, or the beginning
// of the account's month or contract when the clock of the process that began it was ahead.
func (b *Batch) Counted(owner protocol.PublicKey) time.Time {
	u := b.payer(owner)
	if u == nil {
		return b.now
	}
	return u.counted(b.now)
}

func (u *use) counted(at time.Time) time.Time {
	if u.month > monthOf(at) {
		at = time.Date(u.month/100, time.Month(u.month%100), 1, 0, 0, 0, 0, time.UTC)
	}
	if c := u.account.Contract; c != nil && c.Since.After(at) {
		at = c.Since
	}
	return at
}

// Charge takes what a write uses, or refuses with [protocol.CodeNoAccount], [protocol.CodeContractEnded],
// [protocol.CodePaymentDue], [protocol.CodeOffTopic], [protocol.CodeUnreadable], [protocol.CodeQuotaStored], [protocol.CodeQuotaMoved] or
// [protocol.CodeQuotaAdmitted]. A refused charge changes nothing.
func (b *Batch) Charge(c Charge) error {
	var adm *admittedUse
	if c.Writer != c.Owner {
		adm = b.admitted[admission{c.Owner, c.Writer}]
		if !b.Active(c.Owner) || adm == nil || adm.Records == 0 {
			return NoAccount(c.Writer)
		}
		if adm.UsedBytes+c.Bytes > adm.Bytes || adm.UsedRecords+1 > adm.Records {
			return protocol.Errorf(protocol.CodeQuotaAdmitted, "%d of %d bytes and %d of %d records are used until they expire",
				adm.UsedBytes, adm.Bytes, adm.UsedRecords, adm.Records)
		}
	}
	if !b.Active(c.Owner) {
		return b.Refusal(c.Owner)
	}
	u := b.payer(c.Owner)
	if err := u.pay(c, b.now); err != nil {
		return err
	}
	u.account.Stored += c.Bytes
	u.account.Moved += c.moved()
	if at := u.counted(b.now); u.account.latest.Before(at) {
		u.account.latest = at
	}
	u.changed = true
	if adm != nil {
		adm.use(c.Bytes, 1)
	}
	return nil
}

func (a *admittedUse) use(bytes, records int64) {
	a.UsedBytes, a.UsedRecords = max(a.UsedBytes+bytes, 0), max(a.UsedRecords+records, 0)
	a.changed = true
}

// pay checks the quotas of a grant, and takes from the credit of a contract.
func (u *use) pay(c Charge, now time.Time) error {
	if contract := u.account.Contract; contract != nil {
		return contract.take(ledger.Reserved(c.Bytes, c.Pulls, u.counted(now), c.Expires.Time()))
	}
	if err := u.account.Bound.takes(c); err != nil {
		return err
	}
	if u.account.Stored+c.Bytes > u.account.QuotaStored {
		return protocol.Errorf(protocol.CodeQuotaStored, "%d of %d bytes are stored, this record has %d: delete some or wait for them to expire",
			u.account.Stored, u.account.QuotaStored, c.Bytes)
	}
	if u.account.Moved+c.moved() > u.account.QuotaMoved {
		return protocol.Errorf(protocol.CodeQuotaMoved, "%d of %d bytes of this month are used, this record reserves %d with its pulls: allow fewer pulls",
			u.account.Moved, u.account.QuotaMoved, c.moved())
	}
	return nil
}

// take adds to what is used if its cost stays within the credit.
func (c *ContractUse) take(u ledger.Usage) error {
	total, err := c.Used.Plus(u)
	if err != nil {
		return protocol.Errorf(protocol.CodePaymentDue, "%s", err)
	}
	cost, err := c.Prices.Cost(total)
	if err != nil || cost > c.Credit {
		alone, _ := c.Prices.Cost(u)
		return protocol.Errorf(protocol.CodePaymentDue, "%d of %d msat of credit are used, this record reserves %d: pay, or allow fewer pulls and an earlier expiry",
			c.Cost, c.Credit, alone)
	}
	c.Used, c.Cost = total, cost
	return nil
}

// Held is what stands under a record that was charged.
type Held struct {
	Account  protocol.PublicKey // that was charged
	Writer   protocol.PublicKey
	Admitted *protocol.PublicKey // who admitted the writer; nil: nobody, it was on the writer's own account or contract
}

// Release is what comes back when a record ends.
type Release struct {
	Held
	Record  Billed
	Bytes   int64
	Pulls   int64              // those that were reserved and never made
	Written time.Time          // when it was charged, see [Batch.Counted]
	Ended   protocol.Timestamp // deleted or pulled for the last time, at most Expires
	Expires protocol.Timestamp
}

// Release gives back. Moved bytes of a grant come back only within the month they were counted in; to a contract comes
// back what was charged under it.
func (b *Batch) Release(r Release) {
	if u := b.payers.accounts[r.Account]; u != nil {
		u.account.Stored = max(u.account.Stored-r.Bytes, 0)
		if monthOf(r.Written) == u.month {
			u.account.Moved = max(u.account.Moved-r.Bytes*r.Pulls, 0)
		}
		// A record that was taken off the bill gave everything back then.
		if c := u.account.Contract; c != nil && !r.Written.Before(c.Since) && r.Record.Bill == u.account.bill {
			// Counters of which less is left than comes back are not of this code's making: nothing is given then.
			if left, ok := c.Used.Minus(ledger.Unused(r.Bytes, r.Pulls, r.Written, r.Ended.Time(), r.Expires.Time())); ok {
				c.Used = left
			}
		}
		u.changed = true
	}
	b.end(r)
	if r.Admitted == nil {
		return
	}
	if adm := b.admitted[admission{*r.Admitted, r.Writer}]; adm != nil {
		adm.use(-r.Bytes, -1)
	}
}

// Save writes what the batch changed, in one round trip: accounts, admissions and what the ledger is to say of it.
func (b *Batch) Save(ctx context.Context, tx pgx.Tx) error {
	if err := b.takeLapses(ctx, tx); err != nil {
		return err
	}
	round := &pgx.Batch{}
	b.saveAccounts(round)
	b.saveAdmitted(round)
	b.saveFacts(round)
	if round.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, round).Close()
}

func (b *Batch) saveAccounts(round *pgx.Batch) {
	var keys [][]byte
	var stored, moved, latest []int64
	var months []int32
	var usedStored, usedMoved []*string
	for k, u := range b.payers.accounts {
		if u == nil || !u.changed {
			continue
		}
		keys, stored = append(keys, bytes.Clone(k[:])), append(stored, u.account.Stored)
		moved, months = append(moved, u.account.Moved), append(months, int32(u.month))
		latest = append(latest, u.account.latest.UnixMilli())
		var s, m *string // null: as it is
		if c := u.account.Contract; c != nil {
			bytesTime, bytesMoved := c.Used.Stored.String(), c.Used.Moved.String()
			s, m = &bytesTime, &bytesMoved
		}
		usedStored, usedMoved = append(usedStored, s), append(usedMoved, m)
	}
	if len(keys) > 0 {
		round.Queue(`
			UPDATE accounts a SET stored = t.stored, moved = t.moved, month = t.month, latest = t.latest,
			  used_stored = coalesce(t.used_stored::numeric, a.used_stored), used_moved = coalesce(t.used_moved::numeric, a.used_moved)
			FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::integer[], $5::bigint[], $6::text[], $7::text[])
			  AS t (key, stored, moved, month, latest, used_stored, used_moved)
			WHERE a.key = t.key`, keys, stored, moved, months, latest, usedStored, usedMoved)
	}
}

func (b *Batch) saveAdmitted(round *pgx.Batch) {
	var owners, keys [][]byte
	var used, records []int64
	for a, u := range b.admitted {
		if u != nil && u.changed {
			owners, keys = append(owners, bytes.Clone(a.owner[:])), append(keys, bytes.Clone(a.key[:]))
			used, records = append(used, u.UsedBytes), append(records, u.UsedRecords)
		}
	}
	if len(keys) == 0 {
		return
	}
	round.Queue(`
		UPDATE admissions a SET used_bytes = t.used_bytes, used_records = t.used_records
		FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[]) AS t (owner, key, used_bytes, used_records)
		WHERE a.owner = t.owner AND a.key = t.key`, owners, keys, used, records)
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
