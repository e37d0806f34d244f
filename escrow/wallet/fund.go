package wallet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/btcsuite/btcwallet/walletdb"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// FundRequest asks for coins.
type FundRequest struct {
	// Key names the request: the same one gets the same coins while they are there. A relay that funds a stranger's
	// contract takes the stranger's key, so that he cannot list the relay's coins by asking often.
	Key string
	// Amount is what the coins have to bring beyond what their own inputs and the change output cost. For a side of an
	// escrow.Funding, its Missing before there is any coin.
	Amount  btcutil.Amount
	Feerate escrow.Feerate
	// For is how long the coins are leased.
	For time.Duration
	// Shared offers coins that other requests have leased as Shared when no others are left: the first to have his
	// funding broadcast gets them. Without it a crowd of requests that come to nothing would lock all coins away.
	Shared bool
	// All asks for every free coin, whatever Amount says.
	All bool
}

// Funds are coins leased to a request.
type Funds struct {
	Coins   []escrow.Coin
	Change  protocol.Script // the wallet's own, new, for what the coins bring too much
	Expires time.Time
}

// Part is the funds as a side of an escrow.Funding, whose SetChange(side, f.Change) computes the change.
func (f Funds) Part() escrow.Part { return escrow.Part{Coins: f.Coins} }

// Fund selects coins and leases them, in one step. A lease is asked for again, with the same amount and feerate, to be
// prolonged; with others, the same coins are answered if they reach. Errors: ErrFunds, ErrRequest.
func (w *Wallet) Fund(_ context.Context, r FundRequest) (Funds, error) {
	if r.Key == "" || r.Amount <= 0 && !r.All || r.Amount > btcutil.MaxSatoshi || r.For <= 0 {
		return Funds{}, fmt.Errorf("%w: coins are asked for with a key, an amount and a time", ErrRequest)
	}
	if err := r.Feerate.Validate(); err != nil {
		return Funds{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// The change address is made first, in a transaction of its own: the address manager has no other way.
	change, err := w.changeOf(r.Key)
	if err != nil {
		return Funds{}, err
	}
	var funds Funds
	err = walletdb.Update(w.db, func(tx walletdb.ReadWriteTx) error {
		all, err := readLeases(tx)
		if err != nil {
			return err
		}
		now := w.cfg.Clock()
		if err := all.prune(tx, now); err != nil {
			return err
		}
		coins, err := w.choose(tx, r, all, now)
		if err != nil {
			return err
		}
		funds = Funds{Coins: coins, Change: change, Expires: now.Add(r.For)}
		return writeLease(tx, r.Key, lease{
			Coins: leasedCoins(coins), Change: change, Amount: int64(r.Amount), Feerate: int64(r.Feerate),
			Expires: funds.Expires.UnixMilli(), Shared: r.Shared,
		})
	})
	return funds, err
}

// changeOf is the change script of a request, the one that it has had before.
func (w *Wallet) changeOf(key string) (protocol.Script, error) {
	var known []byte
	err := walletdb.View(w.db, func(tx walletdb.ReadTx) error {
		all, err := readLeases(tx)
		known = all[key].Change
		return err
	})
	if err != nil || known != nil {
		return known, err
	}
	a, err := w.newAddressLocked(P2TR, true)
	if err != nil {
		return nil, err
	}
	return txscript.PayToAddrScript(a)
}

// choose picks the coins of a request: those it has had, else free ones, else shared ones.
func (w *Wallet) choose(tx walletdb.ReadTx, r FundRequest, all leases, now time.Time) ([]escrow.Coin, error) {
	held := all.held(r.Key, now)
	var free, shared []escrow.Coin
	coins, err := w.coins(tx)
	if err != nil {
		return nil, err
	}
	for _, coin := range coins {
		h, taken := held[coin.OutPoint]
		switch {
		case !w.spendable(coin):
		case !taken:
			free = append(free, coin)
		case h.shared && r.Shared:
			shared = append(shared, coin)
		}
	}
	had := make(map[wire.OutPoint]bool)
	for _, c := range all[r.Key].Coins {
		had[c.outpoint()] = true
	}
	if r.All {
		if len(free) == 0 || len(free) > escrow.MaxPartInputs {
			return nil, fmt.Errorf("%w: %d coins are free, of which one transaction spends 1 to %d", ErrFunds, len(free), escrow.MaxPartInputs)
		}
		return free, nil
	}
	// What the request has had counts as free while nobody else has it to himself.
	mine := slices.DeleteFunc(slices.Concat(free, shared), func(c escrow.Coin) bool { return !had[c.OutPoint] })
	if len(mine) == len(had) && r.reaches(mine) {
		return mine, nil
	}
	if chosen := r.pick(free); chosen != nil {
		return chosen, nil
	}
	// The ones that expire first have been on offer for longest.
	slices.SortFunc(shared, func(a, b escrow.Coin) int { return held[a.OutPoint].until.Compare(held[b.OutPoint].until) })
	for n := range shared {
		if chosen := r.pick(append(slices.Clone(free), shared[:n+1]...)); chosen != nil {
			return chosen, nil
		}
	}
	var sum btcutil.Amount
	for _, coin := range free {
		sum += coin.Value
	}
	return nil, fmt.Errorf("%w: %d sat are wanted, and fees; %d sat in %d coins are free: pay more to the wallet and wait for a block, or wait until leases end",
		ErrFunds, int64(r.Amount), int64(sum), len(free))
}

// cost is what one input that spends the coin costs.
func (r FundRequest) cost(coin escrow.Coin) btcutil.Amount {
	return (&escrow.Funding{Feerate: r.Feerate}).InputCost(coin.PkScript)
}

// lengthP2TR is that of a P2TR output script, which change is paid to.
const lengthP2TR = 34

// withChange is what the coins of a request have to bring beyond what they cost.
func (r FundRequest) withChange() btcutil.Amount {
	return r.Amount + r.Feerate.Fee(outputWeight(make([]byte, lengthP2TR)))
}

// reaches tells whether coins bring the amount and a change output.
func (r FundRequest) reaches(coins []escrow.Coin) bool {
	if len(coins) == 0 || len(coins) > escrow.MaxPartInputs {
		return false
	}
	need := r.withChange()
	for _, coin := range coins {
		need -= coin.Value - r.cost(coin)
	}
	return need <= 0
}

// pick is the smallest coin that reaches, else the largest until they do; nil if they do not.
func (r FundRequest) pick(coins []escrow.Coin) []escrow.Coin {
	sorted := slices.Clone(coins)
	slices.SortFunc(sorted, func(a, b escrow.Coin) int { return cmp.Compare(a.Value, b.Value) })
	for i := range sorted {
		if r.reaches(sorted[i : i+1]) {
			return sorted[i : i+1]
		}
	}
	slices.Reverse(sorted)
	for n := range sorted {
		if r.reaches(sorted[:n+1]) {
			return sorted[:n+1]
		}
	}
	return nil
}

// Release ends the lease of a request, if it has one. Its coins are free at once; a later Fund under the same key may
// answer them again.
func (w *Wallet) Release(_ context.Context, key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return walletdb.Update(w.db, func(tx walletdb.ReadWriteTx) error {
		all, err := readLeases(tx)
		if err != nil {
			return err
		}
		l, there := all[key]
		if !there {
			return nil
		}
		l.Expires = min(l.Expires, w.cfg.Clock().UnixMilli())
		return writeLease(tx, key, l)
	})
}
