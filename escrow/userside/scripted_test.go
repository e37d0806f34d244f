package userside_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

// scripted is a relay made of package escrow's functions alone, so that a test can make it lie, refuse or vanish at any
// step. It keeps everything in memory and puts no coin of its own in.
type scripted struct {
	t    *testing.T
	node *regtest.Test
	key  *protocol.PrivateKey
	user protocol.PublicKey

	mu        sync.Mutex
	contracts map[protocol.ContractID]*held
	// inputs and told alter an answer before it is signed; refuse is asked before anything is done, by the name of the
	// message. late is asked after it was done, so that the outcome is unknown to the user.
	inputs func(*protocol.ContractServerInputs)
	told   func(*protocol.ContractStatus)
	refuse func(what string) error
	late   func(what string) error
}

// held is a contract as the relay has it.
type held struct {
	contract *escrow.Contract
	funding  *escrow.Funding
	at       wire.OutPoint
	answer   *protocol.ContractServerInputs
	tx       *escrow.Tx
	state    escrow.State
	highest  escrow.Payment
	due      btcutil.Amount
	closing  *protocol.RequestPayment
	txs      []protocol.ContractTx
}

const (
	openingPrice = btcutil.Amount(1000)
	creditLimit  = btcutil.Amount(800)
)

func newScripted(t *testing.T, node *regtest.Test, user protocol.PublicKey) *scripted {
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &scripted{t: t, node: node, key: key, user: user, contracts: map[protocol.ContractID]*held{}}
}

// announcement is the relay's offer of contracts.
func (s *scripted) announcement(change func(*protocol.Announcement)) *protocol.Envelope {
	s.t.Helper()
	now := protocol.TimestampOf(time.Now())
	a := &protocol.Announcement{Addresses: []string{}, Terms: []protocol.Terms{}, ValidUntil: now.Add(time.Hour), Network: protocol.Regtest,
		Contracts: &protocol.ContractOffer{StorageMsatPerGBDay: 30_000, BandwidthMsatPerGB: 10_000, OpeningPrice: openingPrice,
			CreditLimit: creditLimit, MinPrepay: 10_000}}
	if change != nil {
		change(a)
	}
	e, err := protocol.Sign(s.key, s.key.Public(), now, a)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *scripted) contractKey(id protocol.ContractID) *btcec.PrivateKey {
	key, err := escrow.DeriveKey(branchOf(9), protocol.Regtest, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

func (s *scripted) before(what string) error {
	if s.refuse != nil {
		return s.refuse(what)
	}
	return nil
}

func (s *scripted) after(what string, e *protocol.Envelope, err error) (*protocol.Envelope, error) {
	if err == nil && s.late != nil {
		err = s.late(what)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (s *scripted) sign(r protocol.Request) (*protocol.Envelope, error) {
	return protocol.Sign(s.key, s.user, protocol.TimestampOf(time.Now()), r)
}

// OpenContract implements [userside.Relay].
func (s *scripted) OpenContract(_ context.Context, r *protocol.ContractOpen) (*protocol.Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.before("open"); err != nil {
		return nil, err
	}
	h := s.contracts[r.Contract]
	if h == nil {
		var err error
		if h, err = s.open(r); err != nil {
			return nil, err
		}
		s.contracts[r.Contract] = h
	}
	answer := *h.answer
	if s.inputs != nil {
		s.inputs(&answer)
	}
	e, err := s.sign(&answer)
	return s.after("open", e, err)
}

func (s *scripted) open(r *protocol.ContractOpen) (*held, error) {
	part, err := escrow.ParseOffer(r.PSBT)
	if err != nil {
		return nil, err
	}
	script := make(protocol.Script, 22)
	script[1] = 20
	c := &escrow.Contract{ID: r.Contract, Network: protocol.Regtest, User: s.user, Relay: s.key.Public(), UserKey: r.UserKey,
		RelayKey: escrow.KeyOf(s.contractKey(r.Contract)), UserScript: r.UserScript, RelayScript: script, Deposit: r.Deposit,
		OpeningPrice: openingPrice, CreditLimit: creditLimit, Prices: escrow.Prices{StorageMsatPerGBDay: 30_000, BandwidthMsatPerGB: 10_000},
		Expiry: uint32(r.Expiry), Announcement: r.Announcement, Renews: r.Renews}
	h := &held{contract: c, state: escrow.Opening, highest: escrow.Payment{Seq: -1}}
	h.funding = &escrow.Funding{Contract: c, Feerate: escrow.Feerate(r.Feerate), User: part}
	h.answer = &protocol.ContractServerInputs{Contract: r.Contract, RelayKey: c.RelayKey, RelayScript: script, OpeningPrice: openingPrice,
		CreditLimit: creditLimit, StorageMsatPerGBDay: 30_000, BandwidthMsatPerGB: 10_000, Expiry: r.Expiry}
	if r.Renews != nil {
		old := s.contracts[*r.Renews]
		h.funding.Renewal = &escrow.Renewal{Contract: old.contract, Funding: old.at, Amount: old.highest.Amount}
		h.answer.RenewsAmount = &old.highest.Amount
		if err := h.funding.SetChange(escrow.Relay, script); err != nil {
			return nil, err
		}
	}
	if err := h.funding.Validate(); err != nil {
		return nil, err
	}
	if h.at, err = h.funding.Outpoint(); err != nil {
		return nil, err
	}
	h.answer.PSBT, err = h.funding.PSBT()
	return h, err
}

// ContractSigned implements [userside.Relay].
func (s *scripted) ContractSigned(_ context.Context, r *protocol.ContractClientSigned) (*protocol.Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.before("signed"); err != nil {
		return nil, err
	}
	h := s.contracts[r.Contract]
	if h == nil {
		return nil, protocol.Errorf(protocol.CodeNotFound, "no such contract")
	}
	if h.tx == nil {
		packet, err := h.funding.MergeUser(r.PSBT)
		if err != nil {
			return nil, err
		}
		h.highest = escrow.Payment{Seq: r.Seq, Amount: r.Amount, Signature: r.Signature}
		if err := escrow.VerifyOpening(h.contract, h.at, h.highest); err != nil {
			return nil, err
		}
		var old *btcec.PrivateKey
		if h.contract.Renews != nil {
			old = s.contractKey(*h.contract.Renews)
		}
		if h.tx, err = h.funding.Finish(packet, old); err != nil {
			return nil, err
		}
		h.state = escrow.FundingSent
		if err := s.send(h.tx); err != nil {
			return nil, err
		}
	}
	e, err := s.status(h)
	return s.after("signed", e, err)
}

func (s *scripted) send(tx *escrow.Tx) error {
	rpc, err := s.node.RPC()
	if err != nil {
		return err
	}
	if _, err := s.node.Node.Transaction(tx.TxHash()); err == nil {
		return nil // it was sent before
	}
	_, err = rpc.SendRawTransaction(tx.MsgTx, true)
	return err
}

// PayContract implements [userside.Relay].
func (s *scripted) PayContract(_ context.Context, r *protocol.ContractPayment) (*protocol.Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.before("pay"); err != nil {
		return nil, err
	}
	h := s.contracts[r.Contract]
	next := escrow.Payment{Seq: r.Seq, Amount: r.Amount, Signature: r.Signature}
	if next.Seq != h.highest.Seq {
		if err := escrow.VerifyPayment(h.contract, h.at, h.highest, next); err != nil {
			return nil, err
		}
		h.highest = next
	}
	if p := r.Pending; p != nil {
		renewed := s.contracts[p.Contract]
		next := escrow.Payment{Seq: p.Seq, Amount: p.Amount, Signature: p.Signature}
		if next.Seq != renewed.highest.Seq {
			if err := escrow.VerifyPayment(renewed.contract, renewed.at, renewed.highest, next); err != nil {
				return nil, err
			}
			renewed.highest = next
		}
	}
	e, err := s.status(h)
	return s.after("pay", e, err)
}

// RefundContract implements [userside.Relay].
func (s *scripted) RefundContract(_ context.Context, r *protocol.ContractRefund) (*protocol.Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.before("refund"); err != nil {
		return nil, err
	}
	h := s.contracts[r.Contract]
	closing := escrow.Closing{Amount: r.Amount, Fee: r.Fee, Asked: escrow.User}
	if r.Amount < h.highest.Amount {
		return nil, protocol.Errorf(protocol.CodeWrongAmount, "it is less than what is owed")
	}
	signature, err := escrow.SignClosing(h.contract, h.at, closing, s.contractKey(r.Contract))
	if err != nil {
		return nil, err
	}
	tx, err := escrow.FinishClosing(h.contract, h.at, closing, r.Signature, signature)
	if err != nil {
		return nil, err
	}
	h.state = escrow.Settling
	if err := s.send(tx); err != nil {
		return nil, err
	}
	if len(h.txs) == 0 || h.txs[len(h.txs)-1].TxID != tx.ID() {
		h.txs = append(h.txs, protocol.ContractTx{Kind: protocol.TxClosing, TxID: tx.ID()})
	}
	e, err := s.status(h)
	return s.after("refund", e, err)
}

// Contract implements [userside.Relay].
func (s *scripted) Contract(_ context.Context, id protocol.ContractID) (*protocol.Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.before("status"); err != nil {
		return nil, err
	}
	h := s.contracts[id]
	if h == nil {
		return nil, protocol.Errorf(protocol.CodeNotFound, "no such contract")
	}
	e, err := s.status(h)
	return s.after("status", e, err)
}

func (s *scripted) status(h *held) (*protocol.Envelope, error) {
	c := h.contract
	told := &protocol.ContractStatus{Contract: c.ID, State: h.state, Seq: h.highest.Seq, Amount: h.highest.Amount, Deposit: c.Deposit,
		Bond: c.Bond, OpeningPrice: c.OpeningPrice, CreditLimit: c.CreditLimit, Expiry: int64(c.Expiry), LastUsage: int64(c.LastUsage()),
		Transactions: append([]protocol.ContractTx{}, h.txs...), Owed: max(h.due, h.highest.Amount), Renews: c.Renews}
	if h.tx != nil {
		told.Funding = &protocol.FundingStatus{TxID: h.tx.ID(), Tx: h.tx.Bytes()}
	}
	if h.due > h.highest.Amount {
		told.Due = &protocol.PaymentDue{Amount: h.due}
	}
	told.Closing = h.closing
	if s.told != nil {
		s.told(told)
	}
	return s.sign(told)
}

// settle broadcasts the settlement of the highest state held, with a coin of the miner's for the fee if it must.
func (s *scripted) settle(id protocol.ContractID) *escrow.Tx {
	s.t.Helper()
	tx := s.settlement(id)
	if err := s.send(tx); err != nil {
		s.t.Fatal(err)
	}
	return tx
}

// settlement makes it.
func (s *scripted) settlement(id protocol.ContractID) *escrow.Tx {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.contracts[id]
	u := escrow.Unsettled{Contract: h.contract, Funding: h.at, Payment: h.highest}
	tx, err := escrow.Settle([]escrow.Unsettled{u}, nil, h.contract.RelayScript, 1000)
	if err == nil {
		err = escrow.SignSettlement(tx, 0, u, s.contractKey(id))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return tx
}

// request releases a closing signature at an amount.
func (s *scripted) request(id protocol.ContractID, amount btcutil.Amount) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.contracts[id]
	closing, err := escrow.NewClosing(h.contract, amount, escrow.Relay, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	signature, err := escrow.SignClosing(h.contract, h.at, closing, s.contractKey(id))
	if err != nil {
		s.t.Fatal(err)
	}
	h.closing = &protocol.RequestPayment{Amount: amount, Fee: closing.Fee, Signature: signature}
	h.state = escrow.PaymentRequested
}

var _ userside.Relay = (*scripted)(nil)
