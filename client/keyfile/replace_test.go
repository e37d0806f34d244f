package keyfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestPlaceWithoutLinks(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "key.age")
	for i, want := range []error{nil, ErrExists} {
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
