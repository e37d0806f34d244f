package records

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Config is what a [Store] needs.
type Config struct {
	DB         *db.DB
	Books      *books.Store
	Relay      protocol.PublicKey // the key that the records are addressed to
	Clock      func() time.Time
	Logger     *slog.Logger
	Limits     Limits
	Registerer prometheus.Registerer // nil: metrics are kept and not shown
	Waker      Waker                 // to and from other processes on the database; nil: none, or none that it reaches
	Room       func() error          // refuses writes while the disk is nearly full; nil: never
	PageRoom   func() error          // refuses pulls, which leave a page, while the disk is full; nil: never
	SweepEvery time.Duration         // between sweeps; 0: ten seconds
}

// Store is the records of one relay. It is safe for concurrent use.
type Store struct {
	db       *db.DB
	books    *books.Store
	clock    func() time.Time
	log      *slog.Logger
	limits   atomic.Pointer[Limits] // see Change
	waker    Waker                  // may be nil
	room     func() error           // may be nil, as pageRoom
	pageRoom func() error
	sweeps   time.Duration // between them
	epoch    string

	queue     *queue
	pulls     *pullQueue
	tail      *tail
	recent    *recent
	written   *written
	bookmarks *bookmarks
	careful   atomic.Pointer[time.Time] // until then single pulls look for their page ids
	seldom    rate.Sometimes            // for the log: a database that is away fails every transaction alike
	buffers   sync.Pool                 // of *[]byte: rows on their way to COPY
	metrics   *metrics
}

// New makes a store on a migrated database. It starts nothing: [Store.Run] does.
func New(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{db: cfg.DB, books: cfg.Books, clock: cfg.Clock, log: cfg.Logger, waker: cfg.Waker, room: cfg.Room, pageRoom: cfg.PageRoom,
		sweeps: cmp.Or(cfg.SweepEvery, sweepEvery),
		queue:  newQueue(), pulls: newPullQueue(), recent: newRecent(recentBytes), bookmarks: newBookmarks(maxBookmarks), written: newWritten(writtenPaths, cfg.Clock())}
	s.limits.Store(&cfg.Limits)
	s.seldom.Interval = time.Second
	s.buffers.New = func() any { return new([]byte) }
	var head int64
	var owner []byte
	err := cfg.DB.Pool().QueryRow(ctx, `UPDATE relay_cursor SET relay = coalesce(relay, $1) RETURNING epoch, n, relay`, cfg.Relay[:]).
		Scan(&s.epoch, &head, &owner)
	if err != nil {
		return nil, fmt.Errorf("read cursor: %w", db.Refusal(err))
	}
	// Under another key nothing stored here is this relay's to serve: each record names its relay.
	if relay := protocol.PublicKey(owner); relay != cfg.Relay {
		return nil, fmt.Errorf("this database belongs to the relay %s, and this is %s: give it a database of its own, or the key that was lost", relay.Bech32(), cfg.Relay.Bech32())
	}
	s.tail = newTail(s, head)
	s.metrics = newMetrics(cfg.Registerer, s)
	return s, nil
}

// Change sets other limits for records that are not stored yet. The lifetime stays: how long pages are kept rests on it.
func (s *Store) Change(l Limits) {
	l.Lifetime = s.limits.Load().Lifetime
	s.limits.Store(&l)
}

// Run commits writes, serves pulls, tells listeners and sweeps, until ctx is done. It then takes no more of either,
// answers those it took, and returns.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	var committing sync.WaitGroup
	for range committers {
		committing.Add(1)
		g.Go(func() error { defer committing.Done(); s.commitLoop(); return nil })
	}
	g.Go(func() error { s.carryHints(ctx, &committing); return nil })
	for range servers {
		g.Go(func() error { s.serveLoop(); return nil })
	}
	g.Go(func() error {
		<-ctx.Done()
		s.queue.close()
		s.pulls.close()
		return nil
	})
	g.Go(func() error { s.tail.run(ctx); return nil })
	g.Go(func() error { s.sweepLoop(ctx); return nil })
	g.Go(func() error { s.measureLoop(ctx); return nil })
	return g.Wait()
}

// Ready tells whether the database answers and is the one this store was made on.
func (s *Store) Ready(ctx context.Context) error {
	var epoch string
	if err := s.db.Pool().QueryRow(ctx, `SELECT epoch FROM relay_cursor`).Scan(&epoch); err != nil {
		return fmt.Errorf("read cursor: %w", db.Refusal(err))
	}
	if epoch != s.epoch {
		return fmt.Errorf("the database was replaced while this relay ran (epoch %s, was %s): restart it", epoch, s.epoch)
	}
	return nil
}

func (s *Store) now() protocol.Timestamp { return protocol.TimestampOf(s.clock()) }

// cursor is the wire form of a place: epoch, dot, decimal n.
func (s *Store) cursor(n int64) string { return s.epoch + "." + strconv.FormatInt(n, 10) }

// place reads a cursor; nil is the beginning. A cursor of another epoch is of another life of this
// database: its holder must start over.
func (s *Store) place(after *string) (int64, error) {
	if after == nil {
		return 0, nil
	}
	epoch, digits, ok := strings.Cut(*after, ".")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || epoch == "" || err != nil || n < 0 || strconv.FormatInt(n, 10) != digits {
		return 0, protocol.Errorf(protocol.CodeBadCursor, "this is no cursor of a relay")
	}
	if epoch != s.epoch {
		return 0, errEpoch()
	}
	return n, nil
}

// errEpoch also answers a cursor ahead of everything committed here: the database was set back.
func errEpoch() error {
	return protocol.Errorf(protocol.CodeCursorEpoch, "the cursor is of another life of this relay: start over without one")
}

// wrap names what was tried; failures that a client can wait out keep their code.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, db.Refusal(err))...)
}
