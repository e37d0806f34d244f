package main

import (
	"context"
	"errors"
	"time"

	"relaymarket/protocol"
)

// verify is limit_verify: signature checks on all processors and nothing else, with the library the relay is built with.
type verify struct {
	cores  int
	signed []signed
}

type signed struct {
	key    protocol.PublicKey
	digest protocol.Hash
	sig    protocol.Signature
}

// Enough different keys and signatures that nothing is always in the processor's cache.
const (
	verifyKeys   = 64
	verifySigned = 4096
)

// verifyStep is how many checks count as one request: the clock is not free either.
const verifyStep = 16

func openVerify(_ context.Context, b *bench, p point, size int) (workload, error) {
	keys, err := people(roleSender, verifyKeys)
	if err != nil {
		return nil, err
	}
	w := &verify{cores: p.conns, signed: make([]signed, verifySigned)}
	now := time.Now()
	return w, each(verifySigned, func(i int) error {
		e, err := b.author.record(keys[i%verifyKeys], b.relay.key, int64(i), size, now)
		if err == nil {
			w.signed[i] = signed{e.From, e.Digest(), e.Sig}
		}
		return err
	})
}

func (w *verify) workers() int                       { return w.cores }
func (w *verify) servers() servers                   { return servers{} }
func (w *verify) close() error                       { return nil }
func (w *verify) prepare(context.Context, int) error { return nil }

func (w *verify) step(_ context.Context, c, i int) (sample, error) {
	began := time.Now()
	for j := range verifyStep {
		s := &w.signed[(c*verifySigned/w.cores+i*verifyStep+j)%verifySigned]
		if !protocol.VerifyDigest(s.key, s.digest, s.sig) {
			return sample{}, errors.New("a signature that was made here does not verify")
		}
	}
	return sample{records: verifyStep, took: time.Since(began) / verifyStep}, nil
}
