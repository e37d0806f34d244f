package userside

import (
	"context"
	"errors"
	"fmt"

	"relaymarket/protocol"
)

// Relay is one relay that contracts are made with. Every answer is an envelope that the relay signed to the user,
// verified by the implementation as that and no more: what it says is judged here. An error that is a refusal
// unwraps to its protocol.Code. All calls are safe to repeat.
type Relay interface {
	OpenContract(ctx context.Context, request *protocol.ContractOpen) (*protocol.Envelope, error)
	ContractSigned(ctx context.Context, request *protocol.ContractClientSigned) (*protocol.Envelope, error)
	PayContract(ctx context.Context, request *protocol.ContractPayment) (*protocol.Envelope, error)
	RefundContract(ctx context.Context, request *protocol.ContractRefund) (*protocol.Envelope, error)
	Contract(ctx context.Context, id protocol.ContractID) (*protocol.Envelope, error)
}

// Answer is what a relay did wrong: its answer is not what was asked for or agreed on. Nothing was signed on it.
type AnswerError struct {
	Relay protocol.PublicKey
	Err   error // has a protocol.Code
}

// Error implements error.
func (e *AnswerError) Error() string {
	return fmt.Sprintf("the relay %s answers wrongly: %v", e.Relay.Short(), e.Err)
}

// Unwrap gives the cause, and with it the code.
func (e *AnswerError) Unwrap() error { return e.Err }

// final tells whether a relay's refusal stays one when the same is asked again. No answer, a busy relay and one that
// has no coin or no view of the chain are not final: what was asked may yet happen.
func final(err error) bool {
	var answer *AnswerError
	if errors.As(err, &answer) {
		return true
	}
	var code protocol.Code
	var passing interface{ Temporary() bool }
	if !errors.As(err, &code) || errors.As(err, &passing) && passing.Temporary() {
		return false
	}
	switch code {
	case protocol.CodeStale, protocol.CodeFuture, protocol.CodeChainStale, protocol.CodeNoCoins, protocol.CodeBroadcast,
		protocol.CodeContractsFull:
		return false
	}
	return code.Status() < 500
}

// status judges a relay's contractStatus about a contract.
func status(r *Record, e *protocol.Envelope) (*protocol.ContractStatus, error) {
	var s protocol.ContractStatus
	if err := e.Decode(&s); err != nil {
		return nil, &AnswerError{r.Relay, err}
	}
	if s.Contract != r.ID {
		return nil, &AnswerError{r.Relay, protocol.Errorf(protocol.CodeMismatch, "it tells of the contract %s", s.Contract.Short())}
	}
	return &s, nil
}
