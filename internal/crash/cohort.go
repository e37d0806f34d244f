package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// The people of a round. They are new in each, so that a round is judged by itself; those of earlier rounds are
// looked at again later.
const (
	sendersOfRound  = 3
	readersOfRound  = 3
	writersOfSender = 2
)

// admittedRoom is more than a guest uses in a round, and few enough to be counted.
const admittedRoom = 1 << 40

// promise is what a run can find broken. docs/promises.md lists them.
type promise string

const (
	promiseKept    promise = "an acknowledged write is kept"
	promiseOnce    promise = "nothing is stored or served twice"
	promiseCount   promise = "nothing is charged twice"
	promiseBill    promise = "what has an effect is on the bill, once"
	promiseGenuine promise = "nothing is stored or served that its key did not sign"
	promiseDeleted promise = "an acknowledged delete stays"
	promiseLimit   promise = "quotas and maxPulls are never exceeded, and what they leave is not lost"
	promisePage    promise = "an acknowledged page stays, and pulls are counted once"
	promiseOrder   promise = "the cursor's order is the order of commits"
	promiseSettle  promise = "an unknown outcome converges"
	promiseRefuse  promise = "a request is refused for its own reasons only"
	promiseBack    promise = "a relay comes back by itself"
)

// brokenError is one broken promise with its evidence.
type brokenError struct {
	promise  promise
	evidence string
}

func (e *brokenError) Error() string { return fmt.Sprintf("BROKEN: %s: %s", e.promise, e.evidence) }

// cohort is the people of one round and what they know: the history that the relay is held against.
type cohort struct {
	number  int
	relay   protocol.PublicKey
	month   string // in which they write: accounts count by it
	senders []*protocol.PrivateKey
	guest   *protocol.PrivateKey // has no account; the first reader admits him
	readers []*protocol.PrivateKey
	forger  *protocol.PrivateKey
	counts  *tally
	acks    atomic.Int64 // requests acknowledged so far
	unknown atomic.Int64 // requests whose outcome was unknown at first

	mu      sync.Mutex // guards what follows
	records map[protocol.Path]*record
	forged  map[protocol.Path]bool
	lost    map[protocol.PublicKey]int // pages of a reader whose replies were all lost: what they used up he does not know
	broken  []*brokenError
}

// record is what is known of one path. The cohort's lock guards it.
type record struct {
	path   protocol.Path
	tried  map[protocol.Hash]*attempt // every envelope that was sent under the path
	began  time.Time                  // the first of them
	stored *stored                    // nil: never acknowledged
	acked  time.Time
	ended  bool // a write of it was told that it was stored and has ended: deleted, or pulled as often as it allowed

	deleting bool // a delete was sent
	deleted  bool // and acknowledged
	pages    int  // pages that readers have it from
}

type attempt struct {
	envelope *protocol.Envelope
	write    *protocol.Write
}

type stored struct {
	hash protocol.Hash
	n    int64 // place in the relay's order
}

func newCohort(number int, relay protocol.PublicKey, counts *tally) (*cohort, error) {
	c := &cohort{number: number, relay: relay, counts: counts, month: time.Now().UTC().Format("2006-01"),
		records: map[protocol.Path]*record{}, forged: map[protocol.Path]bool{}, lost: map[protocol.PublicKey]int{}}
	keys := make([]*protocol.PrivateKey, sendersOfRound+readersOfRound+2)
	for i := range keys {
		var err error
		if keys[i], err = protocol.GeneratePrivateKey(); err != nil {
			return nil, err
		}
	}
	c.senders, keys = keys[:sendersOfRound:sendersOfRound], keys[sendersOfRound:]
	c.readers, c.guest, c.forger = keys[:readersOfRound:readersOfRound], keys[readersOfRound], keys[readersOfRound+1]
	return c, nil
}

// payer is the sender who pays by contract; the others have grants.
func (c *cohort) payer() protocol.PublicKey { return c.senders[len(c.senders)-1].Public() }

func (c *cohort) contract() protocol.ContractID { return protocol.ContractID(c.payer()) }

// contracted opens the payer's contract, with more credit than a round uses.
func (c *cohort) contracted(ctx context.Context, d *db.DB, b *books.Store) error {
	return d.Tx(ctx, func(tx pgx.Tx) error {
		o := books.Opening{ID: c.contract(), Payer: c.payer(), Prices: ledger.Prices{Storage: 1000, Bandwidth: 1000}}
		if err := b.OpenContract(ctx, tx, o); err != nil {
			return err
		}
		return b.SetCredit(ctx, tx, o.Payer, o.ID, 1<<60)
	})
}

// grant lets the people in.
func (c *cohort) grant(ctx context.Context, w *world) error {
	return w.withDB(ctx, func(ctx context.Context, d *db.DB) error {
		b := books.New(books.Config{DB: d, Clock: time.Now})
		if err := c.contracted(ctx, d, b); err != nil {
			return err
		}
		for _, k := range append([]*protocol.PrivateKey{c.readers[0]}, c.senders[:len(c.senders)-1]...) {
			if err := b.Put(ctx, books.Grant{Key: k.Public(), QuotaStored: 1e15, QuotaMoved: 1e15, LastDay: "9999-12-31"}); err != nil {
				return err
			}
		}
		return b.SetAdmitted(ctx, c.readers[0].Public(), []protocol.Admitted{{Key: c.guest.Public(), Bytes: admittedRoom, Records: admittedRoom}})
	})
}

// writers are all who may write.
func (c *cohort) writers() []*protocol.PrivateKey { return append(slices.Clone(c.senders), c.guest) }

// fault notes a broken promise.
func (c *cohort) fault(p promise, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faultLocked(p, format, args...)
}

// maxEvidence bounds how often one promise is told to be broken: what breaks it once breaks it often.
const maxEvidence = 3

func (c *cohort) faultLocked(p promise, format string, args ...any) {
	told := 0
	for _, b := range c.broken {
		if b.promise == p {
			told++
		}
	}
	if told < maxEvidence {
		c.broken = append(c.broken, &brokenError{p, fmt.Sprintf(format, args...)})
	}
}

// isBroken tells whether a promise was found broken: people need not go on then.
func (c *cohort) isBroken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.broken) > 0
}

// verdict is the broken promises as one error, or nil.
func (c *cohort) verdict() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.broken) == 0 {
		return nil
	}
	return brokenErrors(slices.Clone(c.broken))
}

// brokenErrors are the findings of one round.
type brokenErrors []*brokenError

func (e brokenErrors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// try notes an envelope before it is sent.
func (c *cohort) try(e *protocol.Envelope, w *protocol.Write) *record {
	path := protocol.Path{Sender: e.From, Receiver: e.To, ID: w.RecordID}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[path]
	if r == nil {
		r = &record{path: path, tried: map[protocol.Hash]*attempt{}, began: time.Now()}
		c.records[path] = r
	}
	r.tried[e.Hash()] = &attempt{e, w}
	return r
}

// acknowledged holds the answer to a write against all before it under the same path.
func (c *cohort) acknowledged(r *record, request protocol.Hash, hash protocol.Hash, cursor string) {
	c.acks.Add(1)
	c.counts.acknowledged.Add(1)
	n, err := placeOf(cursor)
	c.mu.Lock()
	defer c.mu.Unlock()
	a := r.tried[hash]
	switch {
	case err != nil:
		c.faultLocked(promiseOrder, "%s: %v", r.path, err)
	case a == nil:
		c.faultLocked(promiseGenuine, "%s is acknowledged as %s, which nobody wrote", r.path, hash)
	case a.envelope.RequestHash() != request:
		c.faultLocked(promiseOnce, "%s: a write is acknowledged as another one, %s", r.path, hash)
	case r.stored == nil:
		r.stored, r.acked = &stored{hash, n}, time.Now()
	case r.stored.hash != hash || r.stored.n != n:
		c.faultLocked(promiseOnce, "%s is acknowledged as %s at %d, and before as %s at %d", r.path, hash, n, r.stored.hash, r.stored.n)
	}
	if r.deleted {
		c.faultLocked(promiseDeleted, "%s: a write is acknowledged after the delete was, at %s", r.path, cursor)
	}
}

// placeOf is the number in a cursor, which is opaque to everybody else.
func placeOf(cursor string) (int64, error) {
	_, number, found := strings.Cut(cursor, ".")
	n, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no cursor", cursor)
	}
	return n, nil
}

// served checks an envelope that a reader was given, and notes that he has it.
func (c *cohort) served(e *protocol.Envelope, reader protocol.PublicKey) *record {
	var w protocol.Write
	if err := e.Verify(); err != nil {
		c.fault(promiseGenuine, "served to %s: %v: %.300s", reader, err, e.Bytes())
		return nil
	}
	if err := e.Decode(&w); err != nil || e.To != reader {
		c.fault(promiseGenuine, "served to %s: no write to him (%v): %.300s", reader, err, e.Bytes())
		return nil
	}
	path := protocol.Path{Sender: e.From, Receiver: e.To, ID: w.RecordID}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[path]
	switch {
	case r == nil:
		c.faultLocked(promiseGenuine, "%s is served, and nobody wrote it", path)
		return nil
	case r.tried[e.Hash()] == nil:
		c.faultLocked(promiseGenuine, "%s is served as %s, which nobody wrote", path, e.Hash())
	case r.stored != nil && r.stored.hash != e.Hash():
		c.faultLocked(promiseKept, "%s is served as %s and was acknowledged as %s", path, e.Hash(), r.stored.hash)
	}
	return r
}

// maxPulls is of what is stored, or the most of what was tried.
func (r *record) maxPulls() int64 {
	if r.stored != nil {
		if a := r.tried[r.stored.hash]; a != nil {
			return a.write.MaxPulls
		}
	}
	least := int64(math.MaxInt64)
	for _, a := range r.tried {
		least = min(least, a.write.MaxPulls)
	}
	return least
}

// mayBeUsedUp tells whether the pages that named a record can have used it up, as far as its reader knows.
func (c *cohort) mayBeUsedUp(r *record) bool {
	return int64(r.pages+c.lost[r.path.Receiver]) >= r.maxPulls()
}

// checkCommitOrder holds places against time: a write that began after another was acknowledged comes after it.
func (c *cohort) checkCommitOrder() {
	c.mu.Lock()
	defer c.mu.Unlock()
	byStart := make([]*record, 0, len(c.records))
	taken := make(map[int64]*record, len(c.records))
	for _, r := range c.records {
		if r.stored == nil {
			continue
		}
		if other := taken[r.stored.n]; other != nil {
			c.faultLocked(promiseOrder, "%s and %s have one place, %d", r.path, other.path, r.stored.n)
		}
		taken[r.stored.n] = r
		byStart = append(byStart, r)
	}
	byAck := slices.Clone(byStart)
	slices.SortFunc(byStart, func(a, b *record) int { return a.began.Compare(b.began) })
	slices.SortFunc(byAck, func(a, b *record) int { return a.acked.Compare(b.acked) })
	var last *record
	for _, r := range byStart {
		for len(byAck) > 0 && byAck[0].acked.Before(r.began) {
			if last == nil || byAck[0].stored.n > last.stored.n {
				last = byAck[0]
			}
			byAck = byAck[1:]
		}
		if last != nil && r.stored.n < last.stored.n {
			c.faultLocked(promiseOrder, "%s has place %d, and began after %s was acknowledged at %d", r.path, r.stored.n, last.path, last.stored.n)
		}
	}
}
