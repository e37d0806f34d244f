package broadcast

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"relaymarket/protocol"
)

// Progress tells of a proof of work under way.
type Progress struct {
	Tried    uint64        // nonces so far
	Expected uint64        // nonces that it takes on average: 2^bits; there is no knowing when it will be done
	Elapsed  time.Duration // since the start
}

// Prover does proof of work. The zero value works on one core and tells nobody.
type Prover struct {
	Workers int            // goroutines; below 1 is one. The work of a relay that serves leaves the other cores alone
	Every   time.Duration  // between calls of Report; zero is a second
	Report  func(Progress) // may be nil; it is called from one goroutine
}

// tries is how many nonces are tried between looks at whether to go on.
const tries = 1 << 12

// Prove finds a nonce whose work over subject begins with at least bits zero bits. It ends early only when ctx does, with
// its error. The time it takes is 2^bits tries on average, and six times that in one case of four hundred.
func (p Prover) Prove(ctx context.Context, subject protocol.Hash, bits int) (protocol.Work, error) {
	if bits < 0 || bits > protocol.MaxWorkBits {
		return protocol.Work{}, refuse(ReasonNoWork, "%d bits cannot be proved", bits)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	search := &search{subject: subject, bits: bits, stop: cancel}
	var workers sync.WaitGroup
	for range min(max(p.Workers, 1), runtime.NumCPU()) {
		workers.Go(func() { search.run(ctx) })
	}
	p.report(ctx, search)
	workers.Wait()
	if nonce := search.found.Load(); nonce != nil {
		return protocol.Work{Bits: int64(bits), Nonce: *nonce}, nil
	}
	return protocol.Work{}, context.Cause(ctx)
}

// report tells of the search until it ends.
func (p Prover) report(ctx context.Context, s *search) {
	if p.Report == nil {
		return
	}
	every := p.Every
	if every <= 0 {
		every = time.Second
	}
	began, ticker := time.Now(), time.NewTicker(every)
	defer ticker.Stop()
	expected := uint64(1) << min(s.bits, 63)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.Report(Progress{Tried: s.tried.Load(), Expected: expected, Elapsed: time.Since(began)})
		}
	}
}

// search is one proof of work under way. Its workers share the nonces, which are counted from zero.
type search struct {
	subject protocol.Hash
	bits    int
	next    atomic.Uint64 // where the next worker starts
	tried   atomic.Uint64
	found   atomic.Pointer[protocol.Nonce]
	stop    context.CancelFunc
}

func (s *search) run(ctx context.Context) {
	// The first 64 bytes are the tag's, see [protocol.TaggedHash].
	tag := sha256.Sum256([]byte(protocol.TagAnnouncement))
	var block [2*sha256.Size + sha256.Size + protocol.NonceSize]byte
	copy(block[:], tag[:])
	copy(block[sha256.Size:], tag[:])
	copy(block[2*sha256.Size:], s.subject[:])
	nonce := block[3*sha256.Size:]
	for ctx.Err() == nil {
		first := s.next.Add(tries) - tries
		for n := first; n < first+tries; n++ {
			binary.BigEndian.PutUint64(nonce, n)
			if protocol.ZeroBits(sha256.Sum256(block[:])) >= s.bits {
				found := protocol.Nonce(nonce)
				s.found.CompareAndSwap(nil, &found)
				s.stop()
				return
			}
		}
		s.tried.Add(tries)
	}
}

// Announce proves an announcement and signs it: from key, to key, dated at. It takes the time that [Prover.Prove] takes. The
// announcement's pow is written.
func (p Prover) Announce(ctx context.Context, key *protocol.PrivateKey, at protocol.Timestamp, a *protocol.Announcement, bits int) (*protocol.Envelope, error) {
	a.Pow = nil
	draft, err := protocol.Sign(key, key.Public(), at, a)
	if err != nil {
		return nil, err
	}
	subject, _, err := draft.WorkSubject()
	if err != nil {
		return nil, err
	}
	work, err := p.Prove(ctx, subject, bits)
	if err != nil {
		return nil, err
	}
	a.Pow = &work
	e, err := protocol.Sign(key, key.Public(), at, a)
	if err == nil && e.Size() > protocol.MaxAnnouncementSize {
		return nil, refuse(ReasonSize, "it has %d bytes, %d are allowed: name fewer addresses", e.Size(), protocol.MaxAnnouncementSize)
	}
	return e, err
}
