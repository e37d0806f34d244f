package userside

import (
	"context"
	"errors"
	"strings"

	"relaymarket/protocol"
)

// Reclaim gives coins back that no contract here has a claim on: they were leased for a draft, and whoever made it died before he
// wrote it down. It answers how many leases there were. It is for a program that has just opened the wallet: a wallet is one
// process's alone, so nobody else is thinking a draft over. A lease that is far longer than a draft's is left alone, whatever is known of
// its contract here: a relay may have signatures of those coins.
func (m *Manager) Reclaim(ctx context.Context, purse Wallet) (n int, err error) {
	leases, err := purse.Leases(ctx)
	if err != nil {
		return 0, err
	}
	for _, l := range leases {
		text, ours := strings.CutPrefix(l.Key, leasePrefix)
		var id protocol.ContractID
		if !ours || id.UnmarshalText([]byte(text)) != nil || l.Expires.Sub(m.Clock()) > 2*thinkingTime {
			continue
		}
		_, err := m.Store.Contract(ctx, id)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrNoContract) {
			return n, err
		}
		if err := purse.Release(ctx, l.Key); err != nil {
			return n, err
		}
		m.Logger.Info("coins were kept for a contract that was never written down: they are free again", "contract", id)
		n++
	}
	return n, nil
}
