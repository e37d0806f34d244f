package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"relaymarket/client/backup"
	"relaymarket/client/keyfile"
)

// restoreAll restores a backup of everything.
func (p *program) restoreAll(ctx context.Context, path string) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	// Before anybody types 24 words in vain.
	if fresh, err := backup.Fresh(ctx, dir); err != nil || !fresh {
		return errors.Join(err, unlessFresh(fresh))
	}
	seed, keys, err := p.keysToRestore(ctx, dir)
	if err != nil {
		return err
	}
	defer seed.Wipe()
	c, end, err := p.backupConfig(dir, seed)
	if err != nil {
		return err
	}
	defer end()
	report, err := backup.Restore(ctx, c, path, keys)
	if err != nil {
		return err
	}
	return p.showRestoredAll(report)
}

func unlessFresh(fresh bool) error {
	if fresh {
		return nil
	}
	return backup.ErrInUse
}

// keysToRestore is the seed of the key file, or of words that are typed: then keys makes the key file.
func (p *program) keysToRestore(ctx context.Context, dir string) (seed *keyfile.Seed, keys func() error, err error) {
	path := filepath.Join(dir, keyFileName)
	_, err = keyfile.Inspect(path)
	if err == nil {
		seed, err = p.seed(ctx, dir)
		return seed, nil, err
	}
	if !errors.Is(err, keyfile.ErrNotFound) {
		return nil, nil, err
	}
	if seed, err = p.newSeed(true); err != nil {
		return nil, nil, err
	}
	passphrase, err := p.newPassphrase()
	if err != nil {
		seed.Wipe()
		return nil, nil, err
	}
	return seed, func() error {
		defer passphrase.Wipe()
		return keyfile.Create(path, seed, time.Now(), passphrase, keyfile.Options{})
	}, nil
}

// restoreFromRelays restores the newest backup that is on relays, if the folder is one that was not used. done is false if it was, or if there is
// no backup and the keys are here: descriptors of contracts may be.
func (p *program) restoreFromRelays(ctx context.Context, addresses []string) (done bool, err error) {
	dir, err := p.folder()
	if err != nil {
		return false, err
	}
	if fresh, err := backup.Fresh(ctx, dir); err != nil || !fresh {
		return false, err
	}
	seed, keys, err := p.keysToRestore(ctx, dir)
	if err != nil {
		return false, err
	}
	defer seed.Wipe()
	// A state for this alone, beside the folder that is to be: what is pulled is no part of what is restored.
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return false, err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".relay-restore-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	path := filepath.Join(work, "backup")
	at, err := p.openWith(ctx, work, seed)
	if err != nil {
		return false, err
	}
	stop := p.busy("looking for backups")
	err = errors.Join(backup.Take(ctx, at, addresses, path), at.Close())
	stop()
	if errors.Is(err, backup.ErrNoneThere) && keys == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c, end, err := p.backupConfig(dir, seed)
	if err != nil {
		return false, err
	}
	defer end()
	report, err := backup.Restore(ctx, c, path, keys)
	if err != nil {
		return false, err
	}
	report.Path = "what was left on your relays"
	return true, p.showRestoredAll(report)
}

const restoredVerb = "Restored"

func (p *program) showRestoredAll(r *backup.Report) error {
	if err := p.showBackup(restoredVerb, r); err != nil || p.json {
		return err
	}
	if err := p.say("\nNext: relay inbox   gets what came since then, as far as relays still have it\n"); err != nil {
		return err
	}
	if r.Contracts == 0 {
		return nil
	}
	return p.say("      relay restore --relay ADDRESS   takes in contracts that you opened since then\n")
}
