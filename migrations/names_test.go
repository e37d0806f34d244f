package migrations

import (
	"fmt"
	"strings"
	"testing"

	"relaymarket/ledger/books"
)

// A relay that was at work keeps its pages, on the way up and on the way down.
func TestPagesOfOlderRelays(t *testing.T) {
	o := newOld(t, 17)
	o.exec(`INSERT INTO pages (reader, page_id, made, ns, senders, ids, sizes, hashes, root, after_n, more, served, turn, bills)
		SELECT sha256('r'), 'page-' || k, 1, array_agg(i ORDER BY i), string_agg(sha256('s'), ''::bytea), array_agg('id-' || repeat('x', i) ORDER BY i), array_agg(7 * i * i * i ORDER BY i),
		  string_agg(sha256(i::text::bytea), ''::bytea), '', 0, false, 1, k, array_agg(5::bigint)
		FROM generate_series(1, 3) k, generate_series(1, 20 * k) i GROUP BY k`)
	o.exec(`INSERT INTO pages (reader, page_id, made, ns, senders, ids, sizes, hashes, root, after_n, more, served, turn) VALUES (sha256('r'), 'none', 1, '{}', '', '{}', '{}', '', '', 0, false, 1, 9)`)
	rows := func() (text string) {
		t.Helper()
		if err := o.db.QueryRowContext(t.Context(), `SELECT string_agg(concat_ws(' ', page_id, ns, encode(senders, 'hex'), ids, sizes, encode(hashes, 'hex'), bills), ', ' ORDER BY page_id) FROM pages`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := rows()
	o.up(18)
	for k, want := range map[int]int{1: 20, 2: 40, 3: 60} {
		var names []byte
		var sum, all int64
		if err := o.db.QueryRowContext(t.Context(), `SELECT names, bytes FROM pages WHERE page_id = $1`, fmt.Sprint("page-", k)).Scan(&names, &sum); err != nil {
			t.Fatal(err)
		}
		ids, sizes, err := books.ReadNames(names, want)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ids {
			all += int64(sizes[i])
			if n := i + 1; len(ids[i]) != len("id-")+n || sizes[i] != int32(7*n*n*n) {
				t.Errorf("page %d, record %d: %s, %d", k, n, ids[i], sizes[i])
			}
		}
		if all != sum {
			t.Errorf("page %d has %d bytes, and its records %d", k, sum, all)
		}
	}
	// A ledger that an older relayd could not read is not handed to it.
	o.exec(`INSERT INTO bills (contract, payer, storage_price, bandwidth_price) VALUES (sha256('c'), sha256('p'), 1, 1)`)
	o.exec(`INSERT INTO ledger_blocks (bill, last, lines) SELECT id, 1, '\x09' FROM bills`)
	if err := o.down(17); err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("down: %v", err)
	}
	o.exec(`DELETE FROM ledger_blocks`)
	// One that came after it.
	o.exec(`UPDATE pages SET senders = sha256('s'), bills = '{5}' WHERE page_id = 'page-2'`)
	if err := o.down(17); err != nil {
		t.Fatal(err)
	}
	if after := rows(); after != before {
		t.Errorf("%s, want %s", after, before)
	}
	o.up(18)
}
