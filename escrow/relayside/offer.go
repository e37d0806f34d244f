package relayside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// Offer is what an announcement says of contracts.
type Offer struct {
	Prices       escrow.Prices
	OpeningPrice btcutil.Amount // c₀
	CreditLimit  btcutil.Amount // Δ; at most c₀ unless the operator means it: else defaulting under many names pays
	BondPercent  int64          // B in hundredths of the deposit, 0 … 100
	MinDeposit   btcutil.Amount // least P
}

// Validate checks bounds.
func (o Offer) Validate() error {
	if o.Prices.StorageMsatPerGBDay < 0 || o.Prices.BandwidthMsatPerGB < 0 {
		return errors.New("a price is never negative")
	}
	if o.OpeningPrice < 0 || o.CreditLimit < 0 || o.MinDeposit < 0 || max(o.OpeningPrice, o.CreditLimit, o.MinDeposit) > btcutil.MaxSatoshi {
		return fmt.Errorf("opening price, credit limit and least deposit are 0 to %d satoshi", int64(btcutil.MaxSatoshi))
	}
	if o.BondPercent < 0 || o.BondPercent > 100 {
		return errors.New("a bond is 0 to 100 percent of the deposit")
	}
	return nil
}

// bond is B of a deposit, rounded down.
func (o Offer) bond(deposit btcutil.Amount) btcutil.Amount {
	return deposit/100*btcutil.Amount(o.BondPercent) + deposit%100*btcutil.Amount(o.BondPercent)/100
}

// Announce remembers what an announcement of this relay offers until it is valid no more: contracts may be opened on it
// until then. It is called before the announcement is shown to anybody, and may be repeated.
func (m *Manager) Announce(ctx context.Context, announcement protocol.Hash, offer Offer, validUntil protocol.Timestamp) error {
	if err := offer.Validate(); err != nil {
		return fmt.Errorf("announce contracts: %w", err)
	}
	raw, err := json.Marshal(offer)
	if err != nil {
		return err
	}
	_, err = m.db.Pool().Exec(ctx, `INSERT INTO contract_announcements (hash, offer, valid_until) VALUES ($1, $2, $3)
		ON CONFLICT (hash) DO NOTHING`, announcement[:], raw, validUntil)
	return wrap(err, "announce contracts")
}

// offered is what the announcement that a user relies on says. The error has code [protocol.CodeTerms] when it is not this
// relay's, or not valid any more.
func (m *Manager) offered(ctx context.Context, announcement protocol.Hash) (Offer, error) {
	var raw []byte
	err := m.db.Pool().QueryRow(ctx, `SELECT offer FROM contract_announcements WHERE hash = $1 AND valid_until >= $2`,
		announcement[:], m.now()).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return Offer{}, protocol.Errorf(protocol.CodeTerms, "the announcement %s is not one of this relay's that is still valid: read /.well-known/relaymarket again", announcement)
	}
	if err != nil {
		return Offer{}, wrap(err, "read an announcement")
	}
	var offer Offer
	return offer, json.Unmarshal(raw, &offer)
}
