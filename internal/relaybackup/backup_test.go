package relaybackup

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/testpg"
	"relaymarket/migrations"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

func newKey(t *testing.T) *protocol.PrivateKey {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// house is a relay's database with an account and some records.
type house struct {
	t     *testing.T
	url   string
	relay protocol.PublicKey
	conn  *pgx.Conn
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, url: testpg.New(t), relay: newKey(t).Public()}
	if err := migrations.Up(t.Context(), h.url); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.conn, err = pgx.Connect(t.Context(), h.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.conn.Close(context.Background()) })
	sender, receiver := newKey(t), newKey(t).Public()
	size := int64(0)
	now := protocol.TimestampOf(time.Now())
	for n := range 20 {
		id := fmt.Sprintf("r%d", n)
		e, err := protocol.Sign(sender, receiver, now, &protocol.Write{Relay: h.relay, RecordID: protocol.RecordID(id), Expires: now.Add(time.Hour), MaxPulls: 1,
			Content: base64.StdEncoding.EncodeToString([]byte(id))})
		if err != nil {
			t.Fatal(err)
		}
		hash := e.Hash()
		h.exec(`INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, envelope)
			VALUES ($1, $2, $3, $4, $2, $5, $6, $7, $6, 1, $8, $8, $9)`, n+1, e.From[:], receiver[:], id, e.Size(), int64(now), int64(now.Add(time.Hour)), hash[:], e.Bytes())
		size += e.Size()
	}
	from := sender.Public()
	h.exec(`INSERT INTO accounts (key, kind, quota_stored, quota_moved, last_day, stored) VALUES ($1, 'grant', 1, 1, '2999-01-01', $2)`, from[:], size)
	h.exec(`UPDATE relay_cursor SET n = 20, relay = $1`, h.relay[:])
	return h
}

func (h *house) exec(sql string, args ...any) {
	h.t.Helper()
	if _, err := h.conn.Exec(h.t.Context(), sql, args...); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
}

func (h *house) take(to string) *Draft {
	h.t.Helper()
	d, err := Take(h.t.Context(), Config{Database: h.url, Relay: h.relay, Program: "test", To: to, Clock: time.Now})
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// restored puts a backup into a database of its own.
func (h *house) restored(d *Draft) (Life, error) {
	return Restore(h.t.Context(), d.Folder, d.Manifest, Into{Database: testpg.New(h.t)}, time.Now())
}

// What comes back is held against what was there, in every way in which it can differ.
func TestWhatDiffersIsSeen(t *testing.T) {
	h := newHouse(t)
	at := func() string { return filepath.Join(t.TempDir(), "backup") }
	good := h.take(at())
	life, err := h.restored(good)
	if err != nil || life.Proof.Records != 20 || life.Proof.Envelopes == 0 || life.Epoch == good.Manifest.Database.Epoch || len(life.Epoch) != 12 {
		t.Fatalf("%+v, %v", life, err)
	}
	for name, change := range map[string]func(*Manifest){
		"a row":        func(m *Manifest) { m.Database.Rows["records"]++ },
		"a table":      func(m *Manifest) { m.Database.Rows["another"] = 0 },
		"the schema":   func(m *Manifest) { m.Database.Schema-- },
		"an index":     func(m *Manifest) { m.Database.Indexes++ },
		"a rule of it": func(m *Manifest) { m.Database.Rules++ },
	} {
		changed := *good.Manifest
		changed.Database.Rows = map[string]int64{}
		for table, n := range good.Manifest.Database.Rows {
			changed.Database.Rows[table] = n
		}
		change(&changed)
		if _, err := h.restored(&Draft{Folder: good.Folder, Manifest: &changed}); !errors.Is(err, ErrDiffers) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.exec(`UPDATE accounts SET stored = stored + 1`)
	if _, err := h.restored(h.take(at())); !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), "accounts") {
		t.Errorf("a byte of an account: %v", err)
	}
	h.exec(`UPDATE accounts SET stored = stored - 1`)
	h.exec(`UPDATE records SET envelope = set_byte(envelope, 40, get_byte(envelope, 40) # 1)`)
	if _, err := h.restored(h.take(at())); !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), "the record") {
		t.Errorf("a bit of each envelope: %v", err)
	}
}

// A database that was filled is no relay's until it has its epoch: nothing can serve from one that was cut off before.
func TestNoCursorBeforeTheEnd(t *testing.T) {
	h := newHouse(t)
	d := h.take(filepath.Join(t.TempDir(), "backup"))
	d.Manifest.Database.Rules++ // the check after filling fails
	to := testpg.New(t)
	if _, err := Restore(t.Context(), d.Folder, d.Manifest, Into{Database: to}, time.Now()); !errors.Is(err, ErrDiffers) {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var records, cursors int
	if err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM relay_cursor)`).Scan(&records, &cursors); err != nil || records != 20 || cursors != 0 {
		t.Errorf("%d records, %d cursors, %v", records, cursors, err)
	}
	if _, err := Restore(t.Context(), d.Folder, d.Manifest, Into{Database: to}, time.Now()); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("once more: %v", err)
	}
}

// The rehearsal is the same in a cluster that is thrown away, and a backup has its name only when it was kept.
func TestRehearse(t *testing.T) {
	h := newHouse(t)
	top := t.TempDir()
	to := filepath.Join(top, "backup")
	d := h.take(to)
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has its name before it is kept: %v", err)
	}
	stage, err := os.MkdirTemp("", "relaymarket-rehearsal-*")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(stage) }()
	if err := os.Chmod(stage, 0o711); err != nil {
		t.Fatal(err)
	}
	deep := ""
	proof, err := Rehearse(t.Context(), d.Folder, Stage{Folder: stage, Deep: func(_ context.Context, url, _ string) error { deep = url; return nil }}, time.Now())
	if err != nil || proof.Records != 20 || deep == "" {
		t.Fatalf("%+v, %v", proof, err)
	}
	if left, err := os.ReadDir(stage); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := d.Proved(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := d.Keep(); err != nil {
		t.Fatal(err)
	}
	m, err := Verify(t.Context(), to, nil)
	if err != nil || m.Rehearsed == 0 || m.Relay != h.relay {
		t.Errorf("%+v, %v", m, err)
	}
	if noted, err := Note(t.Context(), h.url, m); err != nil || !noted {
		t.Errorf("noted %t, %v", noted, err)
	}
	older := *m
	older.Taken--
	if _, err := Note(t.Context(), h.url, &older); err != nil {
		t.Error(err)
	}
	if last, err := LastNoted(t.Context(), h.conn); err != nil || last == nil || last.Taken != m.Taken || !last.Rehearsed {
		t.Errorf("noted is %+v, %v", last, err)
	}
	other, err := Take(t.Context(), Config{Database: h.url, Relay: newKey(t).Public(), To: filepath.Join(top, "x"), Clock: time.Now})
	if err == nil || !strings.Contains(err.Error(), "the database is of the relay") {
		t.Errorf("with another relay's key: %+v, %v", other, err)
	}
	if left, err := os.ReadDir(top); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A folder that cannot be made whole leaves nothing, neither beside the one that was wanted nor in it.
func TestNewFolderIsWholeOrNothing(t *testing.T) {
	top, backup := t.TempDir(), t.TempDir()
	m := manifest() // of a key that is not there
	there := filepath.Join(top, "there")
	if err := os.Mkdir(there, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{filepath.Join(top, "new"), there} {
		if f, err := NewFolder(t.Context(), backup, m, to); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %+v, %v", to, f, err)
		}
	}
	for _, folder := range []string{top, there} {
		if left, err := os.ReadDir(folder); err != nil || len(left) > 1 || folder == there && len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// No secret of a database URL is an argument, which every user of the machine can read.
func TestForTools(t *testing.T) {
	for name, test := range map[string]struct {
		url, want string
		env       []string
	}{
		"a URL":         {"postgres://me:se%20cret@db:5433/relay?sslmode=require&pool_max_conns=3", "--dbname=postgres://me@db:5433/relay?sslmode=require", []string{"PGPASSWORD=se cret"}},
		"in its query":  {"postgres://me@db/relay?password=secret&sslmode=disable", "--dbname=postgres://me@db/relay?sslmode=disable", []string{"PGPASSWORD=secret"}},
		"a socket":      {"postgres://me@/relay?host=%2Frun%2Fa%20b&port=5432", "--dbname=postgres://me@/relay?host=%2Frun%2Fa%20b&port=5432", nil},
		"words":         {`host=db user=me password='se\'cret' dbname=relay pool_max_conns=3`, "--dbname=host=db user=me dbname=relay", []string{"PGPASSWORD=se'cret"}},
		"without quote": {"password=secret host=db user=me dbname=relay", "--dbname=host=db user=me dbname=relay", []string{"PGPASSWORD=secret"}},
	} {
		got, env, err := forTools(test.url)
		if err != nil || strings.Join(strings.Fields(got), " ") != test.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for _, want := range test.env {
			if !slices.Contains(env, want) {
				t.Errorf("%s: the environment is %q", name, env)
			}
		}
		if strings.Contains(got, "cret") {
			t.Errorf("%s: a secret is an argument: %s", name, got)
		}
	}
}

func manifest() *Manifest {
	sum := strings.Repeat("0f", 32)
	return &Manifest{Format: formatVersion, Program: "p", Database: Database{Epoch: "e", Rows: map[string]int64{"records": 1}},
		Files: []File{{Name: dumpName, SHA256: sum}, {Name: "folder/relay.key", SHA256: sum}}}
}

func TestParseManifest(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"above":          func(m *Manifest) { m.Files[1].Name = "folder/../x" },
		"absolute":       func(m *Manifest) { m.Files[1].Name = "/etc/passwd" },
		"beside":         func(m *Manifest) { m.Files[1].Name = "x" },
		"a backslash":    func(m *Manifest) { m.Files[1].Name = `folder/a\b` },
		"twice":          func(m *Manifest) { m.Files[1].Name = dumpName },
		"no database":    func(m *Manifest) { m.Files = m.Files[1:] },
		"a negative":     func(m *Manifest) { m.Files[1].Bytes = -1 },
		"no epoch":       func(m *Manifest) { m.Database.Epoch = "" },
		"too many files": func(m *Manifest) { m.Files = append(m.Files, make([]File, maxFiles)...) },
	} {
		m := manifest()
		change(m)
		text, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(text); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text, err := manifest().encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseManifest(text); err != nil {
		t.Error(err)
	}
	for i := range text {
		changed := slices.Clone(text)
		changed[i] ^= 1
		if _, err := ParseManifest(changed); err == nil {
			t.Errorf("a bit of byte %d changed, and nobody saw it", i)
		}
	}
}

// What a manifest is read from may be anybody's: it is refused, or it is what was written.
func FuzzParseManifest(f *testing.F) {
	text, err := manifest().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":2,"program":"next"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil || string(again) != string(data) {
			t.Fatalf("read and written it is another: %v", err)
		}
		for _, file := range m.Files {
			if to := filepath.Join("/top", filepath.FromSlash(file.Name)); !strings.HasPrefix(to, "/top/") {
				t.Fatalf("%q leads elsewhere", file.Name)
			}
		}
	})
}
