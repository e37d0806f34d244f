//go:build unix

package keyfile_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"relaymarket/client/keyfile"
)

// rearmor takes a key file apart, lets change edit the age file in it, and puts
// the armor back on.
func rearmor(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	text := string(readBytes(t, path))
	text = strings.TrimPrefix(text, armor.Header)
	text = strings.TrimSuffix(strings.TrimSpace(text), armor.Footer)
	binary, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := armor.NewWriter(&out)
	if _, err := w.Write(change(binary)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	writeBytes(t, path, out.Bytes())
}

func withWorkFactor(n string) func([]byte) []byte {
	header := regexp.MustCompile(`(-> scrypt \S+) \d+\n`)
	return func(b []byte) []byte { return header.ReplaceAll(b, []byte("${1} "+n+"\n")) }
}

// Each case spoils a good key file. Inspect, which has no passphrase, finds
// all of them that are not inside of the encryption.
func TestOpenBadFile(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	text := func(edit func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { writeBytes(t, path, edit(readBytes(t, path))) }
	}
	binary := func(edit func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { rearmor(t, path, edit) }
	}
	content := func(s string) func(*testing.T, string) {
		return func(t *testing.T, path string) { encryptFile(t, path, s, scryptRecipient(t, "right", 10)) }
	}
	flip := func(fromEnd int) func([]byte) []byte {
		return func(b []byte) []byte { b[len(b)-fromEnd] ^= 1; return b }
	}
	for name, c := range map[string]struct {
		spoil  func(*testing.T, string)
		want   error
		inside bool // Inspect cannot see it
	}{
		"missing":          {func(t *testing.T, p string) { must(t, os.Remove(p)) }, keyfile.ErrNotFound, false},
		"folder":           {func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, os.Mkdir(p, 0o700)) }, keyfile.ErrNotRegular, false},
		"pipe":             {func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, syscall.Mkfifo(p, 0o600)) }, keyfile.ErrNotRegular, false},
		"device":           {func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, os.Symlink("/dev/zero", p)) }, keyfile.ErrNotRegular, false},
		"huge":             {text(func(b []byte) []byte { return append(b, make([]byte, keyfile.MaxFileSize)...) }), keyfile.ErrTooLarge, false},
		"sparse gigabytes": {func(t *testing.T, p string) { must(t, os.Truncate(p, 1<<40)) }, keyfile.ErrTooLarge, false},

		"empty":             {text(func([]byte) []byte { return nil }), keyfile.ErrTruncated, false},
		"white space":       {text(func([]byte) []byte { return []byte("\n\n") }), keyfile.ErrTruncated, false},
		"half a first line": {text(func(b []byte) []byte { return b[:20] }), keyfile.ErrTruncated, false},
		"half":              {text(func(b []byte) []byte { return b[:len(b)/2] }), keyfile.ErrTruncated, false},
		"half a last line":  {text(func(b []byte) []byte { return b[:len(b)-10] }), keyfile.ErrTruncated, false},

		"text":            {text(func([]byte) []byte { return []byte("hello") }), keyfile.ErrNotKeyFile, false},
		"words":           {text(func([]byte) []byte { return []byte(artWords) }), keyfile.ErrNotKeyFile, false},
		"for a recipient": {func(t *testing.T, p string) { encryptFile(t, p, "x", identity.Recipient()) }, keyfile.ErrNotKeyFile, false},

		"line missing":    {text(func(b []byte) []byte { return cutLine(b, 3) }), keyfile.ErrDamaged, false},
		"not base64":      {text(func(b []byte) []byte { b[60] = '*'; return b }), keyfile.ErrDamaged, false},
		"more after it":   {text(func(b []byte) []byte { return append(b, "more"...) }), keyfile.ErrDamaged, false},
		"armored twice":   {text(func(b []byte) []byte { return append(b, b...) }), keyfile.ErrDamaged, false},
		"not age inside":  {binary(func([]byte) []byte { return []byte("hello") }), keyfile.ErrDamaged, false},
		"nothing inside":  {binary(func([]byte) []byte { return nil }), keyfile.ErrDamaged, false},
		"payload flipped": {binary(flip(20)), keyfile.ErrDamaged, true},
		"payload cut":     {binary(func(b []byte) []byte { return b[:len(b)-20] }), keyfile.ErrDamaged, true},
		"no payload":      {binary(func(b []byte) []byte { return b[:bytes.Index(b, []byte("\n---"))+60] }), keyfile.ErrDamaged, true},
		"header MAC": {binary(func(b []byte) []byte {
			if at := bytes.Index(b, []byte("\n---")) + 6; b[at] == 'A' { // it is base64, and stays so
				b[at] = 'B'
			} else {
				b[at] = 'A'
			}
			return b
		}), keyfile.ErrDamaged, true},
		"no work factor":    {binary(withWorkFactor("")), keyfile.ErrDamaged, false},
		"work factor -1":    {binary(withWorkFactor("-1")), keyfile.ErrDamaged, false},
		"work factor 010":   {binary(withWorkFactor("010")), keyfile.ErrDamaged, true},
		"work factor 21":    {binary(withWorkFactor("21")), keyfile.ErrWorkFactor, false},
		"work factor 64":    {binary(withWorkFactor("64")), keyfile.ErrWorkFactor, false},
		"work factor 2^70":  {binary(withWorkFactor("1180591620717411303424")), keyfile.ErrWorkFactor, false},
		"work factor other": {binary(withWorkFactor("11")), keyfile.ErrPassphrase, true},

		"other passphrase": {func(t *testing.T, p string) { encryptFile(t, p, "{}", scryptRecipient(t, "other", 10)) }, keyfile.ErrPassphrase, true},

		"content empty":           {content(""), keyfile.ErrDocument, true},
		"content text":            {content(artWords), keyfile.ErrDocument, true},
		"content list":            {content("[]"), keyfile.ErrDocument, true},
		"content no version":      {content(`{"words":"` + artWords + `","created":1}`), keyfile.ErrDocument, true},
		"content version text":    {content(`{"version":"1","words":"` + artWords + `","created":1}`), keyfile.ErrDocument, true},
		"content version 0":       {content(`{"version":0,"words":"` + artWords + `","created":1}`), keyfile.ErrVersion, true},
		"content version 2":       {content(`{"version":2,"words":["other","shape"]}`), keyfile.ErrVersion, true},
		"content words missing":   {content(`{"version":1,"created":1}`), keyfile.ErrDocument, true},
		"content words list":      {content(`{"version":1,"words":["a"],"created":1}`), keyfile.ErrDocument, true},
		"content words wrong":     {content(`{"version":1,"words":"` + artWords + ` art","created":1}`), keyfile.ErrWordCount, true},
		"content created text":    {content(`{"version":1,"words":"` + artWords + `","created":"1"}`), keyfile.ErrDocument, true},
		"content created neg":     {content(`{"version":1,"words":"` + artWords + `","created":-1}`), keyfile.ErrDocument, true},
		"content created 2^53":    {content(`{"version":1,"words":"` + artWords + `","created":9007199254740992}`), keyfile.ErrDocument, true},
		"content created 1.5":     {content(`{"version":1,"words":"` + artWords + `","created":1.5}`), keyfile.ErrDocument, true},
		"content duplicate words": {content(`{"version":1,"words":"` + artWords + `","created":1,"words":"x"}`), keyfile.ErrDocument, true},
		"content two objects":     {content(`{"version":1,"words":"` + artWords + `","created":1}{}`), keyfile.ErrDocument, true},
		"content bad UTF-8":       {content(`{"version":1,"words":"` + artWords + `","created":1,"x":"` + "\xff" + `"}`), keyfile.ErrDocument, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := newKeyFile(t)
			c.spoil(t, path)
			start := time.Now()
			_, err := keyfile.Open(path, keyfile.Passphrase("right"))
			if !errors.Is(err, c.want) {
				t.Errorf("open: got %v, want %v", err, c.want)
			}
			if strings.Contains(fmt.Sprint(err), "abandon") {
				t.Errorf("the error tells the words: %v", err)
			}
			if spent := time.Since(start); spent > time.Minute {
				t.Errorf("open took %v", spent)
			}
			_, err = keyfile.Inspect(path)
			if c.inside && err != nil || !c.inside && !errors.Is(err, c.want) {
				t.Errorf("inspect: got %v", err)
			}
			before, _ := os.Lstat(path)
			if err := keyfile.ChangePassphrase(path, keyfile.Passphrase("right"), keyfile.Passphrase("new"), fast); !errors.Is(err, c.want) {
				t.Errorf("change: got %v, want %v", err, c.want)
			}
			if after, _ := os.Lstat(path); before != nil && !os.SameFile(before, after) {
				t.Error("a file that could not be opened was replaced")
			}
			if c.want == keyfile.ErrNotFound && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("does not match fs.ErrNotExist: %v", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func cutLine(data []byte, n int) []byte {
	lines := bytes.SplitAfter(data, []byte("\n"))
	return bytes.Join(append(lines[:n:n], lines[n+1:]...), nil)
}

func TestOpenPassphraseLength(t *testing.T) {
	path := newKeyFile(t)
	for _, p := range []keyfile.Passphrase{nil, {}, make([]byte, keyfile.MaxPassphrase+1)} {
		if _, err := keyfile.Open(path, p); !errors.Is(err, keyfile.ErrPassphraseLength) {
			t.Errorf("%d bytes: %v", len(p), err)
		}
	}
}

func TestOpenReadsBounded(t *testing.T) {
	path := newKeyFile(t)
	must(t, os.Truncate(path, 1<<40))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := keyfile.Open(path, keyfile.Passphrase("right")); !errors.Is(err, keyfile.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("a file of a terabyte took %d bytes", used)
	}
}

// Files come back from other systems with other line ends.
func TestOpenWindowsLineEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.age")
	data := readBytes(t, newKeyFile(t))
	writeBytes(t, path, append([]byte("\r\n"), bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))...))
	if _, err := keyfile.Open(path, keyfile.Passphrase("right")); err != nil {
		t.Error(err)
	}
}

func TestOpenPermissions(t *testing.T) {
	path := newKeyFile(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o601, 0o610, 0o602, 0o644, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := keyfile.Open(path, keyfile.Passphrase("right"))
		if !errors.Is(err, keyfile.ErrPermissions) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%v: %v", mode, err)
		}
	}
	for _, mode := range []fs.FileMode{0o400, 0o600, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keyfile.Open(path, keyfile.Passphrase("right")); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
	}
}
