package migrations

import (
	"strings"
	"testing"
)

// Pages from before they had turns go, but those that the ledger has yet to read; and a ledger that names pages is not handed to an older relayd, which
// would sweep them.
func TestPagesThatBillsName(t *testing.T) {
	o := newOld(t, 18)
	o.exec(`INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, got, got_at, turn)
		SELECT sha256('r'), 'page-' || i, 1, '{}', '', '', 0, '', '', 0, false, 1, '', 2, greatest(i - 2, 0) FROM generate_series(1, 4) i`)
	o.exec(`INSERT INTO ledger_acks (reader, page_id, upto, records, at) VALUES (sha256('r'), 'page-2', 1, 1, 2)`)
	pages := func() (ids string) {
		t.Helper()
		if err := o.db.QueryRowContext(t.Context(), `SELECT string_agg(page_id, ' ' ORDER BY page_id) FROM pages`).Scan(&ids); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	o.up(19)
	if got := pages(); got != "page-2 page-3 page-4" {
		t.Errorf("left are %s", got)
	}
	o.exec(`INSERT INTO bills (contract, payer, storage_price, bandwidth_price) VALUES (sha256('c'), sha256('p'), 1, 1)`)
	o.exec(`INSERT INTO ledger_blocks (bill, last, lines, acked) SELECT id, n, '', nullif(n, 2) FROM bills, generate_series(1, 2) n`)
	if err := o.down(18); err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("down: %v", err)
	}
	o.exec(`DELETE FROM ledger_blocks WHERE acked IS NOT NULL`)
	if err := o.down(18); err != nil {
		t.Fatal(err)
	}
	o.up(19)
	if got := pages(); got != "page-2 page-3 page-4" {
		t.Errorf("left are %s", got)
	}
}
