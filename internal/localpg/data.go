package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// unfinished begins the names of folders in which initdb works.
const unfinished = "data.new-"

// makeData runs initdb if there is no cluster yet. It works beside the final folder and renames at
// the end: what a crash leaves half made is never taken for a cluster.
func makeData(ctx context.Context, cfg Config, bin binaries, p place) error {
	if p.hasData() {
		return nil
	}
	if exists(p.dataDir()) {
		return fmt.Errorf("%s holds no PostgreSQL cluster: move it away, or choose another folder", p.dataDir())
	}
	removeUnfinished(p, cfg.logger())
	dir, err := os.MkdirTemp(p.base, unfinished)
	if err == nil {
		err = p.account.give(dir)
	}
	if err != nil {
		return fmt.Errorf("make the database folder: %w", err)
	}
	cfg.logger().Info("making a new database", "folder", p.base, "version", bin.version, "user", p.account.name)
	args := []string{
		"--pgdata=" + dir,
		"--username=" + superuser,
		"--encoding=UTF8",
		"--locale=C", // sorting by bytes: the same on every system, and fast
		"--data-checksums",
		// Unused, since conf/ has its own rules; without them initdb would write "trust".
		"--auth-local=peer", "--auth-host=reject",
		"--no-instructions",
	}
	if cfg.NoSync {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, bin.initdb(), args...)
	cmd.Dir = p.base
	cmd.Env = environment()
	cmd.SysProcAttr = p.account.attributes()
	cmd.WaitDelay = quitPatience
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(string(out), 5))
	}
	if err := os.Rename(dir, p.dataDir()); err != nil {
		return fmt.Errorf("put the new database in place: %w", err)
	}
	return syncDir(p.base)
}

// removeUnfinished removes what earlier starts left. Each worked in a folder of its own, so an initdb
// that outlived its owner is in nobody's way, and what cannot be removed yet will be next time.
func removeUnfinished(p place, log *slog.Logger) {
	entries, err := os.ReadDir(p.base)
	if err != nil {
		log.Warn("cannot look for unfinished databases", "err", err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), unfinished) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(p.base, entry.Name())); err != nil {
			log.Warn("cannot remove an unfinished database", "err", err)
		}
	}
}

// syncDir makes a rename in a folder survive a power cut.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lastLines is the end of a program's output on one line, for an error.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// tailOf is the end of a log file; a missing one is empty.
func tailOf(path string, n int) string {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		return err.Error()
	}
	return lastLines(string(content), n)
}
