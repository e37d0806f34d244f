package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// breakage is a mistake that a programmer could make, and the promises of which it breaks at least one. A harness that
// does not find it proves nothing.
type breakage struct {
	name     string
	promises []promise
	edits    []edit
}

// edit replaces a text that occurs exactly once in a file of the project.
type edit struct{ file, old, new string }

func breakages() []breakage {
	return []breakage{
		// Which of the last acknowledgements are lost is chance.
		{"synchronous-commit", []promise{promiseKept, promisePage, promiseDeleted}, []edit{{"internal/db/db.go",
			`cfg.ConnConfig.RuntimeParams["synchronous_commit"] = "on"`, `cfg.ConnConfig.RuntimeParams["synchronous_commit"] = "off"`}}},
		{"repeat", []promise{promiseOnce}, []edit{{"migrations/0001_records.sql", `CREATE UNIQUE INDEX records_path`, `CREATE INDEX records_path`}}},
		{"signature", []promise{promiseGenuine}, []edit{{"protocol/envelope.go",
			`if !VerifyDigest(e.From, e.Digest(), e.Sig) {`, `if VerifyDigest(e.From, e.Digest(), e.Sig) && false {`}}},
	}
}

func breakageNames() (names []string) {
	for _, b := range breakages() {
		names = append(names, b.name)
	}
	return names
}

func findBreakage(name string) (breakage, error) {
	for _, b := range breakages() {
		if b.name == name {
			return b, nil
		}
	}
	return breakage{}, fmt.Errorf("there is no mistake named %q: there are %s", name, strings.Join(breakageNames(), ", "))
}

// build makes relayd from the source around the working folder, with a mistake if one is named. The program is kept there in
// .cache, so that the next run links nothing.
func build(ctx context.Context, broken string) (program string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	folder := filepath.Join(root, ".cache", "crash")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(folder, "build-*")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	args := []string{"build", "-o", filepath.Join(work, "relayd")}
	program = filepath.Join(folder, "relayd")
	if broken != "" {
		program += "-" + broken
		overlay, err := writeOverlay(root, work, broken)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/relayd")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build relayd: %w: %s", err, out)
	}
	// Renamed into place: another run may be using the one before.
	return program, os.Rename(filepath.Join(work, "relayd"), program)
}

// writeOverlay writes the changed files of a mistake, and the file that tells the compiler of them.
func writeOverlay(root, work, broken string) (path string, err error) {
	b, err := findBreakage(broken)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for i, e := range b.edits {
		text, err := os.ReadFile(filepath.Join(root, e.file))
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			return "", fmt.Errorf("mistake %q: %s has %q %d times, and should have it once: internal/crash/broken.go must follow the code", b.name, e.file, e.old, n)
		}
		changed := filepath.Join(work, fmt.Sprint(i, "-", filepath.Base(e.file)))
		if err := os.WriteFile(changed, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root, e.file)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path = filepath.Join(work, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o644)
}
