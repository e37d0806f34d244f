package userside

import (
	"context"
	"database/sql"
	"errors"

	"relaymarket/escrow/chain"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// errMoved says that another process followed the chain meanwhile: look again.
var errMoved = errors.New("the chain was followed by another process")

// recent are the newest blocks that were looked at, oldest first.
func (s *Store) recent(ctx context.Context, network protocol.Network) ([]chain.BlockID, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (chain.BlockID, error) {
		var b chain.BlockID
		var hash []byte
		err := scan(&b.Height, &hash)
		copy(b.Hash[:], hash)
		return b, err
	}, `SELECT height, hash FROM blocks WHERE network = ? ORDER BY height`, network)
}

// at fails with errMoved unless the newest block is the given one; the zero BlockID stands for none.
func (u *unit) at(ctx context.Context, network protocol.Network, newest chain.BlockID) error {
	var b chain.BlockID
	var hash []byte
	err := u.QueryRowContext(ctx, `SELECT height, hash FROM blocks WHERE network = ? ORDER BY height DESC LIMIT 1`, network).Scan(&b.Height, &hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	copy(b.Hash[:], hash)
	if b != newest {
		return errMoved
	}
	return nil
}

// connect adds blocks on top and forgets those too deep to matter.
func (u *unit) connect(ctx context.Context, network protocol.Network, blocks []chain.BlockID) error {
	for _, b := range blocks {
		if err := u.exec(ctx, `INSERT INTO blocks VALUES (?, ?, ?)`, network, b.Height, b.Hash[:]); err != nil {
			return err
		}
	}
	if len(blocks) == 0 {
		return nil
	}
	newest := int64(blocks[len(blocks)-1].Height)
	return u.exec(ctx, `DELETE FROM blocks WHERE network = ? AND height <= ?`, network, newest-chain.Depth)
}

// disconnect takes the newest block away.
func (u *unit) disconnect(ctx context.Context, network protocol.Network, b chain.BlockID) error {
	return u.exec(ctx, `DELETE FROM blocks WHERE network = ? AND height = ?`, network, b.Height)
}
