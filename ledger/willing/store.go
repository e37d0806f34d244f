package willing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// lookPause is between looks whether the lists have changed.
const lookPause = 2 * time.Second

// Conditions are what a volunteer asks for instead of money.
type Conditions struct {
	Plaintext bool // that nothing is sealed
	Ads       bool // that the user is shown the notice
}

// Policy is what the relay's configuration says of volunteering. The zero value volunteers for nobody.
type Policy struct {
	Keys   *Conditions // for keys on the list; nil: for none
	Topics *Conditions // for topics on the list; nil: for none

	Stored   int64 // bytes at once that an account has
	Moved    int64 // bytes a calendar month
	Days     int   // until it ends, unless it is asked for again
	Accounts int64 // for topics, at most at once
	Notice   string
}

// Validate checks what an operator may get wrong.
func (p Policy) Validate() error {
	switch {
	case min(p.Stored, p.Moved, p.Accounts) < 0 || max(p.Stored, p.Moved) > books.MaxQuota:
		return fmt.Errorf("a quota is 0 to %d bytes, and a number of accounts not negative", int64(books.MaxQuota))
	case p.Accounts > 0 && max(p.Stored, p.Moved) > books.MaxQuota/p.Accounts:
		return fmt.Errorf("%d accounts of such quotas come to more than %d bytes", p.Accounts, int64(books.MaxQuota))
	case p.Days < 0 || p.Days > MaxDays:
		return fmt.Errorf("an account lasts 0 to %d days", MaxDays)
	case utf8.RuneCountInString(p.Notice) > 200:
		return errors.New("a notice has at most 200 characters")
	case p.ads() && p.Notice == "":
		return errors.New("terms with ads need a notice to show")
	}
	return nil
}

func (p Policy) ads() bool {
	return p.Keys != nil && p.Keys.Ads || p.Topics != nil && p.Topics.Ads
}

// MaxDays bounds how long an account lasts without being asked for again.
const MaxDays = 3650

// Config is what a [Store] needs.
type Config struct {
	DB     *db.DB
	Books  *books.Store
	Policy Policy
	Clock  func() time.Time
	Logger *slog.Logger // what [Store.Run] cannot do at the moment; nil is silent
}

// Store is the lists and what comes of them. It is safe for concurrent use.
type Store struct {
	cfg    Config
	seldom rate.Sometimes

	mu   sync.Mutex
	seen sight
	pol  Policy // that is in force: Config.Policy, until it is changed
}

// sight is what the announcement is made of.
type sight struct {
	version int64
	listed  bool     // at least one key is allowed
	topics  []string // that are allowed
	others  int64    // accounts for topics
}

// New makes a store. It reads nothing: before [Store.Refresh] it offers nothing.
func New(cfg Config) *Store {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, seldom: rate.Sometimes{Interval: time.Minute}, pol: cfg.Policy}
}

// Change sets another policy for who asks from now on. Accounts that were given stay as they were given.
func (s *Store) Change(p Policy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pol = p
	return nil
}

func (s *Store) policy() Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pol
}

// Run keeps up with the lists until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		if err := s.Refresh(ctx); err != nil && ctx.Err() == nil {
			s.seldom.Do(func() { s.cfg.Logger.Warn("the lists of keys and topics cannot be read: trying again", "err", err) })
		}
	}
}

// Refresh reads the lists, if they have changed, and how many accounts there are.
func (s *Store) Refresh(ctx context.Context) error {
	now := s.sight()
	var version int64
	if err := s.cfg.DB.Pool().QueryRow(ctx, `SELECT version FROM willing_version`).Scan(&version); err != nil {
		return wrap(err, "read the lists")
	}
	if version != now.version {
		rows, err := s.cfg.DB.Pool().Query(ctx, `SELECT name FROM willing WHERE kind = 'topic' AND allowed ORDER BY name`)
		if err != nil {
			return wrap(err, "read the lists")
		}
		if now.topics, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return wrap(err, "read the lists")
		}
		err = s.cfg.DB.Pool().QueryRow(ctx, `SELECT EXISTS (SELECT FROM willing WHERE kind = 'key' AND allowed)`).Scan(&now.listed)
		if err != nil {
			return wrap(err, "read the lists")
		}
		now.version = version
	}
	if s.policy().Topics != nil {
		var err error
		if _, now.others, err = s.cfg.Books.TakesTopic(ctx, s.cfg.DB.Pool(), protocol.PublicKey{}, ""); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = now
	return nil
}

func (s *Store) sight() sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// Offers are the alternatives of a volunteer that hold at this moment.
func (s *Store) Offers() []protocol.Terms {
	p, now := s.policy(), s.sight()
	var offers []protocol.Terms
	if p.Keys != nil && now.listed {
		offers = append(offers, p.offer(p.Keys, ""))
	}
	if p.Topics != nil && now.others < p.Accounts {
		for _, topic := range now.topics {
			offers = append(offers, p.offer(p.Topics, topic))
		}
	}
	return offers
}

// Taken is how many accounts for topics there are, in force or with records still kept.
func (s *Store) Taken() int64 { return s.sight().others }

// Notice is what those are shown who took terms with ads; empty without such terms.
func (s *Store) Notice() string {
	for _, o := range s.Offers() {
		if o.Ads {
			return s.policy().Notice
		}
	}
	return ""
}

func (p Policy) offer(c *Conditions, topic string) protocol.Terms {
	return protocol.Terms{Type: protocol.TermsVolunteer, Topic: topic, Plaintext: c.Plaintext, Ads: c.Ads,
		StoredBytes: p.Stored, MovedBytes: p.Moved, Days: int64(p.Days)}
}
