package api

import (
	"context"

	"relaymarket/ledger/books"
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
}

var (
	_ Records = (*records.Store)(nil)
	_ Books   = (*books.Store)(nil)
)
