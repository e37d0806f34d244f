package escrow

import (
	"relaymarket/protocol"
)

// State is where a contract stands.
type State = protocol.ContractState

// The states, see package protocol.
const (
	Opening          = protocol.StateOpening
	FundingSent      = protocol.StateFunding
	Active           = protocol.StateActive
	PaymentRequested = protocol.StatePaymentRequested
	RefundRequested  = protocol.StateRefundRequested
	Renewing         = protocol.StateRenewing
	Settling         = protocol.StateSettling
	Closed           = protocol.StateClosed
	Archived         = protocol.StateArchived
	Abandoned        = protocol.StateAbandoned
)

// Event is what happens to a contract: a message, a decision, or news from the chain.
type Event string

// The events.
const (
	Signed            Event = "signed"             // the user signed funding and state 0
	Dropped           Event = "dropped"            // the reservation ran out, or the opening failed
	InputSpent        Event = "input_spent"        // an input of the funding was spent elsewhere
	FundingConfirmed  Event = "funding_confirmed"  // the funding is in a block
	FundingReorged    Event = "funding_reorged"    // its block left the best chain
	RequestPayment    Event = "request_payment"    // the relay releases a closing signature
	RequestRefund     Event = "request_refund"     // the user releases a closing signature
	RenewalSigned     Event = "renewal_signed"     // the successor's funding has the user's signature
	RenewalEnded      Event = "renewal_ended"      // the successor's funding can never happen
	RenewalConfirmed  Event = "renewal_confirmed"  // the successor's funding, which spends this escrow, is in a block
	RenewalReorged    Event = "renewal_reorged"    // that block left the best chain: the old escrow serves again
	SettlementStarted Event = "settlement_started" // the relay settles, or the user refunds at T
	SpendSeen         Event = "spend_seen"         // a transaction that spends the escrow is in mempool or block
	SpendReorged      Event = "spend_reorged"      // the block of that transaction left the best chain
	SpendClosed       Event = "spend_closed"       // that transaction has [ClosedDepth] confirmations
	SpendArchived     Event = "spend_archived"     // it, or what took the funding's input, has [ArchiveDepth]
)

// transitions is the one table of the contract; docs/contract.md draws it. An event that leaves the
// state as it is stands here too: what does not is a fault.
var transitions = map[State]map[Event]State{
	Opening: {
		Signed:     FundingSent,
		Dropped:    Abandoned,
		InputSpent: Abandoned,
	},
	FundingSent: {
		FundingConfirmed:  Active,
		FundingReorged:    FundingSent,
		InputSpent:        Abandoned,
		SettlementStarted: Settling,
		SpendSeen:         Settling,
	},
	Active: {
		FundingConfirmed:  Active,
		FundingReorged:    FundingSent,
		RequestPayment:    PaymentRequested,
		RequestRefund:     RefundRequested,
		RenewalSigned:     Renewing,
		SettlementStarted: Settling,
		SpendSeen:         Settling,
	},
	PaymentRequested: {
		FundingConfirmed:  PaymentRequested,
		FundingReorged:    PaymentRequested,
		InputSpent:        Abandoned,
		RequestPayment:    PaymentRequested,
		RequestRefund:     RefundRequested,
		SettlementStarted: Settling,
		SpendSeen:         Settling,
	},
	RefundRequested: {
		FundingConfirmed:  RefundRequested,
		FundingReorged:    RefundRequested,
		InputSpent:        Abandoned,
		RequestRefund:     RefundRequested,
		SettlementStarted: Settling,
		SpendSeen:         Settling,
	},
	Renewing: {
		FundingConfirmed:  Renewing,
		FundingReorged:    Renewing,
		InputSpent:        Abandoned,
		RenewalEnded:      Active,
		RenewalConfirmed:  Settling,
		SettlementStarted: Settling,
		SpendSeen:         Settling,
	},
	Settling: {
		FundingConfirmed:  Settling,
		FundingReorged:    Settling,
		InputSpent:        Abandoned,
		SettlementStarted: Settling,
		SpendSeen:         Settling,
		SpendReorged:      Settling,
		RenewalConfirmed:  Settling,
		RenewalReorged:    Renewing,
		SpendClosed:       Closed,
	},
	Closed: {
		SpendSeen:      Closed,
		SpendReorged:   Settling,
		RenewalReorged: Renewing,
		SpendClosed:    Closed,
		SpendArchived:  Archived,
	},
	Archived: {},
	Abandoned: {
		FundingConfirmed: Settling,
		FundingReorged:   Abandoned,
		InputSpent:       Abandoned,
		SpendArchived:    Archived,
	},
}

// Next is the state after an event. An event that has no place in the state is refused with code
// contract_state, and changes nothing.
func Next(s State, e Event) (State, error) {
	if next, ok := transitions[s][e]; ok {
		return next, nil
	}
	return s, protocol.Errorf(protocol.CodeContractState, "a contract that is %s does not take %s", s, e)
}

// Final tells whether nothing more happens in this state.
func Final(s State) bool {
	events, known := transitions[s]
	return known && len(events) == 0
}

// TakesPayments tells whether the user may still raise A in this state. While a closing signature
// is out he may not: the relay could broadcast either.
func TakesPayments(s State) bool { return s == FundingSent || s == Active || s == Renewing }

// TakesUsage tells whether the relay takes new usage in this state. After it released a closing
// signature it takes none (rule 2).
func TakesUsage(s State) bool { return s == FundingSent || s == Active || s == Renewing }
