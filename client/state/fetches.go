package state

import (
	"context"
	"database/sql"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Fetch is a file that came as a manifest and whose pieces are fetched.
type Fetch struct {
	N        int64           // of the message with the manifest
	Part     string          // where what is here of it is; absolute
	Hashes   []protocol.Hash // of the chunks, if there is an index and it is here
	Begun    protocol.Timestamp
	Saved    string // where the whole file went; empty: not yet
	Finished protocol.Timestamp
	Here     int64 // chunks that are here
}

// LeaseFetch begins to fetch a file into part, or goes on with it, with holder as the one program that does until then. It
// is false while another one does; held is until when. What was fetched into another part does not count.
func (s *Store) LeaseFetch(ctx context.Context, n int64, part, holder string, until protocol.Timestamp) (ours bool, held protocol.Timestamp, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `INSERT INTO fetches (n, part, begun, saved, finished, holder, held_until) VALUES (?, '', ?, '', 0, ?, ?)
			ON CONFLICT (n) DO UPDATE SET held_until = excluded.held_until, holder = excluded.holder,
			saved = CASE WHEN fetches.holder = excluded.holder THEN saved ELSE '' END,
			finished = CASE WHEN fetches.holder = excluded.holder THEN finished ELSE 0 END
			WHERE fetches.holder = excluded.holder OR fetches.held_until < ?`, n, s.now(), holder, until, s.now())
		if err != nil {
			return err
		}
		changed, err := result.RowsAffected()
		if ours = changed > 0; err != nil {
			return err
		}
		if !ours {
			return tx.QueryRowContext(ctx, `SELECT held_until FROM fetches WHERE n = ?`, n).Scan(&held)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM fetched WHERE n = ?1 AND EXISTS (SELECT 1 FROM fetches WHERE n = ?1 AND part <> ?2)`, n, part); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE fetches SET part = ? WHERE n = ?`, part, n)
		return err
	})
	return ours, held, err
}

// Fetches lists the files that were begun, by the number of their messages.
func (s *Store) Fetches(ctx context.Context) (map[int64]Fetch, error) {
	found, err := sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (f Fetch, err error) {
		var hashes []byte
		err = scan(&f.N, &f.Part, &hashes, &f.Begun, &f.Saved, &f.Finished, &f.Here)
		f.Hashes = splitHashes(hashes)
		return f, err
	}, `SELECT n, part, hashes, begun, saved, finished, (SELECT count(*) FROM fetched p WHERE p.n = f.n) FROM fetches f ORDER BY n`)
	all := make(map[int64]Fetch, len(found))
	for _, f := range found {
		all[f.N] = f
	}
	return all, err
}

// SetChunkHashes keeps what the index says.
func (s *Store) SetChunkHashes(ctx context.Context, n int64, hashes []protocol.Hash) error {
	return s.exec(ctx, `UPDATE fetches SET hashes = ? WHERE n = ?`, joinHashes(hashes), n)
}

// FetchedPieces lists the chunks that are here.
func (s *Store) FetchedPieces(ctx context.Context, n int64) ([]int64, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (i int64, err error) { return i, scan(&i) },
		`SELECT piece FROM fetched WHERE n = ? ORDER BY piece`, n)
}

// StorePiece notes a piece that is safe on disk, and its record as one that a page brought: only after that may anybody
// sign that it is here.
func (s *Store) StorePiece(ctx context.Context, n, piece int64, record Message, page protocol.PageID) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO fetched VALUES (?, ?, ?, ?, ?) ON CONFLICT (n, piece) DO UPDATE
			SET relay = excluded.relay, page = excluded.page, root = excluded.root`, n, piece, record.Relay[:], page, record.Envelope[:]); err != nil {
			return err
		}
		return s.noteReceived(ctx, tx, []Message{record}, page)
	})
}

// NoteRecord notes a record that a page brought and that is kept elsewhere.
func (s *Store) NoteRecord(ctx context.Context, record Message, page protocol.PageID) error {
	return s.tx(ctx, func(tx *sql.Tx) error { return s.noteReceived(ctx, tx, []Message{record}, page) })
}

// OpenPiece is a page of one piece that its relay has no acknowledgement of yet.
type OpenPiece struct {
	Piece int64
	Relay protocol.PublicKey
	Ack
}

// OpenPieces lists those of a file.
func (s *Store) OpenPieces(ctx context.Context, n int64) ([]OpenPiece, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (p OpenPiece, err error) {
		var relay, root []byte
		err = scan(&p.Piece, &relay, &p.Page, &root)
		p.Relay, p.Root = publicKey(relay), hash(root)
		return p, err
	}, `SELECT piece, relay, page, root FROM fetched WHERE n = ? AND page IS NOT NULL ORDER BY piece`, n)
}

// AckedPiece notes that a relay has our acknowledgement of a piece, or wants none: a receipt is due for it.
func (s *Store) AckedPiece(ctx context.Context, n, piece int64, relay protocol.PublicKey, page protocol.PageID) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE fetched SET page = NULL, root = NULL WHERE n = ? AND piece = ? AND page = ?`, n, piece, page); err != nil {
			return err
		}
		return s.acknowledged(ctx, tx, relay, string(page))
	})
}

// ForgetPieces notes that chunks are not here after all.
func (s *Store) ForgetPieces(ctx context.Context, n int64, pieces []int64) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		for _, i := range pieces {
			if _, err := tx.ExecContext(ctx, `DELETE FROM fetched WHERE n = ? AND piece = ?`, n, i); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetAllPieces notes that nothing of a file is here.
func (s *Store) ForgetAllPieces(ctx context.Context, n int64) error {
	return s.exec(ctx, `DELETE FROM fetched WHERE n = ?`, n)
}

// FinishFetch notes where the whole file went.
func (s *Store) FinishFetch(ctx context.Context, n int64, saved string) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE fetches SET saved = ?, finished = ? WHERE n = ?`, saved, s.now(), n); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM fetched WHERE n = ? AND page IS NULL`, n)
		return err
	})
}

// ReleaseFetch ends a lease.
func (s *Store) ReleaseFetch(ctx context.Context, n int64, holder string) error {
	return s.exec(ctx, `UPDATE fetches SET held_until = 0 WHERE n = ? AND holder = ?`, n, holder)
}
