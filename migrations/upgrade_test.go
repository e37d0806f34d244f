package migrations

import (
	"bytes"
	"database/sql"
	"fmt"
	"testing"

	"github.com/pressly/goose/v3"

	"relaymarket/internal/testpg"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// old is a database of an earlier schema, with contracts as that had them.
type old struct {
	t        *testing.T
	url      string
	db       *sql.DB
	provider *goose.Provider
}

// newOld makes an empty one.
func newOld(t *testing.T, schema int64) *old {
	o := &old{t: t, url: testpg.New(t)}
	var err error
	if o.db, err = sql.Open("pgx", o.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.db.Close() })
	if o.provider, err = goose.NewProvider(goose.DialectPostgres, o.db, steps, goose.WithDisableGlobalRegistry(true)); err != nil {
		t.Fatal(err)
	}
	o.up(schema)
	return o
}

func (o *old) up(schema int64) {
	o.t.Helper()
	if _, err := o.provider.UpTo(o.t.Context(), schema); err != nil {
		o.t.Fatal(err)
	}
}

func (o *old) down(schema int64) error {
	_, err := o.provider.DownTo(o.t.Context(), schema)
	return err
}

func (o *old) exec(query string, args ...any) {
	o.t.Helper()
	if _, err := o.db.ExecContext(o.t.Context(), query, args...); err != nil {
		o.t.Fatalf("%s: %v", query, err)
	}
}

func id(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

// contract makes one that was opened on 2026-03-0n with its bill; the prices are 1 msat a byte moved and 1 msat a byte
// stored for a day.
func (o *old) contract(n byte, state string, amount, carried int64, final any) {
	o.t.Helper()
	o.exec(`INSERT INTO contracts (id, payer, state, terms, expiry, opened, request_hash, request, offer, signed_hash, psbt, funding, seq, amount, signature, carried, final_owed)
		VALUES ($1, $2, $3, '{"OpeningPrice": 5000}', 1, $4, '', '', '{}', '', '', $1, 0, $5, '', $6, $7)`,
		id(n), id(100+n), state, 1772323200000+int64(n-1)*86400000, amount, carried, final)
	o.exec(`INSERT INTO bills (contract, payer, storage_price, bandwidth_price, last, written, pulled, stored, reserved_pulled, reserved_stored)
		VALUES ($1, $2, 1000000000, 1000000000, 3, 1000, 500, 43200001, 2000, 86400000)`, id(n), id(100+n))
}

// Accounts are made of what a database has: of contracts in force what is posted, paid and carried; of those that ended what
// was final; what a renewal took; and what was lost. Each balances, and what is owed is what the contracts say.
func TestAccountsOfADatabaseWithData(t *testing.T) {
	o := newOld(t, 9)
	o.contract(1, "active", 5_007, 0, nil)            // 7,000 msat were paid
	o.contract(2, "closed", 5_002, 0, 9_000)          // of 9,000, 2,000 were paid: the rest is lost
	o.contract(3, "closed", 5_004, 0, 10_000)         // renewed by 4, whose funding took 3,000 of the 4,000
	o.contract(4, "active", 5_001, 7_000, nil)        // and which pays 1,000
	o.contract(5, "payment_requested", 5_000, 0, 100) // ends, with 100 to be paid
	o.contract(6, "closed", 5_009, 0, 8_000)          // paid ahead
	o.exec(`UPDATE contracts SET renewed_by = $2 WHERE id = $1`, id(3), id(4))
	o.exec(`UPDATE contracts SET renews = $1, renews_amount = 5003 WHERE id = $2`, id(3), id(4))
	for _, n := range []byte{1, 4} {
		o.exec(`INSERT INTO accounts (key, kind, quota_stored, quota_moved, last_day, contract, bill) SELECT $1, 'contract', 0, 0, '0001-01-01', $2, id FROM bills WHERE contract = $2`,
			id(100+n), id(n))
	}
	if err := Up(t.Context(), o.url); err != nil {
		t.Fatal(err)
	}
	// 1,500 bytes moved and a little more than half a byte-day: 1,501 used; 2,000 and a byte-day are reserved.
	for n, want := range map[byte]string{
		1: "owed -3498 earned -1501 reserved -2001 paid 7000 lost 0 carried 0 closed false day 2026-03-01",
		2: "owed 0 earned -9000 reserved 0 paid 2000 lost 7000 carried 0 closed true day 2026-03-02",
		3: "owed 0 earned -10000 reserved 0 paid 3000 lost 0 carried 7000 closed true day 2026-03-03",
		4: "owed 9502 earned -1501 reserved -2001 paid 1000 lost 0 carried -7000 closed false day 2026-03-04",
		5: "owed 100 earned -100 reserved 0 paid 0 lost 0 carried 0 closed true day 2026-03-05",
		6: "owed -1000 earned -8000 reserved 0 paid 9000 lost 0 carried 0 closed true day 2026-03-06",
	} {
		if got := o.account(n); got != want {
			t.Errorf("contract %d: %s, want %s", n, got, want)
		}
	}
	// The database itself refuses an entry that does not balance.
	_, err := o.db.ExecContext(t.Context(), `INSERT INTO ledger_entries SELECT id, '2026-03-01', 'loss', -1, 0, 0, 0, 2, 0 FROM bills WHERE contract = $1`, id(1))
	if err == nil {
		t.Error("an entry that does not balance was taken")
	}
	if _, err := o.db.ExecContext(t.Context(), `UPDATE ledger_entries SET owed = owed + 1`); err == nil {
		t.Error("an entry lost its balance")
	}
	if err := o.down(9); err != nil {
		t.Error(err)
	}
}

func (o *old) account(n byte) string {
	o.t.Helper()
	var owed, earned, reserved, paid, lost, carried int64
	var closed bool
	var day string
	err := o.db.QueryRowContext(o.t.Context(), `SELECT sum(owed), sum(earned), sum(reserved), sum(paid), sum(written_off), sum(carried), bool_or(closed), min(day)::text
		FROM ledger_entries e JOIN bills b ON b.id = e.bill WHERE contract = $1`, id(n)).Scan(&owed, &earned, &reserved, &paid, &lost, &carried, &closed, &day)
	if err != nil {
		o.t.Fatal(err)
	}
	return fmt.Sprintf("owed %d earned %d reserved %d paid %d lost %d carried %d closed %v day %s", owed, earned, reserved, paid, lost, carried, closed, day)
}
