package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	// partBytes is the most of a backup that goes into one record; relays that take less get less.
	partBytes = 256 << 10
	// leastPart is the least that it makes sense to cut a backup into.
	leastPart = 8 << 10
	// maxOnRelays bounds a backup that is kept on relays, in bytes: there it is held in memory, and paid for.
	maxOnRelays = 64 << 20
	// keptFor is how long relays keep a backup.
	keptFor = 90 * 24 * time.Hour
	// maxPartHeader bounds the line before a part's bytes.
	maxPartHeader = 512
)

// ErrTooLarge: it is too large for relays.
var ErrTooLarge = errors.New("the backup is too large for relays: write it to a file")

// ErrNoneThere: a relay has no backup of this owner, or not all parts of one.
var ErrNoneThere = errors.New("there is no whole backup of yours there")

// part is the line before the bytes of a part, JSON: all parts of a backup have one sum.
type part struct {
	SHA256 protocol.Hash      `json:"sha256"` // of the whole
	Bytes  int64              `json:"bytes"`  // of the whole
	Taken  protocol.Timestamp `json:"taken"`
	Part   int                `json:"part"`
	Parts  int                `json:"parts"`
}

// Leave writes a backup, rehearses its restore, and leaves it in parts on the user's relays, sealed to himself once more. It returns when of each
// part one relay has a copy; what it left earlier is deleted then. parts is how many there are.
func Leave(ctx context.Context, c Config, at *client.Client) (r *Report, parts int, err error) {
	c.complete()
	relays, err := at.Relays(ctx)
	if err != nil {
		return nil, 0, err
	}
	if len(relays) == 0 {
		return nil, 0, client.ErrNoRelays
	}
	size := int64(partBytes)
	for _, relay := range relays {
		size = min(size, relay.Bytes/8*5-2<<10) // base64, padding, envelope
	}
	if size < leastPart {
		return nil, 0, fmt.Errorf("%w: a relay of yours takes no records of %d bytes", ErrTooLarge, leastPart*2)
	}
	dir, end, err := c.workspace()
	if err != nil {
		return nil, 0, err
	}
	defer end()
	path := filepath.Join(dir, "backup")
	if r, err = write(ctx, &c, path); err != nil {
		return nil, 0, err
	}
	if r.Bytes > maxOnRelays {
		return nil, 0, fmt.Errorf("%w: it has %s, at most %s go there", ErrTooLarge, megabytes(r.Bytes), megabytes(maxOnRelays))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	r.Path = ""
	bodies, err := cut(r, data, size)
	if err != nil {
		return nil, 0, err
	}
	first := int64(0)
	for i, body := range bodies {
		c.Progress(fmt.Sprintf("leaving part %d of %d on your relays", i+1, len(bodies)))
		message, err := at.Keep(ctx, state.BackupType, body, keptFor, protocol.PublicKey{})
		if err != nil {
			return nil, 0, fmt.Errorf("part %d of %d: %w", i+1, len(bodies), err)
		}
		if first == 0 {
			first = message.N
		}
	}
	if err := at.ForgetKept(ctx, state.BackupType, first); err != nil {
		return nil, 0, err
	}
	return r, len(bodies), c.note(ctx, r)
}

// cut makes records of a backup.
func cut(r *Report, data []byte, size int64) (bodies [][]byte, err error) {
	chunks := slices.Collect(slices.Chunk(data, int(size)))
	for i, chunk := range chunks {
		line, err := json.Marshal(part{SHA256: r.SHA256, Bytes: r.Bytes, Taken: r.Manifest.Taken, Part: i, Parts: len(chunks)})
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, slices.Concat(line, []byte{'\n'}, chunk))
	}
	return bodies, nil
}

// Take looks for backups on relays, of which only the addresses have to be known, and writes the newest whole one to a file. ErrNoneThere. That a
// relay could not be asked is an error only if no other has one.
func Take(ctx context.Context, at *client.Client, addresses []string, path string) error {
	var bodies [][]byte
	var failures []error
	for _, address := range addresses {
		kept, err := at.KeptAt(ctx, address, state.BackupType)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, m := range kept {
			bodies = append(bodies, m.Body)
		}
	}
	data, err := join(bodies)
	if err != nil {
		return errors.Join(append(failures, err)...)
	}
	return os.WriteFile(path, data, 0o600)
}

// join puts the newest backup together of which there are all parts.
func join(bodies [][]byte) ([]byte, error) {
	type whole struct {
		part
		chunks map[int][]byte
	}
	found := map[protocol.Hash]*whole{}
	for _, body := range bodies {
		p, chunk, ok := readPart(body)
		if !ok {
			continue // of a newer program, or none
		}
		w := found[p.SHA256]
		if w == nil {
			w = &whole{part: p, chunks: map[int][]byte{}}
			found[p.SHA256] = w
		}
		if w.Parts == p.Parts && w.Bytes == p.Bytes {
			w.chunks[p.Part] = chunk
		}
	}
	var best []byte
	newest := protocol.Timestamp(-1)
	for sum, w := range found {
		if len(w.chunks) != w.Parts || w.Taken <= newest {
			continue
		}
		var data []byte
		for i := range w.Parts {
			data = append(data, w.chunks[i]...)
		}
		if int64(len(data)) != w.Bytes || protocol.Hash(sha256.Sum256(data)) != sum {
			continue
		}
		best, newest = data, w.Taken
	}
	switch {
	case best != nil:
		return best, nil
	case len(found) > 0:
		return nil, fmt.Errorf("%w: parts of it are missing; name another of your relays, too", ErrNoneThere)
	}
	return nil, ErrNoneThere
}

func readPart(body []byte) (p part, chunk []byte, ok bool) {
	line, chunk, found := bytes.Cut(body, []byte{'\n'})
	if !found || len(line) > maxPartHeader || json.Unmarshal(line, &p) != nil {
		return p, nil, false
	}
	ok = p.Parts > 0 && p.Parts <= maxOnRelays/leastPart && p.Part >= 0 && p.Part < p.Parts && p.Bytes > 0 && p.Bytes <= maxOnRelays && p.Taken >= 0
	return p, chunk, ok
}
