package localpg

import (
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

// minMajor is the oldest PostgreSQL that the relay's SQL and settings are written for.
const minMajor = 15

const installHint = "install it with `apt-get install postgresql`, or give a database URL"

// binaries is one installed PostgreSQL.
type binaries struct {
	dir     string
	version string // such as 15.18
	major   int
}

func (b binaries) initdb() string   { return filepath.Join(b.dir, "initdb") }
func (b binaries) postgres() string { return filepath.Join(b.dir, "postgres") }

// findBinaries picks the installed PostgreSQL that fits a place: of the major version that made its
// data, or else the first that is new enough.
func findBinaries(given string, p place) (binaries, error) {
	dirs := []string{given}
	if given == "" {
		dirs = searchDirs(os.Getenv("PATH"), "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
	}
	var found []binaries
	var problems []error
	for _, dir := range dirs {
		b, err := inspect(dir, p.account)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		found = append(found, b)
	}
	if len(found) == 0 {
		return binaries{}, errors.Join(append([]error{errors.New("PostgreSQL is not installed: " + installHint)}, problems...)...)
	}
	return choose(found, p)
}

func choose(found []binaries, p place) (binaries, error) {
	content, err := os.ReadFile(filepath.Join(p.dataDir(), "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		for _, b := range found {
			if b.major >= minMajor {
				return b, nil
			}
		}
		return binaries{}, fmt.Errorf("PostgreSQL %s is too old, %d or newer is needed: %s", found[0].version, minMajor, installHint)
	}
	if err != nil {
		return binaries{}, fmt.Errorf("version of the private database: %w", err)
	}
	made := strings.TrimSpace(string(content))
	var installed []string
	for _, b := range found {
		if strconv.Itoa(b.major) == made {
			return b, nil
		}
		installed = append(installed, b.version)
	}
	return binaries{}, fmt.Errorf("the database in %s was made by PostgreSQL %s, but installed is %s: install the package postgresql-%s, or move the data with pg_upgrade",
		p.dir, made, strings.Join(installed, ", "), made)
}

// searchDirs lists folders that hold a postgres: those on the path, then those that
// match the patterns, newest first.
func searchDirs(path string, patterns ...string) []string {
	var dirs, more []string
	add := func(to []string, dir string) []string {
		real, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil || !filepath.IsAbs(real) {
			return to
		}
		if dir = filepath.Dir(real); slices.Contains(dirs, dir) || slices.Contains(to, dir) {
			return to
		}
		return append(to, dir)
	}
	for _, dir := range filepath.SplitList(path) {
		dirs = add(dirs, dir)
	}
	for _, pattern := range patterns {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // a pattern is a constant; a broken one finds nothing
		}
		for _, dir := range matches {
			more = add(more, dir)
		}
	}
	slices.SortStableFunc(more, func(a, b string) int { return majorInPath(b) - majorInPath(a) })
	return append(dirs, more...)
}

func majorInPath(dir string) int {
	digits := regexp.MustCompile(`[0-9]+`).FindString(filepath.Base(filepath.Dir(dir)))
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// inspect asks the binaries of a folder for their version, as the user who will run them.
func inspect(dir string, a account) (binaries, error) {
	b := binaries{dir: dir}
	if _, err := os.Stat(b.initdb()); err != nil {
		return b, err
	}
	cmd := exec.Command(b.postgres(), "--version")
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = a.attributes()
	out, err := cmd.Output()
	if err != nil {
		return b, fmt.Errorf("%s, run as user %s: %w", b.postgres(), a.name, err)
	}
	match := regexp.MustCompile(`\(PostgreSQL\) (([0-9]+)\S*)`).FindStringSubmatch(string(out))
	if match == nil {
		return b, fmt.Errorf("%s --version says %q", b.postgres(), strings.TrimSpace(string(out)))
	}
	b.version = match[1]
	b.major, err = strconv.Atoi(match[2])
	return b, err
}

// environment is what PostgreSQL's programs get: nothing of the relay's own, for PGDATA or PGPORT would lead
// them elsewhere, and messages in English, for they are searched.
func environment() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}
