package state

import (
	"context"
	"database/sql"
	"errors"

	"relaymarket/client/moving"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// maxStrangers is how many strangers are kept; the oldest give way.
const maxStrangers = 1000

// ErrNoStranger: nobody of this key left a first word, or he is a friend by now.
var ErrNoStranger = errors.New("nobody of this key left a first word")

// WordRecord is what was left by an invitation: a first word, verified, with the card of who left it, or what is wrong with it.
type WordRecord struct {
	Text  string
	Card  *protocol.Envelope
	Fault string
}

// Stranger is who left a first word and is no friend.
type Stranger struct {
	Key        protocol.PublicKey
	Card       []byte // envelope
	Invitation protocol.PublicKey
	Received   protocol.Timestamp
}

// fileWord keeps a first word: it is a message of the stranger's, and he waits to be made a friend. It tells whether it is a new one. What
// comes by an invitation that is used up is dropped without a notice: relays keep to its number only for what lies on them at a time, and who
// deletes his word can leave another.
func (s *Store) fileWord(ctx context.Context, tx *sql.Tx, m *Message) (bool, error) {
	w := m.Word
	if drop, err := usedUp(ctx, tx, m); err != nil || drop {
		return false, err
	}
	if w.Fault != "" {
		fresh, err := s.notice(ctx, tx, Notice{Friend: m.From, Kind: NoticeBadFirstWord, Relay: &m.Relay, RecordID: m.ID, Detail: w.Fault}, m.Content)
		if err != nil || !fresh {
			return false, err
		}
		return false, countWord(ctx, tx, m.From)
	}
	if w.Card.From == s.owner {
		return false, countWord(ctx, tx, m.From)
	}
	said := *m
	said.From, said.Word = w.Card.From, nil
	said.ContentType, said.Name, said.Device, said.Seq, said.Body = "text/plain; charset=utf-8", "", "", 0, []byte(w.Text)
	stored, err := s.storeMessages(ctx, tx, []Message{said})
	if err != nil || stored == 0 {
		return false, err
	}
	if err := countWord(ctx, tx, m.From); err != nil {
		return false, err
	}
	var friend bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM friends WHERE key = ?)`, said.From[:]).Scan(&friend); err != nil {
		return false, err
	}
	if friend {
		return true, s.takeCard(ctx, tx, w.Card, Brought{Relay: &m.Relay, Signed: m.Sent})
	}
	if err := s.meet(ctx, tx, m.From, w.Card); err != nil {
		return false, err
	}
	_, err = s.notice(ctx, tx, Notice{Friend: said.From, Kind: NoticeFirstWord, Relay: &m.Relay, After: w.Card.Bytes(), RecordID: m.ID}, m.Content)
	return true, err
}

// usedUp tells whether as many words came by an invitation as it is for, and this is none of them.
func usedUp(ctx context.Context, tx *sql.Tx, m *Message) (used bool, err error) {
	var writer any
	if m.Word.Card != nil {
		writer = m.Word.Card.From[:]
	}
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM admissions WHERE key = ? AND invitation = 1 AND used >= records)
		AND NOT EXISTS (SELECT 1 FROM messages WHERE sender = ? AND record_id = ?)`, m.From[:], writer, m.ID).Scan(&used)
	return used, err
}

func countWord(ctx context.Context, tx *sql.Tx, invitation protocol.PublicKey) error {
	_, err := tx.ExecContext(ctx, `UPDATE admissions SET used = used + 1 WHERE key = ? AND invitation = 1`, invitation[:])
	return err
}

// meet keeps a stranger's newest card.
func (s *Store) meet(ctx context.Context, tx *sql.Tx, invitation protocol.PublicKey, card *protocol.Envelope) error {
	var raw []byte
	err := tx.QueryRowContext(ctx, `SELECT card FROM strangers WHERE key = ?`, card.From[:]).Scan(&raw)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil {
		if known, err := protocol.ParseEnvelope(raw); err == nil && !moving.Judge(card, known).Taken() {
			return nil
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO strangers VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET card = excluded.card, invitation = excluded.invitation`,
		card.From[:], card.Bytes(), invitation[:], s.now()); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM strangers WHERE key IN (SELECT key FROM strangers ORDER BY received DESC, key LIMIT -1 OFFSET ?)`, maxStrangers)
	return err
}

// Strangers lists who left a first word and is no friend, the newest last.
func (s *Store) Strangers(ctx context.Context) ([]Stranger, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (Stranger, error) {
		var at Stranger
		var key, invitation []byte
		err := scan(&key, &at.Card, &invitation, &at.Received)
		at.Key, at.Invitation = publicKey(key), publicKey(invitation)
		return at, err
	}, `SELECT key, card, invitation, received FROM strangers ORDER BY received, key`)
}

// DeleteStranger forgets a stranger. His first word stays among the messages. ErrNoStranger.
func (s *Store) DeleteStranger(ctx context.Context, key protocol.PublicKey) error {
	done, err := s.changed(ctx, `DELETE FROM strangers WHERE key = ?`, key[:])
	if err == nil && !done {
		return ErrNoStranger
	}
	return err
}
