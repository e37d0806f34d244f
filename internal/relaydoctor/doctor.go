// Package relaydoctor looks at a relay from all sides and says of each what it found and what to do about it: clock, database, disk, files, TLS,
// its place in the market, whether strangers reach it, Bitcoin, backups, and what an earlier run left behind.
//
// It changes nothing that others see, works while the relay serves and while it does not, and ends in two minutes whatever hangs. cmd/relayd calls it.
package relaydoctor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/escrow/chain"
	"relaymarket/internal/findings"
	"relaymarket/protocol"
)

// patience bounds a check. Those that ask others, who may hang one after the other, have more.
const (
	patience      = 30 * time.Second
	patienceAbout = 2 * time.Minute
)

// Config says what there is to look at. What is missing is not looked at.
type Config struct {
	Key      *protocol.PrivateKey // nil: it could not be read, which is a finding of the caller's
	Dir      string
	Operator string // host:port of the operator's listener
	Clock    func() time.Time
	Logger   *slog.Logger

	Database Database
	Public   Public
	Market   Market
	Bitcoin  Bitcoin

	OpenFiles int64 // that the relay may need with these settings
}

// Database is where the relay's data is.
type Database struct {
	URL         string // empty: there is none to look at, which is a finding of the caller's
	Private     bool
	Folder      string // of the private cluster
	Keep        int64  // bytes that are kept free of new records
	Connections int64
	Newest      int64 // schema that this program knows
}

// Public is how strangers reach the relay.
type Public struct {
	Listen    string // host:port on this machine
	Secure    bool   // the relay speaks TLS there
	Addresses []string
}

// Market is where the relay is announced, and whom to ask for a look from outside.
type Market struct {
	Network     protocol.Network
	Hubs        []string
	Credentials string
	OwnHub      bool
	Through     []string // addresses of relays to ask; empty: those that the hubs know
}

// Bitcoin is the node of contracts. Wallet may be nil.
type Bitcoin struct {
	Node   chain.Config // without a Host: no contracts
	Bond   int64        // percent
	Wallet func(context.Context) (Wallet, error)
}

// Wallet is what is in the relay's wallet.
type Wallet struct{ Confirmed, Leased int64 } // satoshi

// doctor is one visit.
type doctor struct {
	cfg     Config
	running bool // the relay answers its operator
	now     time.Time
}

// Visit looks at everything. The findings are in the order of the checks, whichever ends first.
func Visit(ctx context.Context, cfg Config) findings.List {
	d := &doctor{cfg: cfg, now: cfg.Clock()}
	var all findings.List
	first, files := d.process(ctx)
	all = append(all, first)
	checks := []struct {
		look     func(context.Context) findings.List
		patience time.Duration
	}{{d.database, patience}, {d.leftovers, patience}, {func(context.Context) findings.List { return files }, patience}, {d.tls, patience}, {d.market, patienceAbout}, {d.bitcoin, patience}}
	found := make([]findings.List, len(checks))
	var group errgroup.Group
	for i, check := range checks {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, check.patience)
			defer cancel()
			found[i] = check.look(ctx)
			return nil
		})
	}
	_ = group.Wait() // they return none
	for _, list := range found {
		all = append(all, list...)
	}
	return all
}

func warn(name, text, do string) findings.Finding {
	return findings.Finding{Name: name, Level: findings.Warn, Text: text, Do: do}
}

func fail(name, text, do string) findings.Finding {
	return findings.Finding{Name: name, Level: findings.Fail, Text: text, Do: do}
}

// span is a time for people.
func span(d time.Duration) string {
	switch d = d.Abs(); {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 2*time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}
