package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const moduleRoot = "../.."

func TestVectorsAreCurrent(t *testing.T) {
	stale, err := run(moduleRoot, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(stale) > 0 {
		t.Errorf("stale, run: go run ./internal/vectors\n%s", strings.Join(stale, "\n"))
	}
}

// copyTree copies what the generator reads and writes.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{vectorDir, fuzzDir} {
		if err := os.CopyFS(filepath.Join(dir, sub), os.DirFS(filepath.Join(moduleRoot, sub))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{docFile, transactionFile} {
		data, err := os.ReadFile(filepath.Join(moduleRoot, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), data)
	}
	return dir
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A file that was changed, removed or added by hand is named, and written again as it was.
func TestStaleFilesAreFoundAndHealed(t *testing.T) {
	dir := copyTree(t)
	edit := func(name string, change func(string) string) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		changed := change(string(data))
		if changed == string(data) {
			t.Fatalf("%s was not changed", name)
		}
		write(t, filepath.Join(dir, name), []byte(changed))
	}
	want := []string{
		docFile, fuzzDir + "/FuzzParsePath/vector-99", vectorDir + "/keys.json", vectorDir + "/of-the-past.json", vectorDir + "/paths.json", vectorDir + "/sealed.json",
	}
	edit(docFile, func(s string) string { return strings.Replace(s, "| 410 | `gone` |", "| 409 | `gone` |", 1) })
	edit(vectorDir+"/keys.json", func(s string) string { return strings.Replace(s, `"valid": false`, `"valid": true`, 1) })
	edit(vectorDir+"/sealed.json", func(s string) string { return strings.Replace(s, `"code": "malformed"`, `"code": "gone"`, 1) })
	if err := os.Remove(filepath.Join(dir, vectorDir, "paths.json")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, fuzzDir, "FuzzParsePath/vector-99"), []byte("x"))
	write(t, filepath.Join(dir, vectorDir, "of-the-past.json"), []byte("{}"))
	write(t, filepath.Join(dir, fuzzDir, "FuzzParsePath/0123456789abcdef"), []byte("a crasher is kept"))

	stale, err := run(dir, false)
	if err != nil || !slices.Equal(stale, want) {
		t.Fatalf("stale are %q (%v), want %q", stale, err, want)
	}
	if stale, err = run(dir, true); err != nil || !slices.Equal(stale, want) {
		t.Fatalf("written are %q (%v), want %q", stale, err, want)
	}
	if stale, err = run(dir, false); err != nil || len(stale) > 0 {
		t.Fatalf("after writing, stale are %q (%v)", stale, err)
	}
	healed, err := os.ReadFile(filepath.Join(dir, vectorDir, "sealed.json"))
	if err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(filepath.Join(moduleRoot, vectorDir, "sealed.json"))
	if err != nil || string(healed) != string(original) {
		t.Errorf("sealed content that still opens was not kept: %v", err)
	}
}

// Without a file of the last run, everything is sealed anew, and is current from then on.
func TestSealAnew(t *testing.T) {
	dir := copyTree(t)
	if err := os.Remove(filepath.Join(dir, vectorDir, sealedFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := run(dir, true); err != nil {
		t.Fatal(err)
	}
	if stale, err := run(dir, false); err != nil || len(stale) > 0 {
		t.Errorf("stale are %q (%v)", stale, err)
	}
}
