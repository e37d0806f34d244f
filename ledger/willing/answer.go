package willing

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Ask is a user's question, whose signature was checked.
type Ask struct {
	Key    protocol.PublicKey
	Wishes []protocol.Wish
	// Offered is what the relay announces; of volunteers the lists decide, not it.
	Offered []protocol.Terms
	// Address takes one from what the user's address may still open today, and tells whether there was one. It is asked once at most, and
	// only when everything else speaks for an account that is new, and not for a listed key.
	Address func() bool
}

// Answer is what the relay says.
type Answer struct {
	Accepted int                // index of the wish; −1: none
	Refused  []protocol.Refused // of each wish before it
	Account  *books.Account     // with a grant or a volunteer
}

// Agree finds the first wish that the relay takes, and gives the account that goes with it. Asked again it gives the same account
// another time, which lasts from today on.
func (s *Store) Agree(ctx context.Context, a Ask) (answer Answer, err error) {
	allowance := once(a.Address)
	err = s.cfg.DB.Tx(ctx, func(tx pgx.Tx) error {
		answer = Answer{Accepted: -1}
		// Held to the end: who denies the key meanwhile finds what it was given, and ends it.
		listed, err := heldEntry(ctx, tx, Key, a.Key.String())
		if err != nil {
			return err
		}
		for i, w := range a.Wishes {
			c := candidate{store: s, tx: tx, ask: &a, wish: w, listed: listed, allowance: allowance}
			account, refused, err := c.judge(ctx)
			if err != nil {
				return err
			}
			if refused == "" {
				answer.Accepted, answer.Account = i, account
				return nil
			}
			answer.Refused = append(answer.Refused, refused)
		}
		return nil
	})
	return answer, wrap(err, "answer %s", a.Key)
}

// once remembers the answer: a transaction may run twice.
func once(take func() bool) func() bool {
	asked, took := false, false
	return func() bool {
		if !asked {
			asked, took = true, take()
		}
		return took
	}
}

// candidate is one wish that is judged.
type candidate struct {
	store     *Store
	tx        pgx.Tx
	ask       *Ask
	wish      protocol.Wish
	listed    *Entry // of the key; nil: on no list
	allowance func() bool
}

func (c *candidate) judge(ctx context.Context) (*books.Account, protocol.Refused, error) {
	denied := c.listed != nil && !c.listed.Allowed
	if c.wish.Type == protocol.TermsVolunteer {
		if denied {
			return nil, protocol.RefusedKey, nil
		}
		if c.wish.Topic == "" {
			return c.forKey(ctx)
		}
		return c.forTopic(ctx)
	}
	if terms, why := c.wish.Match(c.ask.Offered); terms == nil {
		return nil, why, nil
	}
	switch {
	case c.wish.Type == protocol.TermsGrant:
		return c.granted(ctx)
	case denied:
		return nil, protocol.RefusedKey, nil
	}
	return nil, "", nil
}

// granted is for who has the operator's grant already.
func (c *candidate) granted(ctx context.Context) (*books.Account, protocol.Refused, error) {
	account, err := c.store.cfg.Books.Own(ctx, c.tx, c.ask.Key)
	switch {
	case err != nil:
		return nil, "", err
	case account == nil || account.Kind != books.KindGrant || !account.Active || account.Bound.For != "":
		return nil, protocol.RefusedKey, nil
	}
	return account, "", nil
}

func (c *candidate) forKey(ctx context.Context) (*books.Account, protocol.Refused, error) {
	p := c.store.policy()
	if p.Keys == nil {
		return nil, protocol.RefusedOffer, nil
	}
	terms := p.offer(p.Keys, "")
	if ok, why := c.wish.Meets(&terms); !ok {
		return nil, why, nil
	}
	if c.listed == nil {
		return nil, protocol.RefusedKey, nil
	}
	g := c.grant()
	if c.listed.Stored != nil {
		g.QuotaStored = *c.listed.Stored
	}
	if c.listed.Moved != nil {
		g.QuotaMoved = *c.listed.Moved
	}
	g.Note = c.listed.Note
	return c.give(ctx, g, books.Bound{For: books.ForKey, Plaintext: p.Keys.Plaintext, Ads: p.Keys.Ads})
}

func (c *candidate) forTopic(ctx context.Context) (*books.Account, protocol.Refused, error) {
	p := c.store.policy()
	if p.Topics == nil {
		return nil, protocol.RefusedOffer, nil
	}
	if allowed, err := c.topicAllowed(ctx); err != nil || !allowed {
		return nil, protocol.RefusedOffer, err
	}
	terms := p.offer(p.Topics, string(c.wish.Topic))
	if ok, why := c.wish.Meets(&terms); !ok {
		return nil, why, nil
	}
	// From here to the end of the transaction nobody else opens one, so the number is exact; nor do the lists change, which are read again: what
	// was denied a moment ago must not be given now.
	if _, err := c.tx.Exec(ctx, `SELECT 1 FROM willing_version FOR UPDATE`); err != nil {
		return nil, "", err
	}
	listed, err := entry(ctx, c.tx, Key, c.ask.Key.String())
	if err != nil {
		return nil, "", err
	}
	if listed != nil && !listed.Allowed {
		return nil, protocol.RefusedKey, nil
	}
	if allowed, err := c.topicAllowed(ctx); err != nil || !allowed {
		return nil, protocol.RefusedOffer, err
	}
	has, others, err := c.store.cfg.Books.TakesTopic(ctx, c.tx, c.ask.Key, c.wish.Topic)
	switch {
	case err != nil:
		return nil, "", err
	case has:
	case others >= p.Accounts:
		return nil, protocol.RefusedFull, nil
	case !c.allowance():
		return nil, protocol.RefusedRate, nil
	}
	return c.give(ctx, c.grant(), books.Bound{For: books.ForTopic, Topic: c.wish.Topic, Plaintext: p.Topics.Plaintext, Ads: p.Topics.Ads})
}

// topicAllowed tells whether the lists have the wish's topic.
func (c *candidate) topicAllowed(ctx context.Context) (bool, error) {
	for _, name := range []string{string(c.wish.Topic), protocol.AnyTopic} {
		if e, err := entry(ctx, c.tx, Topic, name); e != nil || err != nil {
			return err == nil && e.Allowed, err
		}
	}
	return false, nil
}

// grant is what a volunteer usually gives.
func (c *candidate) grant() books.Grant {
	p := c.store.policy()
	return books.Grant{Key: c.ask.Key, QuotaStored: p.Stored, QuotaMoved: p.Moved,
		LastDay: books.DayOf(c.store.cfg.Clock().Add(time.Duration(p.Days) * 24 * time.Hour))}
}

func (c *candidate) give(ctx context.Context, g books.Grant, bound books.Bound) (*books.Account, protocol.Refused, error) {
	account, err := c.store.cfg.Books.Volunteer(ctx, c.tx, g, bound)
	switch {
	case errors.Is(err, protocol.CodeConflict):
		return nil, protocol.RefusedAccount, nil
	case errors.Is(err, protocol.CodeNoAccount):
		return nil, protocol.RefusedKey, nil
	case err != nil:
		return nil, "", err
	}
	return &account, "", nil
}
