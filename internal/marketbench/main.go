// Command marketbench measures the market: what a proof of work takes, how many announcements are checked in a second, good ones and
// junk, how a hub fills, how long a newcomer waits for the whole book, and what a million junk announcements do. Everything is the
// product's own code, a real NATS server and a real SQLite file, on one machine; figures include whoever produces the load.
//
//	bin/marketbench -relays 1000,100000
//
// On standard output it writes a JSON line for each thing, see [line]; progress for people is on standard error. `make bench` runs it
// after the relay's points, `make bench-market` alone. docs/performance.md says what each figure means.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

const network = protocol.Regtest

var quiet = slog.New(slog.DiscardHandler)

var rules = broadcast.Rules{Network: network, Bits: 8}

// line is one figure as JSON: the members of a point of `make bench`, of which what does not apply is null, and three that only the market has.
type line struct {
	Name      string   `json:"name"`
	Bytes     *int     `json:"bytes"` // of an announcement
	Conns     int      `json:"conns"` // goroutines or connections that the load comes from
	PerSecond *float64 `json:"per_s"`
	P50       *float64 `json:"p50_ms"`
	P99       *float64 `json:"p99_ms"`
	RSS       *float64 `json:"rss_mb"` // of the heap in use, 10^6 bytes
	Limit     *string  `json:"limit"`
	LimitPerS *float64 `json:"limit_per_s"`
	Ratio     *float64 `json:"ratio"`
	Relays    *int     `json:"relays"`  // in the book
	Seconds   *float64 `json:"seconds"` // the whole took
	DiskMB    *float64 `json:"disk_mb"`
}

// bench is one run.
type bench struct {
	out  io.Writer
	span time.Duration
	hash float64 // hashes of 4 KiB a second, which checks are compared with
}

// write writes a figure, rounded to four digits: what is beyond is noise.
func (b *bench) write(l line) error {
	for _, f := range []*float64{l.PerSecond, l.RSS, l.LimitPerS, l.Ratio, l.Seconds, l.DiskMB} {
		if f != nil && *f != 0 {
			scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(*f))))
			*f = math.Round(*f*scale) / scale
		}
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(b.out, "%s\n", text)
	return err
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func main() {
	sizes := flag.String("relays", "1000,100000", "sizes of the book, separated by commas")
	junk := flag.Int("junk", 1_000_000, "junk announcements that are sent to a hub")
	seconds := flag.Float64("seconds", 2, "of the proof of work, and of the checks of each kind a quarter")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{out: os.Stdout, span: time.Duration(*seconds * float64(time.Second))}
	if err := b.run(ctx, *sizes, *junk); err != nil {
		fmt.Fprintln(os.Stderr, "marketbench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, sizes string, junk int) error {
	if b.span < 10*time.Millisecond || junk < 1 {
		return fmt.Errorf("-seconds is 0.01 at least, and -junk 1")
	}
	if err := b.work(ctx); err != nil {
		return err
	}
	if err := b.checks(ctx); err != nil {
		return err
	}
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return fmt.Errorf("-relays: %q is no number", text)
		}
		if err := b.book(ctx, n); err != nil {
			return err
		}
	}
	return b.flood(ctx, junk)
}
