// Command vectors writes the test vectors and fuzz seeds of package protocol, the transactions of
// package escrow, and the generated parts of docs/protocol.md.
//
//	go run ./internal/vectors           write what is stale, and out/transactions.jsonl
//	go run ./internal/vectors -check    exit 1 with the names of stale files, write nothing
//
// It runs in the root of the module. What is valid, and the code of what is not, is stated here by
// hand and judged by the tests of package protocol, so a vector cannot agree with a wrong parser by
// being made from it. Output is the same on every run: all signatures have fixed auxiliary
// randomness, and sealed content, which no fixed randomness can make with crypto/hpke, is kept from
// the file of the last run as long as it still opens to the plaintext wanted.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	vectorDir = "protocol/testdata/vectors"
	fuzzDir   = "protocol/testdata/fuzz"
	docFile   = "docs/protocol.md"

	// transactionsOut is a copy for other implementations to judge.
	transactionsOut = "out/transactions.jsonl"
)

func main() {
	check := flag.Bool("check", false, "write nothing; exit 1 if a file is stale")
	flag.Parse()
	stale, err := run(".", !*check)
	if err != nil {
		fmt.Fprintf(os.Stderr, "vectors: %v\n", err)
		os.Exit(2)
	}
	if !*check {
		err = update(".", map[string][]byte{transactionsOut: transactionLines()}, []string{transactionsOut}, nil)
		if err != nil {
			fmt.Fprintf(os.Stderr, "vectors: %v\n", err)
			os.Exit(2)
		}
	}
	for _, name := range stale {
		fmt.Println(name)
	}
	if *check && len(stale) > 0 {
		fmt.Fprintln(os.Stderr, "vectors: these files are stale, run: go run ./internal/vectors")
		os.Exit(1)
	}
}

// run returns the names of the stale files under root, which it has rewritten if write is set.
func run(root string, write bool) ([]string, error) {
	files, err := build(root)
	if err != nil {
		return nil, err
	}
	var stale []string
	for name, want := range files {
		have, err := os.ReadFile(filepath.Join(root, name))
		if err == nil && bytes.Equal(have, want) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		stale = append(stale, name)
	}
	orphans, err := orphans(root, files)
	if err != nil {
		return nil, err
	}
	if write {
		if err := update(root, files, stale, orphans); err != nil {
			return nil, err
		}
	}
	stale = append(stale, orphans...)
	slices.Sort(stale)
	return stale, nil
}

func update(root string, files map[string][]byte, stale, orphans []string) error {
	for _, name := range stale {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return err
		}
	}
	for _, name := range orphans {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

// build makes every generated file, by its name under root.
func build(root string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	add := func(name string, v any) error {
		text, err := marshal(v)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		files[vectorDir+"/"+name] = text
		return nil
	}
	previous, err := readSealed(filepath.Join(root, vectorDir))
	if err != nil {
		return nil, err
	}
	topics := buildTopics(previous)
	for name, topic := range topics {
		if err := add(name, topic); err != nil {
			return nil, err
		}
	}
	addSeeds(files, topics)
	doc, err := os.ReadFile(filepath.Join(root, docFile))
	if err != nil {
		return nil, err
	}
	doc, err = fillDoc(doc)
	if err != nil {
		return nil, err
	}
	files[docFile] = doc
	files[transactionFile] = transactionLines()
	return files, nil
}

// marshal writes JSON as a person reads it: indented, < and > as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// orphans are files of this program that it no longer makes. Crashers that fuzzing left beside the
// seeds are not its own.
func orphans(root string, files map[string][]byte) ([]string, error) {
	var found []string
	for _, dir := range []string{vectorDir, fuzzDir} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			name = filepath.ToSlash(name)
			mine := dir == vectorDir || strings.HasPrefix(d.Name(), seedPrefix)
			if _, wanted := files[name]; mine && !wanted {
				found = append(found, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
