package state

import (
	"context"
	"database/sql"
	"errors"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// CopyState is where one relay's copy of a message stands.
type CopyState string

// The states of a copy. queued → stored → removing → gone; queued → failed.
const (
	CopyQueued   CopyState = "queued"   // to be sent, or sent with unknown outcome
	CopyStored   CopyState = "stored"   // the relay confirmed that it is on its disk
	CopyRemoving CopyState = "removing" // to be deleted from the relay
	CopyGone     CopyState = "gone"     // deleted, expired or used up
	CopyFailed   CopyState = "failed"   // refused for good
)

// Outgoing is a message of the owner.
type Outgoing struct {
	N           int64
	ID          protocol.RecordID
	To          protocol.PublicKey
	Sealed      []byte // nil when it is to be put on no relay any more
	Tag         protocol.Tag
	ContentType string
	Name        string
	Device      string
	Seq         int64
	Body        []byte
	Expires     protocol.Timestamp
	MaxPulls    int64
	Created     protocol.Timestamp
	Removed     protocol.Timestamp // 0: not removed
	Signer      []byte             // the secret of the invitation whose key signs it; nil: the owner does
	Copies      []Copy
}

// Copy is one relay's copy of a message.
type Copy struct {
	Relay   protocol.PublicKey
	Address string
	State   CopyState
	Error   string // of the last attempt
	Changed protocol.Timestamp
	Hash    *protocol.Hash // of the stored envelope
	Cursor  string
	Pulled  protocol.Timestamp // when the reader got it from there, by his receipt; 0: he has not said so
	Pulls   int64              // pages it was part of, by the relay's word when it was asked last
	Seen    protocol.Timestamp // when the relay listed it last; 0: never asked
}

// Enqueue numbers a message for its receiver, has it sealed, and stores it with a queued copy for
// each relay, all in one step: no number is ever used twice, none is lost when sealing fails.
func (s *Store) Enqueue(ctx context.Context, to protocol.PublicKey, relays []Relay, seal func(device string, seq int64) (*Outgoing, error)) (*Outgoing, error) {
	var message *Outgoing
	err := s.tx(ctx, func(tx *sql.Tx) (err error) {
		message, err = s.enqueue(ctx, tx, to, relays, seal)
		return err
	})
	return message, err
}

func (s *Store) enqueue(ctx context.Context, tx *sql.Tx, to protocol.PublicKey, relays []Relay,
	seal func(device string, seq int64) (*Outgoing, error)) (*Outgoing, error) {
	if err := s.dropExpired(ctx, tx); err != nil {
		return nil, err
	}
	var seq int64
	err := tx.QueryRowContext(ctx, `INSERT INTO counters VALUES (?, 1) ON CONFLICT (receiver) DO UPDATE SET seq = seq + 1
		RETURNING seq`, to[:]).Scan(&seq)
	if err != nil {
		return nil, err
	}
	m, err := seal(s.device, seq)
	if err != nil {
		return nil, err
	}
	m.To, m.Device, m.Seq, m.Created = to, s.device, seq, s.now()
	return m, s.insertOutgoing(ctx, tx, m, relays)
}

// dropExpired frees the sealed content of what no relay may have any more.
func (s *Store) dropExpired(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE outbox SET sealed = NULL WHERE sealed IS NOT NULL AND expires <= ?`, s.now())
	return err
}

// insertOutgoing stores a message with a queued copy for each relay.
func (s *Store) insertOutgoing(ctx context.Context, tx *sql.Tx, m *Outgoing, relays []Relay) error {
	result, err := tx.ExecContext(ctx, `INSERT INTO outbox (record_id, receiver, sealed, tag, content_type, name, device, seq,
		body, expires, max_pulls, created, signer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, m.ID, m.To[:], m.Sealed, m.Tag,
		m.ContentType, m.Name, m.Device, m.Seq, m.Body, m.Expires, m.MaxPulls, m.Created, m.Signer)
	if err != nil {
		return err
	}
	if m.N, err = result.LastInsertId(); err != nil {
		return err
	}
	return insertCopies(ctx, tx, m.N, relays, m.Created)
}

// Waiting lists the numbers of the messages that have something to do on a relay, oldest first. Pieces of files are not
// among them while they are to be sent: a file must not hold up what was written after it.
func (s *Store) Waiting(ctx context.Context, relay protocol.PublicKey) ([]int64, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (n int64, err error) { return n, scan(&n) },
		`SELECT c.n FROM copies c JOIN outbox o ON o.n = c.n WHERE c.relay = ? AND c.state IN ('queued', 'removing')
		AND (c.state = 'removing' OR o.upload IS NULL) ORDER BY c.n`, relay[:])
}

// WaitingMessages counts what is queued or to be deleted, each once for each relay, without what programs write by themselves.
func (s *Store) WaitingMessages(ctx context.Context) (n int, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT count(*) FROM copies c JOIN outbox o ON o.n = c.n
		WHERE c.state IN ('queued', 'removing') AND (c.state = 'removing' OR o.upload IS NULL) AND o.tag <> 'ack'`).Scan(&n)
	return n, err
}

// Attempt notes an envelope before it is sent.
func (s *Store) Attempt(ctx context.Context, n int64, relay protocol.PublicKey, e *protocol.Envelope) error {
	h := e.Hash()
	return s.exec(ctx, `INSERT OR IGNORE INTO attempts (n, relay, hash, bytes, signed) VALUES (?, ?, ?, ?, ?)`, n, relay[:], h[:], e.Size(), e.Timestamp)
}

// Stored notes a relay's confirmation. It is false, and nothing changes, if no envelope with this
// hash was ever signed for the copy; one of another device of the owner's may have been, and that device will tell. A message removed meanwhile goes on to be deleted.
func (s *Store) Stored(ctx context.Context, n int64, relay protocol.PublicKey, envelope protocol.Hash, cursor string) (bool, error) {
	ours := false
	err := s.tx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE copies SET hash = ?3, cursor = ?4, error = '', changed = ?5,
			state = CASE WHEN (SELECT removed FROM outbox WHERE n = ?1) IS NULL THEN 'stored' ELSE 'removing' END
			WHERE n = ?1 AND relay = ?2 AND (EXISTS (SELECT 1 FROM attempts WHERE n = ?1 AND relay = ?2 AND hash = ?3) OR (SELECT company FROM sharing) OR `+restoredTo+`)`,
			n, relay[:], envelope[:], cursor, s.now())
		if err != nil {
			return err
		}
		changed, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if ours = changed > 0; ours {
			if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO attempts (n, relay, hash) VALUES (?, ?, ?)`, n, relay[:], envelope[:]); err != nil {
				return err
			}
			if err := s.tell(ctx, tx, n, relay); err != nil {
				return err
			}
		}
		return settle(ctx, tx, n)
	})
	return ours, err
}

// restoredTo is true of a message ?1 that was queued in the backup that this state came out of: the device that went on from there may have
// sent it, the same content under an envelope that is not known here.
const restoredTo = `?1 <= (SELECT coalesce(max(outbox), 0) FROM restores)`

// SetCopy notes another outcome: the error of an attempt with the state unchanged, or an end.
func (s *Store) SetCopy(ctx context.Context, n int64, relay protocol.PublicKey, state CopyState, reason string) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE copies SET state = ?, error = ?, changed = ? WHERE n = ? AND relay = ?`,
			state, reason, s.now(), n, relay[:]); err != nil {
			return err
		}
		if state == CopyGone {
			if err := s.tell(ctx, tx, n, relay); err != nil {
				return err
			}
		}
		return settle(ctx, tx, n)
	})
}

// settle drops the sealed content of what is not to be put back on any relay: receipts, and what was removed. The
// rest is kept until it expires, because a relay may lose it, or take a card that it refused.
func settle(ctx context.Context, tx *sql.Tx, n int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE outbox SET sealed = NULL WHERE n = ?1 AND (tag = 'ack' AND content_type <> ?2 OR removed IS NOT NULL)
		AND NOT EXISTS (SELECT 1 FROM copies WHERE n = ?1 AND state = 'queued')`, n, protocol.CardType)
	return err
}

// Remove marks a message as removed: each copy that is or may be on a relay is to be deleted there.
func (s *Store) Remove(ctx context.Context, n int64) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		now := s.now()
		if _, err := tx.ExecContext(ctx, `UPDATE outbox SET removed = coalesce(removed, ?) WHERE n = ?`, now, n); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'removing', error = '', changed = ?
			WHERE n = ? AND state IN ('queued', 'stored')`, now, n); err != nil {
			return err
		}
		return settle(ctx, tx, n)
	})
}

const outgoingColumns = `SELECT n, record_id, receiver, sealed, tag, content_type, name, device, seq, body, expires,
	max_pulls, created, coalesce(removed, 0), signer FROM outbox `

func scanOutgoing(scan func(...any) error) (Outgoing, error) {
	var m Outgoing
	var receiver []byte
	err := scan(&m.N, &m.ID, &receiver, &m.Sealed, &m.Tag, &m.ContentType, &m.Name, &m.Device, &m.Seq, &m.Body, &m.Expires,
		&m.MaxPulls, &m.Created, &m.Removed, &m.Signer)
	m.To = publicKey(receiver)
	return m, err
}

// Outgoing finds one message by its number. ErrNoMessage.
func (s *Store) Outgoing(ctx context.Context, n int64) (*Outgoing, error) {
	found, err := s.outgoing(ctx, outgoingColumns+`WHERE n = ?`, n)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNoMessage
	}
	return &found[0], nil
}

// Outbox lists the newest messages, oldest first, without receipts; limit 0 is all.
func (s *Store) Outbox(ctx context.Context, limit int) ([]Outgoing, error) {
	if limit <= 0 {
		limit = -1
	}
	return s.outgoing(ctx, `SELECT * FROM (`+outgoingColumns+`WHERE tag <> 'ack' AND upload IS NULL ORDER BY n DESC LIMIT ?) ORDER BY n`, limit)
}

// OutgoingNamed lists the messages whose record id is id, or starts or ends with it.
func (s *Store) OutgoingNamed(ctx context.Context, id string) ([]Outgoing, error) {
	exact, err := s.outgoing(ctx, outgoingColumns+`WHERE record_id = ? AND upload IS NULL`, id)
	if err != nil || len(exact) > 0 {
		return exact, err
	}
	return s.outgoing(ctx, outgoingColumns+
		`WHERE upload IS NULL AND (record_id LIKE ?1 || '%' ESCAPE '\' OR record_id LIKE '%' || ?1 ESCAPE '\') ORDER BY n LIMIT 100`, likeText(id))
}

func (s *Store) outgoing(ctx context.Context, query string, args ...any) ([]Outgoing, error) {
	found, err := sqlite.Collect(ctx, s.sql, scanOutgoing, query, args...)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i].Copies, err = sqlite.Collect(ctx, s.sql, scanCopy,
			copyColumns+`WHERE n = ? ORDER BY address, relay`, found[i].N)
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// copyColumns has the receipt for whichever envelope the reader got: a copy that was put back is another one.
const copyColumns = `SELECT relay, address, state, error, changed, hash, cursor, pulls, seen, coalesce((SELECT min(r.got) FROM receipts r
	JOIN attempts a ON a.hash = r.hash AND a.relay = r.relay WHERE a.n = copies.n AND a.relay = copies.relay), 0) FROM copies `

func scanCopy(scan func(...any) error) (Copy, error) {
	var c Copy
	var relay, stored []byte
	err := scan(&relay, &c.Address, &c.State, &c.Error, &c.Changed, &stored, &c.Cursor, &c.Pulls, &c.Seen, &c.Pulled)
	c.Relay = publicKey(relay)
	if stored != nil {
		h := hash(stored)
		c.Hash = &h
	}
	return c, err
}

// Copy finds one copy. ErrNoMessage.
func (s *Store) Copy(ctx context.Context, n int64, relay protocol.PublicKey) (Copy, error) {
	row := s.sql.QueryRowContext(ctx,
		copyColumns+`WHERE n = ? AND relay = ?`, n, relay[:])
	c, err := scanCopy(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Copy{}, ErrNoMessage
	}
	return c, err
}

// WaitingRelay is a relay on which something is to be done.
type WaitingRelay struct {
	Relay
	OnlyReceipts bool // nobody waits for it
}

// WaitingRelays lists the relays on which something is to be done.
func (s *Store) WaitingRelays(ctx context.Context) ([]WaitingRelay, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (r WaitingRelay, err error) {
		var key []byte
		err = scan(&key, &r.Address, &r.OnlyReceipts)
		r.Key = publicKey(key)
		return r, err
	}, `SELECT c.relay, coalesce(r.address, max(c.address)), min(o.tag = 'ack') FROM copies c JOIN outbox o ON o.n = c.n LEFT JOIN relays r ON r.key = c.relay
		WHERE c.state IN ('queued', 'removing') AND (c.state = 'removing' OR o.upload IS NULL) GROUP BY c.relay ORDER BY c.relay`)
}

// Sent is what a message weighs.
type Sent struct {
	Body    int64 // bytes
	Created protocol.Timestamp
	Expires protocol.Timestamp
}

// SentSince lists what was sent since a time.
func (s *Store) SentSince(ctx context.Context, since protocol.Timestamp) ([]Sent, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (m Sent, err error) {
		return m, scan(&m.Body, &m.Created, &m.Expires)
	}, `SELECT CASE WHEN o.upload IS NULL THEN length(o.body) ELSE u.chunk_bytes END, o.created, o.expires
		FROM outbox o LEFT JOIN uploads u ON u.n = o.upload WHERE o.created >= ? ORDER BY o.n`, since)
}
