package client_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/client"
	"relaymarket/internal/testnode"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// drops has a relay lose every piece whose place in the order of their ids, which is the same on all relays, leaves that rest.
func drops(t *testing.T, n *testnode.Node, modulo, rest int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := pgx.Connect(ctx, n.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	// Pieces have ids of 22 characters, messages of 36.
	if _, err := db.Exec(ctx, `DELETE FROM records WHERE n IN (SELECT n FROM
		(SELECT n, row_number() OVER (ORDER BY id) AS place FROM records WHERE length(id) = 22) AS pieces WHERE place % $1 = $2)`, modulo, rest); err != nil {
		t.Fatal(err)
	}
}

// cannotGet fetches the newest file, which cannot be had. Once the relays have answered, nothing is waited for.
func (p *person) cannotGet(want error, o client.FetchOptions) error {
	p.t.Helper()
	p.tries()
	files, err := p.Files(p.ctx())
	if err != nil || len(files) == 0 {
		p.t.Fatal(len(files), err)
	}
	if o.Dir == "" {
		o.Dir = p.t.TempDir()
	}
	o.Patience = time.Hour
	ctx, cancel := context.WithTimeout(p.ctx(), patience)
	defer cancel()
	path, err := p.FetchFile(ctx, files[len(files)-1].Message, o)
	if !errors.Is(err, want) {
		p.t.Fatalf("%q, %v; want %v", path, err, want)
	}
	return err
}

// A piece that one relay lost comes from another; one that all lost is missed, until the sender heals.
func TestFileInPartsOnSeveralRelays(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(one, two), somebody(t)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "parts.bin", 5<<20)
	if _, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{Copies: 2}); err != nil {
		t.Fatal(err)
	}
	drops(t, one, 2, 0)
	drops(t, two, 3, 1)
	folder := t.TempDir()
	err := bob.cannotGet(client.ErrFileIncomplete, client.FetchOptions{Dir: folder})
	if !strings.Contains(err.Error(), "pieces are on no relay") {
		t.Error(err)
	}
	files, err := bob.Files(t.Context())
	if err != nil || files[0].Here == 0 || files[0].Here == files[0].Size || files[0].Saved != "" {
		t.Errorf("%+v, %v", files, err)
	}
	lost := int64(0)
	for _, h := range alice.healsAll() {
		lost += h.Lost
	}
	if lost == 0 {
		t.Error("nothing was put back")
	}
	drops(t, one, 1, 0) // and now one relay has no piece at all
	saved, got := bob.gets(client.FetchOptions{Dir: folder})
	if !bytes.Equal(got, data) {
		t.Error("the file is another")
	}
	if left, err := os.ReadDir(filepath.Dir(saved)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Connections that are cut in the middle, in both directions.
func TestFileOverACutLine(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	cut := cutBefore(t, node)
	alice, bob := somebody(t), somebody(t)
	node.Grant(t, alice.Key())
	alice.adds(cut.URL)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "cut.bin", 3<<20)
	cut.cut(100, 6) // replies to writes: what became of them is not known
	if _, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{}); err != nil {
		t.Fatal(err)
	}
	if cut.cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
	cut.cut(-1, 0)
	bob.tries()
	cut.cut(300_000, 9) // pieces that come half
	if _, got := bob.gets(client.FetchOptions{}); !bytes.Equal(got, data) {
		t.Error("the file is another")
	}
	if cut.cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
}

// A relay that serves other bytes is named, and nothing of it is taken; the other relay is enough.
func TestFileFromARelayThatAlters(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	bad := tamperBefore(t, one)
	alice, bob := somebody(t), somebody(t)
	one.Grant(t, alice.Key())
	two.Grant(t, alice.Key())
	alice.adds(bad.URL)
	alice.adds(two.URL)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "altered.bin", 2<<20)
	if _, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{Copies: 2}); err != nil {
		t.Fatal(err)
	}
	bob.syncs()
	var other atomic.Pointer[[]byte] // pieces are fetched several at a time
	for name, alter := range map[string]func([]byte) []byte{
		"a byte":         func(body []byte) []byte { body[len(body)/2] ^= 1; return body },
		"another record": func([]byte) []byte { return *other.Load() },
		"half of it":     func(body []byte) []byte { return body[:len(body)/2] },
		"nothing":        func([]byte) []byte { return nil },
		"too much":       func(body []byte) []byte { return append(body, bytes.Repeat([]byte(" "), 9<<20)...) },
	} {
		bad.set(func(r *http.Request, body []byte) []byte {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.RawQuery, "pageId=") {
				return body
			}
			first := bytes.Clone(body)
			other.CompareAndSwap(nil, &first)
			return alter(body)
		})
		t.Run(name, func(t *testing.T) {
			if _, got := bob.gets(client.FetchOptions{}); !bytes.Equal(got, data) {
				t.Error("the file is another")
			}
		})
	}
	drops(t, two, 1, 0)
	err := bob.cannotGet(client.ErrFileIncomplete, client.FetchOptions{})
	if !strings.Contains(err.Error(), bad.URL) {
		t.Errorf("who altered it is not said: %v", err)
	}
}

// What a sender calls his file stays within the folder, and what he says of it is checked.
func TestFilesOfABadFriend(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(node), somebody(t)
	alice.befriends(bob)
	bob.befriends(alice)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	zero := `{"chunkBytes":1024,"secret":"` + empty + `","sha256":"` + empty + `","size":0}`
	outside := t.TempDir()
	folder := filepath.Join(outside, "in")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../up", "../../../etc/passwd", "..", "/etc/passwd", "a\x1b[2Jb", ".bashrc", "-rf", `C:\x\y.txt`, "CON", "a/", "\x00",
		strings.Repeat("x", 4000), "a\u202egpj.exe", "", " . "} {
		alice.sends(bob, zero, client.SendOptions{ContentType: protocol.FileType, Name: name})
	}
	bob.syncs()
	files, err := bob.Files(t.Context())
	if err != nil || len(files) != 15 {
		t.Fatal(len(files), err)
	}
	for _, f := range files {
		path, err := bob.FetchFile(t.Context(), f.Message, client.FetchOptions{Dir: folder})
		if errors.Is(err, client.ErrFileExists) { // both up and passwd are two names
			continue
		}
		if err != nil || filepath.Dir(path) != folder {
			t.Errorf("%q: %q, %v", f.Message.Name, path, err)
		}
		if strings.HasPrefix(f.Name, ".") || strings.ContainsAny(f.Name, "/\\\x1b\x00\u202e") || len(f.Name) > 255 {
			t.Errorf("%q is called %q", f.Message.Name, f.Name)
		}
	}
	if there, err := os.ReadDir(outside); err != nil || len(there) != 1 {
		t.Errorf("outside: %v, %v", there, err)
	}

	for name, body := range map[string]string{
		"no manifest":    "hello",
		"huge":           strings.Replace(zero, `"size":0`, `"size":9007199254740991`, 1),
		"pieces missing": strings.Replace(zero, `"size":0`, `"size":5000`, 1),
		"doubled":        strings.Replace(zero, `"chunkBytes":1024,`, `"chunkBytes":1024,"chunkBytes":1024,`, 1),
		"no chunk size":  strings.Replace(zero, `"chunkBytes":1024`, `"chunkBytes":0`, 1),
		"other sum":      strings.Replace(zero, `"sha256":"e3`, `"sha256":"e4`, 1),
	} {
		alice.sends(bob, body, client.SendOptions{ContentType: protocol.FileType, Name: name})
		bob.cannotGet(client.ErrBadFile, client.FetchOptions{})
	}
	// One that would fill any disk is found before anything is asked for.
	huge := `{"chunkBytes":4194304,"index":[` + strings.Repeat(`"`+empty+`",`, 181) + `"` + empty + `"],"secret":"` + empty + `","sha256":"` + empty + `","size":100000000000000}`
	alice.sends(bob, huge, client.SendOptions{ContentType: protocol.FileType, Name: "huge"})
	bob.cannotGet(client.ErrNoRoom, client.FetchOptions{})
	// A manifest may name pieces that were never sent.
	alice.sends(bob, `{"chunkBytes":1024,"pieces":["`+empty+`"],"secret":"`+empty+`","sha256":"`+empty+`","size":1000}`,
		client.SendOptions{ContentType: protocol.FileType, Name: "never"})
	bob.cannotGet(client.ErrFileIncomplete, client.FetchOptions{})
	alice.says(bob, "no file")
	text := bob.syncs().Messages[0]
	if _, err := bob.FetchFile(t.Context(), text, client.FetchOptions{}); !errors.Is(err, client.ErrNoFile) {
		t.Error(err)
	}
}

// A relay without room is found before anything is sent, and one that fills up meanwhile is waited for.
func TestFileAndQuota(t *testing.T) {
	small, large := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t), somebody(t)
	grant := books.Grant{Key: alice.Key(), QuotaStored: 1 << 20, QuotaMoved: 1e12, LastDay: "9999-12-31"}
	small.Put(t, grant)
	alice.adds(small.URL)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "large.bin", 3<<20)
	_, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{})
	if !errors.Is(err, client.ErrNoSpace) || !strings.Contains(err.Error(), small.URL) {
		t.Fatal(err)
	}
	if sent, err := alice.UnsentFiles(t.Context()); err != nil || len(sent) != 0 || small.Account(t, alice.Key()).Stored != 0 {
		t.Errorf("something was sent: %v, %v", sent, err)
	}
	_, err = alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{MaxPulls: 1_000_000})
	if !errors.Is(err, client.ErrNoSpace) {
		t.Error(err)
	}
	alice.joins(large)
	sent, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{})
	if err != nil || len(sent.Relays) != 1 || sent.Relays[0].Address != large.URL {
		t.Fatalf("%+v, %v", sent, err)
	}

	// The grant is cut while the file is on its way, and made whole again.
	other, _ := someFile(t, "other.bin", 4<<20)
	grant.QuotaStored = 1e9
	small.Put(t, grant)
	halved, stuck, last := false, 0, int64(0)
	sent, err = alice.SendFile(t.Context(), bob.Key(), other, client.FileOptions{Copies: 2, Progress: func(p client.FileProgress) {
		switch {
		case p.Phase == client.PhaseSending && p.Done == 0 && !halved:
			halved, grant.QuotaStored = true, 1<<20
			small.Put(t, grant)
		case p.Phase == client.PhaseSending && p.Done != last:
			stuck, last = 0, p.Done
		case p.Phase == client.PhaseSending && p.Done > 0 && grant.QuotaStored == 1<<20:
			if stuck++; stuck == 4 {
				grant.QuotaStored = 1e9
				small.Put(t, grant)
			}
		}
	}})
	if err != nil || sent.Told == nil || len(sent.Relays) != 2 {
		t.Fatalf("%+v, %v", sent, err)
	}
	bob.befriends(alice)
	bob.tries()
	files, err := bob.Files(t.Context())
	if err != nil || len(files) != 2 {
		t.Fatal(len(files), err)
	}
	// The relays are pulled at once: either file may be told of first.
	first := slices.IndexFunc(files, func(f client.IncomingFile) bool { return f.Name == "large.bin" })
	if first < 0 {
		t.Fatalf("%+v", files)
	}
	got, err := bob.FetchFile(t.Context(), files[first].Message, client.FetchOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.ReadFile(got); err != nil || !bytes.Equal(there, data) {
		t.Error("the file is another", err)
	}
}

// Two programs on one folder: one of them sends, and one fetches, and the other says so.
func TestFileInTwoPrograms(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(node), somebody(t)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "twice.bin", 2<<20)
	second := device(t, alice.config)
	tried := false
	sent, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{Progress: func(p client.FileProgress) {
		if p.Phase == client.PhaseSending && !tried {
			tried = true
			if _, err := second.SendFile(t.Context(), bob.Key(), path, client.FileOptions{}); !errors.Is(err, client.ErrFileBusy) {
				t.Errorf("the second sender: %v", err)
			}
		}
	}})
	if err != nil || !tried || sent.Pieces != 6 {
		t.Fatalf("%+v, %v", sent, err)
	}
	bob.tries()
	files, err := bob.Files(t.Context())
	if err != nil || len(files) != 1 {
		t.Fatal(len(files), err)
	}
	third, folder, busy := device(t, bob.config), t.TempDir(), false
	saved, err := bob.FetchFile(t.Context(), files[0].Message, client.FetchOptions{Dir: folder, Progress: func(p client.FileProgress) {
		if p.Phase == client.PhaseFetching && !busy {
			_, err := third.FetchFile(t.Context(), files[0].Message, client.FetchOptions{Dir: folder})
			if busy = errors.Is(err, client.ErrFileBusy); !busy {
				t.Errorf("the second reader: %v", err)
			}
		}
	}})
	if err != nil || !busy {
		t.Fatal(saved, err)
	}
	if got, err := os.ReadFile(saved); err != nil || !bytes.Equal(got, data) {
		t.Error("the file is another", err)
	}
	// Other devices of his find the same pieces.
	if _, got := bob.other().befriends(alice).gets(client.FetchOptions{}); !bytes.Equal(got, data) {
		t.Error("on the other device the file is another")
	}
}

// A file that changes while it is sent is not sent as a mixture, and what was written to the part of one that comes is found.
func TestFileThatChanges(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(node), somebody(t)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "changes.bin", 2<<20)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := slices.Clone(data)
	changed[len(changed)-1] ^= 1
	_, err = alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{Progress: func(p client.FileProgress) {
		if p.Phase == client.PhaseSending && p.Done == 0 {
			if err := errors.Join(os.WriteFile(path, changed, 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.Is(err, client.ErrFileChanged) {
		t.Fatal(err)
	}
	if result := bob.tries(); len(result.Messages) != 0 {
		t.Error("the friend was told")
	}
	unsent, err := alice.UnsentFiles(t.Context())
	if err != nil || len(unsent) != 1 {
		t.Fatal(len(unsent), err)
	}
	if err := alice.RemoveFile(t.Context(), unsent[0].ID); err != nil {
		t.Fatal(err)
	}
	// Of six pieces: one that was on its way when the change was found may still have come after it was deleted.
	if left := node.Account(t, alice.Key()).Stored; left > 3*530_000 {
		t.Errorf("%d bytes are left of it", left)
	}
	if _, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{}); err != nil {
		t.Fatal(err)
	}
	folder, spoilt := t.TempDir(), false
	_, got := bob.gets(client.FetchOptions{Dir: folder, Progress: func(p client.FileProgress) {
		if p.Phase != client.PhaseChecking || spoilt {
			return
		}
		spoilt = true
		parts, err := filepath.Glob(filepath.Join(folder, ".*.part"))
		if err != nil || len(parts) != 1 {
			t.Error(parts, err)
			return
		}
		part, err := os.OpenFile(parts[0], os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := part.WriteAt([]byte("spoilt"), 1_000_000); err != nil {
			t.Error(err)
		}
		if err := part.Close(); err != nil {
			t.Error(err)
		}
	}})
	if !spoilt || !bytes.Equal(got, changed) {
		t.Error("the file is another")
	}
}

// A disk that fills up while a file comes: it says so, what came is kept, and the rest follows once there is room.
func TestFileOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("mounting a disk needs root: run the tests as root in CI")
		}
		t.Skip("mounting a disk needs root")
	}
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	node := testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(node), somebody(t)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "full.bin", 4<<20)
	if _, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{}); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(disk, "other")
	filled := false
	bob.cannotGet(client.ErrNoRoom, client.FetchOptions{Dir: disk, Progress: func(p client.FileProgress) {
		if p.Phase == client.PhaseFetching && !filled {
			filled = true
			if err := os.WriteFile(other, make([]byte, 4<<20), 0o600); err != nil {
				t.Error(err)
			}
		}
	}})
	files, err := bob.Files(t.Context())
	if err != nil || files[0].Here == 0 || files[0].Here >= files[0].Size {
		t.Errorf("%+v, %v", files, err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if _, got := bob.gets(client.FetchOptions{Dir: disk}); !bytes.Equal(got, data) {
		t.Error("the file is another")
	}
}
