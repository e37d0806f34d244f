package records_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/protocol"
	"relaymarket/records"
)

// truth is what truly became of a record.
type truth struct {
	hash                  protocol.Hash
	contract              protocol.ContractID
	own                   *ledger.Own
	written, ended        protocol.Timestamp
	served, acked, lapsed int64
	lastPull              protocol.Timestamp
	denied                int64 // acknowledged pulls that the payer refuses
	disowned, backdated   bool  // he denies that he wrote it at all, or says that it was deleted earlier
}

// spending is one random life of a contract, beside what truly happened in it.
type spending struct {
	*rapid.T
	*payer
	records []*truth
	readers []*spendingReader
}

type spendingReader struct {
	reader
	page []*truth // open
	made protocol.Timestamp
}

// The bill that the relay computes is its account's counters, is what the payer computes from its reports, and is what an
// independent model of what truly happened comes to, to the millisatoshi, after any history of writes, pulls,
// acknowledgements that never come, deletes, expiries and sweeps, posted at any moments.
func TestBillIsItsCounters(t *testing.T) {
	h := newStillHouse(t, time.Date(2031, 1, 15, 12, 0, 0, 0, time.UTC))
	rapid.Check(t, func(t *rapid.T) {
		s := &spending{T: t, payer: h.payer()}
		for range 2 {
			s.readers = append(s.readers, &spendingReader{reader: reader{h: h, key: key(h.t)}})
		}
		steps := []func(){s.write, s.write, s.write, s.pull, s.pull, s.pull, s.remove, s.advance, s.sweep, s.look, s.crash, s.tidy, s.renew}
		for range rapid.IntRange(10, 50).Draw(t, "steps") {
			rapid.SampledFrom(steps).Draw(t, "step")()
		}
		s.look()
		s.compare()
	})
}

// crash ends a poster wherever it is.
func (s *spending) crash() {
	ctx, cancel := context.WithTimeout(s.h.t.Context(), time.Duration(rapid.IntRange(0, 4000).Draw(s.T, "µs"))*time.Microsecond)
	defer cancel()
	_ = s.h.books.Post(ctx) // it is undone, or done: both are well
}

// write writes a record, or as many as make pages that bills name.
func (s *spending) write() {
	to := s.reader().key.Public()
	for range rapid.SampledFrom([]int{1, 1, 20}).Draw(s.T, "records") {
		s.writeOne(to)
	}
}

func (s *spending) writeOne(to protocol.PublicKey) {
	in := s.h.compose(s.key, to, fmt.Sprint("r", len(s.records)),
		pulls(rapid.Int64Range(1, 3).Draw(s.T, "pulls")),
		ttl(s.h, rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 50 * time.Hour, 60 * 24 * time.Hour}).Draw(s.T, "life")),
		content(strings.Repeat("AAAA", rapid.IntRange(1, 500).Draw(s.T, "size"))))
	for range rapid.IntRange(1, 2).Draw(s.T, "tries") { // the same again is one write
		if out := s.h.write(in)[0]; out.Err != nil {
			s.Fatal(out.Err)
		}
	}
	s.records = append(s.records, &truth{hash: in.Envelope.Hash(), contract: s.contract, own: s.wrote(in), written: s.h.now()})
}

// tidy writes out what bills have named for long: pages may be swept then.
func (s *spending) tidy() {
	if err := s.h.books.Tidy(s.h.t.Context()); err != nil {
		s.Fatal(err)
	}
}

func (s *spending) reader() *spendingReader {
	return rapid.SampledFrom(s.readers).Draw(s.T, "reader")
}

// pull acknowledges the reader's open page, or not, and pulls the next one.
func (s *spending) pull() {
	r := s.reader()
	if r.open != nil {
		if rapid.IntRange(0, 3).Draw(s.T, "silent") == 0 {
			return
		}
		for _, record := range r.page {
			if !s.lapsed(r) {
				record.acked++
			}
		}
	}
	if rapid.Bool().Draw(s.T, "again") {
		r.after = nil
	}
	page, err := r.reader.pull(s.h.t.Context(), rapid.SampledFrom([]int64{1, 2, 4, 40}).Draw(s.T, "limit"), s.key.Public())
	if err != nil {
		s.Fatal(err)
	}
	r.page, r.made = nil, s.h.now()
	for _, line := range page.Lines {
		e, err := protocol.ParseEnvelope(line.Envelope)
		if err != nil {
			s.Fatal(err)
		}
		for _, record := range s.records {
			if record.hash == e.Hash() {
				record.served++
				record.lastPull = s.h.now()
				r.page = append(r.page, record)
			}
		}
	}
}

// lapsed tells whether the pulls of a reader's open page were given back.
func (s *spending) lapsed(r *spendingReader) bool { return r.made < 0 }

func (s *spending) remove() {
	for _, record := range s.records {
		if record.ended == 0 && s.h.now() < record.own.Expires && rapid.IntRange(0, 3).Draw(s.T, "delete") == 0 {
			if err := s.h.store.Delete(s.h.t.Context(), record.own.Path); err != nil {
				s.Fatal(err)
			}
			record.ended, record.own.Deleted = s.h.now(), s.h.now()
			if record.served == record.own.MaxPulls {
				record.ended = record.lastPull
			}
			return
		}
	}
}

func (s *spending) advance() {
	s.h.advance(rapid.SampledFrom([]time.Duration{time.Second, 11 * time.Minute, time.Hour, 26 * time.Hour, 36 * 24 * time.Hour}).Draw(s.T, "for"))
}

func (s *spending) sweep() {
	if rapid.Bool().Draw(s.T, "posted") {
		if err := s.h.books.Post(s.h.t.Context()); err != nil {
			s.Fatal(err)
		}
	}
	if err := s.h.store.Sweep(s.h.t.Context()); err != nil {
		s.Fatal(err)
	}
	now := s.h.now()
	for _, record := range s.records {
		if record.ended != 0 {
			continue
		}
		usedUp := record.served == record.own.MaxPulls
		switch {
		case now >= record.own.Expires.Add(time.Hour):
			// Unless it is not posted: then it stays, and is swept later.
			if s.standsStill(record) {
				continue
			}
			if record.ended = record.own.Expires; usedUp {
				record.ended = record.lastPull
			}
		case usedUp && now >= record.lastPull.Add(10*time.Minute):
			record.ended = record.lastPull
		}
	}
	for _, r := range s.readers {
		if r.open != nil && r.made > 0 && now >= r.made.Add(35*24*time.Hour) {
			for _, record := range r.page {
				record.lapsed++
			}
			r.made = -1
		}
	}
}

// standsStill tells whether the record's row is still there and live.
func (s *spending) standsStill(record *truth) bool {
	p := record.own.Path
	return s.h.count(`SELECT count(*) FROM records WHERE sender = $1 AND id = $2 AND state = 0`, p.Sender[:], string(p.ID)) > 0
}

func (s *spending) look() { s.check(s.T) }

// compare holds the bill against what truly happened.
func (s *spending) compare() {
	for _, old := range s.renewed {
		s.compareOne(old)
	}
	s.compareOne(&s.billed)
}

func (s *spending) compareOne(b *billed) {
	s.readAgain(s.T, b)
	mine := make(map[protocol.Hash]bool)
	var due, all ledger.Usage
	add := func(to *ledger.Usage, bytes, times, until int64) {
		to.Moved, _ = to.Moved.Plus(ledger.Times(bytes, times))
		to.Stored, _ = to.Stored.Plus(ledger.Times(bytes, max(until, 0)))
	}
	for _, r := range s.records {
		own := r.own
		if r.contract != b.contract {
			continue
		}
		mine[r.hash] = true
		if r.disowned {
			continue
		}
		r.acked, r.lapsed = r.acked-r.denied, r.lapsed+r.denied
		if r.ended != 0 {
			add(&due, own.Bytes, 1+r.acked, int64(r.ended-r.written))
			add(&all, own.Bytes, 1+r.served-r.lapsed, int64(r.ended-r.written))
			continue
		}
		add(&due, own.Bytes, 1+r.acked, int64(min(s.h.now(), own.Expires)-r.written))
		add(&all, own.Bytes, 1+own.MaxPulls-r.lapsed, int64(own.Expires-r.written))
	}
	accepted, err := dear.Cost(due)
	claimed, also := dear.Cost(all)
	if err = errors.Join(err, also); err != nil {
		s.Fatal(err)
	}
	want := ledger.Bill{Accepted: accepted, Waiting: claimed - accepted, Claimed: claimed}
	if got := s.bill(s.T, b, func(h protocol.Hash) bool { return mine[h] }); got != want {
		s.Fatalf("the bill is %+v, in truth it is %+v", got, want)
	}
}

// Two processes write, serve, delete, sweep and post at once: nothing is left out and nothing is posted twice.
func TestPostingUnderConcurrency(t *testing.T) {
	h := newHouse(t)
	other := joinHouse(t, h.url, h.relay, h.offset)
	p := h.payer()
	bob := key(t)
	var mu sync.Mutex
	var group, posters sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for _, house := range []*house{h, other} {
		posters.Go(func() {
			for ctx.Err() == nil {
				if err := house.books.Post(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
		for w := range 4 {
			group.Go(func() {
				for i := range 50 {
					in := house.compose(p.key, bob.Public(), fmt.Sprintf("%p-%d-%d", house, w, i), pulls(2))
					mu.Lock()
					p.wrote(in)
					mu.Unlock()
					if out := house.store.Write(ctx, []records.Incoming{in}); out[0].Err != nil {
						t.Error(out[0].Err)
					}
					if i%3 == 0 {
						if err := house.store.Delete(ctx, protocol.Path{Sender: p.key.Public(), Receiver: bob.Public(), ID: in.Write.RecordID}); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	group.Go(func() {
		r := &reader{h: other, key: bob}
		for range 60 {
			if _, err := r.pull(ctx, 20, p.key.Public()); err != nil {
				t.Error(err)
			}
		}
	})
	group.Wait()
	cancel()
	posters.Wait()
	p.check(t)
	if p.place.Last < 400+2*68 {
		t.Errorf("%d lines", p.place.Last)
	}
}
