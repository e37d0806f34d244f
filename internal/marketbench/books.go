package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/hub"
	"relaymarket/broadcast/hubserver"
	"relaymarket/broadcast/market"
	"relaymarket/protocol"
)

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
	h, err := hub.New(hub.Config{Conn: conn, Rules: rules, Bounds: broadcast.DefaultBounds(), Clock: time.Now, Logger: quiet})
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

// book fills a hub with so many relays and reads it as a newcomer.
func (b *bench) book(ctx context.Context, n int) error {
	say("making %d announcements", n)
	offers := make([][]byte, n)
	for i := range offers {
		e, err := announce(ctx, fmt.Sprintf("r%d.example", i), 8)
		if err != nil {
			return err
		}
		offers[i] = e.Bytes()
	}
	before := heapMB()
	h, err := start(ctx)
	if err != nil {
		return err
	}
	defer h.end()
	began := time.Now()
	for _, data := range offers {
		if receipt, err := h.Announce(ctx, data); err != nil || !receipt.Taken {
			return fmt.Errorf("the hub says %+v, %w", receipt, err)
		}
	}
	took := time.Since(began).Seconds()
	heap := heapMB() - before // offers is there before and after
	runtime.KeepAlive(offers)
	disk, err := diskMB(h.folder)
	if err != nil {
		return err
	}
	say("%d relays: the hub is full after %.1f s, %.0f MB of heap, %.0f MB of disk", n, took, heap, disk)
	if err := b.write(line{Name: "market_hub_fill", Bytes: new(len(offers[0])), Conns: 1, PerSecond: new(float64(n) / took), RSS: &heap, Relays: &n,
		Seconds: &took, DiskMB: &disk}); err != nil {
		return err
	}
	if err := b.fetch(ctx, n, h.server.URL()); err != nil {
		return err
	}
	return b.read(ctx, n, h.server.URL())
}

// fetch gets all bytes, checking nothing.
func (b *bench) fetch(ctx context.Context, n int, url string) error {
	began := time.Now()
	conn, err := feed.Connect(ctx, url, feed.Access{Name: "marketbench"})
	if err != nil {
		return err
	}
	defer conn.Close()
	got := 0
	if _, err := feed.FetchAll(ctx, conn, network, 0, 1<<30, func(feed.Message) error { got++; return nil }); err != nil || got != n {
		return fmt.Errorf("%d of %d are fetched: %w", got, n, err)
	}
	took := time.Since(began).Seconds()
	say("%d relays: a newcomer has their bytes after %.3f s", n, took)
	return b.write(line{Name: "market_fetch", Conns: 1, PerSecond: new(float64(n) / took), Relays: &n, Seconds: &took})
}

// read makes a user's first book: checked, merged, on disk; and chooses from it.
func (b *bench) read(ctx context.Context, n int, url string) error {
	folder, err := os.MkdirTemp("", "marketbench-reader-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	before := heapMB()
	began := time.Now()
	book, err := market.Open(ctx, market.Config{Path: filepath.Join(folder, "market.db"), Network: protocol.Network(network)})
	if err != nil {
		return err
	}
	defer func() { _ = book.Close() }()
	if err := book.AddHub(ctx, url); err != nil {
		return err
	}
	if reports, err := book.Refresh(ctx); err != nil || reports[0].Err != nil || reports[0].Tally.Taken != n {
		return fmt.Errorf("the reader has %+v: %w", reports, err)
	}
	took := time.Since(began).Seconds()
	heap := heapMB() - before
	disk, err := diskMB(folder)
	if err != nil {
		return err
	}
	say("%d relays: a reader has checked and kept the first full book after %.2f s; %.0f MB of heap, %.0f MB of disk", n, took, heap, disk)
	if err := b.write(line{Name: "market_first_book", Conns: 1, PerSecond: new(float64(n) / took), RSS: &heap, Relays: &n, Seconds: &took, DiskMB: &disk}); err != nil {
		return err
	}
	began = time.Now()
	best, err := book.Best(ctx, 5, market.DefaultProfile(), market.Want{})
	if err != nil || len(best) == 0 {
		return fmt.Errorf("the best are %v: %w", best, err)
	}
	took = time.Since(began).Seconds()
	say("%d relays: the best five after %.2f s", n, took)
	return b.write(line{Name: "market_best", Conns: 1, Relays: &n, Seconds: &took})
}
