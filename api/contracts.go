package api

import (
	"context"
	"net/http"

	"relaymarket/protocol"
)

// openCost is what an opening counts in the rates, its writers' consents not counted: it asks the Bitcoin node and
// takes a place among the half-opened contracts.
const openCost = 10

// refusalCost is what a refusal of lines counts in the rates: it reads the bill from the first of them on.
const refusalCost = 20

// OpenContract implements ServerInterface.
func (s *routes) OpenContract(w http.ResponseWriter, r *http.Request) {
	var open protocol.ContractOpen
	s.contractStep(w, r, &open, nil, func(ctx context.Context, e *protocol.Envelope) (protocol.Request, error) {
		return s.cfg.Contracts.Open(ctx, e, &open)
	})
}

// SignContract implements ServerInterface.
func (s *routes) SignContract(w http.ResponseWriter, r *http.Request, contract Contract) {
	var signed protocol.ContractClientSigned
	s.contractStep(w, r, &signed, &contract, func(ctx context.Context, e *protocol.Envelope) (protocol.Request, error) {
		return s.cfg.Contracts.Signed(ctx, e, &signed)
	})
}

// PayContract implements ServerInterface.
func (s *routes) PayContract(w http.ResponseWriter, r *http.Request, contract Contract) {
	var payment protocol.ContractPayment
	s.contractStep(w, r, &payment, &contract, func(ctx context.Context, e *protocol.Envelope) (protocol.Request, error) {
		return s.cfg.Contracts.Pay(ctx, e, &payment)
	})
}

// RefuseUsage implements ServerInterface.
func (s *routes) RefuseUsage(w http.ResponseWriter, r *http.Request, contract Contract) {
	var refusal protocol.UsageRefusal
	s.contractStep(w, r, &refusal, &contract, func(ctx context.Context, e *protocol.Envelope) (protocol.Request, error) {
		return s.cfg.Contracts.Refuse(ctx, e.From, &refusal)
	})
}

// RefundContract implements ServerInterface.
func (s *routes) RefundContract(w http.ResponseWriter, r *http.Request, contract Contract) {
	var refund protocol.ContractRefund
	s.contractStep(w, r, &refund, &contract, func(ctx context.Context, e *protocol.Envelope) (protocol.Request, error) {
		return s.cfg.Contracts.Refund(ctx, e, &refund)
	})
}

// GetContract implements ServerInterface.
func (s *routes) GetContract(w http.ResponseWriter, r *http.Request, contract Contract) {
	s.readContracts(w, r, func(ctx context.Context, payer protocol.PublicKey) (protocol.Request, error) {
		return s.cfg.Contracts.Status(ctx, payer, contract)
	})
}

// ListContracts implements ServerInterface.
func (s *routes) ListContracts(w http.ResponseWriter, r *http.Request) {
	s.readContracts(w, r, func(ctx context.Context, payer protocol.PublicKey) (protocol.Request, error) {
		return s.cfg.Contracts.List(ctx, payer)
	})
}

// contractStep reads a step of the exchange, has it done, and answers with the relay's envelope to who signed it. The
// step is done even if its sender leaves: it may be half done, and a repeat gets its answer.
func (s *Server) contractStep(w http.ResponseWriter, r *http.Request, step protocol.Request, named *protocol.ContractID,
	do func(context.Context, *protocol.Envelope) (protocol.Request, error)) {
	e, err := s.readStep(exchangeOf(r), r, step, named)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.cfg.Bounds.WorkTimeout)
	defer cancel()
	answer, err := do(ctx, e)
	s.answerSigned(w, r, e.From, answer, err)
}

// readStep checks everything that needs no contract.
func (s *Server) readStep(x *exchange, r *http.Request, step protocol.Request, named *protocol.ContractID) (*protocol.Envelope, error) {
	if err := s.makesContracts(x); err != nil {
		return nil, err
	}
	e, err := s.envelope(x, r, step)
	if err != nil {
		return nil, err
	}
	if err := s.checkRequest(e, step.RequestType(), func() error { return checkContract(step, named) }); err != nil {
		return nil, err
	}
	cost := 1
	if open, ok := step.(*protocol.ContractOpen); ok {
		cost = openCost + len(open.Writers)
	}
	if _, ok := step.(*protocol.UsageRefusal); ok {
		cost = refusalCost
	}
	return e, s.authenticAs(x, e, cost)
}

// checkContract refuses a step of another contract than the path names.
func checkContract(step protocol.Request, named *protocol.ContractID) error {
	var said protocol.ContractID
	switch step := step.(type) {
	case *protocol.ContractClientSigned:
		said = step.Contract
	case *protocol.ContractPayment:
		said = step.Contract
	case *protocol.ContractRefund:
		said = step.Contract
	case *protocol.UsageRefusal:
		said = step.Contract
	}
	if named != nil && said != *named {
		return protocol.Errorf(protocol.CodeMismatch, "the path names the contract %s, the body %s", named.Short(), said.Short())
	}
	return nil
}

// makesContracts refuses for a relay without a Bitcoin node.
func (s *Server) makesContracts(x *exchange) error {
	if s.cfg.Contracts != nil {
		return nil
	}
	if err := s.rateAddress(x, 1); err != nil {
		return err
	}
	return protocol.Errorf(protocol.CodeNoContracts, "this relay has no Bitcoin node: ask its operator for space, or use another relay")
}

func (s *Server) readContracts(w http.ResponseWriter, r *http.Request, read func(context.Context, protocol.PublicKey) (protocol.Request, error)) {
	x := exchangeOf(r)
	if err := s.makesContracts(x); err != nil {
		s.refuse(w, r, err)
		return
	}
	payer, err := s.signer(x, r, protocol.TypeContractRead)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ctx, cancel := s.work(r)
	defer cancel()
	answer, err := read(ctx, payer)
	s.answerSigned(w, r, payer, answer, err)
}

// answerSigned sends the answer as the relay's word to the payer: it is what he shows when the relay says otherwise later.
func (s *Server) answerSigned(w http.ResponseWriter, r *http.Request, to protocol.PublicKey, answer protocol.Request, err error) {
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	e, err := protocol.Sign(s.cfg.Key, to, s.now(), answer)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.send(w, http.StatusOK, mediaEnvelope, e.Bytes())
}
