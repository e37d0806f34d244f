package userside

import (
	"context"
	"database/sql"
	"errors"

	"github.com/btcsuite/btcd/chainhash/v2"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// keptBlocks is how many blocks are remembered: a reorganization as deep as that is seen for what it is.
const keptBlocks = 144

// Block names a block.
type Block struct {
	Height int64
	Hash   chainhash.Hash
}

// errMoved says that another process followed the chain meanwhile: look again.
var errMoved = errors.New("the chain was followed by another process")

// recent are the newest blocks that were looked at, oldest first.
func (s *Store) recent(ctx context.Context, network protocol.Network) ([]Block, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (Block, error) {
		var b Block
		var hash []byte
		err := scan(&b.Height, &hash)
		copy(b.Hash[:], hash)
		return b, err
	}, `SELECT height, hash FROM blocks WHERE network = ? ORDER BY height`, network)
}

// at fails with errMoved unless the newest block is the given one; the zero Block stands for none.
func (u *unit) at(ctx context.Context, network protocol.Network, newest Block) error {
	var b Block
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
func (u *unit) connect(ctx context.Context, network protocol.Network, blocks []Block) error {
	for _, b := range blocks {
		if err := u.exec(ctx, `INSERT INTO blocks VALUES (?, ?, ?)`, network, b.Height, b.Hash[:]); err != nil {
			return err
		}
	}
	if len(blocks) == 0 {
		return nil
	}
	return u.exec(ctx, `DELETE FROM blocks WHERE network = ? AND height <= ?`, network, blocks[len(blocks)-1].Height-keptBlocks)
}

// disconnect takes the newest block away.
func (u *unit) disconnect(ctx context.Context, network protocol.Network, b Block) error {
	return u.exec(ctx, `DELETE FROM blocks WHERE network = ? AND height = ?`, network, b.Height)
}
