package client_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"relaymarket/client"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
)

// someFile writes a file of random bytes.
func someFile(t *testing.T, name string, size int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	var seed [32]byte
	copy(seed[:], t.Name())
	_, _ = rand.NewChaCha8(seed).Read(data)
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

// gets syncs until a file is told of, and fetches it into a fresh folder.
func (p *person) gets(o client.FetchOptions) (path string, data []byte) {
	p.t.Helper()
	p.tries()
	files, err := p.Files(p.ctx())
	if err != nil {
		p.t.Fatal(err)
	}
	if len(files) != 1 {
		p.t.Fatalf("%d files came", len(files))
	}
	if o.Dir == "" {
		o.Dir = p.t.TempDir()
	}
	if path, err = p.FetchFile(p.ctx(), files[0].Message, o); err != nil {
		p.t.Fatal(err)
	}
	if data, err = os.ReadFile(path); err != nil {
		p.t.Fatal(err)
	}
	return path, data
}

func TestFile(t *testing.T) {
	one, two := testnode.Start(t, testnode.Options{}), testnode.Start(t, testnode.Options{})
	alice, bob := somebody(t).joins(one, two), somebody(t).joins(one)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "holiday.mp4", 2<<20+12345)
	sent, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{Copies: 2})
	if err != nil {
		t.Fatal(err)
	}
	if sent.Pieces != 6 || sent.Told == nil || len(sent.Relays) != 2 || sent.Relays[0].Pieces["stored"] != 6 || sent.Relays[1].Pieces["stored"] != 6 {
		t.Errorf("%+v", sent)
	}
	var phases []client.FilePhase
	saved, got := bob.gets(client.FetchOptions{Progress: func(p client.FileProgress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		if p.Total != int64(len(data)) || p.Done > p.Total {
			t.Errorf("%+v", p)
		}
	}})
	if !slices.Equal(phases, []client.FilePhase{client.PhaseFetching, client.PhaseChecking}) {
		t.Errorf("phases: %v", phases)
	}
	if !bytes.Equal(got, data) || filepath.Base(saved) != "holiday.mp4" {
		t.Errorf("%s has %d bytes", saved, len(got))
	}
	if left, err := os.ReadDir(filepath.Dir(saved)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A file of more chunks than a manifest names, and one of none.
func TestFileWithAnIndexAndEmptyFile(t *testing.T) {
	node := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) { c.Limits.RecordBytes = 32 << 10 }})
	alice, bob := somebody(t).joins(node), somebody(t)
	alice.befriends(bob)
	bob.befriends(alice)
	path, data := someFile(t, "indexed.bin", 256*23_552+1) // one more than a manifest names
	sent, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{})
	if err != nil || sent.Pieces < 257+1 {
		t.Fatalf("%+v, %v", sent, err)
	}
	if _, got := bob.gets(client.FetchOptions{}); !bytes.Equal(got, data) {
		t.Error("the file is another")
	}
	empty, _ := someFile(t, "empty.bin", 0)
	if sent, err = alice.SendFile(t.Context(), bob.Key(), empty, client.FileOptions{}); err != nil || sent.Pieces != 0 || sent.Told == nil {
		t.Fatalf("%+v, %v", sent, err)
	}
	bob.tries()
	files, err := bob.Files(t.Context())
	if err != nil || len(files) != 2 {
		t.Fatal(len(files), err)
	}
	saved, err := bob.FetchFile(t.Context(), files[1].Message, client.FetchOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(saved); err != nil || info.Size() != 0 {
		t.Error(info, err)
	}
}
