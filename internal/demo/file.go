package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

const fileBytes = 20_000_000

// aFile sends a file that fits into no record: it goes in sealed pieces, over the relay of Bob's friend.
func aFile(ctx context.Context, s *stage, c *cast) error {
	scene("Bob sends Alice a film of %d MB.", fileBytes/1_000_000)
	content := make([]byte, fileBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails
	film := filepath.Join(s.dir, "film.mp4")
	if err := os.WriteFile(film, content, 0o600); err != nil {
		return err
	}
	began := time.Now()
	if _, err := c.bob.relay(ctx, "send", "--file", film, "alice"); err != nil {
		return err
	}
	sent := time.Now()
	got := filepath.Join(s.dir, "got.mp4")
	if _, err := c.alice.relay(ctx, "get", "latest", "--out", got); err != nil {
		return err
	}
	read, err := os.ReadFile(got)
	if err != nil {
		return err
	}
	if !bytes.Equal(read, content) {
		return fmt.Errorf("the file that came has %d bytes and is not the one that was sent", len(read))
	}
	c.sum.Files++
	tell("sent in %.1f s, fetched in %.1f s, every byte checked: SHA-256 %.8x…", sent.Sub(began).Seconds(), time.Since(sent).Seconds(), sha256.Sum256(read))
	return nil
}
