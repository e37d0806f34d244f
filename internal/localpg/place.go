package localpg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// elsewhereRoot holds the clusters whose own folder the unprivileged user cannot reach.
const elsewhereRoot = "/var/lib/relaymarket"

// locationFile, in Config.Dir, names the folder that stands for it.
const locationFile = "location"

// place is where a cluster stands and who runs it. What this process writes is in base and conf, which belong
// to it; data, log and run belong to the account. So a subverted database can plant no link
// for root to write through.
type place struct {
	dir     string // as configured, absolute, without links: what people are told
	base    string // dir, or the folder that stands for it
	account account
}

func (p place) dataDir() string  { return filepath.Join(p.base, "data") }
func (p place) logDir() string   { return filepath.Join(p.base, "log") }
func (p place) runDir() string   { return filepath.Join(p.base, "run") }
func (p place) confDir() string  { return filepath.Join(p.base, "conf") }
func (p place) startLog() string { return filepath.Join(p.base, "start.log") }
func (p place) lockFile() string { return filepath.Join(p.base, "lock") }
func (p place) nameHash() string { return nameHash(p.base) }
func (p place) hasData() bool    { return exists(filepath.Join(p.dataDir(), "PG_VERSION")) }
func exists(path string) bool    { _, err := os.Lstat(path); return err == nil }
func nameHash(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:6])
}

// find tells where the cluster of an existing folder stands.
func find(cfg Config, a account) (place, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		// One folder under two names must be one lock and one hash.
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return place{}, fmt.Errorf("folder of the private database: %w", err)
	}
	p := place{dir: dir, base: dir, account: a}
	base, err := readLocation(dir)
	if base != "" {
		p.base = base
	}
	return p, err
}

// settle finds where the cluster stands, or chooses for a new one.
func settle(ctx context.Context, cfg Config, a account) (place, error) {
	if cfg.Dir == "" {
		return place{}, errors.New("the private database needs a folder")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		err = makeOwn(dir, a)
	}
	if err != nil {
		return place{}, fmt.Errorf("folder of the private database: %w", err)
	}
	p, err := find(cfg, a)
	if err != nil || p.base != p.dir || p.hasData() || !a.switched {
		return p, err
	}
	if here, err := reachable(ctx, p.dir, a); here || err != nil {
		return p, err
	}
	return p.moveElsewhere(cfg)
}

func readLocation(dir string) (string, error) {
	content, err := os.ReadFile(filepath.Join(dir, locationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("where the private database is: %w", err)
	}
	base := strings.TrimSpace(string(content))
	// Going on would begin an empty database where people expect their records.
	if !filepath.IsAbs(base) || !exists(base) {
		return "", fmt.Errorf("the database of %s should be in %q, as %s says, but there is no such folder: bring it back, or delete that file to begin with an empty database",
			dir, base, filepath.Join(dir, locationFile))
	}
	return base, nil
}

// reachable tells whether the account can enter a folder, by letting it try: permission bits alone know
// nothing of access lists, mounts and name spaces.
func reachable(ctx context.Context, dir string, a account) (bool, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
	cmd.Dir = dir
	cmd.SysProcAttr = a.attributes()
	err := cmd.Run()
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("see whether user %s can reach %s: %w", a.name, dir, err)
	}
	return true, nil
}

func (p place) moveElsewhere(cfg Config) (place, error) {
	root := elsewhereRoot
	if cfg.elsewhere != "" {
		root = cfg.elsewhere
	}
	p.base = filepath.Join(root, filepath.Base(p.dir)+"-"+nameHash(p.dir))
	if err := makeOwn(p.base, p.account); err != nil {
		return place{}, fmt.Errorf("folder of the private database: %w", err)
	}
	if err := writeFile(filepath.Join(p.dir, locationFile), p.base+"\n"); err != nil {
		return place{}, fmt.Errorf("note where the private database is: %w", err)
	}
	cfg.logger().Info("the database's user cannot reach the data folder, so the database stands elsewhere",
		"user", p.account.name, "folder", p.dir, "database", p.base)
	return p, nil
}

// makeOwn makes a folder and what is missing above it. When the cluster runs as another user, that one may
// pass through, no more.
func makeOwn(dir string, a account) error {
	if exists(dir) {
		return nil
	}
	if err := makeOwn(filepath.Dir(dir), a); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !a.switched {
		return nil
	}
	return os.Chmod(dir, 0o711)
}

// withOwner makes the account the owner of an existing cluster.
func (p place) withOwner() (place, error) {
	data, err := ownerOf(p.dataDir())
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	base, err := ownerOf(p.base)
	if err != nil {
		return p, err
	}
	owner, err := accountByID(data)
	if err != nil {
		return p, err
	}
	if self := uint32(os.Geteuid()); data == self || (self == 0 && base == 0) {
		p.account = owner
		return p, nil
	}
	return p, fmt.Errorf("the database in %s belongs to user %s: run this as that user", p.dir, owner.name)
}

func ownerOf(path string) (uint32, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Uid, nil
}

// makeFolders makes what stands beside the data.
func (p place) makeFolders() error {
	if err := makeOwn(p.confDir(), p.account); err != nil {
		return err
	}
	for _, dir := range []string{p.logDir(), p.runDir()} {
		if err := p.makeGiven(dir); err != nil {
			return err
		}
	}
	return nil
}

// makeGiven makes a folder that only the account can enter.
func (p place) makeGiven(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return p.account.give(dir)
}

// writeFile replaces a file that the account may read but holds no secret. It is removed first, so that neither
// its former owner nor a link decides where the text goes.
func writeFile(path, text string) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	// The process's umask must not take the account's right to read away.
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(next, path)
}
