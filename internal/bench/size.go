package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/localpg"
)

// table is a number of records to measure with.
type table struct {
	rows  int
	bytes int // of a record's envelope; below minSize only what is signed is a record
}

// defaultTables take some 40 minutes and 30 GB.
const defaultTables = "1e6,1e7"

// Rows of a table.
const (
	usualBytes = 1300
	leastBytes = 100
	leastRows  = 20_000
	mostRows   = 1e9
)

// forTables reads -rows, and sees that nothing was asked for which does not go with it.
func (o *options) forTables(set *flag.FlagSet, rows string) error {
	var stray error
	set.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "points", "sizes", "url", "inprocess", "cpuprofile", "second":
			stray = usagef("-%s does not go with -size", f.Name)
		}
	})
	if stray != nil {
		return stray
	}
	o.sizes = []int{usualBytes}
	for text := range strings.SplitSeq(rows, ",") {
		count, size, sized := strings.Cut(text, ":")
		n, err := strconv.ParseFloat(count, 64)
		if err != nil || n < leastRows || n > mostRows || n != math.Trunc(n) {
			return usagef("-rows %s: %q is no number of rows from 20000 to 1e9", rows, count)
		}
		t := table{rows: int(n), bytes: usualBytes}
		if sized {
			if t.bytes, err = strconv.Atoi(size); err != nil || t.bytes < leastBytes || t.bytes > maxSize {
				return usagef("-rows %s: %q is no size from %d to %d", rows, size, leastBytes, maxSize)
			}
		}
		if k := len(o.tables); k > 0 && o.tables[k-1].bytes == t.bytes && o.tables[k-1].rows >= t.rows {
			return usagef("-rows %s: a table only grows, name the smaller first", rows)
		}
		o.tables = append(o.tables, t)
	}
	return nil
}

// perRow is what a record of no bytes takes on disk, with its part of the indexes; and a part more, because pages are not
// filled to the last byte.
const (
	perRow   = 750
	slack    = 1.1
	otherUse = 7e9 // logs of two clusters, the table that is empty, and what is written while measuring
)

func (t table) diskNeed() int64 {
	return int64(float64(t.rows)*float64(t.bytes+perRow)*slack) + otherUse
}

// errNoRoom: a table was left out.
var errNoRoom = errors.New("not every table had room on the disk")

// roomFor says whether a table fits below dir, which has so much of its group already.
func roomFor(dir string, t table, there int64) (need, free int64, err error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, 0, fmt.Errorf("free disk of %s: %w", dir, err)
	}
	return max(t.diskNeed()-there, 0), int64(disk.Bavail) * disk.Bsize, nil
}

// tables is a run of -size: a relay whose table grows, and another whose table is empty.
type tables struct {
	opts   options
	dir    string
	say    *progress
	report *sizeReport
	full   *grown
	empty  *grown
}

// grown is a relay, and the way to its database past it.
type grown struct {
	bench
	cluster *localpg.Cluster
	db      *pgx.Conn // holds the sweeper off, when held
	loaded  int       // rows
	made    int       // rows ever loaded: numbers the next
	due     int       // of the loaded rows, those that the sweeper will remove
}

func runTables(ctx context.Context, o options, out io.Writer, say *progress) (err error) {
	dir, err := os.MkdirTemp("", "relaymarket-bench-*")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	r := &tables{opts: o, dir: dir, say: say, report: &sizeReport{out: out, opts: o}}
	defer func() { err = errors.Join(err, r.end(context.WithoutCancel(ctx))) }()
	if r.empty, err = startGrown(ctx, o, filepath.Join(dir, "empty")); err != nil {
		return err
	}
	var left error
	for _, t := range o.tables {
		fits, err := r.makeRoom(ctx, t)
		if err != nil {
			return err
		}
		if !fits {
			left = errNoRoom
			continue
		}
		if err := r.measure(ctx, t); err != nil {
			return fmt.Errorf("with %d rows: %w", t.rows, err)
		}
	}
	say.clear()
	return errors.Join(left, r.report.table())
}

// makeRoom sees that the table fits the disk, and has a relay ready for it: the one of the table before if that has
// records of the same size.
func (r *tables) makeRoom(ctx context.Context, t table) (fits bool, err error) {
	if r.full != nil && r.full.opts.tables[0].bytes != t.bytes {
		if err := r.full.remove(context.WithoutCancel(ctx), r.opts.keep); err != nil {
			return false, err
		}
		r.full = nil
	}
	var there int64
	if r.full != nil {
		if there, err = r.full.bytesOnDisk(ctx); err != nil {
			return false, err
		}
	}
	need, free, err := roomFor(r.dir, t, there)
	if err != nil {
		return false, err
	}
	if need > free {
		r.say.tell(fmt.Sprintf("%d records of %d bytes need %d GB on the disk of %s, which has %d GB free: left out (TMPDIR chooses another disk)",
			t.rows, t.bytes, need/1e9+1, r.dir, free/1e9))
		return false, nil
	}
	if r.full == nil {
		o := r.opts
		o.tables = []table{t}
		r.full, err = startGrown(ctx, o, filepath.Join(r.dir, fmt.Sprintf("grown-%d", t.bytes)))
	}
	return err == nil, err
}

func startGrown(ctx context.Context, o options, dir string) (g *grown, err error) {
	g = &grown{bench: bench{opts: o}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.remove(context.WithoutCancel(ctx), false))
		}
	}()
	if err := g.start(ctx, dir); err != nil {
		return g, err
	}
	if g.cluster, err = localpg.Open(ctx, g.relay.database().Cluster); err != nil {
		return g, err
	}
	g.db, err = pgx.Connect(ctx, g.cluster.URL())
	return g, err
}

// remove ends the relay and deletes what it stored, unless that is kept.
func (g *grown) remove(ctx context.Context, keep bool) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	var err error
	if g.db != nil {
		err = g.db.Close(ctx)
	}
	g.opts.keep = keep
	return errors.Join(err, g.stopRelay(ctx))
}

func (r *tables) end(ctx context.Context) error {
	r.say.clear()
	var err error
	for _, g := range []*grown{r.full, r.empty} {
		if g != nil {
			err = errors.Join(err, g.remove(ctx, r.opts.keep))
		}
	}
	if r.opts.keep {
		r.say.tell("the relays' folders are in " + r.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// measure loads the table and measures with it.
func (r *tables) measure(ctx context.Context, t table) error {
	g := r.full
	if err := g.holdSweeper(ctx, true); err != nil {
		return err
	}
	if err := r.load(ctx, t, t.rows-g.loaded, true); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := g.checkServed(ctx); err != nil {
		return fmt.Errorf("what was loaded is not what the relay would have written: %w", err)
	}
	if err := r.storage(ctx, t); err != nil {
		return err
	}
	if err := g.tidy(ctx); err != nil {
		return err
	}
	if err := r.points(ctx, t); err != nil {
		return err
	}
	return r.sweep(ctx, t)
}

// tidy does now what Postgres would do some time after so much was loaded, in the middle of a measurement.
func (g *grown) tidy(ctx context.Context) error {
	if _, err := g.db.Exec(ctx, `VACUUM (ANALYZE) records`); err != nil {
		return err
	}
	admin, err := pgx.Connect(ctx, g.cluster.AdminURL())
	if err != nil {
		return err
	}
	_, err = admin.Exec(ctx, `CHECKPOINT`)
	return errors.Join(err, admin.Close(ctx))
}

// sweepLock is the advisory lock of records' sweeper.
const sweepLock = 0x72656c61795377

// holdSweeper keeps the relay from removing what has expired, or lets it.
func (g *grown) holdSweeper(ctx context.Context, hold bool) error {
	call := `SELECT pg_advisory_unlock($1)`
	if hold {
		call = `SELECT pg_advisory_lock($1)`
	}
	_, err := g.db.Exec(ctx, call, int64(sweepLock))
	return err
}
