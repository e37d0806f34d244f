package state

import (
	"context"
	"database/sql"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/internal/sqlite"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Policy is how the user wants to pay for a contract, or for all that have none of their own.
type Policy struct {
	Contract *protocol.ContractID // nil: all that have none of their own
	Mode     ledger.Mode
	Limit    btcutil.Amount
	Daily    btcutil.Amount
	Cushion  *btcutil.Amount // nil: what the contract says
	Closes   bool            // a contract whose relay stands by what is disputed
	Changed  protocol.Timestamp
}

func policyKey(contract *protocol.ContractID) []byte {
	if contract == nil {
		return []byte{}
	}
	return contract[:]
}

// SetPolicy stores a policy in the place of the one before.
func (s *Store) SetPolicy(ctx context.Context, p Policy) error {
	var cushion any
	if p.Cushion != nil {
		cushion = int64(*p.Cushion)
	}
	return s.exec(ctx, `INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?, ?, ?, ?)`, policyKey(p.Contract), p.Mode, int64(p.Limit), int64(p.Daily), cushion, p.Closes, s.now())
}

// ForgetPolicy removes the policy of a contract, or the general one; false: there was none.
func (s *Store) ForgetPolicy(ctx context.Context, contract *protocol.ContractID) (bool, error) {
	return s.changed(ctx, `DELETE FROM policies WHERE contract = ?`, policyKey(contract))
}

// Policies lists them, the general one first.
func (s *Store) Policies(ctx context.Context) ([]Policy, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (p Policy, err error) {
		var contract []byte
		var limit, daily int64
		var cushion sql.NullInt64
		if err := scan(&contract, &p.Mode, &limit, &daily, &cushion, &p.Closes, &p.Changed); err != nil {
			return p, err
		}
		p.Limit, p.Daily = btcutil.Amount(limit), btcutil.Amount(daily)
		if cushion.Valid {
			amount := btcutil.Amount(cushion.Int64)
			p.Cushion = &amount
		}
		if len(contract) > 0 {
			p.Contract = new(protocol.ContractID)
			copy(p.Contract[:], contract)
		}
		return p, nil
	}, `SELECT contract, mode, most, daily, cushion, closes, changed FROM policies ORDER BY contract`)
}
