package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"relaymarket/protocol"
)

// seed is what keys and contents come from: the same in every run.
const seed = "relaymarket/bench"

// recordLife is how long a record asks to be kept: longer than any run.
const recordLife = 24 * time.Hour

// maxPulls lets a reader begin again from the front when a measurement is longer than what was loaded for it.
const maxPulls = 10_000

// person is one of the generator's people: the i-th of a role.
func person(role string, i int) (*protocol.PrivateKey, error) {
	return protocol.NewPrivateKey(sha256.Sum256(fmt.Appendf(nil, "%s key %s %d", seed, role, i)))
}

// people are the first n of a role.
func people(role string, n int) ([]*protocol.PrivateKey, error) {
	keys := make([]*protocol.PrivateKey, n)
	for i := range keys {
		var err error
		if keys[i], err = person(role, i); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// Roles. Senders need a grant, payers a contract, readers nothing.
const (
	roleSender   = "sender"
	rolePayer    = "payer"
	roleReader   = "reader"
	roleListener = "listener"
)

// author signs what the generator sends to one relay. It is safe for concurrent use.
type author struct {
	relay protocol.PublicKey
	run   string       // begins the record ids of this run, so that an older run's are other ones
	next  atomic.Int64 // numbers record ids, contents and page ids
}

func newAuthor(relay protocol.PublicKey) *author {
	return &author{relay: relay, run: "b" + strconv.FormatInt(time.Now().UnixMilli(), 36)}
}

// idDigits numbers record ids with a fixed width, so that all records have one size.
const idDigits = 10

func (a *author) id(n int64) protocol.RecordID {
	return protocol.RecordID(fmt.Sprintf("%s-%0*d", a.run, idDigits, n))
}

// pageID names a new page.
func (a *author) pageID() protocol.PageID {
	return protocol.PageID(fmt.Sprintf("%sp%d", a.run, a.next.Add(1)))
}

// randomness of the n-th signed thing.
func randomness(n int64) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64([]byte(seed), uint64(n))))
}

// record signs the n-th record, whose envelope has size bytes, or up to three fewer because of base64.
func (a *author) record(from *protocol.PrivateKey, to protocol.PublicKey, n int64, size int, now time.Time) (*protocol.Envelope, error) {
	const around = 489 + idDigits // bytes of the envelope without content and run; TestRecordSize sees to it
	random := randomness(n)
	sealed := make([]byte, max(size-around-len(a.run), 4)/4*3)
	_, _ = random.Read(sealed) // never fails
	var aux [32]byte
	_, _ = random.Read(aux[:])
	return protocol.SignWith(from, to, protocol.TimestampOf(now), &protocol.Write{
		Relay: a.relay, RecordID: a.id(n), Expires: protocol.TimestampOf(now.Add(recordLife)), MaxPulls: maxPulls,
		Content: base64.StdEncoding.EncodeToString(sealed),
	}, aux)
}

// sign makes any other request to the relay.
func (a *author) sign(from *protocol.PrivateKey, r protocol.Request) (*protocol.Envelope, error) {
	return protocol.Sign(from, a.relay, protocol.TimestampOf(time.Now()), r)
}

// pull makes the body of a pull; got, if not nil, is the page before.
func (a *author) pull(from *protocol.PrivateKey, query protocol.PullQuery, got *protocol.PageRoot) ([]byte, error) {
	pull, line, err := protocol.NewPull(query, got)
	if err != nil {
		return nil, err
	}
	e, err := a.sign(from, pull)
	if err != nil {
		return nil, err
	}
	return protocol.PullBody(e, line), nil
}

// each runs do for 0 … n−1 on all processors and returns the first error.
func each(n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
