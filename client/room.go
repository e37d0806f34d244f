package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/rest"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

const (
	// chunkBytes is the usual size of a chunk: a record of half a MiB, which a line of 40 kB/s brings to a relay in the time
	// that it gives a body.
	chunkBytes = 384 << 10
	// lookTime bounds how long a relay is asked whether it has room: one that does not answer is tried later.
	lookTime = 15 * time.Second
	// leastRecord is what a relay has to take: a manifest with as many hashes as one may have, sealed.
	leastRecord = 32 << 10
)

// offered is what a relay takes.
type offered struct {
	relay   Relay
	limits  *protocol.Limits // nil: it did not answer
	account *rest.Account    // nil likewise
	err     error
}

// makeRoom fixes the size of the chunks and the expiry so that the relays take them, and chooses the relays: those that
// have room, and those that do not answer now. ErrNoSpace if they are too few.
func (c *Client) makeRoom(ctx context.Context, u *state.Upload, o *FileOptions) ([]Relay, error) {
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, ErrNoRelays
	}
	if relays, err = c.taking(ctx, relays, "", false); err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, fmt.Errorf("%w: your relays take messages on a topic only, or such as they can read", ErrNoSpace)
	}
	if o.Copies > len(relays) {
		return nil, fmt.Errorf("%d copies are asked for and you have %d relays that take files: add relays or ask for fewer copies", o.Copies, len(relays))
	}
	offers := make([]offered, len(relays))
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, r := range relays {
		group.Go(func() error {
			offers[i] = c.look(work, r)
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	ttl := o.TTL
	if ttl == 0 {
		ttl = DefaultFileTTL
		for _, of := range offers {
			if of.limits != nil {
				ttl = min(ttl, time.Duration(min(of.limits.LifetimeMs, math.MaxInt64/int64(time.Millisecond)))*time.Millisecond-time.Minute)
			}
		}
	}
	u.Expires = c.now().Add(ttl)
	if err := chooseChunk(u, offers); err != nil {
		return nil, err
	}
	var fit []Relay
	var reasons []string
	for _, of := range offers {
		if reason := of.refuses(u, ttl); reason != "" {
			reasons = append(reasons, fmt.Sprintf("relay %s: %s", of.relay.Address, reason))
			c.log.Info("a relay cannot take the file", "relay", of.relay.Address, "reason", reason)
			continue
		}
		fit = append(fit, of.relay)
	}
	if len(fit) < o.Copies {
		return nil, fmt.Errorf("%w: %d of your %d relays can take it, and %d have to; %s", ErrNoSpace, len(fit), len(relays), o.Copies, strings.Join(reasons, "; "))
	}
	return fit, nil
}

func (c *Client) look(ctx context.Context, relay Relay) offered {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	of := offered{relay: relay}
	if _, err := c.peer(relay.Key, relay.Address); err != nil { // whose own certificate is taken
		of.err = err
		return of
	}
	p, _, offer, err := c.meet(ctx, relay.Address)
	if err != nil {
		of.err = err
		return of
	}
	if p.key != relay.Key {
		of.err = p.fail(protocol.CodeWrongAudience)
		return of
	}
	of.limits = &offer.Limits
	of.account, of.err = p.account(ctx)
	return of
}

// chooseChunk makes the chunks as large as usual, or as the smallest record that a relay takes; larger if the file has too many of them.
func chooseChunk(u *state.Upload, offers []offered) error {
	most := int64(protocol.MaxChunkBytes)
	for _, of := range offers {
		bytes := of.relay.Bytes
		if of.limits != nil {
			bytes = of.limits.RecordBytes
		}
		most = min(most, (bytes-envelopeOverhead)/4*3-32)
	}
	most -= most % 1024
	if most < (leastRecord-envelopeOverhead)/4*3-32-1024 {
		return fmt.Errorf("%w: a relay of yours takes no records of %d bytes, which files need", ErrNoSpace, leastRecord)
	}
	u.ChunkBytes = min(chunkBytes, most)
	for u.Size > protocol.MaxFileSize(u.ChunkBytes) && u.ChunkBytes < most {
		u.ChunkBytes = min(2*u.ChunkBytes, most)
	}
	if u.Size > protocol.MaxFileSize(u.ChunkBytes) {
		return fmt.Errorf("%w: in records as small as your relays take a file has at most %d bytes", ErrTooLarge, protocol.MaxFileSize(u.ChunkBytes))
	}
	return nil
}

// refuses says why a relay cannot take the file; empty if it can, or cannot be asked now.
func (of *offered) refuses(u *state.Upload, ttl time.Duration) string {
	var refusal *RelayError
	switch {
	case errors.Is(of.err, protocol.CodeNoAccount), errors.Is(of.err, protocol.CodeWrongAudience):
		return of.err.Error()
	case of.err != nil && errors.As(of.err, &refusal) && !refusal.Temporary():
		return of.err.Error()
	case of.limits == nil || of.account == nil:
		return ""
	case ttl.Milliseconds() > of.limits.LifetimeMs:
		return fmt.Sprintf("it keeps records for %s at most: ask for a shorter --ttl", time.Duration(of.limits.LifetimeMs)*time.Millisecond)
	case u.MaxPulls > of.limits.MaxPulls:
		return fmt.Sprintf("it allows %d pulls at most", of.limits.MaxPulls)
	case !of.account.Active:
		return "your account there takes no new records"
	case of.account.Contract != nil:
		return "" // it is paid as it goes
	}
	needed := storedBytes(u)
	if free := of.account.QuotaStored - of.account.Stored; needed > free {
		return fmt.Sprintf("%s are needed and %s of your %s are free", megabytes(needed), megabytes(max(free, 0)), megabytes(of.account.QuotaStored))
	}
	moved := int64(math.MaxInt64)
	if needed < math.MaxInt64/(1+u.MaxPulls) {
		moved = needed * (1 + u.MaxPulls)
	}
	if free := of.account.QuotaMoved - of.account.Moved; moved > free {
		return fmt.Sprintf("%s of this month's traffic are needed, for writing it and %d pulls, and %s are left", megabytes(moved), u.MaxPulls, megabytes(max(free, 0)))
	}
	return ""
}

// storedBytes is what the envelopes of all pieces have at most.
func storedBytes(u *state.Upload) int64 {
	m := manifestOf(u)
	total := int64(0)
	if all := m.AllPieces(); all > 0 {
		total = (all - 1) * envelopeBytes(u.ChunkBytes)
		total += envelopeBytes(protocol.PiecePadded(m.PieceBytes(all-1), u.ChunkBytes))
	}
	return total + envelopeBytes(32<<10) // the manifest
}

func envelopeBytes(padded int64) int64 { return (padded+17+2)/3*4 + envelopeOverhead }

func megabytes(n int64) string {
	switch {
	case n >= 10e9:
		return fmt.Sprintf("%d GB", n/1e9)
	case n >= 1e9:
		return fmt.Sprintf("%d.%d GB", n/1e9, n%1e9/1e8)
	case n >= 1e6:
		return fmt.Sprintf("%d MB", n/1e6)
	}
	return fmt.Sprintf("%d kB", (n+999)/1000)
}
