// Package market is a reader's end of the market: the books of several hubs, merged into one on disk. It believes no hub: each
// announcement is checked with [broadcast.Rules], and the highest seq of a relay is remembered through restarts. The file grows
// no larger than [broadcast.Bounds] let it.
//
// Command relay calls it, and whoever chooses relays for a contract: see [Book.Offers] and [Best]. A Book is safe for concurrent
// use, and several processes may share its file. It needs no secret.
package market

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"relaymarket/broadcast"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

//go:embed migrations/*.sql
var migrations embed.FS

// What can go wrong. Errors are compared with errors.Is.
var (
	// ErrNoHubs: nobody was named whose book could be read.
	ErrNoHubs = errors.New("you have no hub yet")
	ErrNoHub  = errors.New("no such hub")
	// ErrNoRelay: the book has no valid announcement of it.
	ErrNoRelay = errors.New("the market knows no such relay")
	// ErrSeveral: more relays than one are meant.
	ErrSeveral = errors.New("that means several relays")
)

// Config says which market, and where its book is.
type Config struct {
	Path    string // of the file, which is made; its folder must exist
	Network protocol.Network
	Bits    int              // of work at least; 0 is the network's usual
	Bounds  broadcast.Bounds // zero: the usual
	HTTP    *http.Client     // for hubs with https:// addresses, and for probes; it should follow no redirects
	Clock   func() time.Time // nil is time.Now
	Logger  *slog.Logger     // nil is silent
}

// Book is what a user knows of one market.
type Book struct {
	cfg   Config
	rules broadcast.Rules
	sql   *sqlite.DB

	mu    sync.Mutex // held while announcements are merged
	index *broadcast.Index
}

// Open opens the book, or makes it. It starts nothing; Close it in the end.
func Open(ctx context.Context, c Config) (*Book, error) {
	if err := c.Network.Validate(); err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Bounds == (broadcast.Bounds{}) {
		c.Bounds = broadcast.DefaultBounds()
	}
	if c.Bits == 0 {
		c.Bits = broadcast.DefaultBits(c.Network)
	}
	file, err := sqlite.Open(ctx, c.Path, true, migrations)
	if err != nil {
		return nil, fmt.Errorf("the book of the market: %w", err)
	}
	b := &Book{cfg: c, rules: broadcast.Rules{Network: c.Network, Bits: c.Bits}, sql: file}
	if err := b.load(ctx); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("the book of the market: %w", err)
	}
	return b, nil
}

// Close ends the use of the file.
func (b *Book) Close() error { return b.sql.Close() }

func (b *Book) now() protocol.Timestamp { return protocol.TimestampOf(b.cfg.Clock()) }

// load makes the index of what is in the file, and deletes what need not be remembered any more.
func (b *Book) load(ctx context.Context) error {
	now := b.now()
	if err := b.sql.Exec(ctx, `DELETE FROM relays WHERE network = ? AND forget < ?`, b.cfg.Network, now); err != nil {
		return err
	}
	entries, err := sqlite.Collect(ctx, b.sql, func(scan func(...any) error) (*broadcast.Entry, error) {
		e := &broadcast.Entry{Known: broadcast.Known{Is: true}}
		var key, hash []byte
		var hosts string
		err := scan(&key, &e.Known.Seq, &hash, &e.Work, &e.ValidUntil, &e.Forget, &hosts, &e.Size)
		copy(e.Relay[:], key)
		copy(e.Known.Hash[:], hash)
		e.Hosts = strings.Split(hosts, "\n")
		return e, err
	}, `SELECT key, seq, hash, work, until, forget, hosts, length(envelope) FROM relays WHERE network = ? ORDER BY first, key`, b.cfg.Network)
	if err != nil {
		return err
	}
	b.index = broadcast.NewIndex(b.cfg.Bounds)
	for _, e := range entries {
		b.index.Put(e, now)
	}
	return nil
}

// Hub is one whose book is read.
type Hub struct {
	Address string // as protocol.ValidateHub takes it
	Added   protocol.Timestamp
	Heard   protocol.Timestamp // when its book was last read to the end; 0: never
	Fault   string             // why it could not be read since, or empty

	next  uint64
	whole protocol.Timestamp
}

// AddHub adds a hub. It is safe to repeat.
func (b *Book) AddHub(ctx context.Context, address string) error {
	if err := protocol.ValidateHub(address); err != nil {
		return err
	}
	return b.sql.Exec(ctx, `INSERT INTO hubs VALUES (?, ?, ?, 0, 0, 0, '') ON CONFLICT DO NOTHING`, b.cfg.Network, address, b.now())
}

// RemoveHub forgets a hub. What it told stays until it expires. ErrNoHub.
func (b *Book) RemoveHub(ctx context.Context, address string) error {
	done, err := b.sql.Changed(ctx, `DELETE FROM hubs WHERE network = ? AND address = ?`, b.cfg.Network, address)
	if err == nil && !done {
		err = ErrNoHub
	}
	return err
}

// Hubs lists the hubs of this network, the oldest first.
func (b *Book) Hubs(ctx context.Context) ([]Hub, error) {
	return sqlite.Collect(ctx, b.sql, func(scan func(...any) error) (h Hub, err error) {
		return h, scan(&h.Address, &h.Added, &h.Heard, &h.Fault, &h.next, &h.whole)
	}, `SELECT address, added, heard, fault, next, whole FROM hubs WHERE network = ? ORDER BY added, address`, b.cfg.Network)
}

// Addresses are those of all hubs in a file, of whatever network, the oldest first. A file that is missing has none.
func Addresses(ctx context.Context, path string) ([]string, error) {
	return peek[string](ctx, path, `SELECT address FROM hubs GROUP BY address ORDER BY min(added), address`)
}

// Networks are those of the hubs in a file, so that a user need not name his each time. A file that is missing has none.
func Networks(ctx context.Context, path string) ([]protocol.Network, error) {
	return peek[protocol.Network](ctx, path, `SELECT DISTINCT network FROM hubs ORDER BY network`)
}

// peek reads one column of a file that may be missing.
func peek[T any](ctx context.Context, path, query string) ([]T, error) {
	file, err := sqlite.Open(ctx, path, false, migrations)
	if errors.Is(err, sqlite.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return sqlite.Collect(ctx, file, func(scan func(...any) error) (v T, err error) { return v, scan(&v) }, query)
}

// noteHub keeps how far a hub's book was read, or why it was not.
func (b *Book) noteHub(ctx context.Context, h Hub, fault error) error {
	if fault != nil {
		return b.sql.Exec(ctx, `UPDATE hubs SET fault = ? WHERE network = ? AND address = ?`, fault.Error(), b.cfg.Network, h.Address)
	}
	return b.sql.Exec(ctx, `UPDATE hubs SET fault = '', heard = ?, next = ?, whole = ? WHERE network = ? AND address = ?`,
		b.now(), int64(h.next), h.whole, b.cfg.Network, h.Address)
}

// write keeps what changed, in one transaction.
func (b *Book) write(ctx context.Context, changed []*broadcast.Offer, displaced []protocol.PublicKey, now protocol.Timestamp) error {
	return b.sql.Tx(ctx, func(tx *sql.Tx) error {
		for _, relay := range displaced {
			if _, err := tx.ExecContext(ctx, `DELETE FROM relays WHERE network = ? AND key = ?`, b.cfg.Network, relay[:]); err != nil {
				return err
			}
		}
		if len(changed) == 0 {
			return nil
		}
		// Another process may have been faster: the order of announcements decides here too.
		put, err := tx.PrepareContext(ctx, `INSERT INTO relays (network, key, seq, hash, work, until, forget, first, changed, hosts, envelope)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq, hash = excluded.hash, work = excluded.work,
			until = excluded.until, forget = excluded.forget, changed = excluded.changed, hosts = excluded.hosts, envelope = excluded.envelope
			WHERE relays.seq < excluded.seq OR relays.seq = excluded.seq AND relays.hash > excluded.hash`)
		if err != nil {
			return err
		}
		defer func() { _ = put.Close() }()
		for _, o := range changed {
			e := broadcast.EntryOf(o, 0, now)
			if _, err := put.ExecContext(ctx, b.cfg.Network, o.Relay[:], o.Seq, o.Hash[:], o.Work, o.ValidUntil, e.Forget, now, now,
				strings.Join(e.Hosts, "\n"), o.Envelope.Bytes()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Network is the market that this is the book of.
func (b *Book) Network() protocol.Network { return b.cfg.Network }
