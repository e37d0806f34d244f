package main

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
)

// flood sends junk as fast as one connection can, and an honest relay announces meanwhile, until it has a receipt.
func (b *bench) flood(ctx context.Context, junk int) error {
	all, err := kinds(ctx)
	if err != nil {
		return err
	}
	h, err := start(ctx)
	if err != nil {
		return err
	}
	defer h.end()
	sender, err := connected(ctx, h.server.URL())
	if err != nil {
		return err
	}
	defer sender.Close()
	heard := make(chan time.Duration, 1)
	honest, stop := context.WithCancel(ctx)
	defer stop()
	go func() { heard <- announceInFlood(honest, h.server.URL()) }()
	before, err := diskMB(h.folder)
	if err != nil {
		return err
	}
	began, sent := time.Now(), 0
	for sent < junk && ctx.Err() == nil {
		for _, k := range junkOf(all) {
			if err := sender.Publish(broadcast.IngestSubject(network), k.data); err != nil {
				return err
			}
			sent++
		}
	}
	if err := sender.FlushTimeout(time.Minute); err != nil {
		return err
	}
	took := time.Since(began)
	var waited time.Duration
	select {
	case waited = <-heard:
	case <-ctx.Done():
		return ctx.Err()
	}
	if waited == 0 {
		return errors.New("an honest relay was not heard in the flood")
	}
	disk, err := diskMB(h.folder)
	if err != nil {
		return err
	}
	rate, heap, relays := float64(sent)/took.Seconds(), heapMB(), 0
	relays, _ = h.Size()
	say("%d junk announcements of %d kinds in %.1f s, %.0f a second with their sender; an honest relay had its receipt after %.2f s; %d relay in the book, heap %.0f MB, disk %.1f MB, %.1f before",
		sent, len(all)-1, took.Seconds(), rate, waited.Seconds(), relays, heap, disk, before)
	return b.write(line{Name: "market_flood", Conns: 1, PerSecond: &rate, P50: new(float64(waited.Microseconds()) / 1000), RSS: &heap, Relays: &relays,
		Seconds: new(took.Seconds()), DiskMB: &disk})
}

// connected is a stranger's connection that is there.
func connected(ctx context.Context, url string) (*nats.Conn, error) {
	conn, err := feed.Connect(ctx, url, feed.Access{Name: "marketbench"})
	if err != nil {
		return nil, err
	}
	for !conn.IsConnected() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return conn, ctx.Err()
}

// announceInFlood is how long an honest relay takes to have its receipt, from a moment when the flood is there; 0: it never has.
func announceInFlood(ctx context.Context, url string) time.Duration {
	conn, err := connected(ctx, url)
	if err != nil {
		return 0
	}
	defer conn.Close()
	honest, err := announce(ctx, "honest.example", 8)
	if err != nil {
		return 0
	}
	const head, patience = 500 * time.Millisecond, 2 * time.Second
	select {
	case <-time.After(head):
	case <-ctx.Done():
		return 0
	}
	for began := time.Now(); ctx.Err() == nil; {
		m, err := conn.Request(broadcast.IngestSubject(network), honest.Bytes(), patience)
		if err == nil && bytes.HasPrefix(m.Data, []byte(`{"taken":true`)) {
			return time.Since(began)
		}
	}
	return 0
}
