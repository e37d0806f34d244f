package db_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/internal/testpg"
)

func TestMain(m *testing.M) { testpg.Main(m) }

func open(t *testing.T) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), testpg.New(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	_, err = d.Pool().Exec(t.Context(), `
		CREATE TABLE things (n bigint CONSTRAINT things_n PRIMARY KEY, small integer, name text, raw bytea);
		CREATE TABLE counter (n bigint CHECK (n < 100)); INSERT INTO counter VALUES (0)`)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

type thing struct {
	N     int64
	Small *int32
	Name  *string
	Raw   []byte
}

func things(t *testing.T, d *db.DB) []thing {
	t.Helper()
	rows, err := d.Pool().Query(t.Context(), `SELECT n, small, name, raw FROM things ORDER BY n`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[thing])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func encode(list ...thing) []byte {
	e := db.NewEncoder([]byte("what was there before"))
	for _, th := range list {
		e.Row(4)
		e.Bigint(th.N)
		if th.Small == nil {
			e.Null()
		} else {
			e.Integer(*th.Small)
		}
		if th.Name == nil {
			e.Null()
		} else {
			e.Text(*th.Name)
		}
		e.Bytes(th.Raw)
	}
	return e.End()
}

var copyThings = db.CopySQL("things", "n", "small", "name", "raw")

// load adds the things and counts them, unless rows says otherwise.
func load(t *testing.T, d *db.DB, rows func(head int64) ([]byte, error)) error {
	t.Helper()
	var head int64
	return d.Load(t.Context(), db.Load{
		Statement: `UPDATE counter SET n = n + $1 RETURNING n`, Args: []any{int64(10)}, Row: []any{&head},
		Copy: func() (string, []byte, error) {
			data, err := rows(head)
			return copyThings, data, err
		},
	})
}

func counted(t *testing.T, d *db.DB) (n int64) {
	t.Helper()
	if err := d.Pool().QueryRow(t.Context(), `SELECT n FROM counter`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLoadIsOneTransaction(t *testing.T) {
	d := open(t)
	small, name := int32(-7), "näme"
	want := []thing{{N: 10, Small: &small, Name: &name, Raw: []byte{0, 255, '\\'}}, {N: -1 << 62, Raw: []byte{}}}
	if err := load(t, d, func(head int64) ([]byte, error) { want[0].N = head; return encode(want...), nil }); err != nil {
		t.Fatal(err)
	}
	if got := things(t, d); !reflect.DeepEqual(got, []thing{want[1], want[0]}) {
		t.Fatalf("stored %+v", got)
	}
	mine := errors.New("mine")
	for what, c := range map[string]struct {
		rows func(int64) ([]byte, error)
		fine func(error) bool
	}{
		"no data":        {func(int64) ([]byte, error) { return nil, nil }, func(err error) bool { return err == nil }},
		"an error":       {func(int64) ([]byte, error) { return nil, mine }, func(err error) bool { return errors.Is(err, mine) }},
		"a double":       {func(int64) ([]byte, error) { return encode(thing{N: 50}, thing{N: 10}), nil }, func(err error) bool { return db.IsUniqueViolation(err, "things_n") }},
		"data cut short": {func(int64) ([]byte, error) { return encode(thing{N: 50})[:30], nil }, func(err error) bool { return err != nil }},
	} {
		// More often than there are connections: each is fit for use afterwards.
		for range 3 {
			if err := load(t, d, c.rows); !c.fine(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if n, got := counted(t, d), things(t, d); n != 10 || len(got) != 2 {
		t.Fatalf("after transactions that ended without COMMIT the counter is %d and there are %d things", n, len(got))
	}
	if err := load(t, d, func(head int64) ([]byte, error) { return encode(thing{N: head}), nil }); err != nil {
		t.Fatal(err)
	}
	if n, got := counted(t, d), things(t, d); n != 20 || len(got) != 3 || got[2].N != 20 {
		t.Fatalf("the counter is %d, stored %+v", n, got)
	}
}

// A transaction that waits for a lock ends with its context, and its connection does not keep the lock.
func TestLoadEndsWithItsContext(t *testing.T) {
	d := open(t)
	held := make(chan struct{})
	release := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- load(t, d, func(head int64) ([]byte, error) {
			close(held)
			<-release
			return encode(thing{N: head}), nil
		})
	}()
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var head int64
	err := d.Load(ctx, db.Load{Statement: `UPDATE counter SET n = n + 1 RETURNING n`, Row: []any{&head},
		Copy: func() (string, []byte, error) { return "", nil, nil }})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited for a lock: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := counted(t, d); n != 10 {
		t.Fatalf("the counter is %d", n)
	}
}

func TestRoundsAreOneTransaction(t *testing.T) {
	d := open(t)
	rounds := func(then func(*pgx.Batch, int64) error) error {
		var n int64
		return d.Rounds(t.Context(),
			func(b *pgx.Batch) {
				b.Queue(`UPDATE counter SET n = n + 1 RETURNING n`).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
			},
			func(b *pgx.Batch) error { return then(b, n) })
	}
	add := func(b *pgx.Batch, n int64) { b.Queue(`INSERT INTO things (n) VALUES ($1)`, n) }
	if err := rounds(func(b *pgx.Batch, n int64) error { add(b, n); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := rounds(func(*pgx.Batch, int64) error { return nil }); err != nil { // nothing more to do still commits
		t.Fatal(err)
	}
	mine := errors.New("mine")
	for range 6 {
		if err := rounds(func(b *pgx.Batch, n int64) error { add(b, n); return mine }); !errors.Is(err, mine) {
			t.Fatal(err)
		}
		if err := rounds(func(b *pgx.Batch, _ int64) error { add(b, 1); return nil }); !db.IsUniqueViolation(err, "things_n") {
			t.Fatal(err)
		}
		if err := rounds(func(b *pgx.Batch, n int64) error {
			add(b, n)
			b.Queue(`SELECT 1`).QueryRow(func(pgx.Row) error { return mine })
			return nil
		}); err == nil {
			t.Fatal("an error of reading a result was lost")
		}
	}
	if n, got := counted(t, d), things(t, d); n < 2 || len(got) < 1 || got[0].N != 1 {
		t.Fatalf("the counter is %d, stored %+v", n, got)
	}
}

// A deadlock is another attempt, whose closures begin anew.
func TestRoundsRunAgainAfterADeadlock(t *testing.T) {
	d := open(t)
	if _, err := d.Pool().Exec(t.Context(), `ALTER TABLE counter ADD id integer; UPDATE counter SET id = 1; INSERT INTO counter VALUES (0, 2)`); err != nil {
		t.Fatal(err)
	}
	both := make(chan struct{}, 2)
	meet := make(chan struct{})
	go func() {
		<-both
		<-both
		close(meet)
	}()
	done := make(chan error, 2)
	for _, order := range [][2]int{{1, 2}, {2, 1}} {
		go func() {
			first := true
			done <- d.Rounds(t.Context(),
				func(b *pgx.Batch) { b.Queue(`UPDATE counter SET n = n + 1 WHERE id = $1`, order[0]) },
				func(b *pgx.Batch) error {
					if first {
						first = false
						both <- struct{}{}
						<-meet
					}
					b.Queue(`UPDATE counter SET n = n + 1 WHERE id = $1`, order[1])
					return nil
				})
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var sums string
	if err := d.Pool().QueryRow(t.Context(), `SELECT string_agg(n::text, ' ' ORDER BY id) FROM counter`).Scan(&sums); err != nil {
		t.Fatal(err)
	}
	if sums != "2 2" {
		t.Fatalf("counted %s, want 2 2", sums)
	}
}
