package migrations

import (
	"database/sql"
	"testing"
)

// A relay that was at work keeps its acknowledgements, on the way up and on the way down: what is known of a page by the next one has
// a place of its own in an older schema.
func TestAcknowledgementsOfOlderRelays(t *testing.T) {
	o := newOld(t, 12)
	const pages = `INSERT INTO pages (reader, page_id, made, ns, senders, ids, sizes, hashes, root, after_n, more, served, turn`
	const columns = `sha256($1::text::bytea), 'page-' || i, 10 * i, '{1}', '', '{}', '{}', '', '', 0, false, 1, i`
	o.exec(pages+`, got, got_at) SELECT `+columns+`, CASE WHEN i < 2 THEN 'own'::bytea END, CASE WHEN i < 2 THEN 11 END FROM generate_series(1, 2) i`, "bob")
	same := func(when string, want ...string) {
		t.Helper()
		for i, reader := range []string{"bob", "carol"} {
			var got sql.NullString
			if err := o.db.QueryRowContext(t.Context(), `SELECT string_agg(concat_ws(' ', turn, convert_from(got, 'UTF8'), got_at), ', ' ORDER BY turn)
				FROM pages WHERE reader = sha256($1::text::bytea)`, reader).Scan(&got); err != nil || got.String != want[i] {
				t.Errorf("%s: %s has %q, want %q (%v)", when, reader, got.String, want[i], err)
			}
		}
	}
	o.up(17)
	same("up", "1 own 11, 2", "")
	o.exec(pages+`, got_before) SELECT `+columns+`, CASE WHEN i > 1 THEN 'by page ' || i END::text::bytea FROM generate_series(1, 3) i`, "carol")
	o.exec(pages+`, got_before) SELECT `+columns+`, 'by page 3' FROM generate_series(3, 3) i`, "bob")
	// What an older relay would do to a page is refused where the next one acknowledges it.
	for page, ok := range map[string]bool{"page-1": false, "page-2": false, "page-3": true} {
		tx, err := o.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.ExecContext(t.Context(), `UPDATE pages SET got = 'again', got_at = 40 WHERE reader = sha256('carol') AND page_id = $1 AND got IS NULL`, page)
		if (err == nil) != ok {
			t.Errorf("%s: %v", page, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.down(12); err != nil {
		t.Fatal(err)
	}
	same("down", "1 own 11, 2 by page 3 30, 3", "1 by page 2 20, 2 by page 3 30, 3")
	o.up(17)
	same("up again", "1 own 11, 2 by page 3 30, 3", "1 by page 2 20, 2 by page 3 30, 3")
}
