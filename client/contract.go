package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// maxContractReply bounds an answer about contracts in bytes: a PSBT in base64 and a transaction in hex, with room.
const maxContractReply = 1 << 20

// ContractRelay is a relay as package escrow/userside wants it: each call is one request, and each answer an envelope
// that is verified to be signed by this relay to this user. What the answer says is judged there.
type ContractRelay struct{ p *peer }

var _ userside.Relay = (*ContractRelay)(nil)

// ContractRelay is the relay with this key at this address.
func (c *Client) ContractRelay(key protocol.PublicKey, address string) (*ContractRelay, error) {
	p, err := c.peer(key, address)
	if err != nil {
		return nil, err
	}
	return &ContractRelay{p}, nil
}

// Offer asks an address which relay is there and what it announces: the envelope that a contract relies on.
func (c *Client) Offer(ctx context.Context, typed string) (address string, e *protocol.Envelope, offer *protocol.Announcement, err error) {
	if address, err = NormalizeAddress(typed); err != nil {
		return "", nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, err := c.peer(protocol.PublicKey{}, address)
	if err != nil {
		return "", nil, nil, err
	}
	data, err := p.announcement(ctx)
	if err != nil {
		return "", nil, nil, err
	}
	if e, offer, err = protocol.ParseAnnouncement(data, c.now()); err != nil {
		return "", nil, nil, p.fail(fmt.Errorf("its announcement is not valid: %w", err))
	}
	return address, e, offer, nil
}

// Consent is this user's word that a payer's contract may pay for what he writes on a relay. The payer hands it to the
// relay when he opens the contract. From now on the payer, if he is a friend, is told what this user writes there: else
// he could not audit his bill.
func (c *Client) Consent(ctx context.Context, relay protocol.PublicKey, contract protocol.ContractID, payer protocol.PublicKey) (*protocol.Envelope, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	if err := c.state.AddPayer(ctx, relay, payer); err != nil {
		return nil, err
	}
	return protocol.Sign(c.identity, relay, c.now(), &protocol.ContractConsent{Contract: contract, Payer: payer})
}

// OpenContract implements [userside.Relay].
func (r *ContractRelay) OpenContract(ctx context.Context, request *protocol.ContractOpen) (*protocol.Envelope, error) {
	return r.ask(ctx, r.p.signed(request), func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
		return r.p.rest.OpenContractWithBody(ctx, contentJSON, bytes.NewReader(e.Bytes()))
	})
}

// ContractSigned implements [userside.Relay].
func (r *ContractRelay) ContractSigned(ctx context.Context, request *protocol.ContractClientSigned) (*protocol.Envelope, error) {
	return r.ask(ctx, r.p.signed(request), func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
		return r.p.rest.SignContractWithBody(ctx, request.Contract, contentJSON, bytes.NewReader(e.Bytes()))
	})
}

// PayContract implements [userside.Relay].
func (r *ContractRelay) PayContract(ctx context.Context, request *protocol.ContractPayment) (*protocol.Envelope, error) {
	return r.ask(ctx, r.p.signed(request), func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
		return r.p.rest.PayContractWithBody(ctx, request.Contract, contentJSON, bytes.NewReader(e.Bytes()))
	})
}

// RefundContract implements [userside.Relay].
func (r *ContractRelay) RefundContract(ctx context.Context, request *protocol.ContractRefund) (*protocol.Envelope, error) {
	return r.ask(ctx, r.p.signed(request), func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
		return r.p.rest.RefundContractWithBody(ctx, request.Contract, contentJSON, bytes.NewReader(e.Bytes()))
	})
}

// Contract implements [userside.Relay].
func (r *ContractRelay) Contract(ctx context.Context, id protocol.ContractID) (*protocol.Envelope, error) {
	target := protocol.Target(http.MethodGet, "/contracts/"+id.String())
	build := r.p.signed(&protocol.Targeted{Type: protocol.TypeContractRead, Target: target})
	return r.ask(ctx, build, func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
		return r.p.rest.GetContract(ctx, id, authorize(e))
	})
}

func (r *ContractRelay) ask(ctx context.Context, build func(protocol.Timestamp) (*protocol.Envelope, error),
	send func(context.Context, *protocol.Envelope) (*http.Response, error)) (answer *protocol.Envelope, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = r.p.do(ctx, exchange{build: build, send: send, read: func(reply *http.Response) error {
		data, err := io.ReadAll(io.LimitReader(reply.Body, maxContractReply+1))
		if err != nil {
			return r.p.fail(fmt.Errorf("the reply was cut: %w", err))
		}
		if len(data) > maxContractReply {
			return r.p.tampered("its answer has more than %d bytes", maxContractReply)
		}
		answer, err = r.verified(data)
		return err
	}})
	return answer, err
}

// verified reads an answer. Without the relay's signature to this user it proves nothing, to nobody.
func (r *ContractRelay) verified(data []byte) (*protocol.Envelope, error) {
	e, err := protocol.ParseEnvelope(data)
	if err != nil {
		return nil, r.p.tampered("its answer is not an envelope: %v", err)
	}
	if e.From != r.p.key || e.To != r.p.c.Key() {
		return nil, r.p.tampered("its answer is from %s to %s", e.From.Short(), e.To.Short())
	}
	if err := e.Verify(); err != nil {
		return nil, r.p.tampered("%v", err)
	}
	return e, nil
}

var _ userside.Keeper = (*Client)(nil)

// KeepContract implements [userside.Keeper]: the document goes, sealed to the user himself, to his relays other than the
// contract's own.
func (c *Client) KeepContract(ctx context.Context, document []byte, until time.Time, except protocol.PublicKey) error {
	_, err := c.Keep(ctx, userside.BackupType, document, until.Sub(c.clock()), except)
	if errors.Is(err, ErrNoOtherRelay) {
		return userside.ErrNoOther
	}
	return err
}

// KeptContracts are the backup documents of contracts that the user keeps on a relay, of which only the address has to
// be known.
func (c *Client) KeptContracts(ctx context.Context, address string) ([][]byte, error) {
	kept, err := c.KeptAt(ctx, address, userside.BackupType)
	if err != nil {
		return nil, err
	}
	documents := make([][]byte, 0, len(kept))
	for _, m := range kept {
		documents = append(documents, m.Body)
	}
	return documents, nil
}
