package relayside

import (
	"context"
	"errors"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// payout is the script that the next contract pays the relay to. Until a contract is signed with it, all are offered the same:
// half-opened ones use up nothing.
func (m *Manager) payout(ctx context.Context) (protocol.Script, error) {
	var script []byte
	err := m.db.Pool().QueryRow(ctx, `SELECT script FROM contract_payout`).Scan(&script)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, protocol.Errorf(protocol.CodeNoCoins, "this relay's wallet is not ready: try again in a minute")
	}
	return script, wrap(err, "read the payout script")
}

// addRelayPart gives the funding the relay's coin, if it needs one, and its output, and answers the coin's key. A coin is
// offered to many and held for nobody. Who comes with the same first input gets the same coin again, so that asking often
// shows no more of the relay's coins; else the one that is offered least.
func (m *Manager) addRelayPart(ctx context.Context, tx pgx.Tx, o *opening) (key []byte, err error) {
	f := o.funding
	missing, err := f.Missing(escrow.Relay)
	if err != nil {
		return nil, err
	}
	if missing <= 0 {
		if missing < 0 { // a renewal, which pays the relay
			return nil, f.SetChange(escrow.Relay, o.terms.RelayScript)
		}
		return nil, nil
	}
	// P2WPKH is the dearer of the two types of coins.
	need := missing + f.InputCost(make([]byte, 22)) + f.InputCost(p2wpkhLike)
	coin, err := m.offerCoin(ctx, tx, o.firstInput(), need)
	if err != nil {
		return nil, err
	}
	f.Relay.Coins = []escrow.Coin{coin}
	if err := f.SetChange(escrow.Relay, o.terms.RelayScript); err != nil {
		return nil, err
	}
	return outpointKey(coin.OutPoint), f.CheckRelayShare()
}

// p2wpkhLike has the size and type of a P2WPKH script.
var p2wpkhLike = append([]byte{0x00, 0x14}, make([]byte, 20)...)

func (m *Manager) offerCoin(ctx context.Context, tx pgx.Tx, input []byte, need btcutil.Amount) (escrow.Coin, error) {
	var key, script []byte
	var value int64
	err := tx.QueryRow(ctx, `
		SELECT c.outpoint, c.value, c.script FROM contract_coins c
		WHERE c.contract IS NULL AND c.value >= $2
		ORDER BY NOT EXISTS (SELECT 1 FROM contract_openings o WHERE o.input = $1 AND o.relay_coin = c.outpoint),
		  (SELECT count(*) FROM contract_openings o WHERE o.relay_coin = c.outpoint), c.value, c.outpoint
		LIMIT 1`, input, int64(need)).Scan(&key, &value, &script)
	if errors.Is(err, pgx.ErrNoRows) {
		return escrow.Coin{}, protocol.Errorf(protocol.CodeNoCoins, "this relay has no coin of %d satoshi for its bond at present: ask for a smaller deposit, or try again later", int64(need))
	}
	return escrow.Coin{OutPoint: outpointOf(key), Value: btcutil.Amount(value), PkScript: script}, err
}

// takeCoins gives the relay's coins of a funding to its contract. Who signs first has them.
func takeCoins(ctx context.Context, tx pgx.Tx, id escrow.ID, coins []escrow.Coin) error {
	for _, coin := range coins {
		tag, err := tx.Exec(ctx, `UPDATE contract_coins SET contract = $2 WHERE outpoint = $1 AND contract IS NULL`, outpointKey(coin.OutPoint), id[:])
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return protocol.Errorf(protocol.CodeFundingEnded, "another contract was signed first with the relay's coin: open again for another")
		}
	}
	return nil
}

// tellWallet brings the tables and the wallet together: which coins may be offered, which are given away, where the next
// contract pays to. Only the work does it.
func (m *Manager) tellWallet(ctx context.Context, height uint32) error {
	kept := m.keepCoins(ctx, height)
	coins, err := m.cfg.Wallet.Coins(ctx)
	if err != nil {
		return errors.Join(kept, wrap(err, "read the wallet's coins"))
	}
	keys, values, scripts := make([][]byte, len(coins)), make([]int64, len(coins)), make([][]byte, len(coins))
	for i, coin := range coins {
		keys[i], values[i], scripts[i] = outpointKey(coin.OutPoint), int64(coin.Value), coin.PkScript
	}
	err = m.workTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM contract_coins WHERE contract IS NULL AND NOT outpoint = ANY($1)`, keys); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO contract_coins (outpoint, value, script)
			SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) ON CONFLICT (outpoint) DO NOTHING`, keys, values, scripts)
		return err
	})
	if err != nil {
		return errors.Join(kept, wrap(err, "store the wallet's coins"))
	}
	return errors.Join(kept, m.freshPayout(ctx))
}

// keptFor is how long the wallet keeps a contract's coins at a time; they are kept again long before.
const keptFor = 24 * time.Hour

// keepCoins has the wallet spend for nothing else what contracts were given, and gives back what they cannot use any more.
func (m *Manager) keepCoins(ctx context.Context, height uint32) error {
	// Once the funding is in a block there is nothing to keep. One that was given up has no use for its coins when the relay never
	// signed it, or when what took its place is as deep as what closes a contract: should it come yet, the relay's next use
	// of the coin is in its way, which does no harm.
	rows, err := m.db.Pool().Query(ctx, `SELECT k.contract, array_agg(k.outpoint), bool_or(c.state = $1 OR c.state = $2 AND (
		  NOT EXISTS (SELECT 1 FROM contract_transactions t WHERE t.txid = c.funding)
		  OR EXISTS (SELECT 1 FROM contract_spends s WHERE s.contract = c.id AND s.height <= $3)))
		FROM contract_coins k JOIN contracts c ON c.id = k.contract
		WHERE NOT EXISTS (SELECT 1 FROM contract_transactions t WHERE t.txid = c.funding AND t.height IS NOT NULL) OR c.state = $1
		GROUP BY k.contract`, string(escrow.Archived), string(escrow.Abandoned), int64(height)-escrow.ClosedDepth+1)
	if err != nil {
		return wrap(err, "read the coins of contracts")
	}
	type given struct {
		Contract  []byte
		Outpoints [][]byte
		Over      bool
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[given])
	if err != nil {
		return wrap(err, "read the coins of contracts")
	}
	var faults []error
	for _, g := range all {
		id := escrow.ID(g.Contract)
		if g.Over {
			if err := m.releaseCoins(ctx, id); err != nil {
				return err
			}
			continue
		}
		coins := make([]wire.OutPoint, len(g.Outpoints))
		for i, key := range g.Outpoints {
			coins[i] = outpointOf(key)
		}
		// A coin that is spent is not the wallet's to keep any more, mostly by the funding it was given for.
		if err := m.cfg.Wallet.Keep(ctx, id.String(), coins, keptFor); err != nil && !errors.Is(err, wallet.ErrSpent) {
			faults = append(faults, wrap(err, "keep the coins of contract %s", id.Short()))
		}
	}
	return errors.Join(faults...)
}

// releaseCoins takes back what a contract was given, if it is still there: the next look at the wallet offers it again.
func (m *Manager) releaseCoins(ctx context.Context, id escrow.ID) error {
	if err := m.cfg.Wallet.Release(ctx, id.String()); err != nil {
		return wrap(err, "release the coins of contract %s", id.Short())
	}
	return wrap(m.workTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM contract_coins WHERE contract = $1`, id[:])
		return err
	}), "release the coins of contract %s", id.Short())
}

// freshPayout replaces the payout script when a contract was signed with it.
func (m *Manager) freshPayout(ctx context.Context) error {
	var fits bool
	err := m.db.Pool().QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM contract_payout WHERE NOT used)`).Scan(&fits)
	if err != nil || fits {
		return wrap(err, "read the payout script")
	}
	script, err := m.cfg.Wallet.NewScript(ctx, wallet.P2TR)
	if err != nil {
		return wrap(err, "draw a payout script")
	}
	return wrap(m.workTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO contract_payout (script, used) VALUES ($1, false) ON CONFLICT (only_row) DO UPDATE SET script = $1, used = false`, []byte(script))
		return err
	}), "store the payout script")
}
