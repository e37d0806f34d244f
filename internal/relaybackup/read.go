package relaybackup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Verify reads a whole backup and sees whether every file is what the manifest says. The error is [ErrDamaged] if one is not.
func Verify(ctx context.Context, folder string, report func(Progress)) (*Manifest, error) {
	m, err := ReadManifest(folder)
	if err != nil {
		return nil, err
	}
	var before int64
	for _, f := range m.Files {
		show := func(n int64) {
			if report != nil {
				report(Progress{Step: "checksums", Done: before + n, Total: m.Bytes()})
			}
		}
		if err := verifyFile(ctx, folder, f, nil, show); err != nil {
			return nil, err
		}
		before += f.Bytes
	}
	return m, nil
}

// verifyFile reads a file, and writes it to out too if there is one.
func verifyFile(ctx context.Context, folder string, f File, out io.Writer, report func(int64)) error {
	at := filepath.Join(folder, filepath.FromSlash(f.Name))
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return damaged("%s is missing", at)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return damaged("%s is no file", at)
	case info.Size() != f.Bytes:
		return damaged("%s has %d bytes, and had %d", at, info.Size(), f.Bytes)
	}
	in, err := os.Open(at)
	if err != nil {
		return err
	}
	to := &meter{ctx: ctx, hash: sha256.New(), out: out, report: report}
	_, err = io.Copy(to, in)
	if err = errors.Join(err, in.Close()); err != nil {
		return err
	}
	if to.n != f.Bytes || hex.EncodeToString(to.hash.Sum(nil)) != f.SHA256 {
		return damaged("%s is not as it was written: its checksum differs", at)
	}
	return nil
}
