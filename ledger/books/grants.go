package books

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/protocol"
)

// MaxQuota bounds a quota in bytes, so that sums of quotas and uses never overflow an int64.
const MaxQuota = protocol.MaxInteger

// maxNote bounds an operator's note in bytes.
const maxNote = 200

// Day is a calendar day in UTC, as 2026-01-31.
type Day string

// ParseDay checks that s is a day of the calendar.
func ParseDay(s string) (Day, error) {
	if t, err := time.Parse(time.DateOnly, s); err != nil || t.Year() < 1 {
		return "", fmt.Errorf("%q is not a day: write it as 2026-01-31", s)
	}
	return Day(s), nil
}

// DayOf is the day of an instant, in UTC.
func DayOf(t time.Time) Day { return Day(t.UTC().Format(time.DateOnly)) }

// Grant is an operator's promise to serve a key.
type Grant struct {
	Key         protocol.PublicKey
	QuotaStored int64 // envelope bytes at once
	QuotaMoved  int64 // bytes a calendar month
	LastDay     Day   // last day on which writes are taken
	Note        string
}

// Validate checks bounds. Errors have code [protocol.CodeInvalidValue].
func (g Grant) Validate() error {
	if err := g.Key.Validate(); err != nil {
		return err
	}
	if g.QuotaStored < 0 || g.QuotaStored > MaxQuota || g.QuotaMoved < 0 || g.QuotaMoved > MaxQuota {
		return protocol.Errorf(protocol.CodeInvalidValue, "a quota is 0 to %d bytes", int64(MaxQuota))
	}
	if _, err := ParseDay(string(g.LastDay)); err != nil {
		return protocol.Errorf(protocol.CodeInvalidValue, "%v", err)
	}
	if len(g.Note) > maxNote {
		return protocol.Errorf(protocol.CodeInvalidValue, "a note has at most %d bytes", maxNote)
	}
	return nil
}

// Kind is how an account pays.
type Kind string

// The kinds of accounts.
const (
	KindGrant    Kind = "grant"    // it does not: the operator gives it quotas
	KindContract Kind = "contract" // by a contract
)

// Account is a grant or a contract, and what was used of it.
type Account struct {
	Grant    // Key: the payer's; of a contract account the rest is what it was before, or zero
	Kind     Kind
	Bound    Bound        // of a grant that a volunteer gave
	Contract *ContractUse // of a contract account until the contract is closed, otherwise nil
	Revoked  bool         // the grant, also one that a contract took the place of
	Active   bool         // writes are taken today, as far as quotas or credit go
	Stored   int64        // bytes
	Moved    int64        // bytes in Month, reserved pulls included
	Month    string       // as 2026-01
	Admitted []AdmittedUse

	latest time.Time // when the last record charged to it was written
	bill   int64     // that it charges now; 0: none
}

// AdmittedUse is a key that the account admits, and what it has stored here now.
type AdmittedUse struct {
	protocol.Admitted
	UsedBytes   int64
	UsedRecords int64
}

// Config is what a [Store] needs.
type Config struct {
	DB     *db.DB
	Clock  func() time.Time
	Logger *slog.Logger // what [Store.Run] cannot do at the moment and tries again; nil is silent
}

// Store is the accounts of one relay. It is safe for concurrent use.
type Store struct {
	db        *db.DB
	clock     func() time.Time
	log       *slog.Logger
	delegates *delegates
	sums      sums // of all contracts, for the metrics

	dead       atomic.Int64 // rows taken off the queues of the poster since it vacuumed them
	vacuumFrom atomic.Int64 // when it may again, in nanoseconds of Unix
}

// New makes a store; it does not touch the database.
func New(cfg Config) *Store {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{db: cfg.DB, clock: cfg.Clock, log: cfg.Logger, delegates: &delegates{}}
}

// Put makes or changes a grant. What was used stays counted; a revoked grant is in force again, and one that a volunteer gave is bound
// to nothing any more. The error has code
// [protocol.CodeConflict] when the key pays by a contract.
func (s *Store) Put(ctx context.Context, g Grant) error {
	if err := g.Validate(); err != nil {
		return err
	}
	tag, err := s.db.Pool().Exec(ctx, `
		INSERT INTO accounts AS a (key, kind, quota_stored, quota_moved, last_day, note)
		VALUES ($1, 'grant', $2, $3, $4::date, $5)
		ON CONFLICT (key) DO UPDATE SET quota_stored = $2, quota_moved = $3, last_day = $4::date, note = $5, revoked = false, kind = 'grant',
		  volunteer = '', topic = NULL, plaintext = false, ads = false
		WHERE a.contract IS NULL`,
		g.Key[:], g.QuotaStored, g.QuotaMoved, string(g.LastDay), g.Note)
	if err == nil && tag.RowsAffected() == 0 {
		return protocol.Errorf(protocol.CodeConflict, "%s pays by contract: a grant can follow when the contract is settled", g.Key.Bech32())
	}
	return wrap(err, "grant %s", g.Key)
}

// Revoke ends a grant: no new writes, what is stored stays readable until it expires. One that a contract took the place of is ended
// too, and does not come back after it; the contract goes on. The error has code [protocol.CodeNotFound] when there is no such grant.
func (s *Store) Revoke(ctx context.Context, key protocol.PublicKey) error {
	tag, err := s.db.Pool().Exec(ctx, `UPDATE accounts SET revoked = true
		WHERE key = $1 AND (kind = 'grant' OR last_day > '0001-01-01')`, key[:])
	if err == nil && tag.RowsAffected() == 0 {
		return protocol.Errorf(protocol.CodeNotFound, "%s has no grant", key.Bech32())
	}
	return wrap(err, "revoke %s", key)
}

const accountColumns = `key, quota_stored, quota_moved, last_day::text, note, revoked, stored, moved, month, kind, latest,
	contract, taking, since, credit, storage_price, bandwidth_price, used_stored::text, used_moved::text, coalesce(bill, 0),
	volunteer, coalesce(topic, ''), plaintext, ads`

func (s *Store) scan(row pgx.CollectableRow) (Account, error) { return scanAt(row, s.clock()) }

func scanAt(row pgx.CollectableRow, now time.Time) (Account, error) {
	var a Account
	var c ContractUse
	var key, contract []byte
	var month int
	var latest, since int64
	var storedText, movedText string
	err := row.Scan(&key, &a.QuotaStored, &a.QuotaMoved, &a.LastDay, &a.Note, &a.Revoked, &a.Stored, &a.Moved, &month, &a.Kind, &latest,
		&contract, &c.Taking, &since, &c.Credit, &c.Prices.Storage, &c.Prices.Bandwidth, &storedText, &movedText, &a.bill,
		&a.Bound.For, &a.Bound.Topic, &a.Bound.Plaintext, &a.Bound.Ads)
	if err != nil {
		return a, err
	}
	copy(a.Key[:], key)
	if current := monthOf(now); month < current {
		a.Moved, month = 0, current // nothing was used in this month yet
	}
	a.Month = fmt.Sprintf("%04d-%02d", month/100, month%100)
	a.latest = time.UnixMilli(latest)
	if a.Kind == KindGrant {
		a.Active = !a.Revoked && a.LastDay >= DayOf(now)
		return a, nil
	}
	if contract == nil {
		return a, nil // closed
	}
	a.Active = c.Taking
	c.Since = time.UnixMilli(since)
	copy(c.ID[:], contract)
	if err := errors.Join(c.Used.Stored.UnmarshalText([]byte(storedText)), c.Used.Moved.UnmarshalText([]byte(movedText))); err != nil {
		return a, err
	}
	a.Contract = &c
	c.Cost, err = c.Prices.Cost(c.Used)
	return a, err
}

// List is all grants in the order of their keys, without those they admit.
func (s *Store) List(ctx context.Context) ([]Account, error) {
	rows, err := s.db.Pool().Query(ctx, `SELECT `+accountColumns+` FROM accounts WHERE kind = 'grant' ORDER BY key`)
	if err != nil {
		return nil, wrap(err, "list grants")
	}
	all, err := pgx.CollectRows(rows, s.scan)
	return all, wrap(err, "list grants")
}

// Get is the account that pays for a key, its own or that of a contract which lists it, with those whom the key
// admits. The error has code [protocol.CodeNoAccount] when there is none.
func (s *Store) Get(ctx context.Context, key protocol.PublicKey) (Account, error) {
	p := payers{writers: make(map[protocol.PublicKey]protocol.PublicKey), accounts: make(map[protocol.PublicKey]*use)}
	b := &pgx.Batch{}
	p.read(b, [][]byte{key[:]})
	b.Queue(strings.TrimSuffix(payableBy, " FOR UPDATE"), [][]byte{key[:]}).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, s.scan)
		for _, a := range found {
			p.accounts[a.Key] = &use{account: a}
		}
		return err
	})
	if err := s.db.Pool().SendBatch(ctx, b).Close(); err != nil {
		return Account{}, wrap(err, "read account of %s", key)
	}
	u := p.accounts[p.of(key)]
	if u == nil {
		return Account{}, NoAccount(key)
	}
	var err error
	u.account.Admitted, err = s.admitted(ctx, key)
	return u.account, err
}

// NoAccount is the refusal of a key that nobody pays for, with code [protocol.CodeNoAccount].
func NoAccount(key protocol.PublicKey) error {
	return protocol.Errorf(protocol.CodeNoAccount, "%s has no account on this relay: open a contract, or ask its operator for space", key.Bech32())
}

// wrap names what was tried; failures that a client can wait out keep their code.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, db.Refusal(err))...)
}

// monthOf is year·100 + month, in UTC, the form in which accounts count.
func monthOf(t time.Time) int {
	y, m, _ := t.UTC().Date()
	return y*100 + int(m)
}
