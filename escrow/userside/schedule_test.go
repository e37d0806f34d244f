package userside_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// schedules is how many lives of a contract are drawn.
const schedules = 8

// Whatever happens in whatever order, messages lost, programs ended, blocks replaced, a relay that asks for too much: the
// user never stands by more than the opening price, what he accepted, and his cushion, and every satoshi is accounted for.
func TestSchedules(t *testing.T) {
	u := somebody(t)
	for seed := range uint64(schedules) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := &schedule{user: u, rand: rand.New(rand.NewPCG(seed, 29293))}
			before := u.balance()
			s.opens()
			for range 10 {
				s.acts()
				s.bounded()
			}
			paid := s.ends()
			u.adds(s.id, before, paid)
			if most := openingPrice + s.accepted + creditLimit; paid > most {
				t.Errorf("%d sat were paid, %d are the bound", paid, most)
			}
			u.node.Mine(6) // nothing of it is replaced by the next
			u.steps()
			u.is(s.id, escrow.Closed)
		})
	}
}

// schedule is one contract's life.
type schedule struct {
	*user
	rand     *rand.Rand
	id       protocol.ContractID
	accepted btcutil.Amount
}

// mayFail lets through what a cut reply or a limit of the user's may cause, and nothing else.
func (s *schedule) mayFail(err error) {
	s.t.Helper()
	if err != nil && !errors.Is(err, errCut) && !errors.Is(err, userside.ErrCushion) && !errors.Is(err, protocol.CodeContractState) {
		s.t.Fatal(err)
	}
}

func (s *schedule) opens() {
	s.t.Helper()
	lost := func(string) error {
		if s.rand.IntN(5) == 0 {
			return errCut
		}
		return nil
	}
	s.relay.refuse, s.relay.late = lost, lost
	s.id = s.starts()
	for s.record(s.id).Opening() {
		_, err := s.Advance(s.t.Context(), s.id, s.wallet)
		s.mayFail(err)
		if s.rand.IntN(2) == 0 {
			s.restarts()
		}
	}
	s.node.Mine(1)
	s.mayFail(s.Step(s.t.Context()))
}

// acts lets one thing happen.
func (s *schedule) acts() {
	s.t.Helper()
	ctx := s.t.Context()
	var err error
	switch s.rand.IntN(6) {
	case 0:
		s.accepted += btcutil.Amount(s.rand.Int64N(2000))
		_, err = s.Accept(ctx, s.id, protocol.Msat(s.accepted)*1000)
	case 1:
		_, err = s.Pay(ctx, s.id, openingPrice+btcutil.Amount(s.rand.Int64N(int64(s.accepted)+1000)))
	case 2:
		s.relay.contracts[s.id].due = openingPrice + btcutil.Amount(s.rand.Int64N(50_000))
		s.now = s.now.Add(askAgain)
		err = s.Step(ctx)
	case 3:
		s.node.Mine(1)
		err = s.Step(ctx)
	case 4:
		s.node.Reorg(1 + s.rand.IntN(2))
		s.mayFail(s.Step(ctx))
		s.node.Mine(1)
		err = s.Step(ctx)
	case 5:
		s.restarts()
	}
	s.mayFail(err)
}

// bounded checks the user's promise after each thing that happened.
func (s *schedule) bounded() {
	s.t.Helper()
	r := s.record(s.id)
	if last, _ := r.Last(); last.Amount > openingPrice+s.accepted+creditLimit || last.Amount > r.Allowance() {
		s.t.Fatalf("%d sat are signed, %d accepted, %d allowed", last.Amount, s.accepted, r.Allowance())
	}
}

// ends has one of the two end the contract, and answers what the relay got.
func (s *schedule) ends() btcutil.Amount {
	s.t.Helper()
	s.relay.refuse, s.relay.late = nil, nil
	s.relay.contracts[s.id].due = 0
	s.node.Mine(1)
	s.steps()
	s.is(s.id, escrow.Active)
	if s.rand.IntN(2) == 0 {
		held := s.relay.contracts[s.id].highest.Amount
		s.relay.settle(s.id)
		s.node.Mine(1)
		s.steps()
		s.node.Mine(1)
		s.steps()
		return held
	}
	last, _ := s.record(s.id).Last()
	if _, err := s.Close(s.t.Context(), s.id, last.Amount, 1000); err != nil {
		s.t.Fatal(err)
	}
	s.node.Mine(1)
	s.steps()
	return last.Amount
}
