package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"relaymarket/client/files"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// IncomingFile is a file that a friend sent.
type IncomingFile struct {
	Message  Message // that told of it; its Name is what the sender calls the file
	Name     string  // what it is called here
	Size     int64
	Expires  protocol.Timestamp
	Fault    string // why it cannot be fetched, else empty
	Here     int64  // bytes that were fetched already
	Saved    string // where it went; empty: it was not fetched yet
	Finished protocol.Timestamp
	manifest *protocol.FileManifest
}

// FetchOptions say where a file goes.
type FetchOptions struct {
	Dir      string // an existing folder; empty: the working folder
	Name     string // empty: what the sender calls it, made harmless
	Patience time.Duration
	Progress func(FileProgress)
}

// Files lists the files that friends sent, in the order in which they arrived.
func (c *Client) Files(ctx context.Context) ([]IncomingFile, error) {
	messages, err := c.state.Messages(ctx, state.Filter{})
	if err != nil {
		return nil, err
	}
	fetches, err := c.state.Fetches(ctx)
	if err != nil {
		return nil, err
	}
	var all []IncomingFile
	for _, m := range messages {
		if m.ContentType != protocol.FileType || m.Fault != "" {
			continue
		}
		all = append(all, incoming(m, fetches[m.N]))
	}
	return all, nil
}

// File is the file that a message tells of. ErrNoFile.
func (c *Client) File(ctx context.Context, m Message) (*IncomingFile, error) {
	if m.ContentType != protocol.FileType || m.Fault != "" {
		return nil, ErrNoFile
	}
	fetches, err := c.state.Fetches(ctx)
	if err != nil {
		return nil, err
	}
	f := incoming(m, fetches[m.N])
	return &f, nil
}

func incoming(m Message, at state.Fetch) IncomingFile {
	f := IncomingFile{Message: m, Expires: m.Expires, Saved: at.Saved, Finished: at.Finished}
	f.Name = files.CleanName(m.Name, "file-"+string(m.ID)[max(0, len(m.ID)-8):])
	manifest, err := protocol.ParseFileManifest(m.Body)
	if err != nil {
		f.Fault = err.Error()
		return f
	}
	f.manifest, f.Size = manifest, manifest.Size
	if f.Saved == "" {
		f.Here = min(at.Here*manifest.ChunkBytes, manifest.Size)
	}
	return f
}

// FetchFile fetches a file that a friend sent from whichever of his relays has its pieces, checks all of it, and puts it into
// the folder under its name: never over a file that is there (ErrFileExists), and never outside the folder. It returns the path.
//
// What came is kept when it is interrupted, in whatever way, and the same call goes on with the rest. When pieces are on no relay that
// answers the error is ErrFileIncomplete; ErrBadFile means that the sender sent something else than he says.
func (c *Client) FetchFile(ctx context.Context, m Message, o FetchOptions) (string, error) {
	if err := c.unlocked(); err != nil {
		return "", err
	}
	f, err := c.File(ctx, m)
	switch {
	case err != nil:
		return "", err
	case f.Fault != "":
		return "", fmt.Errorf("%w: %s", ErrBadFile, f.Fault)
	}
	if o.Name == "" {
		o.Name = f.Name
	}
	if filepath.Base(o.Name) != o.Name || o.Name == "." || o.Name == ".." {
		return "", fmt.Errorf("%w: %q is no name for a file", ErrName, o.Name)
	}
	if o.Patience == 0 {
		o.Patience = DefaultFilePatience
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return "", err
	}
	if info, err := os.Stat(o.Dir); err != nil {
		return "", fmt.Errorf("the folder for the file: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("%s is no folder", o.Dir)
	}
	if err := files.Free(o.Dir, o.Name); err != nil {
		return "", err
	}
	partName := files.PartName(files.CleanName(o.Name, "file"), string(m.ID))
	ctx, end, err := c.hold(ctx, func(ctx context.Context, holder string, until protocol.Timestamp) (bool, protocol.Timestamp, error) {
		return c.state.LeaseFetch(ctx, m.N, filepath.Join(o.Dir, partName), holder, until)
	}, func(ctx context.Context, holder string) error { return c.state.ReleaseFetch(ctx, m.N, holder) })
	if err != nil {
		return "", err
	}
	defer end()
	part, fresh, err := files.OpenPart(o.Dir, partName, f.Size)
	if err != nil {
		return "", err
	}
	defer part.Close()
	d := &fetcher{c: c, n: m.N, from: m.From, m: f.manifest, part: part, o: o, progress: newProgress(f.Name, o.Progress),
		slots: make(chan struct{}, allFlight)}
	if fresh {
		if err := c.state.ForgetAllPieces(ctx, m.N); err != nil {
			return "", err
		}
	}
	path, err := d.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return path, err
}

// run fetches all that is missing, checks the whole, and gives it its name.
func (d *fetcher) run(ctx context.Context) (string, error) {
	if err := d.sources(ctx); err != nil {
		return "", err
	}
	if err := d.index(ctx); err != nil {
		return "", err
	}
	for again := false; ; again = true {
		if err := d.chunks(ctx); err != nil {
			return "", err
		}
		whole, err := d.check(ctx)
		if err != nil {
			return "", err
		}
		if whole {
			break
		}
		// Somebody else wrote to the part, or the disk did not keep what it was given.
		bad, err := d.recheck(ctx)
		if err != nil {
			return "", err
		}
		if again || bad == 0 {
			return "", fmt.Errorf("%w: its pieces are what he sent, and together they are not the file that he signed for", ErrBadFile)
		}
	}
	d.acknowledgeRest(ctx)
	path, err := d.part.Finish(d.o.Name)
	if path == "" {
		return "", err
	}
	return path, errors.Join(err, d.c.state.FinishFetch(ctx, d.n, path))
}

// check tells whether the whole file is what its sender signed for.
func (d *fetcher) check(ctx context.Context) (whole bool, err error) {
	err = d.progress.during(ctx, PhaseChecking, 0, d.m.Size, func(ctx context.Context) error {
		sum, err := d.part.Sum(ctx, d.progress.add)
		whole = sum == d.m.SHA256
		return err
	})
	return whole, err
}

// recheck finds the chunks on disk that are not what came, and forgets them.
func (d *fetcher) recheck(ctx context.Context) (int, error) {
	var bad []int64
	buffer := make([]byte, d.m.ChunkBytes)
	for i := range d.m.Chunks() {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		data := buffer[:d.m.PieceBytes(i)]
		if err := d.part.ReadAt(data, i*d.m.ChunkBytes); err != nil {
			return 0, err
		}
		piece, err := d.m.Secret.Piece(i)
		if err != nil {
			return 0, err
		}
		content, err := piece.Seal(data, d.m.ChunkBytes)
		if err != nil {
			return 0, err
		}
		if protocol.PieceHash(content) != d.hashes[i] {
			bad = append(bad, i)
		}
	}
	return len(bad), d.c.state.ForgetPieces(ctx, d.n, bad)
}

// index fetches the hashes of the chunks, if the manifest does not have them itself.
func (d *fetcher) index(ctx context.Context) error {
	parts := d.m.IndexPieces()
	if parts == 0 {
		d.hashes = d.m.Pieces
		return nil
	}
	fetches, err := d.c.state.Fetches(ctx)
	if err != nil {
		return err
	}
	if known := fetches[d.n].Hashes; int64(len(known)) == d.m.Chunks() {
		d.hashes = known
		return nil
	}
	pool := newPool(d.m.Chunks(), parts, nil)
	got := make([][]byte, parts)
	err = d.fetch(ctx, pool, d.m.Index, func(ctx context.Context, i int64, data []byte, record Message, page protocol.PageID) error {
		got[i-d.m.Chunks()] = data
		return d.c.state.NoteRecord(ctx, record, page)
	})
	if err != nil {
		return err
	}
	d.hashes = make([]protocol.Hash, 0, d.m.Chunks())
	for _, data := range got {
		for len(data) > 0 {
			var h protocol.Hash
			data = data[copy(h[:], data):]
			d.hashes = append(d.hashes, h)
		}
	}
	return d.c.state.SetChunkHashes(ctx, d.n, d.hashes)
}

// chunks fetches the chunks that are not here.
func (d *fetcher) chunks(ctx context.Context) error {
	here, err := d.c.state.FetchedPieces(ctx, d.n)
	if err != nil {
		return err
	}
	pool := newPool(0, d.m.Chunks(), here)
	done := int64(0)
	for _, i := range here {
		done += d.m.PieceBytes(i)
	}
	return d.progress.during(ctx, PhaseFetching, done, d.m.Size, func(ctx context.Context) error {
		return d.fetch(ctx, pool, d.hashes, func(ctx context.Context, i int64, data []byte, record Message, page protocol.PageID) error {
			if err := d.part.WriteAt(data, i*d.m.ChunkBytes); err != nil {
				return err
			}
			d.progress.add(int64(len(data)))
			return d.c.state.StorePiece(ctx, d.n, i, record, page)
		})
	})
}
