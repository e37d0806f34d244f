package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

// work measures how many nonces are tried in a second, of which the time of a proof follows: 2^bits of them on average. One proof by
// itself would be luck.
func (b *bench) work(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, b.span)
	defer cancel()
	var last broadcast.Progress
	p := broadcast.Prover{Workers: 1, Every: b.span / 10, Report: func(r broadcast.Progress) { last = r }}
	_, _ = p.Prove(timed, protocol.Hash{1}, protocol.MaxWorkBits) // ends with the time
	if ctx.Err() != nil {
		return ctx.Err()
	}
	rate := float64(last.Tried) / last.Elapsed.Seconds()
	for _, n := range []protocol.Network{protocol.Mainnet, protocol.Signet} {
		bits := broadcast.DefaultBits(n)
		seconds := float64(uint64(1)<<bits) / rate
		say("proof of work: %.1f million nonces a second on one core; the %d bits of %s take %.2f s on average", rate/1e6, bits, n, seconds)
		if err := b.write(line{Name: "market_work_" + string(n), Conns: 1, PerSecond: new(rate), Seconds: &seconds}); err != nil {
			return err
		}
	}
	return nil
}

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

// kind is an announcement, good or bad in one way.
type kind struct {
	name string
	data []byte
}

// good is the name of the kind that is taken.
const good = "good"

func kinds(ctx context.Context) ([]kind, error) {
	fine, err := announce(ctx, "relay.example", 8)
	if err != nil {
		return nil, err
	}
	idle, err := announce(ctx, "idle.example", 7)
	if err != nil {
		return nil, err
	}
	text := string(fine.Bytes())
	digit := "0"
	if strings.HasSuffix(text, `0"}`) {
		digit = "1"
	}
	return []kind{
		{good, fine.Bytes()},
		{"false_signature", []byte(text[:len(text)-3] + digit + `"}`)},
		{"other_bytes", []byte(strings.Replace(text, `"bondPercent":0`, `"bondPercent":9`, 1))}, // work that is true of others
		{"no_work", []byte(strings.Replace(text, `"bits":8`, `"bits":99`, 1))},
		{"little_work", idle.Bytes()},
		{"malformed", []byte(text[:len(text)-1])},
		{"noise", []byte(strings.Repeat("\xc3\x28", protocol.MaxAnnouncementSize/2))},
		{"oversize", make([]byte, 2*protocol.MaxAnnouncementSize)},
	}, nil
}

// checks measures how fast each kind is judged on one core, beside one hash of the largest announcement.
func (b *bench) checks(ctx context.Context) error {
	largest := make([]byte, protocol.MaxAnnouncementSize)
	b.hash, _ = b.rate(func() error { sha256.Sum256(largest); return nil }) // it never fails
	say("one hash of %d bytes, for comparison: %.0f a second on one core", len(largest), b.hash)
	if err := b.write(line{Name: "market_hash", Bytes: new(len(largest)), Conns: 1, PerSecond: new(b.hash)}); err != nil {
		return err
	}
	all, err := kinds(ctx)
	if err != nil {
		return err
	}
	for _, k := range all {
		now := protocol.TimestampOf(time.Now())
		rate, err := b.rate(func() error {
			if _, err := rules.Check(k.data, now, nil); (err == nil) != (k.name == good) {
				return fmt.Errorf("%s is judged: %v", k.name, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		say("checked a second on one core, %s of %d bytes: %.0f, which is the time of %.1f such hashes", k.name, len(k.data), rate, b.hash/rate)
		if err := b.write(line{Name: "market_check_" + k.name, Bytes: new(len(k.data)), Conns: 1, PerSecond: &rate,
			Limit: new("market_hash"), LimitPerS: new(b.hash), Ratio: new(rate / b.hash)}); err != nil {
			return err
		}
	}
	return nil
}

// rate is how often something is done in a second.
func (b *bench) rate(do func() error) (float64, error) {
	const batch = 100
	n, began := 0, time.Now()
	for time.Since(began) < b.span/4 {
		for range batch {
			if err := do(); err != nil {
				return 0, err
			}
		}
		n += batch
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// junkOf are the kinds that are not taken.
func junkOf(all []kind) []kind {
	return slices.DeleteFunc(all, func(k kind) bool { return k.name == good })
}
