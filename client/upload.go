package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"relaymarket/client/files"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Defaults of [FileOptions].
const (
	DefaultFileTTL      = 14 * 24 * time.Hour
	DefaultFileMaxPulls = 3 // a device of the friend and two more: each reserves the file's size in the month's traffic
	DefaultFilePatience = 2 * time.Minute
)

// FileOptions say how a file is sent; the zero value is the defaults.
type FileOptions struct {
	TTL      time.Duration // how long relays keep it, 14 days, or as long as they do
	MaxPulls int64         // how often each relay serves it at most, 3
	Copies   int           // how many relays must have all of it before the friend is told, 1
	// Patience is for how long nothing may move before it is given up for now, 2 min.
	Patience time.Duration
	Progress func(FileProgress) // may be nil; called by one goroutine at a time
	// Due is called when a relay wants to be paid first. It returns true if it was paid more: the piece is sent again at once then,
	// and otherwise later, until Patience is over. It may be nil.
	Due func(ctx context.Context, relay *RelayError) bool
}

// SentFile is where a file that is sent stands.
type SentFile struct {
	ID       protocol.RecordID // of the message that tells the friend
	To       protocol.PublicKey
	Path     string
	Name     string
	Size     int64
	Pieces   int64
	MaxPulls int64
	Created  protocol.Timestamp
	Expires  protocol.Timestamp
	Relays   []state.RelayPieces
	Told     *Outgoing // the message that tells the friend; nil: he was not told yet
}

// SendFile sends a file of any size in pieces, and then a message that tells the friend how to put it together. The pieces
// go to all of the user's relays that have room for it; the friend is told when Copies of them have all pieces. What the
// others lack is tried for a little longer, and again with [Client.ResumeFiles] or [Client.Heal].
//
// If it is interrupted, in whatever way, the same call goes on where it was, as does ResumeFiles: the error is then an
// ErrFileNotStored, or the context's. The file has to stay as it is until all is sent: else ErrFileChanged. When too few
// relays can take the file nothing is sent at all: ErrNoSpace.
func (c *Client) SendFile(ctx context.Context, friend protocol.PublicKey, path string, o FileOptions) (*SentFile, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	source, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer source.file.Close()
	unsent, err := c.state.Unsent(ctx)
	if err != nil {
		return nil, err
	}
	for i := range unsent {
		if u := &unsent[i]; u.To == friend && u.Path == source.path && u.Size == source.size && u.Modified == source.modified {
			return c.upload(ctx, u, o)
		}
	}
	u, err := c.prepare(ctx, friend, source, &o)
	if err != nil {
		return nil, err
	}
	return c.upload(ctx, u, o)
}

func (o *FileOptions) complete() error {
	if o.MaxPulls == 0 {
		o.MaxPulls = DefaultFileMaxPulls
	}
	if o.Copies == 0 {
		o.Copies = DefaultCopies
	}
	if o.Patience == 0 {
		o.Patience = DefaultFilePatience
	}
	switch {
	case o.TTL != 0 && o.TTL < time.Minute:
		return errors.New("a file has to live for a minute at least")
	case o.MaxPulls < 1 || o.MaxPulls > protocol.MaxPullsLimit:
		return fmt.Errorf("max-pulls is 1 to %d", protocol.MaxPullsLimit)
	case o.Copies < 1:
		return errors.New("copies is 1 or more")
	}
	return nil
}

// source is a file to be sent, as it was when it was opened.
type source struct {
	file     *os.File
	path     string // absolute
	size     int64
	modified int64
}

func openSource(path string) (*source, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(absolute) // before it is opened: opening a pipe would wait for its writer
	switch {
	case err != nil:
		return nil, fmt.Errorf("the file to send: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder: pack it into one file first, for example with tar or zip", absolute)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no ordinary file", absolute)
	}
	file, err := os.Open(absolute)
	if err != nil {
		return nil, fmt.Errorf("the file to send: %w", err)
	}
	return &source{file: file, path: absolute, size: info.Size(), modified: info.ModTime().UnixNano()}, nil
}

// prepare finds out which relays take the file, reads it once, and queues its pieces.
func (c *Client) prepare(ctx context.Context, friend protocol.PublicKey, source *source, o *FileOptions) (*state.Upload, error) {
	f, err := c.Friend(ctx, friend)
	if err != nil {
		return nil, err
	}
	if _, ok := f.Card.SealingKey(); !ok {
		return nil, ErrNoSealing
	}
	u := &state.Upload{To: friend, Path: source.path, Name: sentName(source.path), Size: source.size, Modified: source.modified,
		MaxPulls: o.MaxPulls, Copies: o.Copies}
	relays, err := c.makeRoom(ctx, u, o)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("read entropy: %w", err)
	}
	u.ID = protocol.RecordID(id.String())
	if _, err := rand.Read(u.Secret[:]); err != nil {
		return nil, fmt.Errorf("read entropy: %w", err)
	}
	p := newProgress(u.Name, o.Progress)
	if err := p.during(ctx, PhaseReading, 0, u.Size, func(ctx context.Context) error { return readSource(ctx, source, u, p) }); err != nil {
		return nil, err
	}
	return u, c.state.StartUpload(ctx, u, relays, uuid.NewString(), c.now().Add(fileLease), func(i int64) (state.NewPiece, error) {
		piece, err := u.Secret.Piece(i)
		if err != nil {
			return state.NewPiece{}, err
		}
		return state.NewPiece{ID: piece.ID, Reader: piece.Reader.Public()}, nil
	})
}

// sentName is what the friend gets to see: the name alone, and text.
func sentName(path string) string {
	name := strings.ToValidUTF8(filepath.Base(path), "_")
	if utf8.RuneCountInString(name) > 255 {
		name = files.CleanName(name, "file")
	}
	return name
}

// readSource reads the whole file and notes its hash and those of its pieces.
func readSource(ctx context.Context, source *source, u *state.Upload, p *progress) error {
	m := manifestOf(u)
	digest, chunk := sha256.New(), make([]byte, u.ChunkBytes)
	u.Hashes = make([]protocol.Hash, 0, m.AllPieces())
	for i := range m.Chunks() {
		data := chunk[:m.PieceBytes(i)]
		if _, err := io.ReadFull(io.NewSectionReader(source.file, i*u.ChunkBytes, int64(len(data))), data); err != nil {
			return changedOr(err)
		}
		digest.Write(data)
		if err := appendPiece(u, i, data); err != nil {
			return err
		}
		p.add(int64(len(data)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	digest.Sum(u.SHA256[:0])
	for i := m.Chunks(); i < m.AllPieces(); i++ {
		if err := appendPiece(u, i, indexPart(u, i)); err != nil {
			return err
		}
	}
	return source.unchanged()
}

func appendPiece(u *state.Upload, i int64, data []byte) error {
	piece, err := u.Secret.Piece(i)
	if err != nil {
		return err
	}
	content, err := piece.Seal(data, u.ChunkBytes)
	u.Hashes = append(u.Hashes, protocol.PieceHash(content))
	return err
}

// indexPart is the piece i of the index: hashes of chunks.
func indexPart(u *state.Upload, i int64) []byte {
	m := manifestOf(u)
	perPart := u.ChunkBytes / int64(len(protocol.Hash{}))
	first := (i - m.Chunks()) * perPart
	var part []byte
	for _, h := range u.Hashes[first:min(first+perPart, m.Chunks())] {
		part = append(part, h[:]...)
	}
	return part
}

// manifestOf is the manifest of a file, without hashes as long as there are none.
func manifestOf(u *state.Upload) *protocol.FileManifest {
	m := &protocol.FileManifest{ChunkBytes: u.ChunkBytes, Secret: u.Secret, SHA256: u.SHA256, Size: u.Size}
	if int64(len(u.Hashes)) == m.AllPieces() {
		if m.IndexPieces() > 0 {
			m.Index = u.Hashes[m.Chunks():]
		} else {
			m.Pieces = u.Hashes
		}
	}
	return m
}

// unchanged tells whether the file is still what it was. A change that leaves time and size is found by the hash of the piece.
func (s *source) unchanged() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != s.size || info.ModTime().UnixNano() != s.modified {
		return ErrFileChanged
	}
	return nil
}

func changedOr(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrFileChanged
	}
	return fmt.Errorf("read the file to send: %w", err)
}

// ResumeFiles goes on with all files that are not sent to the end: those of path only, if it is not empty.
func (c *Client) ResumeFiles(ctx context.Context, path string, o FileOptions) ([]*SentFile, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	if path != "" {
		var err error
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
	}
	unsent, err := c.state.Unsent(ctx)
	if err != nil {
		return nil, err
	}
	var all []*SentFile
	var failures []error
	for i := range unsent {
		if path != "" && unsent[i].Path != path {
			continue
		}
		sent, err := c.upload(ctx, &unsent[i], o)
		if sent != nil {
			all = append(all, sent)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", unsent[i].Name, err))
		}
	}
	return all, errors.Join(failures...)
}

// UnsentFiles lists the files that are not sent to the end.
func (c *Client) UnsentFiles(ctx context.Context) ([]*SentFile, error) {
	unsent, err := c.state.Unsent(ctx)
	if err != nil {
		return nil, err
	}
	var all []*SentFile
	for i := range unsent {
		sent, err := c.sentFile(ctx, &unsent[i])
		if err != nil {
			return nil, err
		}
		all = append(all, sent)
	}
	return all, nil
}

// FileOf is where the file stands that a sent message tells of; nil if it tells of none, or another device sent it.
func (c *Client) FileOf(ctx context.Context, m *Outgoing) (*SentFile, error) {
	if m.ContentType != protocol.FileType {
		return nil, nil
	}
	u, err := c.state.UploadOf(ctx, m.N)
	if errors.Is(err, state.ErrNoUpload) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return c.sentFile(ctx, u)
}

func (c *Client) sentFile(ctx context.Context, u *state.Upload) (*SentFile, error) {
	// The outcome is read with a context of its own: what is on disk is, whatever became of the caller's.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	u, err := c.state.Upload(ctx, u.N)
	if err != nil {
		return nil, err
	}
	sent := &SentFile{ID: u.ID, To: u.To, Path: u.Path, Name: u.Name, Size: u.Size, Pieces: int64(len(u.Hashes)), MaxPulls: u.MaxPulls,
		Created: u.Created, Expires: u.Expires}
	if sent.Relays, err = c.state.UploadCopies(ctx, u.N); err != nil {
		return nil, err
	}
	if u.Manifest != 0 {
		sent.Told, err = c.state.Outgoing(ctx, u.Manifest)
	}
	return sent, err
}

// RemoveFile stops sending a file of which the friend was not told yet, and deletes what relays have of it, as far as they
// answer; the rest is tried again by Flush, Send and Sync. Once he was told, it is deleted with that message, by Remove.
func (c *Client) RemoveFile(ctx context.Context, id protocol.RecordID) error {
	if err := c.unlocked(); err != nil {
		return err
	}
	u, err := c.state.UploadNamed(ctx, id)
	if err != nil {
		return err
	}
	if err := c.state.RemoveUpload(ctx, u.N); err != nil {
		return err
	}
	_, err = c.Flush(ctx)
	return err
}
