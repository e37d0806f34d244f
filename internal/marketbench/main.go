// Command marketbench measures the market: what a proof of work takes, how many announcements are checked in a second, good ones and
// junk, how a hub fills, and how long a newcomer waits for the whole book. Everything is the product's own code, a real NATS server and a real
// SQLite file, on one machine; figures include whoever produces the load.
//
//	bin/marketbench -relays 1000,100000
//
// The last line on standard output is JSON. It is no part of a test; `make bench-market` runs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/hub"
	"relaymarket/broadcast/hubserver"
	"relaymarket/broadcast/market"
	"relaymarket/protocol"
)

const network = protocol.Regtest

var quiet = slog.New(slog.DiscardHandler)

// figures are what is measured, in the units that their names say.
type figures struct {
	HashesPerSecond   float64            `json:"hashes_per_second"` // one core
	WorkSecondsAt24   float64            `json:"work_seconds_at_24_bits"`
	ChecksPerSecond   map[string]float64 `json:"checks_per_second"` // one core
	Books             []bookFigures      `json:"books"`
	JunkPerSecond     float64            `json:"junk_per_second"` // sent to a hub over NATS and looked at, or dropped
	HonestSeenInFlood bool               `json:"honest_seen_in_flood"`
}

// bookFigures are of a hub with so many relays.
type bookFigures struct {
	Relays        int     `json:"relays"`
	HubFill       float64 `json:"hub_fill_seconds"` // one after the other, checked and stored
	HubHeapMB     float64 `json:"hub_heap_mb"`
	HubDiskMB     float64 `json:"hub_disk_mb"`
	FirstBook     float64 `json:"first_book_seconds"` // the bytes, over NATS
	ReaderBook    float64 `json:"reader_book_seconds"`
	ReaderListing float64 `json:"reader_listing_seconds"`
	ReaderHeapMB  float64 `json:"reader_heap_mb"`
	ReaderDiskMB  float64 `json:"reader_disk_mb"`
}

func main() {
	sizes := flag.String("relays", "1000,100000", "sizes of the book, separated by commas")
	junk := flag.Int("junk", 1_000_000, "junk announcements that are sent to a hub")
	seconds := flag.Float64("seconds", 2, "of each measurement of a rate")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *sizes, *junk, time.Duration(*seconds*float64(time.Second))); err != nil {
		fmt.Fprintln(os.Stderr, "marketbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sizes string, junk int, span time.Duration) error {
	f := figures{ChecksPerSecond: map[string]float64{}}
	f.work(span)
	if err := f.checks(ctx, span); err != nil {
		return err
	}
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return fmt.Errorf("-relays: %q is no number", text)
		}
		b, err := fill(ctx, n)
		if err != nil {
			return err
		}
		f.Books = append(f.Books, b)
	}
	if err := f.flood(ctx, junk); err != nil {
		return err
	}
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", line)
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// work measures the rate of hashes, of which the time of a proof follows: 2^24 of them on average.
func (f *figures) work(span time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	var last broadcast.Progress
	p := broadcast.Prover{Workers: 1, Every: span / 10, Report: func(r broadcast.Progress) { last = r }}
	_, _ = p.Prove(ctx, protocol.Hash{1}, protocol.MaxWorkBits) // ends with the time
	f.HashesPerSecond = float64(last.Tried) / last.Elapsed.Seconds()
	f.WorkSecondsAt24 = (1 << 24) / f.HashesPerSecond
	say("proof of work: %.1f million hashes a second on one core, %.1f s for 24 bits on average", f.HashesPerSecond/1e6, f.WorkSecondsAt24)
}

var rules = broadcast.Rules{Network: network, Bits: 8}

// announce is the announcement of a new relay.
func announce(ctx context.Context, host string, bits int) (*protocol.Envelope, error) {
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	now := protocol.TimestampOf(time.Now())
	return broadcast.Prover{}.Announce(ctx, key, now, &protocol.Announcement{Addresses: []string{"https://" + host}, Network: network,
		Limits: protocol.Limits{RecordBytes: 1 << 20, AdmittedBytes: 1 << 16, BatchBytes: 8 << 20, BatchRecords: 1000, PageBytes: 8 << 20, PageRecords: 1000,
			LifetimeMs: 366 * 86_400_000, MaxPulls: 10_000, HeaderSeconds: 15, BodySeconds: 15},
		Terms:     []protocol.Terms{{Type: "contract", Payment: true, Contact: "operator@" + host}, {Type: "grant", Contact: "operator@" + host}},
		Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: 2000, BandwidthMsatPerGB: 50_000, OpeningPrice: 5000, CreditLimit: 5000, MinPrepay: 50_000},
		Hubs:      []string{"tls://hub.example:4222"}, Seq: int64(now), ValidUntil: now.Add(4 * 24 * time.Hour)}, bits)
}

// kinds are announcements, good and bad in one way each, with the reason that is expected.
func kinds(ctx context.Context) (map[string][]byte, error) {
	good, err := announce(ctx, "relay.example", 8)
	if err != nil {
		return nil, err
	}
	idle, err := announce(ctx, "idle.example", 7)
	if err != nil {
		return nil, err
	}
	text := string(good.Bytes())
	digit := "0"
	if strings.HasSuffix(text, `0"}`) {
		digit = "1"
	}
	return map[string][]byte{
		"good": good.Bytes(), "false_signature": []byte(text[:len(text)-3] + digit + `"}`),
		"no_work": []byte(strings.Replace(text, `"bits":8`, `"bits":99`, 1)), "little_work": idle.Bytes(),
		"malformed": []byte(text[:len(text)-1]), "noise": []byte(strings.Repeat("\xc3\x28", 2048)), "oversize": make([]byte, 8000),
	}, nil
}

// checks measures how fast each kind is judged.
func (f *figures) checks(ctx context.Context, span time.Duration) error {
	all, err := kinds(ctx)
	if err != nil {
		return err
	}
	for name, data := range all {
		now := protocol.TimestampOf(time.Now())
		n, began := 0, time.Now()
		for time.Since(began) < span/4 {
			for range 100 {
				_, err := rules.Check(data, now, nil)
				if (err == nil) != (name == "good") {
					return fmt.Errorf("%s is judged: %v", name, err)
				}
				n++
			}
		}
		f.ChecksPerSecond[name] = float64(n) / time.Since(began).Seconds()
		say("checked a second on one core, %s of %d bytes: %.0f", name, len(data), f.ChecksPerSecond[name])
	}
	return nil
}

// heapMB is what is in use when all garbage is gone.
func heapMB() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// diskMB is what a folder takes.
func diskMB(folder string) (float64, error) {
	var sum int64
	err := filepath.WalkDir(folder, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return float64(sum) / 1e6, err
}

// running is a hub with its server in a folder.
type running struct {
	*hub.Hub
	server *hubserver.Server
	folder string
	end    func()
}

func start(ctx context.Context) (*running, error) {
	folder, err := os.MkdirTemp("", "marketbench-*")
	if err != nil {
		return nil, err
	}
	s, err := hubserver.Start(hubserver.Config{Network: network, Listen: "127.0.0.1:0", Folder: folder, Bytes: 2 << 30, Logger: quiet})
	if err != nil {
		return nil, err
	}
	conn, err := s.Connect()
	if err != nil {
		return nil, err
	}
	bounds := broadcast.DefaultBounds()
	h, err := hub.New(hub.Config{Conn: conn, Rules: rules, Bounds: bounds, Clock: time.Now, Logger: quiet})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	for !h.Ready() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return &running{h, s, folder, func() { cancel(); <-done; conn.Close(); s.Close(); _ = os.RemoveAll(folder) }}, nil
}

// fill fills a hub and reads it as a newcomer.
func fill(ctx context.Context, n int) (b bookFigures, err error) {
	b.Relays = n
	say("making %d announcements", n)
	offers := make([][]byte, n)
	for i := range offers {
		e, err := announce(ctx, fmt.Sprintf("r%d.example", i), 8)
		if err != nil {
			return b, err
		}
		offers[i] = e.Bytes()
	}
	before := heapMB()
	h, err := start(ctx)
	if err != nil {
		return b, err
	}
	defer h.end()
	began := time.Now()
	for _, data := range offers {
		if receipt, err := h.Announce(ctx, data); err != nil || !receipt.Taken {
			return b, fmt.Errorf("the hub says %+v, %v", receipt, err)
		}
	}
	b.HubFill, b.HubHeapMB = time.Since(began).Seconds(), heapMB()-before // offers is there before and after
	runtime.KeepAlive(offers)
	if b.HubDiskMB, err = diskMB(h.folder); err != nil {
		return b, err
	}
	say("%d relays: the hub is full after %.1f s, %.0f MB of heap, %.0f MB of disk", n, b.HubFill, b.HubHeapMB, b.HubDiskMB)
	if err := b.fetch(ctx, h.server.URL()); err != nil {
		return b, err
	}
	return b, b.read(ctx, h.server.URL())
}

// fetch gets all bytes.
func (b *bookFigures) fetch(ctx context.Context, url string) error {
	began := time.Now()
	conn, err := feed.Connect(ctx, url, feed.Access{Name: "marketbench"})
	if err != nil {
		return err
	}
	defer conn.Close()
	got := 0
	if _, err := feed.FetchAll(ctx, conn, network, 0, 1<<30, func(feed.Message) error { got++; return nil }); err != nil || got != b.Relays {
		return fmt.Errorf("%d of %d are fetched: %w", got, b.Relays, err)
	}
	b.FirstBook = time.Since(began).Seconds()
	say("%d relays: a newcomer has their bytes after %.2f s", b.Relays, b.FirstBook)
	return nil
}

// read makes a user's book: checked, merged, on disk.
func (b *bookFigures) read(ctx context.Context, url string) error {
	folder, err := os.MkdirTemp("", "marketbench-reader-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	before := heapMB()
	began := time.Now()
	book, err := market.Open(ctx, market.Config{Path: filepath.Join(folder, "market.db"), Network: network})
	if err != nil {
		return err
	}
	defer func() { _ = book.Close() }()
	if err := book.AddHub(ctx, url); err != nil {
		return err
	}
	if reports, err := book.Refresh(ctx); err != nil || reports[0].Err != nil || reports[0].Tally.Taken != b.Relays {
		return fmt.Errorf("the reader has %+v: %w", reports, err)
	}
	b.ReaderBook = time.Since(began).Seconds()
	b.ReaderHeapMB = heapMB() - before
	began = time.Now()
	best, err := book.Best(ctx, 5, market.DefaultProfile(), market.Want{})
	if err != nil || len(best) == 0 {
		return fmt.Errorf("the best are %v: %w", best, err)
	}
	b.ReaderListing = time.Since(began).Seconds()
	if b.ReaderDiskMB, err = diskMB(folder); err != nil {
		return err
	}
	say("%d relays: a reader has checked and kept them after %.2f s, and the best five after %.2f s more; %.0f MB of heap, %.0f MB of disk",
		b.Relays, b.ReaderBook, b.ReaderListing, b.ReaderHeapMB, b.ReaderDiskMB)
	return nil
}

// flood sends junk, and an honest relay renews meanwhile.
func (f *figures) flood(ctx context.Context, junk int) error {
	all, err := kinds(ctx)
	if err != nil {
		return err
	}
	delete(all, "good")
	h, err := start(ctx)
	if err != nil {
		return err
	}
	defer h.end()
	conn, err := feed.Connect(ctx, h.server.URL(), feed.Access{Name: "marketbench"})
	if err != nil {
		return err
	}
	defer conn.Close()
	for !conn.IsConnected() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	honest, err := announce(ctx, "honest.example", 8)
	if err != nil {
		return err
	}
	began, sent := time.Now(), 0
	for sent < junk && ctx.Err() == nil {
		for _, data := range all {
			if err := conn.Publish(broadcast.IngestSubject(network), data); err != nil {
				return err
			}
			sent++
		}
		if !f.HonestSeenInFlood && sent > junk/2 {
			receipt, err := h.Announce(ctx, honest.Bytes())
			f.HonestSeenInFlood = err == nil && receipt.Taken
		}
	}
	if err := conn.FlushTimeout(time.Minute); err != nil {
		return err
	}
	f.JunkPerSecond = float64(sent) / time.Since(began).Seconds()
	relays, _ := h.Size()
	say("%d junk announcements in %.1f s, %.0f a second with their sender; heap %.0f MB, %d relay in the book", sent, time.Since(began).Seconds(),
		f.JunkPerSecond, heapMB(), relays)
	return ctx.Err()
}
