package backup

import (
	"maps"

	"github.com/go-json-experiment/json"

	"relaymarket/protocol"
)

const (
	format = 1
	// maxManifest bounds what is read of a manifest, in bytes.
	maxManifest  = 1 << 20
	manifestName = "manifest.json"
)

// Manifest says what is in a backup.
type Manifest struct {
	Format  int                `json:"format"`
	Owner   protocol.PublicKey `json:"owner"`
	Taken   protocol.Timestamp `json:"taken"`
	Program string             `json:"program"`
	Files   []File             `json:"files"`
}

// File is a file of a folder, as it is in a backup.
type File struct {
	Name   string           `json:"name"`
	Bytes  int64            `json:"bytes"`
	SHA256 protocol.Hash    `json:"sha256"`
	Schema int              `json:"schema,omitempty"` // steps that a database has seen
	Rows   map[string]int64 `json:"rows,omitempty"`   // of each of its tables
}

// order is in which files are taken: see the package comment.
var order = []string{MarketFile, StateFile, ContractsFile, DocumentsFile}

func isDatabase(name string) bool { return name != DocumentsFile }

// same tells whether two manifests are of the same files.
func (m *Manifest) same(other *Manifest) bool {
	if m.Owner != other.Owner || m.Taken != other.Taken || len(m.Files) != len(other.Files) {
		return false
	}
	for i, f := range m.Files {
		o := other.Files[i]
		if f.Name != o.Name || f.Bytes != o.Bytes || f.SHA256 != o.SHA256 || f.Schema != o.Schema || !maps.Equal(f.Rows, o.Rows) {
			return false
		}
	}
	return true
}

func (m *Manifest) bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Bytes
	}
	return n
}

// readManifest reads one and checks that it can be followed. What comes from a newer program is ErrNewer even if it cannot be understood.
func readManifest(data []byte) (*Manifest, error) {
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &version); err != nil || version.Format < 1 {
		return nil, ErrDamaged
	}
	if version.Format > format {
		return nil, ErrNewer
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, ErrDamaged
	}
	next, total := 0, int64(0)
	hasState := false
	for _, f := range m.Files {
		for next < len(order) && order[next] != f.Name {
			next++
		}
		if next == len(order) || f.Bytes < 0 || f.Schema < 0 || total+f.Bytes < total {
			return nil, ErrDamaged
		}
		next++
		total += f.Bytes
		hasState = hasState || f.Name == StateFile
	}
	if !hasState {
		return nil, ErrDamaged
	}
	return &m, nil
}
