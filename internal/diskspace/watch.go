// Package diskspace keeps a private Postgres from the end that a full disk is to it.
//
// Postgres bears it when a table cannot grow: the statement fails. It does not when its log cannot: it panics, and
// then cannot start either, because recovery needs room in the log too. So a relay stops taking records while there
// is still room for everything else: pages of readers, deletions, sweeps, the log of all that.
//
// [Watch.Room] refuses while less than Config.Keep is free, not counting what the log may still grow by, and lets go
// again when there is a little more. Because other programs fill disks too, the watch holds a ballast, a file that it
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
	// every is how often the watch looks. At the speed of a quick disk some 100 MB are written meanwhile.
	every = 250 * time.Millisecond
	// ballastBytes is enough for Postgres to start after a crash, which takes a segment or two of its log, of 16 MiB.
	ballastBytes = 64 << 20
	// startBytes is what must be free for a start.
	startBytes = 48 << 20
	// lastBytes is where the ballast is given up.
	lastBytes = 32 << 20
	// ballastName is the file, in Config.Folder.
	ballastName = "ballast"
)

// Config says what is watched. Folder and Logger are required.
type Config struct {
	Folder string       // the database's, which this process may write to
	Keep   int64        // bytes that are kept free of new records
	Grows  func() int64 // bytes that the database takes in any case, sooner or later; nil: none
	Logger *slog.Logger
	// Registerer takes the gauge of what is free; nil: it is not shown.
	Registerer prometheus.Registerer
}

// Watch watches one file system. It is safe for concurrent use.
type Watch struct {
	cfg     Config
	free    atomic.Int64
	refused atomic.Pointer[protocol.Error] // what writers are told; nil: there is room
}

// New makes a watch. It starts nothing.
func New(cfg Config) (*Watch, error) {
	w := &Watch{cfg: cfg}
	if cfg.Grows == nil {
		w.cfg.Grows = func() int64 { return 0 }
	}
	if cfg.Registerer == nil {
		return w, nil
	}
	return w, cfg.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relaymarket_disk_free_bytes", Help: "Free on the disk of the private database.",
	}, func() float64 { return float64(w.free.Load()) }))
}

// Room is nil while there is room for new records, else [protocol.CodeDiskFull].
func (w *Watch) Room() error {
	if err := w.refused.Load(); err != nil {
		return err
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

// Run looks until ctx is done.
func (w *Watch) Run(ctx context.Context) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
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

// Look looks once and decides. Run does it; before Run it makes the first decision.
func (w *Watch) Look() error {
	free, err := freeBytes(w.cfg.Folder)
	if err != nil {
		return err
	}
	w.free.Store(free)
	room := free - w.cfg.Grows()
	full := w.refused.Load() != nil
	switch {
	case !full && room < w.cfg.Keep:
		w.refused.Store(protocol.Errorf(protocol.CodeDiskFull, "the relay has no room for new records at present; reading goes on"))
		w.cfg.Logger.Error("the disk is nearly full: new records are refused", "folder", w.cfg.Folder, "free", free, "room", room, "keep", w.cfg.Keep)
	case full && room >= w.cfg.Keep+w.cfg.Keep/16: // a little more, or it would change with each that is swept
		w.refused.Store(nil)
		w.cfg.Logger.Info("the disk has room again: new records are taken", "folder", w.cfg.Folder, "free", free)
	}
	if free < lastBytes && drop(w.cfg.Folder, w.cfg.Logger) {
		return nil
	}
	if room >= w.cfg.Keep+2*ballastBytes {
		return w.ballast()
	}
	return nil
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

// ballast makes the file, unless it is there whole.
func (w *Watch) ballast() error {
	path := filepath.Join(w.cfg.Folder, ballastName)
	if info, err := os.Stat(path); err == nil && info.Size() == ballastBytes {
		return nil
	}
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
