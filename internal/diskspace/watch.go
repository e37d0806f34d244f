// Package diskspace keeps a private Postgres from the end that a full disk is to it.
//
// Postgres bears it when a table cannot grow: the statement fails. It does not when its log cannot: it panics, and
// then cannot start either, because recovery needs room in the log too. So a relay stops taking records while there
// is still room for everything else: pages of readers, deletions, sweeps, the log of all that.
//
// [Watch.Room] refuses while less than Config.Keep is free, not counting what the log may still grow by. What was
// freed inside the database's files is room too, though the file system knows nothing of it: with as much of that as
// Keep, records are taken as long as a quarter of Keep is really free. Because other programs fill disks too, the watch holds a ballast, a file that it
// removes when next to nothing is free and makes again when there is room: without it a relay on a full disk might
// not start. And [Await] has a start wait for room: a service that fails at every start is given up by its
// manager, and would stay down after the disk was cleared.
package diskspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/protocol"
)

const (
	// measureEvery is how often the database is asked what it can use again, while little is free.
	measureEvery = 2 * time.Second
	// every is how often the watch looks. At the speed of a quick disk some 100 MB are written meanwhile.
	every = 250 * time.Millisecond
	// ballastBytes is enough for Postgres to start after a crash, which takes a segment or two of its log, of 16 MiB.
	ballastBytes = 64 << 20
	// startBytes is what must be free for a start.
	startBytes = 48 << 20
	// lastBytes is where the ballast is given up.
	lastBytes = 24 << 20
	// ballastName is the file, in Config.Folder.
	ballastName = "ballast"
)

// Config says what is watched. Folder and Logger are required.
type Config struct {
	Folder string       // the database's, which this process may write to
	Keep   int64        // bytes that are kept free of new records
	Grows  func() int64 // bytes that the database takes in any case, sooner or later
	Logger *slog.Logger
	// Registerer takes the gauge of what is free; nil: it is not shown.
	Registerer prometheus.Registerer
}

// Watch watches one file system. It is safe for concurrent use.
type Watch struct {
	cfg     Config
	keep    atomic.Int64 // Config.Keep, until it is changed
	free    atomic.Int64
	refused atomic.Pointer[protocol.Error] // what writers are told; nil: there is room
	last    atomic.Bool                    // not even the ballast is left

	reusable int64 // when it was last measured; of Run
	measured time.Time
}

// New makes a watch. It starts nothing.
func New(cfg Config) (*Watch, error) {
	w := &Watch{cfg: cfg}
	w.keep.Store(cfg.Keep)
	if cfg.Registerer == nil {
		return w, nil
	}
	return w, cfg.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relaymarket_disk_free_bytes", Help: "Free on the disk of the private database.",
	}, func() float64 { return float64(w.free.Load()) }))
}

// Keep sets another number of bytes that are kept free, from the next look on.
func (w *Watch) Keep(bytes int64) { w.keep.Store(bytes) }

// Free is what was free at the last look, and what is kept of it.
func (w *Watch) Free() (free, keep int64) { return w.free.Load(), w.keep.Load() }

// Room is nil while there is room for new records, else [protocol.CodeDiskFull].
func (w *Watch) Room() error {
	if err := w.refused.Load(); err != nil {
		return err
	}
	return nil
}

// Pages is nil while there is room for what reading writes, the pages that were served, else
// [protocol.CodeDiskFull]: the ballast is given up, and next to nothing is left.
func (w *Watch) Pages() error {
	if w.last.Load() {
		return protocol.Errorf(protocol.CodeDiskFull, "the relay has no room at present")
	}
	return nil
}

// Await waits until a database in folder can start, and gives up the ballast for it. It fails when ctx ends first.
func Await(ctx context.Context, folder string, log *slog.Logger) error {
	for waited := 0; ; waited++ {
		free, err := freeBytes(folder)
		if err != nil || free >= startBytes {
			return err
		}
		if drop(folder, log) {
			continue
		}
		if waited%240 == 0 { // once a minute
			log.Error("the disk is full: the relay waits for room to start its database", "folder", folder, "free", free, "needed", startBytes)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// Run looks until ctx is done. It calls reusable, while little is free, for the bytes that the database can use again.
func (w *Watch) Run(ctx context.Context, reusable func(context.Context) (int64, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := w.measure(ctx, reusable); err != nil && ctx.Err() == nil {
			w.cfg.Logger.Warn("look for space to use again", "err", err)
		}
		if err := w.Look(); err != nil {
			w.cfg.Logger.Warn("look for free space", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// measure asks for what can be used again, when that matters. A database that does not answer has nothing.
func (w *Watch) measure(ctx context.Context, reusable func(context.Context) (int64, error)) error {
	if w.free.Load()-w.cfg.Grows()-ballastBytes >= w.keep.Load() {
		w.reusable, w.measured = 0, time.Time{}
		return nil
	}
	if time.Since(w.measured) < measureEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, measureEvery)
	defer cancel()
	var err error
	w.reusable, err = reusable(ctx)
	w.measured = time.Now()
	return err
}

// MinKeep is the least that makes sense as Config.Keep: a segment of Postgres' log, some times.
const MinKeep = 64 << 20

// Look looks once and decides. Run does it; before Run it makes the first decision.
func (w *Watch) Look() error {
	free, err := freeBytes(w.cfg.Folder)
	if err != nil {
		return err
	}
	w.free.Store(free)
	ballast := w.hasBallast()
	room := free - w.cfg.Grows()
	if !ballast {
		room -= ballastBytes // or giving it up would make room for records
	}
	full, keep := w.refused.Load() != nil, w.keep.Load()
	// Records are taken again when there is a little more than that for which they are refused.
	inside := ballast && room >= keep/4 && w.reusable >= keep/2
	insideAgain := inside && w.reusable >= keep
	switch {
	case !full && room < keep && !inside:
		w.refused.Store(protocol.Errorf(protocol.CodeDiskFull, "the relay has no room for new records at present; reading goes on"))
		w.cfg.Logger.Error("the disk is nearly full: new records are refused", "folder", w.cfg.Folder, "free", free, "log", free-room, "reusable", w.reusable, "keep", keep)
	case full && (room >= keep+keep/16 || insideAgain):
		w.refused.Store(nil)
		w.cfg.Logger.Info("the disk has room again: new records are taken", "folder", w.cfg.Folder, "free", free, "reusable", w.reusable)
	}
	w.last.Store(!ballast && free < lastBytes)
	switch {
	case ballast && free < lastBytes:
		drop(w.cfg.Folder, w.cfg.Logger)
	case !ballast && room >= max(keep/4, 2*lastBytes):
		return w.ballast()
	}
	return nil
}

func (w *Watch) hasBallast() bool {
	info, err := os.Stat(filepath.Join(w.cfg.Folder, ballastName))
	return err == nil && info.Size() == ballastBytes
}

// drop gives the ballast up, if there is one.
func drop(folder string, log *slog.Logger) bool {
	err := os.Remove(filepath.Join(folder, ballastName))
	if err == nil {
		log.Error("the disk is full: the ballast is given up, so that the database goes on", "folder", folder, "bytes", int64(ballastBytes))
	} else if !errors.Is(err, fs.ErrNotExist) {
		log.Error("the disk is full, and the ballast cannot be removed", "err", err)
	}
	return err == nil
}

// ballast makes the file.
func (w *Watch) ballast() error {
	path := filepath.Join(w.cfg.Folder, ballastName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make the ballast: %w", err)
	}
	zeros := make([]byte, 1<<20) // written, for a hole takes no room
	for n := 0; n < ballastBytes && err == nil; n += len(zeros) {
		_, err = f.Write(zeros)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make the ballast: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// freeBytes is what a user who is not root may still write where a folder is.
func freeBytes(folder string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", folder, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
