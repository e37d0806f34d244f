// Command vulndb tells whether a vulnerability database, named by its URL, can answer. An unreachable
// one makes govulncheck fail, but an empty one makes it find nothing, which reads as if all were
// well. It prints how much the database knows, or exits 1 with the reason on one line.
//
// The form of a database is described on https://go.dev/doc/security/vuln/database.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// minModules is far below what the database had in 2026 (over a thousand), and far above a stub.
	minModules = 100
	patience   = 20 * time.Second
	maxIndex   = 64 << 20
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: vulndb URL")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	summary, err := look(ctx, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	fmt.Println(summary)
}

// look reads the index of a database.
func look(ctx context.Context, database string) (string, error) {
	var modules []struct {
		Path  string            `json:"path"`
		Vulns []json.RawMessage `json:"vulns"`
	}
	if err := read(ctx, database, "index/modules.json", &modules); err != nil {
		return "", err
	}
	var meta struct {
		Modified time.Time `json:"modified"`
	}
	if err := read(ctx, database, "index/db.json", &meta); err != nil {
		return "", err
	}
	known := false
	for _, module := range modules {
		known = known || (module.Path == "stdlib" && len(module.Vulns) > 0)
	}
	if len(modules) < minModules || !known {
		return "", fmt.Errorf("the database %s is empty or a part: it knows %d modules", database, len(modules))
	}
	return fmt.Sprintf("database of %s: %d modules", meta.Modified.Format(time.DateOnly), len(modules)), nil
}

func read(ctx context.Context, database, name string, into any) error {
	place, err := url.Parse(database)
	if err != nil {
		return fmt.Errorf("address of the database: %w", err)
	}
	var body io.ReadCloser
	if place.Scheme == "file" {
		body, err = os.Open(filepath.Join(filepath.FromSlash(place.Path), name))
	} else {
		body, err = get(ctx, place.JoinPath(name).String())
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(io.LimitReader(body, maxIndex)).Decode(into); err != nil {
		return fmt.Errorf("%s of the database %s: %w", name, database, err)
	}
	return nil
}

func get(ctx context.Context, address string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s answers %s", address, response.Status), response.Body.Close())
	}
	return response.Body, nil
}
