package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/keyfile"
	"relaymarket/client/state"
	"relaymarket/escrow/userside"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// folder is a user's, with a state and an empty file of contracts.
func folder(t testing.TB) Config {
	t.Helper()
	seed, err := keyfile.NewSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, seed)
	s := open(t, c)
	for i := range 20 {
		enqueue(t, s, c, i)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	contracts, err := userside.OpenStore(t.Context(), filepath.Join(c.Dir, ContractsFile), &c.Owner, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := contracts.SetNode(t.Context(), []byte(`{"host":"127.0.0.1:1"}`)); err != nil {
		t.Fatal(err)
	}
	if err := contracts.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

func config(t testing.TB, seed *keyfile.Seed) Config {
	t.Helper()
	c := Config{Dir: t.TempDir()}
	secret, err := seed.Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity, err := protocol.NewPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	c.Owner = identity.Public()
	if c.Secret, err = seed.Backup(); err != nil {
		t.Fatal(err)
	}
	branch, err := seed.Bitcoin()
	if err != nil {
		t.Fatal(err)
	}
	c.Keys = userside.BranchKeys{Branch: branch}
	return c
}

func open(t testing.TB, c Config) *state.Store {
	t.Helper()
	s, err := state.Open(t.Context(), state.Config{Path: filepath.Join(c.Dir, StateFile), Owner: &c.Owner})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// enqueue queues a message.
func enqueue(t testing.TB, s *state.Store, c Config, n int) {
	t.Helper()
	relay := state.Relay{Key: protocol.PublicKey{9}, Address: "https://relay.example", Bytes: 1 << 20}
	if n == 0 {
		if err := s.PutRelay(t.Context(), relay.Key, relay.Address, relay.Bytes); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Enqueue(t.Context(), c.Owner, []state.Relay{relay}, func(string, int64) (*state.Outgoing, error) {
		return &state.Outgoing{ID: protocol.RecordID(rand.Text()), ContentType: "text/plain", Body: []byte(rand.Text()), Sealed: bytes.Repeat([]byte{1}, 300),
			Expires: protocol.TimestampOf(time.Now().Add(time.Hour)), MaxPulls: 1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// elsewhere is the same owner with an empty folder.
func elsewhere(t testing.TB, c Config) Config {
	c.Dir = filepath.Join(t.TempDir(), "fresh")
	return c
}

func backedUp(t testing.TB, c Config) (string, *Report) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "my.backup")
	r, err := Write(t.Context(), c, path)
	if err != nil {
		t.Fatal(err)
	}
	return path, r
}

// onlyThere fails if a folder has anything but these files, hidden ones included; logs of databases apart.
func onlyThere(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "-wal") && !strings.HasSuffix(e.Name(), "-shm") {
			got = append(got, e.Name())
		}
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, names)
	}
}

func TestWriteAndRestore(t *testing.T) {
	c := folder(t)
	path, r := backedUp(t, c)
	if len(r.Checks) < 4 || r.Count("outbox") != 20 || r.Count("relays") != 1 || len(r.Faults) != 0 {
		t.Errorf("%+v", r)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != r.Bytes {
		t.Errorf("%v, %v", info, err)
	}
	if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte("relay.example")) {
		t.Errorf("it can be read without a key, %v", err)
	}
	onlyThere(t, c.Dir, ContractsFile, StateFile)
	s := open(t, c)
	last, any, err := s.LastBackup(t.Context())
	if err != nil || !any || last.Place != path || last.SHA256 != r.SHA256 || last.At != r.Manifest.Taken {
		t.Errorf("noted: %+v, %v, %v", last, any, err)
	}
	device := s.Device()
	_ = s.Close()

	again, err := Check(t.Context(), c, path)
	if err != nil || !again.Manifest.same(r.Manifest) {
		t.Errorf("checked: %+v, %v", again, err)
	}
	to := elsewhere(t, c)
	called := false
	if _, err := Restore(t.Context(), to, path, func() error { called = true; onlyTaken(t, to.Dir); return nil }); err != nil {
		t.Fatal(err)
	}
	if !called {
		t.Error("the keys were not asked for")
	}
	onlyThere(t, to.Dir, ContractsFile, StateFile)
	s = open(t, to)
	defer s.Close()
	sent, err := s.Outbox(t.Context(), 0)
	if err != nil || len(sent) != 20 {
		t.Errorf("%d messages, %v", len(sent), err)
	}
	if s.Device() == device {
		t.Error("it is the same device")
	}
	if restores, err := s.Restores(t.Context()); err != nil || len(restores) != 1 || restores[0].Taken != r.Manifest.Taken {
		t.Errorf("%+v, %v", restores, err)
	}
	if _, err := Restore(t.Context(), to, path, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("a second time: %v", err)
	}
}

// onlyTaken: nothing but the work folder is there yet.
func onlyTaken(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), workPrefix) {
		t.Errorf("%v, %v", entries, err)
	}
}

// While others write, a backup is one moment of each database.
func TestWriteWhileOthersWrite(t *testing.T) {
	c := folder(t)
	s := open(t, c)
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	n := 0
	var writing sync.WaitGroup
	writing.Go(func() {
		for ; ctx.Err() == nil; n++ {
			start := time.Now()
			enqueue(t, s, c, n+1)
			// SQLite serves who waits for a lock by luck: somebody who never lets go keeps all others out.
			time.Sleep(max(time.Since(start), time.Millisecond))
		}
	})
	defer writing.Wait()
	defer stop()
	var last int64
	for range 5 {
		_, r := backedUp(t, c)
		if r.Count("outbox") != r.Count("copies") || r.Count("outbox") < last {
			t.Errorf("%d messages, %d copies, %d before", r.Count("outbox"), r.Count("copies"), last)
		}
		last = r.Count("outbox")
	}
	stop()
	writing.Wait()
	if n < 5 || last <= 20 {
		t.Errorf("%d messages were written meanwhile, %d are in the last backup: nothing was tested", n, last)
	}
}

// A backup that was cut or changed anywhere is refused, and nothing is changed.
func TestDamaged(t *testing.T) {
	c := folder(t)
	path, _ := backedUp(t, c)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, data []byte, want ...error) {
		t.Helper()
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			t.Fatal(err)
		}
		to := elsewhere(t, c)
		_, err := Restore(t.Context(), to, bad, func() error { t.Errorf("%s: keys are made", name); return nil })
		fits := false
		for _, w := range want {
			fits = fits || errors.Is(err, w)
		}
		if !fits {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(to.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a folder was made", name)
		}
	}
	try("empty", nil, ErrNotBackup, ErrDamaged)
	try("diary", []byte("dear diary, this is no backup"), ErrNotBackup)
	for _, n := range []int{10, 100, 200, len(good) / 4, len(good) / 2, len(good) * 3 / 4, len(good) - 17, len(good) - 1} {
		try("cut", good[:n], ErrDamaged)
	}
	for i := 23; i < len(good); i += max(1, len(good)/40) {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		try("changed", bad, ErrDamaged, ErrOtherKeys)
	}
	try("longer", append(bytes.Clone(good), 0), ErrDamaged)

	seed, err := keyfile.NewSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := config(t, seed)
	other.Dir = filepath.Join(other.Dir, "fresh")
	if _, err := Restore(t.Context(), other, path, nil); !errors.Is(err, ErrOtherKeys) {
		t.Errorf("other words: %v", err)
	}
	if _, err := Write(t.Context(), config(t, seed), path); err == nil || errors.Is(err, ErrNothing) {
		t.Errorf("written over by somebody else: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, good) {
		t.Errorf("the backup changed, %v", err)
	}
}

// What is written over is a backup of one's own and nothing else.
func TestReplaces(t *testing.T) {
	c := folder(t)
	path, _ := backedUp(t, c)
	if _, err := Write(t.Context(), c, path); err != nil {
		t.Errorf("over one's own: %v", err)
	}
	diary := filepath.Join(t.TempDir(), "diary")
	if err := os.WriteFile(diary, []byte("dear diary"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), c, diary); !errors.Is(err, ErrNotBackup) {
		t.Errorf("over a diary: %v", err)
	}
	if data, err := os.ReadFile(diary); err != nil || string(data) != "dear diary" {
		t.Errorf("the diary has %d bytes, %v", len(data), err)
	}
}

// packed is a backup of files as they are, and of a manifest as it is said to be.
func packed(t *testing.T, c Config, from string, change func(*Manifest)) string {
	t.Helper()
	m := &Manifest{Format: format, Owner: c.Owner, Taken: 1_700_000_000_000}
	for _, name := range order {
		path := filepath.Join(from, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		f := File{Name: name}
		var err error
		if f.SHA256, f.Bytes, err = sum(path); err != nil {
			t.Fatal(err)
		}
		if isDatabase(name) {
			if err := f.count(t.Context(), path); err != nil {
				t.Fatal(err)
			}
		}
		m.Files = append(m.Files, f)
	}
	if change != nil {
		change(m)
	}
	var b bytes.Buffer
	if err := c.pack(t.Context(), &b, m, from); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "packed")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A backup of a newer program is refused by name, one of an older is brought up to date.
func TestOtherVersions(t *testing.T) {
	c := folder(t)
	for name, change := range map[string]func(*Manifest){
		"format":    func(m *Manifest) { m.Format++ },
		"state":     func(m *Manifest) { m.Files[0].Schema = state.Version() + 1 },
		"contracts": func(m *Manifest) { m.Files[1].Schema = userside.Version() + 1 },
	} {
		if _, err := Restore(t.Context(), elsewhere(t, c), packed(t, c, c.Dir, change), nil); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if state.Version() < 2 {
		t.Fatal("there is no older schema to test with")
	}
	old := t.TempDir()
	older(t, c, filepath.Join(old, StateFile), 6)
	to := elsewhere(t, c)
	r, err := Restore(t.Context(), to, packed(t, c, old, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Manifest.Files[0].Schema != 6 {
		t.Errorf("%+v", r.Manifest.Files)
	}
	s := open(t, to)
	defer s.Close()
	if label, _, err := s.Profile(t.Context()); err != nil || label != "of old" {
		t.Errorf("%q, %v", label, err)
	}
	if all, err := s.Restores(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

// older makes a state as a program of so many schema steps left it.
func older(t *testing.T, c Config, path string, steps int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	scripts, err := filepath.Glob(filepath.Join("..", "state", "migrations", "*.sql"))
	if err != nil || len(scripts) < steps {
		t.Fatal(scripts, err)
	}
	for _, script := range scripts[:steps] {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(string(text)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(`INSERT INTO owner VALUES (1, ?, 'device', 'of old', NULL)`, c.Owner[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`PRAGMA user_version = 6`); err != nil {
		t.Fatal(err)
	}
}

// What the manifest says and the archive has must be the same: whoever has the seed may err, too.
func TestManifestLies(t *testing.T) {
	c := folder(t)
	for name, change := range map[string]func(*Manifest){
		"digest":  func(m *Manifest) { m.Files[0].SHA256[0] ^= 1 },
		"rows":    func(m *Manifest) { m.Files[0].Rows["outbox"]++ },
		"schema":  func(m *Manifest) { m.Files[0].Schema-- },
		"path":    func(m *Manifest) { m.Files[0].Name = "./state.db" },
		"order":   func(m *Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] },
		"twice":   func(m *Manifest) { m.Files = append(m.Files, m.Files[1]) },
		"owner":   func(m *Manifest) { m.Owner[0] ^= 1 },
		"nothing": func(m *Manifest) { m.Files = nil },
	} {
		path := packed(t, c, c.Dir, change)
		to := elsewhere(t, c)
		if _, err := Restore(t.Context(), to, path, nil); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrOtherKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Interrupted while the files are put in their place, a restore is run again.
func TestInterrupted(t *testing.T) {
	c := folder(t)
	path, _ := backedUp(t, c)
	to := elsewhere(t, c)
	if err := os.MkdirAll(to.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// A log of another state, which SQLite would take for that of the new one.
	other := open(t, c)
	enqueue(t, other, c, 1)
	log, err := os.ReadFile(filepath.Join(c.Dir, StateFile+"-wal"))
	if err != nil || len(log) == 0 {
		t.Fatal(len(log), err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{marker: nil, ContractsFile: []byte("half"), StateFile + "-wal": log} {
		if err := os.WriteFile(filepath.Join(to.Dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Restore(t.Context(), to, path, nil); err != nil {
		t.Fatal(err)
	}
	onlyThere(t, to.Dir, ContractsFile, StateFile)
	s := open(t, to)
	defer s.Close()
	if sent, err := s.Outbox(t.Context(), 0); err != nil || len(sent) != 20 {
		t.Errorf("%d messages, %v", len(sent), err)
	}
}

// What is written to a folder in which a restore was interrupted would be lost with the next restore: nobody opens it before.
func TestInterruptedFolderIsNotUsed(t *testing.T) {
	c := folder(t)
	path, _ := backedUp(t, c)
	if err := os.WriteFile(filepath.Join(c.Dir, marker), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := Config{Dir: t.TempDir(), Owner: c.Owner}
	if err := os.WriteFile(filepath.Join(empty.Dir, marker), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, use := range map[string]func(Config, *protocol.PublicKey) error{
		"state": func(c Config, owner *protocol.PublicKey) error {
			_, err := state.Open(t.Context(), state.Config{Path: filepath.Join(c.Dir, StateFile), Owner: owner})
			return err
		},
		"contracts": func(c Config, owner *protocol.PublicKey) error {
			_, err := userside.OpenStore(t.Context(), filepath.Join(c.Dir, ContractsFile), owner, nil)
			return err
		},
		"client": func(c Config, _ *protocol.PublicKey) error {
			_, err := client.Open(t.Context(), client.Config{Dir: c.Dir})
			return err
		},
	} {
		for _, owner := range []*protocol.PublicKey{nil, &c.Owner} {
			for _, at := range []Config{c, empty} {
				if err := use(at, owner); !errors.Is(err, sqlite.ErrRestoring) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	half := filepath.Join(t.TempDir(), "half")
	if _, err := Write(t.Context(), c, half); !errors.Is(err, sqlite.ErrRestoring) {
		t.Errorf("backed up: %v", err)
	}
	if _, err := os.Lstat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a backup of it: %v", err)
	}
	onlyThere(t, empty.Dir, marker)
	if _, err := Restore(t.Context(), c, path, nil); err != nil {
		t.Fatal(err)
	}
	if err := open(t, c).Close(); err != nil {
		t.Error(err)
	}
}

// A program that has the untouched state open would go on writing to what is removed.
func TestRestoreUnderAnother(t *testing.T) {
	c := folder(t)
	path, _ := backedUp(t, c)
	to := elsewhere(t, c)
	if err := os.MkdirAll(to.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := open(t, to)
	if _, err := Restore(t.Context(), to, path, nil); !errors.Is(err, ErrOpen) {
		t.Errorf("while it is open: %v", err)
	}
	if untouched, err := s.Untouched(t.Context()); err != nil || !untouched {
		t.Errorf("untouched: %v, %v", untouched, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), to, path, nil); err != nil {
		t.Error(err)
	}
}

// Parts from relays come in any order, twice, of several backups, and are not always all there.
func TestJoin(t *testing.T) {
	c := folder(t)
	path, r := backedUp(t, c)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := cut(r, data, int64(len(data))/3)
	if err != nil || len(first) < 3 {
		t.Fatal(len(first), err)
	}
	later := *r
	m := *r.Manifest
	m.Taken += 1000
	later.Manifest, later.SHA256[0] = &m, later.SHA256[0]^1 // a newer one, of which the bytes are not what it says
	broken, err := cut(&later, data, int64(len(data))/3)
	if err != nil {
		t.Fatal(err)
	}
	all := [][]byte{[]byte("rubbish"), first[2], first[0], first[0], first[1], broken[1]}
	all = append(all, first[3:]...)
	if got, err := join(all); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := join(append(all, broken...)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("with a newer one that is broken: %d bytes, %v", len(got), err)
	}
	for _, some := range [][][]byte{nil, first[1:], {[]byte("x")}} {
		if _, err := join(some); !errors.Is(err, ErrNoneThere) {
			t.Errorf("%d parts: %v", len(some), err)
		}
	}
}

// Whatever the bytes of a backup, of its manifest or of a part are: they are refused or read, and nothing else.
func FuzzReadManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"owner":"","taken":1,"program":"","files":[{"name":"state.db","bytes":1,"sha256":""}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"sha256":"","bytes":1,"taken":1,"part":0,"parts":1}` + "\nx"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := readManifest(data); err == nil && (len(m.Files) == 0 || m.bytes() < 0) {
			t.Errorf("%+v", m)
		}
		if p, _, ok := readPart(data); ok && p.Part >= p.Parts {
			t.Errorf("%+v", p)
		}
		_, _ = join([][]byte{data, data})
	})
}
