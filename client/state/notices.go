package state

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"unicode"

	"relaymarket/client/moving"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// NoticeKind is what the owner is to be told.
type NoticeKind string

// The kinds of notices.
const (
	NoticeCard          NoticeKind = "card"           // a newer card of a friend was taken, and says something else
	NoticeOldCard       NoticeKind = "old_card"       // an older card was brought, and refused
	NoticeTwinCards     NoticeKind = "twin_cards"     // he signed two cards of one time that differ
	NoticeBadCard       NoticeKind = "bad_card"       // what was brought as his card is none, or another key's
	NoticeContradiction NoticeKind = "contradiction"  // he signed two contents under one id
	NoticeFirstWord     NoticeKind = "first_word"     // a stranger left a first word by an invitation
	NoticeBadFirstWord  NoticeKind = "bad_first_word" // something else was left by an invitation
)

// maxNotices is how many notices about one key are kept: who makes more of them pushes out his own.
const maxNotices = 50

// Notice is something that the owner is to be told.
type Notice struct {
	N        int64 // in the order in which they were noticed on this device
	Friend   protocol.PublicKey
	Kind     NoticeKind
	At       protocol.Timestamp
	Relay    *protocol.PublicKey // that brought it
	Before   []byte              // the card that was known, an envelope
	After    []byte              // the card that came, likewise
	RecordID protocol.RecordID
	Detail   string
	Shown    protocol.Timestamp // 0: the owner did not see it yet
}

// Notices lists those after one, in their order; with fresh, those only that the owner did not see.
func (s *Store) Notices(ctx context.Context, after int64, fresh bool) ([]Notice, error) {
	return sqlite.Collect(ctx, s.sql, scanNotice, noticeColumns+`WHERE n > ? AND (NOT ? OR shown IS NULL) ORDER BY n`, after, fresh)
}

// NoticesOf lists those about one friend.
func (s *Store) NoticesOf(ctx context.Context, friend protocol.PublicKey) ([]Notice, error) {
	return sqlite.Collect(ctx, s.sql, scanNotice, noticeColumns+`WHERE friend = ? ORDER BY n`, friend[:])
}

const noticeColumns = `SELECT n, friend, kind, at, relay, before, after, record_id, detail, coalesce(shown, 0) FROM notices `

func scanNotice(scan func(...any) error) (Notice, error) {
	var n Notice
	var friend, relay []byte
	err := scan(&n.N, &friend, &n.Kind, &n.At, &relay, &n.Before, &n.After, &n.RecordID, &n.Detail, &n.Shown)
	n.Friend = publicKey(friend)
	if relay != nil {
		k := publicKey(relay)
		n.Relay = &k
	}
	return n, err
}

// LastNotice is the number of the last notice, 0 if there is none.
func (s *Store) LastNotice(ctx context.Context) (n int64, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT coalesce(max(n), 0) FROM notices`).Scan(&n)
	return n, err
}

// ShowNotice notes that the owner saw a notice.
func (s *Store) ShowNotice(ctx context.Context, n int64) error {
	return s.exec(ctx, `UPDATE notices SET shown = coalesce(shown, ?) WHERE n = ?`, s.now(), n)
}

// notice keeps a notice, once for what it is about. It tells whether it is new.
func (s *Store) notice(ctx context.Context, tx *sql.Tx, n Notice, about protocol.Hash) (bool, error) {
	result, err := tx.ExecContext(ctx, `INSERT INTO notices (friend, kind, about, at, relay, before, after, record_id, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, n.Friend[:], n.Kind, about[:], s.now(), optionalKey(n.Relay), n.Before, n.After, n.RecordID, n.Detail)
	if err != nil {
		return false, err
	}
	if rows, err := result.RowsAffected(); err != nil || rows == 0 {
		return false, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM notices WHERE friend = ?1 AND n <= (SELECT n FROM notices WHERE friend = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)`,
		n.Friend[:], maxNotices)
	return true, err
}

// CardRecord is what came as a card in a record: the card, verified and of its sender, or what is wrong with it.
type CardRecord struct {
	Card  *protocol.Envelope
	Fault string
}

// Brought says who brought a card: a relay that was asked, or a record of the friend's own that was signed at a time.
type Brought struct {
	Relay  *protocol.PublicKey
	Signed protocol.Timestamp // 0: not in a record
}

// TakeCard keeps a friend's card if it is newer than the one that is known, notices what that changes, and what is wrong. The card is
// verified, and the friend's. It is nothing if he is none.
func (s *Store) TakeCard(ctx context.Context, card *protocol.Envelope, by Brought) error {
	return s.tx(ctx, func(tx *sql.Tx) error { return s.takeCard(ctx, tx, card, by) })
}

func (s *Store) takeCard(ctx context.Context, tx *sql.Tx, card *protocol.Envelope, by Brought) error {
	var raw []byte
	err := tx.QueryRowContext(ctx, `SELECT card FROM friends WHERE key = ?`, card.From[:]).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	known, err := protocol.ParseEnvelope(raw)
	if err != nil {
		return err
	}
	verdict := moving.Judge(card, known)
	if verdict.Taken() {
		if _, err := tx.ExecContext(ctx, `UPDATE friends SET card = ? WHERE key = ?`, card.Bytes(), card.From[:]); err != nil {
			return err
		}
	}
	if moving.SaysTheSame(card, known) {
		return nil // only its date changed: nothing for people
	}
	n := Notice{Friend: card.From, Relay: by.Relay, Before: known.Bytes(), After: card.Bytes()}
	if verdict.Taken() {
		n.Kind = NoticeCard
		if _, err := s.notice(ctx, tx, n, card.Hash()); err != nil {
			return err
		}
	}
	switch {
	case verdict.Twins():
		n.Kind = NoticeTwinCards
	// A record that was signed before the known card was made is late, not rolled back.
	case verdict == moving.Older && (by.Signed == 0 || by.Signed > known.Timestamp):
		n.Kind = NoticeOldCard
	default:
		return nil
	}
	_, err = s.notice(ctx, tx, n, card.Hash())
	return err
}

// NoticeBadCard keeps that a relay served something else for a friend's card.
func (s *Store) NoticeBadCard(ctx context.Context, friend, relay protocol.PublicKey, detail string) error {
	return s.tx(ctx, func(tx *sql.Tx) error { return s.badCard(ctx, tx, friend, &relay, "", detail) })
}

func (s *Store) badCard(ctx context.Context, tx *sql.Tx, friend protocol.PublicKey, relay *protocol.PublicKey, id protocol.RecordID, detail string) error {
	about := append([]byte(id), 0)
	if relay != nil && id == "" { // a relay is named once for one fault, a record once from whichever relay
		about = append(about, relay[:]...)
	}
	fault := strings.Map(func(r rune) rune { // how many seconds it is ahead, say, is no other fault
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, detail)
	_, err := s.notice(ctx, tx, Notice{Friend: friend, Kind: NoticeBadCard, Relay: relay, RecordID: id, Detail: detail},
		protocol.TaggedHash("relaymarket/client/notice", append(about, fault...)))
	return err
}

// fileCard takes a card that came in a record.
func (s *Store) fileCard(ctx context.Context, tx *sql.Tx, m *Message) error {
	if m.Card.Fault != "" {
		return s.badCard(ctx, tx, m.From, &m.Relay, m.ID, m.Card.Fault)
	}
	return s.takeCard(ctx, tx, m.Card.Card, Brought{Relay: &m.Relay, Signed: m.Sent})
}

// ShowGap notes that the owner was told of a gap.
func (s *Store) ShowGap(ctx context.Context, g Gap) error {
	return s.exec(ctx, `UPDATE gaps SET shown = coalesce(shown, ?) WHERE sender = ? AND device = ? AND first = ?`, s.now(), g.From[:], g.Device, g.First)
}
