package records_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
	"relaymarket/records"
)

// A relay's statements are planned once, and perhaps when its tables are all but empty. Each must find its rows by the
// keys it has all the same: one that walks an index is quick that day, and a thousand times slower the next.
func TestPlansMadeOnATinyTable(t *testing.T) {
	for _, people := range []int{0, 2} { // whose rows are there when the tables are analyzed
		t.Run(fmt.Sprint(people, " people"), func(t *testing.T) { plansMadeOn(t, people) })
	}
}

func plansMadeOn(t *testing.T, few int) {
	h := newHouse(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := h.db.Pool().Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	tables := []string{"accounts", "records", "pulls", "pages"}
	for _, table := range tables {
		exec(`ALTER TABLE ` + table + ` SET (autovacuum_enabled = off)`)
	}
	const crowd = 40
	senders, readers := make([]*protocol.PrivateKey, crowd), make([]*reader, crowd)
	for i := range crowd {
		senders[i], readers[i] = h.account(), &reader{h: h, key: key(t)}
	}
	round := 0
	// pull has so many people pull, from the beginning again or from where they are.
	pull := func(people int, limit int64, again bool) {
		t.Helper()
		requests := make([]records.PullRequest, people)
		for i, r := range readers[:people] {
			if again {
				r.after = nil
			}
			requests[i] = r.request(limit, senders[i].Public())
		}
		pages, errs, alone := h.store.PullTogether(t.Context(), requests...)
		for i, r := range readers[:people] {
			if errs[i] != nil || alone > 0 || len(pages[i].Lines) == 0 && (again || limit > 1) {
				t.Fatalf("%+v %v, %d alone", pages[i], errs[i], alone)
			}
			if r.open, r.after = nil, &pages[i].Header.Cursor; len(pages[i].Lines) > 0 {
				r.open = &pages[i].Header
			}
		}
	}
	// all uses every hot statement, for so many people at once.
	all := func(people int) {
		t.Helper()
		round++
		var batch []records.Incoming
		for i := range people {
			batch = append(batch, h.compose(senders[i], readers[i].key.Public(), fmt.Sprint("r", round)))
		}
		for _, o := range h.write(batch...) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		for _, o := range h.write(batch...) { // repeats, looked up
			if o.Err != nil || !o.Replayed {
				t.Fatal(o)
			}
		}
		pull(people, 3, false)
		pull(people, 3, true)
		pull(people, 1, true)
		h.store.BeCareful(true) // and looks for the page's id
		pull(people, 1, false)  // its record's place is known
		h.store.BeCareful(false)
		if _, err := h.store.List(t.Context(), records.ListRequest{Sender: senders[0].Public(), Limit: 3}); err != nil {
			t.Fatal(err)
		}
	}
	all(few)
	exec(`VACUUM ANALYZE ` + strings.Join(tables, ", "))
	all(2)
	// Much more than was there when the plans were made, and nothing that a sweep would look at.
	const many = 5000
	exec(`INSERT INTO accounts (key, kind, quota_stored, quota_moved, last_day)
		SELECT sha256(i::text::bytea), 'grant', 0, 0, '2020-01-01' FROM generate_series(1, $1::integer) i`, many)
	exec(`INSERT INTO pulls (receiver, sender, first, upto, remaining, last) SELECT sha256(i::text::bytea), sha256(i::text::bytea), 1000000 + i, 1000000 + i, 1, 1::bigint << 50 FROM generate_series(1, $1::integer) i`, many)
	exec(`INSERT INTO pages (reader, page_id, made, ns, senders, names, bytes, hashes, root, after_n, more, served, turn)
		SELECT sha256(i::text::bytea), 'page', 1::bigint << 50, '{}', '', '', 0, '', '', 0, false, 1, 1 FROM generate_series(1, $1::integer) i`, many)
	exec(`INSERT INTO records SELECT 1000000 + i, sha256(i::text::bytea), sha256(i::text::bytea), 'r', '', 1, 1, 1::bigint << 50, 1, 1, NULL, '', '', 0, 'x'
		FROM generate_series(1, $1::integer) i`, many)
	all(crowd)

	// What each connection read is known when it has ended.
	h.db.Close()
	conn, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for deadline, open := time.Now().Add(patience), 1; open > 0; {
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
			AND backend_type = 'client backend'`).Scan(&open); err != nil || time.Now().After(deadline) {
			t.Fatalf("%d connections are open, %v", open, err)
		}
	}
	rows, err := conn.Query(t.Context(), `SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes UNION ALL
		SELECT relname || ', walked', seq_tup_read FROM pg_stat_user_tables WHERE relname = ANY($1)`, tables)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var n int64
	read := int64(0)
	if _, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error {
		read += n
		// Each of the forty reads some entries in each of some rounds. Once through the table is too much.
		if n > many/2 {
			t.Errorf("%s: %d entries were read for %d people", name, n, crowd)
		}
		return nil
	}); err != nil || read == 0 {
		t.Fatalf("%d entries were read, %v", read, err)
	}
}
