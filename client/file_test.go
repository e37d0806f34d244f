package client_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"relaymarket/client"
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
	path, data := someFile(t, "holiday.mp4", 5<<20+12345)
	sent, err := alice.SendFile(t.Context(), bob.Key(), path, client.FileOptions{Copies: 2, Progress: func(p client.FileProgress) { t.Log(p) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", sent)
	saved, got := bob.gets(client.FetchOptions{Progress: func(p client.FileProgress) { t.Log(p) }})
	if !bytes.Equal(got, data) || filepath.Base(saved) != "holiday.mp4" {
		t.Errorf("%s has %d bytes", saved, len(got))
	}
	if left, err := os.ReadDir(filepath.Dir(saved)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}
