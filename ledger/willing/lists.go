package willing

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Kind is what an entry of the lists names.
type Kind string

// The kinds of entries.
const (
	Key   Kind = "key"
	Topic Kind = "topic"
)

// MaxTopics bounds the topics that are allowed: each is an alternative in the announcement.
const MaxTopics = protocol.MaxTerms - 3

// Entry is one key or topic that the operator allows or denies.
type Entry struct {
	Kind    Kind
	Name    string // a key as 64 hex digits; a tag, or [protocol.AnyTopic]
	Allowed bool   // false: denied
	Stored  *int64 // quotas of an allowed key, bytes; nil: the usual
	Moved   *int64
	Note    string // for the operator
}

// maxNote bounds an operator's note in bytes.
const maxNote = 200

// Validate checks an entry. Errors have code [protocol.CodeInvalidValue].
func (e Entry) Validate() error {
	switch e.Kind {
	case Key:
		key, err := protocol.ParsePublicKey(e.Name)
		if err != nil || key.String() != e.Name {
			return protocol.Errorf(protocol.CodeInvalidValue, "%q is no key of 64 hex digits", e.Name)
		}
	case Topic:
		if e.Name == protocol.AnyTopic && !e.Allowed {
			return protocol.Errorf(protocol.CodeInvalidValue, "to serve no topic, allow none")
		}
		if e.Name != protocol.AnyTopic && protocol.Tag(e.Name).Validate() != nil {
			return protocol.Errorf(protocol.CodeInvalidValue, "%q is no topic: a topic is 1 to %d letters, digits, - and _, or %s for any", e.Name, protocol.MaxTag, protocol.AnyTopic)
		}
		if e.Stored != nil || e.Moved != nil {
			return protocol.Errorf(protocol.CodeInvalidValue, "quotas of their own have keys, not topics")
		}
	default:
		return protocol.Errorf(protocol.CodeInvalidValue, "an entry is of a key or a topic")
	}
	for _, quota := range []*int64{e.Stored, e.Moved} {
		if quota != nil && (*quota < 0 || *quota > books.MaxQuota) {
			return protocol.Errorf(protocol.CodeInvalidValue, "a quota is 0 to %d bytes", int64(books.MaxQuota))
		}
	}
	if len(e.Note) > maxNote {
		return protocol.Errorf(protocol.CodeInvalidValue, "a note has at most %d bytes", maxNote)
	}
	return nil
}

func (e Entry) key() (k protocol.PublicKey) {
	_ = k.UnmarshalText([]byte(e.Name)) // validated
	return k
}

// Put puts an entry on its list, in the place of one of the same name. A key that is allowed may ask again although its grant
// was revoked; what a denied key, or who has a denied topic, was given for nothing ends, which is how many accounts. Errors have code
// [protocol.CodeInvalidValue].
func (s *Store) Put(ctx context.Context, e Entry) (ended int64, err error) {
	if err := e.Validate(); err != nil {
		return 0, err
	}
	err = s.cfg.DB.Tx(ctx, func(tx pgx.Tx) error {
		if err := change(ctx, tx); err != nil {
			return err
		}
		if err := roomForTopic(ctx, tx, e); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO willing (kind, name, allowed, quota_stored, quota_moved, note) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (kind, name) DO UPDATE SET allowed = $3, quota_stored = $4, quota_moved = $5, note = $6`,
			string(e.Kind), e.Name, e.Allowed, e.Stored, e.Moved, e.Note)
		if err != nil {
			return err
		}
		switch {
		case e.Allowed && e.Kind == Key:
			return s.cfg.Books.Forgive(ctx, tx, e.key())
		case e.Allowed:
			return nil
		case e.Kind == Key:
			ended, err = s.cfg.Books.Withdraw(ctx, tx, e.key(), "")
		default:
			ended, err = s.cfg.Books.Withdraw(ctx, tx, protocol.PublicKey{}, protocol.Tag(e.Name))
		}
		return err
	})
	return ended, wrap(err, "change the lists")
}

// roomForTopic refuses a topic that would not fit the announcement.
func roomForTopic(ctx context.Context, tx pgx.Tx, e Entry) error {
	if e.Kind != Topic || !e.Allowed {
		return nil
	}
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM willing WHERE kind = 'topic' AND allowed AND name <> $1`, e.Name).Scan(&n)
	if err == nil && n >= MaxTopics {
		return protocol.Errorf(protocol.CodeInvalidValue, "%d topics are allowed already, and no more are announced: take one off, or allow %s", n, protocol.AnyTopic)
	}
	return err
}

// Remove takes a name off its list. What was given stays until it ends. The error has code [protocol.CodeNotFound] when
// it is on none.
func (s *Store) Remove(ctx context.Context, kind Kind, name string) error {
	err := s.cfg.DB.Tx(ctx, func(tx pgx.Tx) error {
		if err := change(ctx, tx); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `DELETE FROM willing WHERE kind = $1 AND name = $2`, string(kind), name)
		if err == nil && tag.RowsAffected() == 0 {
			return protocol.Errorf(protocol.CodeNotFound, "the %s %s is on no list", kind, name)
		}
		return err
	})
	return wrap(err, "change the lists")
}

// change begins a change of the lists: one at a time, and seen by every relayd.
func change(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `UPDATE willing_version SET version = version + 1`)
	return err
}

// List is all entries: topics, then keys, each in the order of their names.
func (s *Store) List(ctx context.Context) ([]Entry, error) {
	rows, err := s.cfg.DB.Pool().Query(ctx, `SELECT kind, name, allowed, quota_stored, quota_moved, note FROM willing ORDER BY kind DESC, name`)
	if err != nil {
		return nil, wrap(err, "read the lists")
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
	return all, wrap(err, "read the lists")
}

// entry is one, nil if it is on no list.
func entry(ctx context.Context, q books.Querier, kind Kind, name string) (*Entry, error) {
	return readEntry(ctx, q, kind, name, "")
}

// heldEntry is entry, and keeps it from being changed until the transaction ends.
func heldEntry(ctx context.Context, tx pgx.Tx, kind Kind, name string) (*Entry, error) {
	return readEntry(ctx, tx, kind, name, " FOR SHARE")
}

func readEntry(ctx context.Context, q books.Querier, kind Kind, name, lock string) (*Entry, error) {
	rows, err := q.Query(ctx, `SELECT kind, name, allowed, quota_stored, quota_moved, note FROM willing WHERE kind = $1 AND name = $2`+lock, string(kind), name)
	if err != nil {
		return nil, err
	}
	e, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Entry])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &e, err
}

// Denies tells whether the operator denies a key.
func (s *Store) Denies(ctx context.Context, key protocol.PublicKey) (bool, error) {
	e, err := entry(ctx, s.cfg.DB.Pool(), Key, key.String())
	return e != nil && !e.Allowed, wrap(err, "read the lists")
}

// wrap names what was tried; failures that a client can wait out keep their code.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, db.Refusal(err))...)
}
