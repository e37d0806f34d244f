package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"

	"relaymarket/client/state"
	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// rehearse restores a backup to a folder that serves for nothing else, and says what that proved.
func (c *Config) rehearse(ctx context.Context, path, work string) (*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%w: %s is no ordinary file", ErrNotBackup, path))
	}
	digest, counted := sha256.New(), &counter{}
	r := &Report{Path: path}
	if r.Manifest, err = c.unpack(ctx, io.TeeReader(f, io.MultiWriter(digest, counted)), work); err != nil {
		return nil, err
	}
	r.Bytes, r.SHA256 = counted.n, protocol.Hash(digest.Sum(nil))
	r.done("decrypted with the key that your words make, read to the end, no byte changed (%s)", megabytes(r.Bytes))
	var names []string
	for _, file := range r.Manifest.Files {
		names = append(names, file.Name)
	}
	r.done("unpacked %s (%s): each has the SHA-256 of what was copied", list(names), megabytes(r.Manifest.bytes()))
	for _, file := range r.Manifest.Files {
		if err := file.sound(ctx, work); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, file.Name, err)
		}
	}
	r.done("the databases are sound, and every table has as many rows as when it was copied")
	if err := c.opens(ctx, r, work); err != nil {
		return nil, err
	}
	return r, c.documents(r, work)
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func (r *Report) done(format string, args ...any) {
	r.Checks = append(r.Checks, fmt.Sprintf(format, args...))
}

// sound has SQLite look through a database, and compares what is in it with what was counted.
func (f *File) sound(ctx context.Context, dir string) error {
	if !isDatabase(f.Name) {
		return nil
	}
	db, err := sqlite.OpenAsIs(ctx, filepath.Join(dir, f.Name))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Check(ctx); err != nil {
		return err
	}
	version, err := db.Version(ctx)
	if err != nil {
		return err
	}
	rows, err := db.Rows(ctx)
	if err != nil {
		return err
	}
	if version != f.Schema || !maps.Equal(rows, f.Rows) {
		return errors.New("its tables have not as many rows as were counted")
	}
	return nil
}

// opens opens state and contracts as the program does, which brings those of an older one up to date.
func (c *Config) opens(ctx context.Context, r *Report, dir string) error {
	s, err := state.Open(ctx, state.Config{Path: filepath.Join(dir, StateFile), Owner: &c.Owner, Clock: c.Clock})
	if err != nil {
		return fmt.Errorf("open the restored state: %w", err)
	}
	if err := errors.Join(lastMessage(ctx, s), s.Close()); err != nil {
		return fmt.Errorf("read the restored state: %w", err)
	}
	r.done("opened by this program: %d received, %d sent, friends: %d, relays: %d", r.Count("messages"), r.Count("outbox"), r.Count("friends"), r.Count("relays"))
	path := filepath.Join(dir, ContractsFile)
	if _, err := os.Stat(path); err != nil {
		return nil // there are none
	}
	contracts, err := userside.OpenStore(ctx, path, &c.Owner, c.Clock)
	if err != nil {
		return fmt.Errorf("open the restored contracts: %w", err)
	}
	defer contracts.Close()
	records, err := contracts.Contracts(ctx)
	if err != nil {
		return fmt.Errorf("read the restored contracts: %w", err)
	}
	for i := range records {
		if records[i].Document != nil {
			r.contract(c, records[i].Document, "contract "+records[i].ID.Short())
		}
	}
	if len(records) > 0 {
		r.done("%d of %d contracts: the descriptor is whole, and your words make its key", r.Contracts, len(records))
	}
	return nil
}

// lastMessage reads what a user would read first.
func lastMessage(ctx context.Context, s *state.Store) error {
	n, err := s.LastMessage(ctx)
	if err == nil && n > 0 {
		_, err = s.Messages(ctx, state.Filter{After: n - 1})
	}
	return err
}

// contract checks the document of one.
func (r *Report) contract(c *Config, document []byte, name string) {
	if err := c.ours(document); err != nil {
		r.Faults = append(r.Faults, fmt.Sprintf("%s: %v", name, err))
		return
	}
	r.Contracts++
}

func (c *Config) ours(document []byte) error {
	b, err := escrow.ParseBackup(document)
	if err != nil {
		return err
	}
	if b.Contract.User != c.Owner {
		return errors.New("it belongs to another key")
	}
	key, err := c.Keys.ContractKey(b.Contract.Network, b.Contract.ID)
	if err != nil {
		return err
	}
	defer key.Zero()
	if escrow.KeyOf(key) != b.Contract.UserKey {
		return errors.New("your words do not make its key")
	}
	return nil
}

// documents checks the file of descriptors, which may have some of contracts that the database does not know.
func (c *Config) documents(r *Report, dir string) error {
	path := filepath.Join(dir, DocumentsFile)
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	documents, err := userside.ReadBackup(path, c.Owner)
	if err != nil {
		r.Faults = append(r.Faults, fmt.Sprintf("%s: %v", DocumentsFile, err))
		return nil
	}
	good := 0
	for i, d := range documents {
		if err := c.ours(d); err != nil {
			r.Faults = append(r.Faults, fmt.Sprintf("%s, number %d: %v", DocumentsFile, i+1, err))
			continue
		}
		good++
	}
	if len(documents) > 0 {
		r.done("%d of %d descriptors in %s: whole, and your words make their keys", good, len(documents), DocumentsFile)
	}
	return nil
}
