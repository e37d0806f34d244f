package api

import (
	"context"

	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/hub"
	"relaymarket/ledger/books"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
	"relaymarket/records"
)

// Outboxes are the sender's side of the records.
type Outboxes interface {
	Write(ctx context.Context, batch []records.Incoming) []records.Outcome
	Delete(ctx context.Context, path protocol.Path) error
	List(ctx context.Context, request records.ListRequest) (*records.Listing, error)
}

// Inboxes are the receiver's side of the records.
type Inboxes interface {
	Pull(ctx context.Context, request records.PullRequest) (*records.Page, error)
	Read(ctx context.Context, path protocol.Path, page protocol.PageID) ([]byte, error)
	Got(ctx context.Context, reader protocol.PublicKey, ack records.Acknowledgement) error
	Listen(ctx context.Context, reader protocol.PublicKey, senders []protocol.PublicKey, after *string, call func()) (*records.Subscription, error)
}

// Cards keeps the identity cards of account holders.
type Cards interface {
	PutCard(ctx context.Context, card *protocol.Envelope) error
	Card(ctx context.Context, owner protocol.PublicKey) ([]byte, error)
	Ready(ctx context.Context) error
}

// Records is all that records does for strangers, in its three parts.
type Records interface {
	Outboxes
	Inboxes
	Cards
}

// Books keeps the accounts.
type Books interface {
	Get(ctx context.Context, key protocol.PublicKey) (books.Account, error)
	SetAdmitted(ctx context.Context, owner protocol.PublicKey, keys []protocol.Admitted) error
	// Report is the usage report of a payer's contract that begins after a line; see [books.Store.Report].
	Report(ctx context.Context, payer protocol.PublicKey, contract protocol.ContractID, after int64, sign books.Signer) (*books.Report, error)
	// Lines visits a report's lines in the wire form that its root commits to.
	Lines(ctx context.Context, r *books.Report, visit func(line []byte) error) error
}

// Contracts runs the relay's side of contracts. The envelopes are verified: signature, audience and time are right,
// and the payer is who signed. Each step is idempotent: the same content again under a contract id and sequence is answered
// the same, other content has the code [protocol.CodeConflict]. Nobody but the payer learns whether a contract
// exists.
type Contracts interface {
	Opening
	Running
	// Announce keeps what the relay is about to announce for as long as it is valid: contracts are opened on it.
	Announce(ctx context.Context, e *protocol.Envelope, said *protocol.Announcement) error
}

// Opening is how a contract begins.
type Opening interface {
	// Open offers the relay's part of a funding.
	Open(ctx context.Context, e *protocol.Envelope, request *protocol.ContractOpen) (*protocol.ContractServerInputs, error)
	// Signed takes the payer's witnesses and state 0; the relay signs and broadcasts the funding.
	Signed(ctx context.Context, e *protocol.Envelope, request *protocol.ContractClientSigned) (*protocol.ContractStatus, error)
}

// Running is what becomes of a contract.
type Running interface {
	// Pay takes a higher state.
	Pay(ctx context.Context, e *protocol.Envelope, request *protocol.ContractPayment) (*protocol.ContractStatus, error)
	// Refund co-signs the payer's closing transaction.
	Refund(ctx context.Context, e *protocol.Envelope, request *protocol.ContractRefund) (*protocol.ContractStatus, error)
	// Refuse takes lines off the payer's bill, or closes the contract.
	Refuse(ctx context.Context, payer protocol.PublicKey, refusal *protocol.UsageRefusal) (*protocol.UsageRefused, error)
	// Status is where one contract of the payer stands. The error has code [protocol.CodeNotFound].
	Status(ctx context.Context, payer protocol.PublicKey, id protocol.ContractID) (*protocol.ContractStatus, error)
	// List is all contracts of the payer, newest first.
	List(ctx context.Context, payer protocol.PublicKey) (*protocol.ContractList, error)
}

// Willing is what the relay does for nothing, and for whom.
type Willing interface {
	// Offers are the alternatives that hold at this moment; Notice goes with those that have ads.
	Offers() []protocol.Terms
	Notice() string
	// Agree answers a user, and gives the account that goes with the answer.
	Agree(ctx context.Context, a willing.Ask) (willing.Answer, error)
}

// Market is the book of a hub, see package broadcast.
type Market interface {
	// Page is a part of it, in the order in which it changed last, from a place on.
	Page(ctx context.Context, from uint64, limit int) (*feed.Page, error)
}

var (
	_ Market  = (*hub.Hub)(nil)
	_ Records = (*records.Store)(nil)
	_ Books   = (*books.Store)(nil)
	_ Willing = (*willing.Store)(nil)
)
