package userside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"relaymarket/internal/atomicfile"
	"relaymarket/protocol"
)

// BackupType is the content type of a contract's backup document sealed to oneself on another relay.
const BackupType = "application/vnd.relaymarket.contract-backup+json"

const (
	backupVersion = 1
	// maxBackup bounds what is read of a backup file, in bytes; a contract takes less than two thousand.
	maxBackup = 16 << 20
)

// ErrBackup: a backup is not one, or not one that this program can read.
var ErrBackup = errors.New("not a backup of contracts that this version can read")

// backupFile is the backup file. It holds no secret: without the seed nothing in it can be spent. It does tell
// which coins are the user's. The documents stand in it byte for byte, each on a line.
type backupFile struct {
	Version   int                `json:"version"`
	Owner     protocol.PublicKey `json:"owner"`
	Written   protocol.Timestamp `json:"written"`
	Contracts []json.RawMessage  `json:"contracts"` // documents of package escrow, oldest first
}

// encode is the file's bytes. An encoder of JSON would lay the documents out anew, and they are canonical.
func (f *backupFile) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"version":%d,"owner":"%s","written":%d,"contracts":[`, f.Version, f.Owner, f.Written)
	for i, document := range f.Contracts {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		b.Write(document)
	}
	b.WriteString("\n]}\n")
	return b.Bytes()
}

// ExportBackup writes the documents of all contracts that may still hold money to a file, in one step, and returns
// how many they are. Whoever is in doubt writes it again: it is always whole.
func (s *Store) ExportBackup(ctx context.Context, path string) (int, error) {
	records, err := s.Contracts(ctx)
	if err != nil {
		return 0, err
	}
	file := backupFile{Version: backupVersion, Owner: s.owner, Written: s.now(), Contracts: []json.RawMessage{}}
	for _, r := range records {
		if r.Document != nil && r.Step != StepOver && r.State != protocol.StateArchived {
			file.Contracts = append(file.Contracts, r.Document)
		}
	}
	return len(file.Contracts), atomicfile.Replace(path, file.encode())
}

// ReadBackup reads the documents of a backup file of this owner. What is in them package escrow tells. ErrBackup, ErrOwner.
func ReadBackup(path string, owner protocol.PublicKey) ([][]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s", path)
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxBackup || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s", ErrBackup, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file backupFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrBackup, path)
	}
	if file.Version != backupVersion {
		return nil, fmt.Errorf("%w: it has version %d, this program knows %d", ErrBackup, file.Version, backupVersion)
	}
	if file.Owner != owner {
		return nil, fmt.Errorf("%w, %s", ErrOwner, file.Owner.Bech32())
	}
	documents := make([][]byte, 0, len(file.Contracts))
	for _, d := range file.Contracts {
		documents = append(documents, d)
	}
	return documents, nil
}
