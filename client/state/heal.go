package state

import (
	"context"
	"database/sql"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// SeenRecord is a record of ours that a relay lists.
type SeenRecord struct {
	To     protocol.PublicKey
	ID     protocol.RecordID
	Hash   protocol.Hash
	Pulls  int64
	Cursor string
}

// See notes what a relay lists. A copy whose confirmation was lost on the way counts as stored, if the envelope is one of ours.
func (s *Store) See(ctx context.Context, relay protocol.PublicKey, list []SeenRecord, at protocol.Timestamp) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		for i := range list {
			r := &list[i]
			if _, err := tx.ExecContext(ctx, `UPDATE copies SET seen = ?1, pulls = max(pulls, ?2),
				hash = CASE WHEN state = 'queued' THEN ?3 ELSE hash END, cursor = CASE WHEN state = 'queued' THEN ?4 ELSE cursor END,
				changed = CASE WHEN state = 'queued' THEN ?1 ELSE changed END, error = CASE WHEN state = 'queued' THEN '' ELSE error END,
				state = CASE WHEN state = 'queued' THEN 'stored' ELSE state END
				WHERE relay = ?5 AND n = (SELECT n FROM outbox WHERE record_id = ?6 AND receiver = ?7)
				AND EXISTS (SELECT 1 FROM attempts a WHERE a.n = copies.n AND a.relay = ?5 AND a.hash = ?3)`,
				at, r.Pulls, r.Hash[:], r.Cursor, relay[:], r.ID, r.To[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// delivered is true of a message o that its reader, or the friend to whom its file goes, confirmed.
const delivered = `EXISTS (SELECT 1 FROM attempts a JOIN receipts r ON r.hash = a.hash AND r.relay = a.relay WHERE a.n = o.n)`

// healable is a condition on a message o: it is to be on relays still, and can be put there again.
const healable = `o.expires > ?2 AND o.removed IS NULL AND o.tag <> 'ack' AND (?3 OR NOT ` + delivered + `)
	AND (o.sealed IS NOT NULL OR o.upload IN (SELECT n FROM sources))`

// withSources fills a table with the files that can be read again, for healable.
func withSources(ctx context.Context, tx *sql.Tx, now protocol.Timestamp, there func(path string, size, modified int64) bool) error {
	if _, err := tx.ExecContext(ctx, `CREATE TEMP TABLE IF NOT EXISTS sources (n INTEGER PRIMARY KEY)`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM sources`); err != nil {
		return err
	}
	type file struct {
		n, size, modified int64
		path              string
	}
	all, err := sqlite.Collect(ctx, tx, func(scan func(...any) error) (f file, err error) { return f, scan(&f.n, &f.path, &f.size, &f.modified) },
		`SELECT n, path, size, modified FROM uploads WHERE ready = 1 AND removed IS NULL AND expires > ?`, now)
	if err != nil {
		return err
	}
	for _, f := range all {
		if !there(f.path, f.size, f.modified) {
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO sources VALUES (?)`, f.n); err != nil {
			return err
		}
	}
	return nil
}

// Lose queues again what should be on a relay and was not listed, having listed everything since a time. What cannot be put back, because
// the file it was made of is not there any more, and what need not be, counts as gone.
func (s *Store) Lose(ctx context.Context, relay protocol.PublicKey, since protocol.Timestamp, confirmed bool,
	there func(path string, size, modified int64) bool) (queued, failed int64, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		now := s.now()
		if err := withSources(ctx, tx, now, there); err != nil {
			return err
		}
		const lost = `relay = ?1 AND state = 'stored' AND seen < ?4 AND changed < ?4`
		result, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'queued', error = '', hash = NULL, changed = ?2 WHERE `+lost+`
			AND EXISTS (SELECT 1 FROM outbox o WHERE o.n = copies.n AND `+healable+`)`, relay[:], now, confirmed, since)
		if err != nil {
			return err
		}
		if queued, err = result.RowsAffected(); err != nil {
			return err
		}
		result, err = tx.ExecContext(ctx, `UPDATE copies SET state = 'gone', changed = ?2, error = 'the relay does not have it any more, nor is the file there that it was made of'
			WHERE `+lost+` AND EXISTS (SELECT 1 FROM outbox o WHERE o.n = copies.n AND o.upload IS NOT NULL AND o.expires > ?2 AND (?3 OR NOT `+delivered+`)
			AND o.upload NOT IN (SELECT n FROM sources))`, relay[:], now, confirmed, since)
		if err != nil {
			return err
		}
		if failed, err = result.RowsAffected(); err != nil {
			return err
		}
		// What another device sent, and cannot be put back from here, is that device's to put back.
		_, err = tx.ExecContext(ctx, `UPDATE copies SET state = 'gone', changed = ?2 WHERE `+lost+` AND NOT EXISTS (SELECT 1 FROM outbox o
			WHERE o.n = copies.n AND o.device <> ?5 AND o.sealed IS NULL AND o.removed IS NULL AND o.expires > ?2 AND (?3 OR NOT `+delivered+`))`,
			relay[:], now, confirmed, since, s.device)
		return err
	})
	return queued, failed, err
}

// Spread queues for a relay what it was never to have: all messages, and the pieces of files that are older than the relay among
// the owner's, or that too few relays have.
func (s *Store) Spread(ctx context.Context, relay Relay, confirmed bool, there func(path string, size, modified int64) bool) (added int64, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		now := s.now()
		if err := withSources(ctx, tx, now, there); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO copies (n, relay, address, state, error, changed, cursor)
			SELECT o.n, ?1, ?4, 'queued', '', ?2, '' FROM outbox o LEFT JOIN uploads u ON u.n = o.upload
			WHERE `+healable+` AND NOT EXISTS (SELECT 1 FROM copies c WHERE c.n = o.n AND c.relay = ?1)
			AND (u.n IS NULL OR u.created < ?5 OR u.copies > (SELECT count(*) FROM copies c JOIN relays l ON l.key = c.relay
			  WHERE c.n = o.n AND c.state IN ('queued', 'stored')))`, relay.Key[:], now, confirmed, relay.Address, relay.Added)
		if err != nil {
			return err
		}
		added, err = result.RowsAffected()
		return err
	})
	return added, err
}

// WaitingOn counts what is to be sent to a relay.
func (s *Store) WaitingOn(ctx context.Context, relay protocol.PublicKey) (n int64, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT count(*) FROM copies c JOIN outbox o ON o.n = c.n WHERE c.relay = ? AND c.state = 'queued'
		AND o.tag <> 'ack'`, relay[:]).Scan(&n)
	return n, err
}

// Expiring lists the messages that are about to expire and that nobody fetched, as far as is known: a fifth of their life is
// left, and three days at most. With fresh, only those of which the user was not told.
func (s *Store) Expiring(ctx context.Context, fresh bool) ([]Outgoing, error) {
	const near = `WHERE tag <> 'ack' AND upload IS NULL AND removed IS NULL AND receiver <> ?2 AND expires > ?1
		AND expires - ?1 < min((expires - created) / 5, 259200000)
		AND EXISTS (SELECT 1 FROM copies c WHERE c.n = outbox.n AND c.state IN ('stored', 'queued'))
		AND NOT EXISTS (SELECT 1 FROM copies c WHERE c.n = outbox.n AND c.pulls > 0)
		AND NOT EXISTS (SELECT 1 FROM attempts a JOIN receipts r ON r.hash = a.hash AND r.relay = a.relay WHERE a.n = outbox.n)
		AND (NOT ?3 OR warned IS NULL) ORDER BY n`
	return s.outgoing(ctx, outgoingColumns+near, s.now(), s.owner[:], fresh)
}

// Warned notes that the user was told of a message that expires.
func (s *Store) Warned(ctx context.Context, n int64) error {
	return s.exec(ctx, `UPDATE outbox SET warned = ? WHERE n = ?`, s.now(), n)
}
