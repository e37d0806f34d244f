package relayside

import (
	"context"
	"errors"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// urgentBlocks is the target of a bid when half of the time between T − M and T has passed.
const urgentBlocks = 2

// bid makes the settlement of a contract that is to be settled, or a higher one when a block has come and it was not in it.
// It is stored here, and sent after the commit. A contract that settles by itself (its escrow is spent, or it waits for a
// closing) needs none.
func (a *advancing) bid() error {
	r, f := a.r, &a.f
	if r.state != escrow.Settling || f.spent != nil || f.fundingHeight == nil {
		return nil
	}
	last, lastAt, err := a.lastBid()
	if err != nil || last > 0 && lastAt >= int32(f.tip) {
		return err
	}
	rate := a.rate(last)
	most := r.mostFeerate()
	if most < protocol.MinContractFeerate {
		a.m.log.Error("a settlement is worth less than any fee: the contract is left to its user", "contract", r.terms.ID.Short(), "worth", r.worth())
		return nil
	}
	if rate = min(rate, most); last > 0 && rate < last+protocol.MinContractFeerate {
		return nil // the highest bid that the amount can pay stands: a little more would not pay for being relayed
	}
	return a.placeBid(rate)
}

func (a *advancing) lastBid() (rate escrow.Feerate, height int32, err error) {
	err = a.tx.QueryRow(a.ctx, `SELECT feerate, bid_at FROM contract_transactions WHERE contract = $1 AND kind = $2 ORDER BY feerate DESC LIMIT 1`,
		a.r.terms.ID[:], protocol.TxSettlement).Scan(&rate, &height)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, nil
	}
	return rate, height, err
}

// rate is what to bid after last (0: nothing yet): what the node estimates, and always a quarter more than before, which also
// pays for the replacement (BIP125).
func (a *advancing) rate(last escrow.Feerate) escrow.Feerate {
	blocks := a.m.limits.BidBlocks
	if a.f.tip+escrow.SettlementMargin/2 >= a.r.terms.Expiry {
		blocks = urgentBlocks
	}
	rate, err := a.rates.at(a.ctx, blocks)
	if err != nil {
		rate = protocol.MinContractFeerate
	}
	if last > 0 {
		rate = max(rate, last+last/4, last+protocol.MinContractFeerate)
	}
	return rate.Clamp()
}

// mostFeerate is the highest feerate that the relay's part of a settlement can pay: more would come from elsewhere for
// nothing.
func (r *record) mostFeerate() escrow.Feerate {
	atLeast, err := escrow.EstimateFees(&r.terms, protocol.MinContractFeerate)
	if err != nil || atLeast.Settlement <= 0 {
		return 0
	}
	return escrow.Feerate(r.worth() * protocol.MinContractFeerate / atLeast.Settlement)
}

func (a *advancing) placeBid(rate escrow.Feerate) error {
	r := a.r
	t, err := escrow.Settle([]escrow.Unsettled{r.unsettled()}, nil, r.terms.RelayScript, rate)
	if err != nil {
		return err
	}
	key, err := a.m.cfg.Key(r.terms.ID)
	if err != nil {
		return err
	}
	if err := escrow.SignSettlement(t, 0, r.unsettled(), key); err != nil {
		return err
	}
	a.m.log.Info("settlement", "contract", r.terms.ID.Short(), "seq", r.held.Seq, "amount", r.held.Amount, "fee", t.Fee(), "feerate", int64(rate))
	// What was sent cannot be called back: from here on the contract is settled, whatever the height and its renewal come to.
	r.settle = true
	if _, err := a.tx.Exec(a.ctx, `UPDATE contracts SET settle = true WHERE id = $1`, r.terms.ID[:]); err != nil {
		return err
	}
	return a.m.store(a.ctx, a.tx, r.terms.ID, transaction{kind: protocol.TxSettlement, tx: t, feerate: rate, bidAt: a.f.tip})
}

// worth is what a settlement brings the relay before fees.
func (r *record) worth() btcutil.Amount { return r.terms.Bond + r.held.Amount }

var errNoRates = errors.New("no feerate")

// rates asks the node for feerates at most once a round.
type rates struct {
	m     *Manager
	known map[int]escrow.Feerate
}

// at is what it takes to be in one of so many blocks; [errNoRates] while the node does not tell.
func (s *rates) at(ctx context.Context, blocks int) (escrow.Feerate, error) {
	if rate, ok := s.known[blocks]; ok {
		if rate == 0 {
			return 0, errNoRates
		}
		return rate, nil
	}
	rate, err := s.m.chain.Feerate(ctx, blocks)
	if err != nil {
		rate = 0
	}
	if s.known == nil {
		s.known = make(map[int]escrow.Feerate)
	}
	s.known[blocks] = rate
	if rate == 0 {
		return 0, errNoRates
	}
	return rate, nil
}
