package books

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// For says for whom a volunteer gave a grant.
type For string

// Whom a volunteer serves.
const (
	ForKey   For = "key"   // a key that the operator listed
	ForTopic For = "topic" // whoever asked, for records of one topic
)

// Bound is what a grant that a volunteer gave is bound to; the zero value is an operator's own grant, which is bound to nothing.
type Bound struct {
	For       For
	Topic     protocol.Tag // empty: any
	Plaintext bool         // its records are not sealed
	Ads       bool         // its owner said that he is shown the notice; nothing enforces that
}

// takes refuses what the account is not for, with code [protocol.CodeOffTopic] or [protocol.CodeUnreadable].
func (b Bound) takes(c Charge) error {
	if b.Topic != "" && (c.Tag == nil || *c.Tag != b.Topic) {
		return protocol.Errorf(protocol.CodeOffTopic, "the account takes records with the tag %s only", b.Topic)
	}
	if b.Plaintext && c.Sealed {
		return protocol.Errorf(protocol.CodeUnreadable, "the account takes only what is not sealed")
	}
	return nil
}

// Volunteer gives a grant to a key that asked for it, and binds it. Who has one already that is bound to the same gets the new
// quotas and end; who has a grant of the operator's own that is in force keeps it, as it is. Errors have code
// [protocol.CodeConflict] when the key has another account in force, and [protocol.CodeNoAccount] when its grant was revoked: that
// stands until the operator grants or allows it again.
func (s *Store) Volunteer(ctx context.Context, tx pgx.Tx, g Grant, bound Bound) (Account, error) {
	if err := g.Validate(); err != nil {
		return Account{}, err
	}
	before, err := s.Own(ctx, tx, g.Key)
	switch {
	case err != nil:
		return Account{}, err
	case before == nil:
	case before.Contract != nil:
		return Account{}, protocol.Errorf(protocol.CodeConflict, "%s pays by contract here", g.Key.Bech32())
	case before.Revoked:
		return Account{}, NoAccount(g.Key)
	case before.Active && before.Bound.For == "":
		return *before, nil
	case before.Active && bound.For == ForTopic && (before.Bound.For == ForKey || before.Bound.Topic != bound.Topic):
		return Account{}, protocol.Errorf(protocol.CodeConflict, "%s has an account here until %s", g.Key.Bech32(), before.LastDay)
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO accounts AS a (key, kind, quota_stored, quota_moved, last_day, note, volunteer, topic, plaintext, ads)
		VALUES ($1, 'grant', $2, $3, $4::date, $5, $6, nullif($7, ''), $8, $9)
		ON CONFLICT (key) DO UPDATE SET kind = 'grant', quota_stored = $2, quota_moved = $3, last_day = $4::date, note = $5,
		  volunteer = $6, topic = nullif($7, ''), plaintext = $8, ads = $9
		WHERE a.contract IS NULL AND NOT a.revoked AND (a.volunteer <> '' OR a.last_day < $10::date)`,
		g.Key[:], g.QuotaStored, g.QuotaMoved, string(g.LastDay), g.Note, string(bound.For), string(bound.Topic), bound.Plaintext, bound.Ads,
		string(DayOf(s.clock())))
	if err != nil {
		return Account{}, wrap(err, "volunteer for %s", g.Key)
	}
	if tag.RowsAffected() == 0 {
		// It had no account a moment ago, and was granted one, or opened a contract, since.
		return Account{}, protocol.Errorf(protocol.CodeConflict, "%s has an account here", g.Key.Bech32())
	}
	after, err := s.Own(ctx, tx, g.Key)
	if err != nil {
		return Account{}, err
	}
	return *after, nil
}

// Own is the account under a key itself, whose row is locked to the end of the transaction; nil if it has none.
func (s *Store) Own(ctx context.Context, tx pgx.Tx, key protocol.PublicKey) (*Account, error) {
	rows, err := tx.Query(ctx, `SELECT `+accountColumns+` FROM accounts WHERE key = $1 FOR UPDATE`, key[:])
	if err != nil {
		return nil, wrap(err, "read account of %s", key)
	}
	a, err := pgx.CollectExactlyOneRow(rows, s.scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &a, wrap(err, "read account of %s", key)
}

// TakesTopic tells whether a key has an account in force for this topic, and how many other accounts for topics there are: those in
// force, and those that are over while records of them are kept.
func (s *Store) TakesTopic(ctx context.Context, q Querier, key protocol.PublicKey, topic protocol.Tag) (has bool, others int64, err error) {
	rows, err := q.Query(ctx, `SELECT count(*) FILTER (WHERE key <> $2), coalesce(bool_or(key = $2 AND topic = $3 AND NOT revoked AND last_day >= $1::date), false)
		FROM accounts WHERE volunteer = 'topic' AND (stored > 0 OR NOT revoked AND last_day >= $1::date)`,
		string(DayOf(s.clock())), key[:], string(topic))
	if err != nil {
		return false, 0, wrap(err, "count the accounts for topics")
	}
	_, err = pgx.ForEachRow(rows, []any{&others, &has}, func() error { return nil })
	return has, others, wrap(err, "count the accounts for topics")
}

// Withdraw ends what a volunteer gave: to one key, or for one topic to whoever has it. The operator's own grants and contracts stay,
// and so does what is stored, until it expires.
func (s *Store) Withdraw(ctx context.Context, tx pgx.Tx, key protocol.PublicKey, topic protocol.Tag) (ended int64, err error) {
	tag, err := tx.Exec(ctx, `UPDATE accounts SET last_day = $3::date - 1 WHERE volunteer <> '' AND last_day >= $3::date
		AND CASE WHEN $2 = '' THEN key = $1 ELSE topic = $2 AND volunteer = 'topic' END`, key[:], string(topic), string(DayOf(s.clock())))
	return tag.RowsAffected(), wrap(err, "withdraw what was volunteered")
}

// Forgive lifts the revocation of a key's grant, without giving it anything: it may ask again.
func (s *Store) Forgive(ctx context.Context, tx pgx.Tx, key protocol.PublicKey) error {
	_, err := tx.Exec(ctx, `UPDATE accounts SET revoked = false, last_day = least(last_day, $2::date - 1) WHERE key = $1 AND revoked`,
		key[:], string(DayOf(s.clock())))
	return wrap(err, "lift the revocation of %s", key)
}
