package keyfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Errors must be the package's own: callers decide by them.
func isOneOf(err error, kinds ...error) bool {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func FuzzParseWords(f *testing.F) {
	f.Add(strings.Repeat("abandon ", 23) + "art")
	f.Add(strings.Repeat("zoo ", 23) + "vote")
	f.Add(strings.Repeat("zoo ", 24))
	f.Add("")
	f.Add("\u00a0\u3000İ")
	f.Fuzz(func(t *testing.T, words string) {
		seed, err := ParseWords(words)
		if err != nil {
			if !isOneOf(err, ErrWordCount, ErrUnknownWord, ErrChecksum) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		back, err := seed.Words()
		if err != nil {
			t.Fatal(err)
		}
		if normal := strings.Join(strings.Fields(strings.ToLower(words)), " "); back != normal {
			t.Fatalf("%q became %q", normal, back)
		}
	})
}

func FuzzParseDocument(f *testing.F) {
	words := strings.Repeat("abandon ", 23) + "art"
	f.Add([]byte(`{"version":1,"words":"` + words + `","created":1763683200000}`))
	f.Add([]byte(`{"version":1,"words":"` + words + `","created":0,"later":{"a":[1.5,null]}}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"version":1}`))
	f.Add([]byte(`[[[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDocument(data)
		if err != nil {
			if !isOneOf(err, ErrDocument, ErrVersion) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := encodeDocument(d.Seed, d.Created)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseDocument(again)
		if err != nil {
			t.Fatal(err)
		}
		if *back.Seed != *d.Seed || !back.Created.Equal(d.Created) {
			t.Fatalf("%s became %s", data, again)
		}
	})
}

func FuzzInspect(f *testing.F) {
	kept, err := filepath.Glob(filepath.Join("testdata", "files", "*.age"))
	if err != nil || len(kept) == 0 {
		f.Fatalf("no key files to begin with: %v", err)
	}
	for _, path := range kept {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		workFactor, err := inspect(data)
		if err != nil {
			if !isOneOf(err, ErrNotKeyFile, ErrTruncated, ErrDamaged, ErrWorkFactor) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if workFactor > MaxWorkFactor {
			t.Fatalf("work factor %d", workFactor)
		}
		if workFactor > MinWorkFactor {
			return // scrypt would be all that is fuzzed
		}
		if plaintext, err := decrypt(data, Passphrase("p")); err == nil {
			t.Fatalf("a wrong passphrase opened %d bytes", len(plaintext))
		} else if !isOneOf(err, ErrPassphrase, ErrDamaged) {
			t.Fatalf("untyped error %v", err)
		}
	})
}
