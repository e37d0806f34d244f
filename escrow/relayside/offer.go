package relayside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// Announce remembers what an announcement of this relay offers for as long as it is valid: contracts may be opened on it until
// then. It is called before the announcement is shown to anybody, and may be repeated.
func (m *Manager) Announce(ctx context.Context, e *protocol.Envelope, said *protocol.Announcement) error {
	if said.Contracts == nil {
		return nil
	}
	if said.Network != m.cfg.Network {
		return fmt.Errorf("announce contracts on %s: this relay makes them on %s", said.Network, m.cfg.Network)
	}
	raw, err := json.Marshal(said.Contracts)
	if err != nil {
		return err
	}
	hash := e.Hash()
	_, err = m.db.Pool().Exec(ctx, `INSERT INTO contract_announcements (hash, offer, valid_until) VALUES ($1, $2, $3)
		ON CONFLICT (hash) DO NOTHING`, hash[:], raw, said.ValidUntil)
	return wrap(err, "keep an announcement of contracts")
}

// offered is what the announcement that a user relies on says. The error has code [protocol.CodeTerms] when it is not this
// relay's, or not valid any more.
func (m *Manager) offered(ctx context.Context, announcement protocol.Hash) (*protocol.ContractOffer, error) {
	var raw []byte
	err := m.db.Pool().QueryRow(ctx, `SELECT offer FROM contract_announcements WHERE hash = $1 AND valid_until >= $2`,
		announcement[:], m.now()).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, protocol.Errorf(protocol.CodeTerms, "the announcement %s is not one of this relay's that is still valid: read /.well-known/relaymarket again", announcement)
	}
	if err != nil {
		return nil, wrap(err, "read an announcement")
	}
	offer := new(protocol.ContractOffer)
	return offer, json.Unmarshal(raw, offer)
}
