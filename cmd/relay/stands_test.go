package main

import (
	"errors"
	"net/http"
	"testing"

	"relaymarket/client"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// A contract is not ended because its relay could not be told which lines are refused: it has to refuse to hear it.
func TestWhatStandsByRefusedLines(t *testing.T) {
	code := func(c protocol.Code) error { return &client.RelayError{Code: c, Status: c.Status()} }
	for _, c := range []struct {
		untold error
		stands bool
	}{
		{code(protocol.CodeContractState), false},
		{code(protocol.CodeContractEnded), false},
		{code(protocol.CodeOverloaded), false},
		{code(protocol.CodeRateKey), false},
		{code(protocol.CodeRateAddress), false},
		{code(protocol.CodeInternal), false},
		{code(protocol.CodeFuture), false},
		{&client.RelayError{Err: errors.New("connection refused")}, false},
		{&client.RelayError{Status: http.StatusBadGateway, Err: errors.New("no relay answers")}, false},
		{&client.RelayError{Status: http.StatusForbidden, Err: errors.New("a proxy in between")}, false},
		{errors.New("the disk is full"), false},
		{code(protocol.CodeNotFound), true},
		{code(protocol.CodeInvalidValue), true},
		{&client.RelayError{Status: http.StatusOK, Err: client.ErrTampered}, true},
	} {
		a := &auditedContract{audit: &client.Audit{Bill: ledger.Bill{Disputed: 1}}, told: &client.Refused{}, untold: c.untold}
		if a.stands() != c.stands {
			t.Errorf("%v: %v", c.untold, a.stands())
		}
	}
}
