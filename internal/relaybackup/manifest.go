package relaybackup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"relaymarket/protocol"
)

const (
	manifestName = "manifest.json"
	dumpName     = "database.dump"
	folderPart   = "folder/"
	otherPart    = "elsewhere/"

	formatVersion = 1
	maxManifest   = 1 << 20
	maxFiles      = 2048
)

// ErrDamaged: the folder holds no whole backup. It is not used for anything.
var ErrDamaged = errors.New("this is no whole backup")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Manifest says what a backup is.
type Manifest struct {
	Format  int                `json:"format"`
	Relay   protocol.PublicKey `json:"relay"`
	Taken   protocol.Timestamp `json:"taken"`   // of the snapshot, the machine's clock: what was acknowledged before is in it
	TookMs  int64              `json:"tookMs"`  // all of it, without the rehearsal
	Program string             `json:"program"` // relayd's version
	// Rehearsed is when it was restored to see whether it can be; 0: it was not.
	Rehearsed protocol.Timestamp `json:"rehearsed"`
	Database  Database           `json:"database"`
	Files     []File             `json:"files"`
	// Sum is the SHA-256 of this document with an empty sum.
	Sum string `json:"sum"`
}

// Database is what was dumped.
type Database struct {
	Schema    int64            `json:"schema"`   // of migrations
	Postgres  string           `json:"postgres"` // the server's version
	Tools     int              `json:"tools"`    // major version of pg_dump
	Epoch     string           `json:"epoch"`    // of its cursor, which no restored database has again
	Cursor    int64            `json:"cursor"`
	Rows      map[string]int64 `json:"rows"` // of every table
	Indexes   int64            `json:"indexes"`
	Rules     int64            `json:"rules"` // constraints
	Bytes     int64            `json:"bytes"` // that tables and indexes took
	Contracts int64            `json:"contracts"`
}

// File is one file of a backup.
type File struct {
	Name    string `json:"name"` // within the backup, with slashes
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
	Setting string `json:"setting,omitempty"` // that names it, if one does
	From    string `json:"from,omitempty"`    // where it stood
}

// encode is the document with its sum.
func (m *Manifest) encode() ([]byte, error) {
	plain := *m
	plain.Sum = ""
	text, err := json.MarshalIndent(&plain, "", "  ")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	plain.Sum = hex.EncodeToString(sum[:])
	text, err = json.MarshalIndent(&plain, "", "  ")
	return append(text, '\n'), err
}

// ParseManifest reads a manifest. It has to be the very bytes that were written: one that was changed anywhere is [ErrDamaged].
func ParseManifest(text []byte) (*Manifest, error) {
	if len(text) > maxManifest {
		return nil, damaged("%s is larger than a megabyte", manifestName)
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, damaged("%s cannot be read: %v", manifestName, err)
	}
	if m.Format > formatVersion {
		return nil, fmt.Errorf("the backup has format %d, this relayd knows up to %d: use the relayd that made it (%s)", m.Format, formatVersion, m.Program)
	}
	again, err := m.encode()
	if err != nil || !bytes.Equal(again, text) {
		return nil, damaged("%s is not as it was written", manifestName)
	}
	return &m, m.validate()
}

func (m *Manifest) validate() error {
	if m.Format != formatVersion || m.Database.Cursor < 0 || m.Database.Epoch == "" || len(m.Database.Rows) == 0 || len(m.Files) > maxFiles {
		return damaged("%s lacks something", manifestName)
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if !validName(f.Name) || f.Bytes < 0 || len(f.SHA256) != 2*sha256.Size || seen[f.Name] {
			return damaged("%s names a file that none can be", manifestName)
		}
		seen[f.Name] = true
	}
	if !seen[dumpName] {
		return damaged("%s names no database", manifestName)
	}
	return nil
}

// validName keeps files within the two folders: a name decides where a restore writes to.
func validName(name string) bool {
	if name == dumpName {
		return true
	}
	if strings.ContainsAny(name, "\\\x00") || path.Clean(name) != name || !filepath.IsLocal(filepath.FromSlash(name)) {
		return false
	}
	return strings.HasPrefix(name, folderPart) || strings.HasPrefix(name, otherPart)
}

// Bytes is the size of the whole backup.
func (m *Manifest) Bytes() int64 {
	var total int64
	for _, f := range m.Files {
		total += f.Bytes
	}
	return total
}

// Age is how old it is.
func (m *Manifest) Age(now time.Time) time.Duration { return now.Sub(m.Taken.Time()) }

// Dump is the file of the database.
func (m *Manifest) Dump() File {
	for _, f := range m.Files {
		if f.Name == dumpName {
			return f
		}
	}
	return File{}
}

// ReadManifest reads the manifest of a backup, without looking at its other files.
func ReadManifest(folder string) (*Manifest, error) {
	at := filepath.Join(folder, manifestName)
	info, err := os.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no folder %s: name that of a backup", folder)
		}
		if all, err := filepath.Glob(filepath.Join(folder, "*", manifestName)); err == nil && len(all) > 0 {
			return nil, fmt.Errorf("%s is no backup but has %d in it: name one of them, such as %s", folder, len(all), filepath.Dir(all[len(all)-1]))
		}
		return nil, damaged("%s has no %s; a backup that was cut off has a name that begins with a dot, and may be deleted", folder, manifestName)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxManifest {
		return nil, damaged("%s is no manifest", at)
	}
	text, err := os.ReadFile(at)
	if err != nil {
		return nil, err
	}
	return ParseManifest(text)
}
