package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Tools are the programs of one installed PostgreSQL that dump and restore.
type Tools struct {
	Dir     string
	Version string // such as 15.18
	Major   int
}

// FindTools picks installed programs that can dump from and restore into a server of a major version: the server's own if they are
// there, else the next newer ones. given is a folder to look into instead of the usual places; empty: those.
func FindTools(given string, server int) (Tools, error) {
	dirs := []string{given}
	if given == "" {
		dirs = toolDirs(os.Getenv("PATH"), "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
	}
	var found []Tools
	var installed []string
	for _, dir := range dirs {
		tools, err := inspectTools(dir)
		if err != nil {
			continue // half an installation; what is missing in the end is told below
		}
		found, installed = append(found, tools), append(installed, tools.Version)
	}
	slices.SortStableFunc(found, func(a, b Tools) int { return a.Major - b.Major })
	for _, tools := range found {
		if tools.Major >= server {
			return tools, nil
		}
	}
	if len(found) == 0 {
		return Tools{}, fmt.Errorf("pg_dump and pg_restore are not installed: install the package postgresql-client-%d, or name their folder with postgres-bin", server)
	}
	return Tools{}, fmt.Errorf("the database is PostgreSQL %d, and pg_dump is only here as %s: install the package postgresql-client-%d", server, strings.Join(installed, ", "), server)
}

// toolDirs lists folders that hold a real pg_dump: some systems put a script before it that chooses one.
func toolDirs(path string, patterns ...string) []string {
	var dirs []string
	add := func(dir string) {
		real, err := filepath.EvalSymlinks(filepath.Join(dir, "pg_dump"))
		if err == nil && filepath.IsAbs(real) && filepath.Base(real) == "pg_dump" && !slices.Contains(dirs, filepath.Dir(real)) {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, dir := range filepath.SplitList(path) {
		add(dir)
	}
	for _, pattern := range patterns {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // a pattern is a constant; a broken one finds nothing
		}
		for _, dir := range matches {
			add(dir)
		}
	}
	return dirs
}

func inspectTools(dir string) (Tools, error) {
	t := Tools{Dir: dir}
	if _, err := os.Stat(filepath.Join(dir, "pg_restore")); err != nil {
		return t, err
	}
	cmd := exec.Command(filepath.Join(dir, "pg_dump"), "--version")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return t, err
	}
	match := regexp.MustCompile(`\(PostgreSQL\) (([0-9]+)\S*)`).FindStringSubmatch(string(out))
	if match == nil {
		return t, errors.New("pg_dump says no version")
	}
	t.Version = match[1]
	t.Major, err = strconv.Atoi(match[2])
	return t, err
}

// HasServer tells whether a private cluster can run from the same folder.
func (t Tools) HasServer() bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(t.Dir, name)); err != nil {
			return false
		}
	}
	return true
}

// Command is one of the programs, which ends with ctx. What is secret about the server it connects to stands in env, not in
// the arguments, which every user of the machine can read.
func (t Tools) Command(ctx context.Context, name string, args, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(t.Dir, name), args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "LC_") || strings.HasPrefix(entry, "PGDATABASE=")
	}), "LC_ALL=C")
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = quitPatience
	return cmd
}

// HasCluster tells whether there is a cluster in cfg.Dir, as Start would find it. It makes none.
func HasCluster(cfg Config) (bool, error) {
	base, err := Locate(cfg)
	if err != nil || base == "" {
		return false, err
	}
	return place{base: base}.hasData(), nil
}

// Unclean tells whether the cluster in cfg.Dir was not shut down when it last ended, and nobody has started it since.
func Unclean(cfg Config) (bool, error) {
	base, err := Locate(cfg)
	if err != nil || base == "" {
		return false, err
	}
	p := place{base: base}
	file, err := readPIDFile(p.dataDir())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if errors.Is(err, errDamaged) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	runs, err := isPostmaster(file.pid, p)
	return err == nil && !runs, err
}
