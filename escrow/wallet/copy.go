package wallet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/btcsuite/btcwallet/walletdb"
)

// FileName is the one file in a wallet's folder.
const FileName = fileName

// Copy writes the wallet's file as it is at one moment, while the wallet is used.
func (w *Wallet) Copy(to io.Writer) error { return w.db.Copy(to) }

// CopyFolder writes the file of a wallet that no process has open. The error is [ErrInUse] if one has, and os.ErrNotExist if there
// is no wallet.
func CopyFolder(dir string, to io.Writer) error {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return err
	}
	db, err := walletdb.Open(driver, path, noFreelist, openPatience, true)
	if err != nil {
		return openFault(dir, err)
	}
	if err := errors.Join(db.Copy(to), db.Close()); err != nil {
		return fmt.Errorf("copy the wallet in %s: %w", dir, err)
	}
	return nil
}
