package protocol

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSeeds fails if a fuzz target has no seed that go test would load, or a seed folder no target:
// a folder whose name is misspelt is silently ignored.
func TestSeeds(t *testing.T) {
	targets := fuzzTargets(t)
	if len(targets) < 20 {
		t.Fatalf("%d fuzz targets found, there are more", len(targets))
	}
	seed := regexp.MustCompile(`^go test fuzz v1\n(\[\]byte|string)\(".*"\)\n$`)
	for _, name := range targets {
		dir := filepath.Join("testdata/fuzz", name)
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) < 4 {
			t.Errorf("%s has %d seeds (%v), run: go run ./internal/vectors", name, len(entries), err)
		}
		for _, entry := range entries {
			data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil || !seed.Match(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))) {
				t.Errorf("%s/%s is no seed: %v", dir, entry.Name(), err)
			}
		}
	}
	dirs, err := os.ReadDir("testdata/fuzz")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if !slices.Contains(targets, dir.Name()) {
			t.Errorf("testdata/fuzz/%s belongs to no fuzz target", dir.Name())
		}
	}
}

// fuzzTargets are the names of the fuzz functions of this package.
func fuzzTargets(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Fuzz") {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// TestParsersAreFuzzed fails when an exported parser has no fuzz target.
func TestParsersAreFuzzed(t *testing.T) {
	targets := fuzzTargets(t)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	// Covered through others: sealing keys stand in cards.
	covered := map[string]bool{"ParseSealingPublicKey": true}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !regexp.MustCompile(`^(Parse|Read|Check(Canonical)|Open|Validate)`).MatchString(f.Name.Name) || covered[f.Name.Name] {
				continue
			}
			found++
			if !slices.Contains(targets, "Fuzz"+f.Name.Name) {
				t.Errorf("%s has no fuzz target Fuzz%s", f.Name.Name, f.Name.Name)
			}
		}
	}
	if found < 10 {
		t.Errorf("%d parsers found, there are more", found)
	}
}
