package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// index is one of so many modules, the last of which is named.
func index(n int, last, vulns string) string {
	var modules []string
	for i := range n - 1 {
		modules = append(modules, fmt.Sprintf(`{"path":"example.com/%d","vulns":[{"id":"GO-%d"}]}`, i, i))
	}
	modules = append(modules, fmt.Sprintf(`{"path":%q,"vulns":%s}`, last, vulns))
	return "[" + strings.Join(modules, ",") + "]"
}

func TestLook(t *testing.T) {
	const meta = `{"modified":"2026-10-01T00:00:00Z"}`
	some := `[{"id":"GO-2026-1"}]`
	for name, test := range map[string]struct {
		modules, meta string
		want          string // of the error, or of the summary
		good          bool
	}{
		"good":                {index(minModules, "stdlib", some), meta, "database of 2026-10-01: 100 modules", true},
		"empty":               {`[]`, meta, "empty or a part", false},
		"null":                {`null`, meta, "empty or a part", false},
		"a stub":              {index(minModules-1, "stdlib", some), meta, "knows 99 modules", false},
		"no standard library": {index(minModules, "example.com/x", some), meta, "empty or a part", false},
		"no entries":          {index(minModules, "stdlib", `[]`), meta, "empty or a part", false},
		"a login page":        {`<!DOCTYPE html>`, meta, "invalid character", false},
		"cut off":             {index(minModules, "stdlib", some)[:500], meta, "unexpected EOF", false},
		"no metadata":         {index(minModules, "stdlib", some), "", "db.json", false},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.Mkdir(filepath.Join(folder, "index"), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, content := range map[string]string{"modules.json": test.modules, "db.json": test.meta} {
				if content == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(folder, "index", file), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			server := httptest.NewServer(http.FileServer(http.Dir(folder)))
			defer server.Close()
			for _, database := range []string{"file://" + folder, server.URL} {
				got, err := look(t.Context(), database)
				if err != nil {
					got = err.Error()
				}
				if (err == nil) != test.good || !strings.Contains(got, test.want) {
					t.Errorf("%s: %q, want %q", database, got, test.want)
				}
			}
		})
	}
}

func TestLookFails(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	if _, err := look(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("nothing there: %v", err)
	}
	server.Close()
	if _, err := look(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}
