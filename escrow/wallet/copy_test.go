package wallet_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"relaymarket/escrow/wallet"
	"relaymarket/internal/regtest"
)

// A copy of an open wallet is a wallet, with its coins and addresses; one that is open is not copied behind its back.
func TestCopy(t *testing.T) {
	t.Parallel()
	n := regtest.Start(t)
	dir := t.TempDir()
	p := open(t, n, func(c *wallet.Config) { c.Dir = dir })
	n.Fund(p.address(wallet.P2WPKH), 1*bitcoin)
	p.wants(1*bitcoin, 0)
	var copied bytes.Buffer
	if err := p.Copy(&copied); err != nil {
		t.Fatal(err)
	}
	if err := wallet.CopyFolder(dir, &bytes.Buffer{}); !errors.Is(err, wallet.ErrInUse) {
		t.Errorf("of an open wallet: %v", err)
	}
	p.close()
	var closed bytes.Buffer
	if err := wallet.CopyFolder(dir, &closed); err != nil || closed.Len() == 0 {
		t.Errorf("of a closed wallet: %d bytes, %v", closed.Len(), err)
	}
	if err := wallet.CopyFolder(t.TempDir(), &closed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of none: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, wallet.FileName), copied.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, n, func(c *wallet.Config) { c.Dir = other }).wants(1*bitcoin, 0)
}
