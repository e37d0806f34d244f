package relayside

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
)

const (
	// keptBlocks is how many of the newest blocks are remembered, and so the deepest reorganization that is followed back
	// block by block: as many as the longest contract lives, at some 80 bytes each, so that nothing a live contract stands on is
	// ever out of reach.
	keptBlocks = int(escrow.MaxLifetime) + 120
	// beginDepth is how many blocks below the tip a new relay knows.
	beginDepth = 6
	// readBlocks is how many of them are read at a time.
	readBlocks = 120
	// rescanDepth is how far below all that is remembered the chain is read again when none of it is left: a relay that is
	// younger than the reorganization, or was upgraded from one that kept 120 blocks.
	rescanDepth = 2016
)

// follow brings what is known up to the node's tip, a block a transaction. Whatever the node's trouble is, what is
// known stays.
func (m *Manager) follow(ctx context.Context) error {
	recent, err := m.recentBlocks(ctx)
	if err != nil {
		return err
	}
	if len(recent) == 0 {
		if recent, err = m.begin(ctx); err != nil {
			return err
		}
	}
	leased := m.clock()
	for gone := 0; ctx.Err() == nil; {
		event, err := m.chain.Next(ctx, recent)
		switch {
		case errors.Is(err, chain.ErrUpToDate):
			return nil
		case errors.Is(err, chain.ErrTooDeep):
			if recent, err = m.rescan(ctx, recent[0]); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		var kinds []string
		err = m.workTx(ctx, func(tx pgx.Tx) (err error) { kinds, err = m.applyBlock(ctx, tx, event); return err })
		if err != nil {
			return wrap(err, "follow the chain at %v", event.Block)
		}
		if event.Kind == chain.Disconnect {
			m.metrics.followed(eventUndone, kinds)
			gone++
			if recent, err = m.withoutNewest(ctx, recent, gone); err != nil {
				return err
			}
		} else {
			m.metrics.followed(eventConfirmed, kinds)
			gone = 0
			recent = append(recent, event.Block)
			recent = recent[max(len(recent)-readBlocks, 0):]
		}
		if err := m.reached("block"); err != nil {
			return err
		}
		// A lease that runs out while there are many blocks would let another process begin beside this one.
		if now := m.clock(); now.Sub(leased).Abs() > m.limits.Lease/4 {
			if err := m.lease(ctx); err != nil {
				return err
			}
			leased = now
		}
	}
	return ctx.Err()
}

// begin remembers where a new relay begins: at the tip, as contracts watch what is spent after they are opened. It knows some
// blocks more, so that a first reorganization is none below all that it knows.
func (m *Manager) begin(ctx context.Context) ([]chain.BlockID, error) {
	tip, err := m.chain.Tip(ctx)
	if err != nil {
		return nil, err
	}
	var known []chain.BlockID
	for height := tip.Height - min(tip.Height, beginDepth); height < tip.Height; height++ {
		block, err := m.chain.BlockAt(ctx, height)
		if err != nil {
			return nil, err
		}
		known = append(known, block)
	}
	known = append(known, tip.BlockID)
	err = m.workTx(ctx, func(tx pgx.Tx) error {
		for _, block := range known {
			if err := addBlock(ctx, tx, block); err != nil {
				return err
			}
		}
		return nil
	})
	return known, wrap(err, "begin to follow the chain")
}

// withoutNewest is what is known without the newest block, which left the best chain as the gone-th in a row.
func (m *Manager) withoutNewest(ctx context.Context, recent []chain.BlockID, gone int) ([]chain.BlockID, error) {
	left := recent[len(recent)-1]
	m.log.Warn("a block left the best chain", "block", left)
	if gone == chain.Depth+1 {
		m.log.Error("more than a hundred blocks left the best chain: contracts that were archived are not followed back; see that the Bitcoin node is on the right chain", "block", left)
	}
	if recent = recent[:len(recent)-1]; len(recent) > 1 {
		return recent, nil
	}
	return m.recentBlocks(ctx) // older ones, if there are any
}

// rescan goes on from a block well below all that is known, of which nothing is on the best chain any more. What was seen above
// it is taken back, and seen again where it is now.
func (m *Manager) rescan(ctx context.Context, oldest chain.BlockID) ([]chain.BlockID, error) {
	from, err := m.chain.BlockAt(ctx, oldest.Height-min(oldest.Height, rescanDepth))
	if err != nil {
		return nil, err
	}
	m.log.Error("none of the known blocks is on the best chain: contracts are looked for again in all blocks from here on; see that the Bitcoin node is on the right chain",
		"known", oldest, "from", from)
	var kinds []string
	err = m.workTx(ctx, func(tx pgx.Tx) (err error) {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, blockLock); err != nil {
			return err
		}
		if kinds, err = dropAbove(ctx, tx, int64(from.Height)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM contract_blocks`); err != nil {
			return err
		}
		return addBlock(ctx, tx, from)
	})
	if err != nil {
		return nil, wrap(err, "read the chain again from %v", from)
	}
	m.metrics.followed(eventRescan, nil)
	for _, kind := range kinds {
		m.metrics.transaction(kind, eventUndone)
	}
	return []chain.BlockID{from}, m.reached("rescanned")
}

func (m *Manager) recentBlocks(ctx context.Context) ([]chain.BlockID, error) {
	rows, err := m.db.Pool().Query(ctx, `SELECT height, hash FROM contract_blocks ORDER BY height DESC LIMIT $1`, readBlocks)
	if err != nil {
		return nil, wrap(err, "read known blocks")
	}
	recent, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (chain.BlockID, error) {
		var height int32
		var hash []byte
		err := row.Scan(&height, &hash)
		return chain.BlockID{Height: uint32(height), Hash: chainhash.Hash(hash)}, err
	})
	slices.Reverse(recent)
	return recent, wrap(err, "read known blocks")
}

// tip is the height that everything is judged at: that of the newest block whose effects are stored. 0: none yet.
func tip(ctx context.Context, q queryRower) (height uint32, err error) {
	var h int32
	err = q.QueryRow(ctx, `SELECT coalesce((SELECT height FROM contract_blocks ORDER BY height DESC LIMIT 1), 0)`).Scan(&h)
	return uint32(h), err
}

func addBlock(ctx context.Context, tx pgx.Tx, b chain.BlockID) error {
	if _, err := tx.Exec(ctx, `INSERT INTO contract_blocks (height, hash) VALUES ($1, $2)`, int32(b.Height), b.Hash[:]); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM contract_blocks WHERE height <= $1`, int64(b.Height)-int64(keptBlocks))
	return err
}

// blockLock is held by a step of the chain, and shared by contracts that begin to watch: a constant for pg_advisory_xact_lock.
const blockLock = 0x626c6f63

// applyBlock stores one step of the chain, and has every contract that it touches looked at. It answers the kinds of the
// relay's transactions in the block.
func (m *Manager) applyBlock(ctx context.Context, tx pgx.Tx, e chain.Event) (kinds []string, err error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, blockLock); err != nil {
		return nil, err
	}
	if e.Kind == chain.Disconnect {
		return dropAbove(ctx, tx, int64(e.Block.Height)-1)
	}
	if err := addBlock(ctx, tx, e.Block); err != nil {
		return nil, err
	}
	spent := make(map[string]*wire.MsgTx)
	var outpoints, txids [][]byte
	for _, t := range e.Msg.Transactions {
		id := t.TxHash()
		txids = append(txids, id[:])
		for _, in := range t.TxIn {
			key := outpointKey(in.PreviousOutPoint)
			spent[string(key)] = t
			outpoints = append(outpoints, key)
		}
	}
	kinds, err = kindsOf(ctx, tx, `UPDATE contract_transactions SET height = $1 WHERE txid = ANY($2) RETURNING kind`, int32(e.Block.Height), txids)
	if err != nil {
		return nil, err
	}
	if err := recordSpends(ctx, tx, e.Block.Height, outpoints, spent); err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `UPDATE contracts SET look_at = 0 WHERE id IN (
		SELECT contract FROM contract_transactions WHERE height = $1 UNION SELECT contract FROM contract_spends WHERE height = $1)`, int32(e.Block.Height))
	return kinds, err
}

func kindsOf(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// recordSpends stores which watched outpoints a block spends.
func recordSpends(ctx context.Context, tx pgx.Tx, height uint32, outpoints [][]byte, spent map[string]*wire.MsgTx) error {
	rows, err := tx.Query(ctx, `SELECT outpoint, contract FROM contract_watches WHERE outpoint = ANY($1)`, outpoints)
	if err != nil {
		return err
	}
	type watched struct{ Outpoint, Contract []byte }
	hits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[watched])
	if err != nil {
		return err
	}
	for _, hit := range hits {
		t := spent[string(hit.Outpoint)]
		id := t.TxHash()
		_, err := tx.Exec(ctx, `INSERT INTO contract_spends (outpoint, contract, txid, tx, height) VALUES ($1, $2, $3, $4, $5)`,
			hit.Outpoint, hit.Contract, id[:], txBytes(t), int32(height))
		if err != nil {
			return err
		}
	}
	return nil
}

// dropAbove takes back the blocks above a height, which left the best chain. All that have something less to count on are
// looked at, and those who only waited for depth too. What is archived is looked at no more: its last transaction is sent
// again, if it is one that was wanted. It answers the kinds of the relay's transactions that were in those blocks.
func dropAbove(ctx context.Context, tx pgx.Tx, height int64) ([]string, error) {
	_, err := tx.Exec(ctx, `UPDATE contracts SET look_at = 0 WHERE look_at IS NOT NULL AND id IN (
		SELECT contract FROM contract_transactions WHERE height > $1 UNION SELECT contract FROM contract_spends WHERE height > $1)`, height)
	if err != nil {
		return nil, err
	}
	kinds, err := kindsOf(ctx, tx, `UPDATE contract_transactions SET height = NULL WHERE height > $1 RETURNING kind`, height)
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{`DELETE FROM contract_spends WHERE height > $1`, `DELETE FROM contract_blocks WHERE height > $1`} {
		if _, err := tx.Exec(ctx, sql, height); err != nil {
			return nil, err
		}
	}
	return kinds, nil
}

// outpointKey is an outpoint as the tables know it: txid in internal byte order, index as uint32be.
func outpointKey(o wire.OutPoint) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(o.Hash[:]), o.Index)
}

func outpointOf(key []byte) (o wire.OutPoint) {
	copy(o.Hash[:], key)
	o.Index = binary.BigEndian.Uint32(key[len(o.Hash):])
	return o
}

func txBytes(t *wire.MsgTx) []byte {
	var b bytes.Buffer
	_ = t.Serialize(&b) // a bytes.Buffer takes everything
	return b.Bytes()
}

func readTx(raw []byte) (*wire.MsgTx, error) {
	var t wire.MsgTx
	err := t.Deserialize(bytes.NewReader(raw))
	return &t, err
}
