package state

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"relaymarket/client/devices"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// ErrNoMessage: no message has this name.
var ErrNoMessage = errors.New("no such message")

// Message is one that arrived. The same message from another relay is the same row.
type Message struct {
	N           int64 // order of arrival on this device
	From        protocol.PublicKey
	ID          protocol.RecordID
	Content     protocol.Hash      // over sealed content and tag
	Envelope    protocol.Hash      // of the envelope that came first
	Relay       protocol.PublicKey // that brought it
	Tag         protocol.Tag
	ContentType string
	Name        string // a file's, as its sender says: never a path
	Device      string
	Seq         int64 // 0 when the message cannot be opened
	Body        []byte
	Fault       string // why it cannot be read, else empty
	Plain       bool   // it was not sealed: relays could read it
	Sent        protocol.Timestamp
	Expires     protocol.Timestamp
	Received    protocol.Timestamp
	Read        protocol.Timestamp // 0: not yet
	Bytes       int64              // of the envelope, as it came; 0 in what is read here
	MaxPulls    int64              // likewise
	// KeepBody has a part of the owner's own backup kept with its body, for whoever is about to restore it. Else each of his devices, that
	// which wrote it, too, would keep each of his backups for good.
	KeepBody bool
	// Receipts are what the message is, if it is a record of receipts: it is filed, and not among the messages.
	Receipts []protocol.Receipt
	// Writings likewise: what a writer says he wrote on our account.
	Writings []protocol.Writing
	// Batch likewise: what another device of the owner says, or this one said.
	Batch *devices.Batch
	// Card likewise: the sender's own card.
	Card *CardRecord
	// Word is what the message is, if it was left by the key of an invitation, which is From.
	Word *WordRecord
	// Contradiction is set when the sender signed different content under the same id. The first stays.
	Contradiction *protocol.Hash
}

// Gap is a run of messages that a sender's device numbered and that are not here.
type Gap struct {
	From        protocol.PublicKey
	Device      string
	First, Last int64
	Noticed     protocol.Timestamp
	Shown       protocol.Timestamp // when the owner was told; 0: he was not
}

const messageColumns = `SELECT n, sender, record_id, content, envelope, relay, tag, content_type, name, device, seq,
	body, fault, sent, expires, received, coalesce(read, 0), contradiction, plain FROM messages `

func scanMessage(scan func(...any) error) (Message, error) {
	var m Message
	var sender, content, envelope, relay, other []byte
	err := scan(&m.N, &sender, &m.ID, &content, &envelope, &relay, &m.Tag, &m.ContentType, &m.Name, &m.Device, &m.Seq,
		&m.Body, &m.Fault, &m.Sent, &m.Expires, &m.Received, &m.Read, &other, &m.Plain)
	m.From, m.Relay = publicKey(sender), publicKey(relay)
	m.Content, m.Envelope = hash(content), hash(envelope)
	if other != nil {
		h := hash(other)
		m.Contradiction = &h
	}
	return m, err
}

// storeMessages keeps what is new and notes what contradicts. It returns how many were new.
func (s *Store) storeMessages(ctx context.Context, tx *sql.Tx, messages []Message) (int, error) {
	stored := 0
	for i := range messages {
		m := &messages[i]
		if m.Receipts != nil {
			if err := s.fileReceipts(ctx, tx, m.From, m.Receipts); err != nil {
				return 0, err
			}
			continue
		}
		if m.Writings != nil {
			if err := s.heard(ctx, tx, m); err != nil {
				return 0, err
			}
			if err := s.fileWritings(ctx, tx, m.From, m.Writings); err != nil {
				return 0, err
			}
			continue
		}
		if m.Batch != nil {
			if err := s.takeIn(ctx, tx, m); err != nil {
				return 0, err
			}
			continue
		}
		if m.Card != nil {
			if err := s.fileCard(ctx, tx, m); err != nil {
				return 0, err
			}
			continue
		}
		if m.Word != nil {
			fresh, err := s.fileWord(ctx, tx, m)
			if err != nil {
				return 0, err
			}
			if fresh {
				stored++
			}
			continue
		}
		body := m.Body
		if m.From == s.owner && m.ContentType == BackupType && !m.KeepBody {
			body = []byte{}
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO messages (sender, record_id, content, envelope, relay, tag, content_type,
			name, device, seq, body, fault, sent, expires, received, plain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (sender, record_id) DO NOTHING`, m.From[:], m.ID, m.Content[:], m.Envelope[:], m.Relay[:], m.Tag,
			m.ContentType, m.Name, m.Device, m.Seq, body, m.Fault, m.Sent, m.Expires, s.now(), m.Plain)
		if err != nil {
			return 0, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			err = s.contradict(ctx, tx, m)
		} else if stored++; m.Seq > 0 {
			err = s.count(ctx, tx, m)
		}
		if err == nil && n > 0 {
			err = s.noteArrival(ctx, tx, m)
		}
		if err != nil {
			return 0, err
		}
	}
	return stored, nil
}

// contradict notes that the sender signed another content under the id of a message that is here, if he did.
func (s *Store) contradict(ctx context.Context, tx *sql.Tx, m *Message) error {
	result, err := tx.ExecContext(ctx, `UPDATE messages SET contradiction = ? WHERE sender = ? AND record_id = ? AND content <> ?
		AND contradiction IS NULL`, m.Content[:], m.From[:], m.ID, m.Content[:])
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err
	}
	_, err = s.notice(ctx, tx, Notice{Friend: m.From, Kind: NoticeContradiction, Relay: &m.Relay, RecordID: m.ID}, m.Content)
	return err
}

// Contradictions counts a sender's messages of which he signed two contents.
func (s *Store) Contradictions(ctx context.Context, from protocol.PublicKey) (n int64, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT count(*) FROM messages WHERE sender = ? AND contradiction IS NOT NULL`, from[:]).Scan(&n)
	return n, err
}

// count follows the numbers of a sender's device. A number above the highest opens a gap if it
// skips some; one below closes the gap it lies in, as a slower relay's copies do.
func (s *Store) count(ctx context.Context, tx *sql.Tx, m *Message) error {
	if err := s.heard(ctx, tx, m); err != nil {
		return err
	}
	var high int64
	err := tx.QueryRowContext(ctx, `SELECT high FROM sequences WHERE sender = ? AND device = ?`, m.From[:], m.Device).Scan(&high)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if m.Seq > high {
		if _, err := tx.ExecContext(ctx, `INSERT INTO sequences VALUES (?, ?, ?)
			ON CONFLICT (sender, device) DO UPDATE SET high = excluded.high`, m.From[:], m.Device, m.Seq); err != nil {
			return err
		}
		return s.openGap(ctx, tx, m, Gap{First: high + 1, Last: m.Seq - 1, Noticed: s.now()})
	}
	var was Gap
	err = tx.QueryRowContext(ctx, `DELETE FROM gaps WHERE sender = ?1 AND device = ?2 AND first <= ?3 AND last >= ?3
		RETURNING first, last, noticed, coalesce(shown, 0)`, m.From[:], m.Device, m.Seq).Scan(&was.First, &was.Last, &was.Noticed, &was.Shown)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // a number used twice: the sender's affair
	}
	if err != nil {
		return err
	}
	below, above := was, was
	below.Last, above.First = m.Seq-1, m.Seq+1
	if err := s.openGap(ctx, tx, m, below); err != nil {
		return err
	}
	return s.openGap(ctx, tx, m, above)
}

func (s *Store) openGap(ctx context.Context, tx *sql.Tx, m *Message, g Gap) error {
	if g.First > g.Last {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO gaps VALUES (?, ?, ?, ?, ?, nullif(?, 0))`, m.From[:], m.Device, g.First, g.Last, g.Noticed, g.Shown)
	return err
}

// Gaps lists what is missing, that which was noticed from then on only.
func (s *Store) Gaps(ctx context.Context, since protocol.Timestamp) ([]Gap, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (Gap, error) {
		var g Gap
		var sender []byte
		err := scan(&sender, &g.Device, &g.First, &g.Last, &g.Noticed, &g.Shown)
		g.From = publicKey(sender)
		return g, err
	}, `SELECT sender, device, first, last, noticed, coalesce(shown, 0) FROM gaps WHERE noticed >= ? ORDER BY noticed, sender, device, first`, since)
}

// Filter chooses messages.
type Filter struct {
	Unread bool
	From   *protocol.PublicKey
	After  int64 // only those that arrived after this one
	Limit  int   // the newest of them; 0 is all
	Kept   bool  // also what the owner's programs keep for him, which is nothing to read
}

// kept is true of messages that the owner's programs left for himself, to be found by whoever restores the words. Its
// parameter is the owner.
const kept = `(sender = ? AND content_type LIKE 'application/vnd.relaymarket.%' AND content_type <> 'application/vnd.relaymarket.file+json')`

// Messages lists messages in the order they arrived.
func (s *Store) Messages(ctx context.Context, f Filter) ([]Message, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = -1
	}
	from := optionalKey(f.From)
	return sqlite.Collect(ctx, s.sql, scanMessage, `SELECT * FROM (`+messageColumns+`
		WHERE removed IS NULL AND n > ? AND (NOT ? OR read IS NULL) AND (? IS NULL OR sender = ?) AND (? OR NOT `+kept+`) ORDER BY n DESC LIMIT ?) ORDER BY n`,
		f.After, f.Unread, from, from, f.Kept, s.owner[:], limit)
}

// LastMessage is the number of the message that arrived last, 0 if none did.
func (s *Store) LastMessage(ctx context.Context) (n int64, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT coalesce(max(n), 0) FROM messages`).Scan(&n)
	return n, err
}

// MessagesNamed lists those whose record id is id, or starts or ends with it.
func (s *Store) MessagesNamed(ctx context.Context, id string) ([]Message, error) {
	exact, err := sqlite.Collect(ctx, s.sql, scanMessage, messageColumns+`WHERE removed IS NULL AND record_id = ? ORDER BY n`, id)
	if err != nil || len(exact) > 0 {
		return exact, err
	}
	return sqlite.Collect(ctx, s.sql, scanMessage, messageColumns+
		`WHERE removed IS NULL AND (record_id LIKE ?1 || '%' ESCAPE '\' OR record_id LIKE '%' || ?1 ESCAPE '\') ORDER BY n LIMIT 100`, likeText(id))
}

// likeText takes the meaning from what LIKE would read as a pattern.
func likeText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s)
}

// MarkRead notes when a message was read first.
func (s *Store) MarkRead(ctx context.Context, n int64) error {
	return s.exec(ctx, `UPDATE messages SET read = coalesce(read, ?) WHERE n = ?`, s.now(), n)
}

// Forget removes a received message from view and its body from disk.
func (s *Store) Forget(ctx context.Context, n int64) error {
	done, err := s.changed(ctx, `UPDATE messages SET body = NULL, removed = ? WHERE n = ? AND removed IS NULL`, s.now(), n)
	if err == nil && !done {
		return ErrNoMessage
	}
	return err
}
