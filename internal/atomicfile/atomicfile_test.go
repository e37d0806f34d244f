package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCreateAndReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Create(path, []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("b")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if err := Replace(path, []byte("c")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != Mode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "c" {
		t.Errorf("got %q, %v", data, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPlaceWithoutLinks(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "key.age")
	for i, want := range []error{nil, fs.ErrExist} {
		temporary, err := writeTemporary(folder, "key.age", []byte{byte('a' + i)})
		if err != nil {
			t.Fatal(err)
		}
		if err := placeWithoutLinks(temporary, path); !errors.Is(err, want) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "a" {
		t.Errorf("got %q, %v", data, err)
	}
	missing := filepath.Join(folder, "missing")
	other := filepath.Join(folder, "other.age")
	if err := placeWithoutLinks(missing, other); err == nil {
		t.Error("a file that is not there was placed")
	}
	if _, err := os.Lstat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty file stayed: %v", err)
	}
}
