package migrations

import (
	"testing"
)

// A relay that was at work keeps the counts of pulls and the open page, on the way up and on the way down.
func TestPullsOfOlderRelays(t *testing.T) {
	o := newOld(t, 8)
	same := func(query string, want ...string) {
		t.Helper()
		rows, err := o.db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		var got []string
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				t.Fatal(err)
			}
			got = append(got, text)
		}
		if err := rows.Err(); err != nil || len(got) != len(want) {
			t.Fatalf("%q %v, want %q", got, err, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%q, want %q", got[i], want[i])
			}
		}
	}
	o.exec(`INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, envelope, state)
		SELECT i, sha256('s'), sha256('r'), 'id-' || i, sha256('s'), 1, 1, 1, 1, 3, '', '', CASE WHEN i < 4 THEN ''::bytea END, CASE WHEN i < 4 THEN 0 ELSE 2 END
		FROM generate_series(1, 4) i`)
	o.exec(`INSERT INTO pulls (n, remaining, last) VALUES (1, 2, 10), (2, 0, 20)`)
	o.exec(`INSERT INTO pages (reader, page_id, made, ns, senders, ids, sizes, hashes, root, after_n, more, served, got, got_at)
		SELECT sha256('r'), 'page-' || i, i, '{1}', '', '{}', '{}', '', '', 0, false, 1, CASE WHEN i < 3 THEN 'got'::bytea END, CASE WHEN i < 3 THEN i END
		FROM generate_series(1, 3) i`)
	const counts = `SELECT concat_ws(' ', first, upto, remaining, last, spent) FROM pulls WHERE receiver = sha256('r') AND sender = sha256('s') ORDER BY first`
	o.up(9)
	same(counts, "1 1 2 10", "2 2 0 20 20")
	same(`SELECT page_id || ' ' || turn FROM pages ORDER BY page_id`, "page-1 0", "page-2 0", "page-3 1")
	o.exec(`INSERT INTO pulls (receiver, sender, first, upto, remaining, last) VALUES (sha256('r'), sha256('s'), 3, 4, 1, 30)`)
	if err := o.down(8); err != nil {
		t.Fatal(err)
	}
	same(`SELECT concat_ws(' ', n, remaining, last) FROM pulls ORDER BY n`, "1 2 10", "2 0 20", "3 1 30") // the fourth has no count any more
	same(`SELECT page_id FROM pages WHERE got IS NULL`, "page-3")
	o.up(9)
	same(counts, "1 1 2 10", "2 2 0 20 20", "3 3 1 30")
}
