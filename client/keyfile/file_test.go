package keyfile_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"relaymarket/client/keyfile"
)

var fast = keyfile.Options{WorkFactor: keyfile.MinWorkFactor}

var created = time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)

func artSeed(t testing.TB) *keyfile.Seed {
	t.Helper()
	seed, err := keyfile.ParseWords(artWords)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// newKeyFile makes a key file with the passphrase "right".
func newKeyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.age")
	if err := keyfile.Create(path, artSeed(t), created, keyfile.Passphrase("right"), fast); err != nil {
		t.Fatal(err)
	}
	return path
}

// encryptFile writes an age file to path, as anybody with age could.
func encryptFile(t testing.TB, path, plaintext string, recipients ...age.Recipient) {
	t.Helper()
	var out bytes.Buffer
	lines := armor.NewWriter(&out)
	body, err := age.Encrypt(lines, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(body, plaintext); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(body.Close(), lines.Close()); err != nil {
		t.Fatal(err)
	}
	writeBytes(t, path, out.Bytes())
}

func scryptRecipient(t testing.TB, passphrase string, workFactor int) age.Recipient {
	t.Helper()
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(workFactor)
	return r
}

func readBytes(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeBytes(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// alone fails if anything but the named files is in the folder of path.
func alone(t *testing.T, path string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder holds %q, want %q", got, names)
	}
}

func TestCreateOpen(t *testing.T) {
	path := newKeyFile(t)
	d, err := keyfile.Open(path, keyfile.Passphrase("right"))
	if err != nil {
		t.Fatal(err)
	}
	if *d.Seed != *artSeed(t) || !d.Created.Equal(created) {
		t.Errorf("got another seed, or %v", d.Created)
	}
	alone(t, path, "key.age")
	if in, err := keyfile.Inspect(path); err != nil || in.WorkFactor != keyfile.MinWorkFactor {
		t.Errorf("inspect: %+v, %v", in, err)
	}
}

// The default work factor is the one that users get, so it runs once for real.
func TestDefaultWorkFactor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.age")
	if err := keyfile.Create(path, artSeed(t), created, keyfile.Passphrase("right"), keyfile.Options{}); err != nil {
		t.Fatal(err)
	}
	if in, err := keyfile.Inspect(path); err != nil || in.WorkFactor != keyfile.DefaultWorkFactor {
		t.Fatalf("inspect: %+v, %v", in, err)
	}
}

// A file of version 1, made once and kept, opens for ever.
func TestOpenKeptFiles(t *testing.T) {
	for name, words := range map[string]string{"version-1": artWords, "unknown-fields": artWords} {
		path := filepath.Join(t.TempDir(), "key.age")
		writeBytes(t, path, readBytes(t, filepath.Join("testdata", "files", name+".age")))
		d, err := keyfile.Open(path, keyfile.Passphrase("correct horse"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := d.Seed.Words(); err != nil || got != words || d.Created.UnixMilli() != 1763683200000 {
			t.Errorf("%s: %q, %v, %v", name, got, d.Created, err)
		}
	}
}

func TestCreateLeavesWhatIsThere(t *testing.T) {
	path := newKeyFile(t)
	before := readBytes(t, path)
	err := keyfile.Create(path, artSeed(t), created, keyfile.Passphrase("other"), fast)
	if !errors.Is(err, keyfile.ErrExists) {
		t.Fatalf("got %v", err)
	}
	if !bytes.Equal(before, readBytes(t, path)) {
		t.Error("the file changed")
	}
	// A dangling link is something, too: following it would put the key elsewhere.
	link := filepath.Join(filepath.Dir(path), "link.age")
	if err := os.Symlink("nowhere.age", link); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Create(link, artSeed(t), created, keyfile.Passphrase("other"), fast); !errors.Is(err, keyfile.ErrExists) {
		t.Errorf("dangling link: %v", err)
	}
	alone(t, path, "key.age", "link.age")

	replace := fast
	replace.Replace = true
	if err := keyfile.Create(path, artSeed(t), created, keyfile.Passphrase("other"), replace); err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.Open(path, keyfile.Passphrase("other")); err != nil {
		t.Error(err)
	}
	alone(t, path, "key.age", "link.age")
}

func TestCreateRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.age")
	const racers = 8
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			errs[i] = keyfile.Create(path, artSeed(t), created, keyfile.Passphrase{byte('a' + i)}, fast)
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("both %d and %d made the file", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, keyfile.ErrExists):
			t.Error(err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody made the file")
	}
	if _, err := keyfile.Open(path, keyfile.Passphrase{byte('a' + winner)}); err != nil {
		t.Error(err)
	}
	alone(t, path, "key.age")
}

func TestCreateFailsClean(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "key.age")
	wiped := artSeed(t)
	wiped.Wipe()
	right := keyfile.Passphrase("right")
	for name, c := range map[string]struct {
		path string
		seed *keyfile.Seed
		at   time.Time
		p    keyfile.Passphrase
		o    keyfile.Options
		want error
	}{
		"no passphrase":   {path, artSeed(t), created, nil, fast, keyfile.ErrPassphraseLength},
		"long passphrase": {path, artSeed(t), created, make([]byte, keyfile.MaxPassphrase+1), fast, keyfile.ErrPassphraseLength},
		"cheap":           {path, artSeed(t), created, right, keyfile.Options{WorkFactor: 9}, keyfile.ErrWorkFactor},
		"dear":            {path, artSeed(t), created, right, keyfile.Options{WorkFactor: 21}, keyfile.ErrWorkFactor},
		"wiped seed":      {path, wiped, created, right, fast, keyfile.ErrNoSeed},
		"before 1970":     {path, artSeed(t), time.Time{}, right, fast, nil},
		"no folder":       {filepath.Join(folder, "no", "key.age"), artSeed(t), created, right, fast, fs.ErrNotExist},
	} {
		err := keyfile.Create(c.path, c.seed, c.at, c.p, c.o)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	alone(t, path)
	// Replacing cannot work when a folder is in the way, and leaves no litter.
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	replace := fast
	replace.Replace = true
	if err := keyfile.Create(path, artSeed(t), created, right, replace); err == nil {
		t.Error("a folder was replaced")
	}
	alone(t, path, "key.age")
}

func TestChangePassphrase(t *testing.T) {
	path := newKeyFile(t)
	before := readBytes(t, path)
	err := keyfile.ChangePassphrase(path, keyfile.Passphrase("wrong"), keyfile.Passphrase("new"), fast)
	if !errors.Is(err, keyfile.ErrPassphrase) {
		t.Fatalf("got %v", err)
	}
	err = keyfile.ChangePassphrase(path, keyfile.Passphrase("right"), nil, fast)
	if !errors.Is(err, keyfile.ErrPassphraseLength) {
		t.Fatalf("got %v", err)
	}
	if !bytes.Equal(before, readBytes(t, path)) {
		t.Fatal("the file changed")
	}
	if err := keyfile.ChangePassphrase(path, keyfile.Passphrase("right"), keyfile.Passphrase("new"), fast); err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.Open(path, keyfile.Passphrase("right")); !errors.Is(err, keyfile.ErrPassphrase) {
		t.Errorf("the old passphrase: %v", err)
	}
	d, err := keyfile.Open(path, keyfile.Passphrase("new"))
	if err != nil {
		t.Fatal(err)
	}
	if *d.Seed != *artSeed(t) || !d.Created.Equal(created) {
		t.Error("the content changed")
	}
	alone(t, path, "key.age")
}

func TestChangePassphraseKeepsUnknownFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.age")
	content := `{ "later": {"a":[1,2]}, "version":1,"words":"` + artWords + `","created":5 }`
	encryptFile(t, path, content, scryptRecipient(t, "right", 10))
	if err := keyfile.ChangePassphrase(path, keyfile.Passphrase("right"), keyfile.Passphrase("new"), fast); err != nil {
		t.Fatal(err)
	}
	identity, err := age.NewScryptIdentity("new")
	if err != nil {
		t.Fatal(err)
	}
	body, err := age.Decrypt(armor.NewReader(bytes.NewReader(readBytes(t, path))), identity)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err != nil || string(got) != content {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestChangePassphraseFollowsLink(t *testing.T) {
	path := newKeyFile(t)
	link := filepath.Join(t.TempDir(), "link.age")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.ChangePassphrase(link, keyfile.Passphrase("right"), keyfile.Passphrase("new"), fast); err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.Open(path, keyfile.Passphrase("new")); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	missing := filepath.Join(t.TempDir(), "no.age")
	if err := keyfile.ChangePassphrase(missing, keyfile.Passphrase("a"), keyfile.Passphrase("b"), fast); !errors.Is(err, keyfile.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
}
