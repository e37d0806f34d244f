package userside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"relaymarket/escrow"
	"relaymarket/internal/atomicfile"
	"relaymarket/internal/sqlite"
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
// how many they are. Whoever is in doubt writes it again: it is always whole. What the file has of contracts that are unknown
// here stays in it: another folder, or a disk that is gone, may have written it. What it was before it came to other contracts
// is in the file named path.1. A file that cannot be read as a backup of this owner is left alone: ErrBackup, ErrOwner.
func (s *Store) ExportBackup(ctx context.Context, path string) (n int, err error) {
	// The lock on the contracts is held meanwhile, so that of two processes none writes what is old already.
	err = s.do(ctx, func(u *unit) error {
		records, err := documented(ctx, u)
		if err != nil {
			return err
		}
		before, err := readBackupFile(path, s.owner)
		if errors.Is(err, fs.ErrNotExist) {
			before, err = &backupFile{}, nil
		}
		if err != nil {
			return fmt.Errorf("it would be overwritten: %w. Move it away, or name another file", err)
		}
		file := backupFile{Version: backupVersion, Owner: s.owner, Written: u.now, Contracts: merge(records, before.Contracts)}
		n = len(file.Contracts)
		if len(before.Contracts) > 0 && !sameContracts(before.Contracts, file.Contracts) {
			if err := atomicfile.Replace(path+".1", before.encode()); err != nil {
				return err
			}
		}
		return atomicfile.Replace(path, file.encode())
	})
	return n, err
}

// documented are the contracts that have a document, oldest first, with no more of them than merge needs.
func documented(ctx context.Context, u *unit) ([]Record, error) {
	return sqlite.Collect(ctx, u, func(scan func(...any) error) (Record, error) {
		var r Record
		var id []byte
		err := scan(&id, &r.State, &r.Step, &r.Document)
		copy(r.ID[:], id)
		return r, err
	}, `SELECT id, state, step, document FROM contracts WHERE document IS NOT NULL ORDER BY created, id`)
}

// merge is what a backup has to hold: the documents of these contracts, after those of contracts that are not among
// them, or of which no document is here.
func merge(records []Record, before []json.RawMessage) []json.RawMessage {
	here := map[protocol.ContractID]bool{}
	var fresh []json.RawMessage
	for _, r := range records {
		over := r.Step == StepOver || r.State == protocol.StateArchived
		here[r.ID] = over || r.Document != nil
		if !over && r.Document != nil {
			fresh = append(fresh, r.Document)
		}
	}
	all := []json.RawMessage{}
	for _, document := range before {
		if id, ok := contractOf(document); !ok || !here[id] {
			all = append(all, document)
		}
	}
	return append(all, fresh...)
}

// contractOf is the contract that a document is of; false for one that this version cannot read.
func contractOf(document []byte) (protocol.ContractID, bool) {
	b, err := escrow.ParseBackup(document)
	if err != nil {
		return protocol.ContractID{}, false
	}
	return b.Contract.ID, true
}

// sameContracts tells whether two lists of documents are of the same contracts, in any order.
func sameContracts(a, b []json.RawMessage) bool {
	ids := func(documents []json.RawMessage) map[protocol.ContractID]bool {
		all := map[protocol.ContractID]bool{}
		for _, d := range documents {
			id, _ := contractOf(d)
			all[id] = true
		}
		return all
	}
	return len(a) == len(b) && maps.Equal(ids(a), ids(b))
}

// ReadBackup reads the documents of a backup file of this owner. What is in them package escrow tells. ErrBackup, ErrOwner.
func ReadBackup(path string, owner protocol.PublicKey) ([][]byte, error) {
	file, err := readBackupFile(path, owner)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s", path)
	}
	if err != nil {
		return nil, err
	}
	documents := make([][]byte, 0, len(file.Contracts))
	for _, d := range file.Contracts {
		documents = append(documents, d)
	}
	return documents, nil
}

func readBackupFile(path string, owner protocol.PublicKey) (*backupFile, error) {
	info, err := os.Stat(path)
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
	return &file, nil
}
