package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/internal/findings"
	"relaymarket/internal/localpg"
	"relaymarket/internal/relaydoctor"
	"relaymarket/internal/relaynode"
	"relaymarket/migrations"
	"relaymarket/protocol"
)

func (p program) doctorCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	var through []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at the relay from all sides, and say what to do",
		Long: `doctor looks at the clock, the database, the disk and how long it lasts, open files,
TLS, the announcement and the hubs that should have it, the Bitcoin node and wallet,
the age of the backup, and what an earlier run left behind. It asks other relays of
the market, or those of --through, whether they reach this one from outside.

It works while relayd serves and while it does not, and changes nothing. Exit code 1
if something failed; warnings alone are 0.`,
		Example: "  relayd doctor\n  relayd doctor --json\n  relayd doctor --through https://relay.example.org",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, address := range through {
				if err := protocol.ValidateAddress(address); err != nil {
					return usagef("--through: %w", err)
				}
			}
			all := p.visit(cmd.Context(), cmd, s, through)
			write := all.WriteText
			if asJSON {
				write = all.WriteJSON
			}
			if err := write(p.out); err != nil {
				return err
			}
			if n := all.Count(findings.Fail); n > 0 {
				return fmt.Errorf("%d of %d checks failed", n, len(all))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON object: the worst level and all findings")
	cmd.Flags().StringSliceVar(&through, "through", nil, "addresses of relays that are asked for a look from outside, instead of those that the hubs know")
	s.flags(cmd.Flags())
	s.quiet(cmd.Flags())
	return cmd
}

// visit looks at the settings and files itself, and has the rest looked at.
func (p program) visit(ctx context.Context, cmd *cobra.Command, s *settings, through []string) (all findings.List) {
	if err := s.load(p.environ, cmd.Flags()); err != nil {
		return findings.List{{Name: "settings", Level: findings.Fail, Text: err.Error(), Do: "correct it: relayd serve does not start like this"}}
	}
	log := p.logger(s)
	key, err := s.readKey()
	if err != nil {
		all = append(all, findings.Finding{Name: "key", Level: findings.Fail, Text: err.Error(), Do: "without the key the relay does not start"})
	} else {
		all = append(all, findings.Okf("key", "%s", key.Public().Bech32()))
	}
	newest, err := migrations.Newest()
	if err != nil {
		return append(all, findings.Finding{Name: "program", Level: findings.Fail, Text: err.Error(), Do: "install relayd again"})
	}
	cfg := relaydoctor.Config{
		Key: key, Dir: s.dir, Operator: dialable(s.operatorListen), Clock: time.Now, Logger: log,
		Database:  relaydoctor.Database{Private: s.databaseURL == "", Keep: int64(s.diskFree), Connections: s.databaseConns, Newest: newest},
		Public:    relaydoctor.Public{Listen: dialable(s.listen), Secure: s.tls.certificate != "" || len(s.tls.acme) > 0 || s.tls.own, Addresses: s.addresses},
		Market:    relaydoctor.Market{Network: s.bitcoin.network, Hubs: s.market.hubs, Credentials: s.market.credentials, OwnHub: s.market.isHub(), Through: through},
		OpenFiles: s.maxListeners + s.maxRequests + 2*s.databaseConns + 256,
	}
	unclean, end := s.openForDoctor(ctx, &cfg)
	defer end()
	all = append(all, unclean...)
	if s.bitcoin.rpc != "" {
		all = append(all, s.bitcoinForDoctor(&cfg, key)...)
	}
	return append(all, relaydoctor.Visit(ctx, cfg)...)
}

// openForDoctor finds the database, and starts a private one that nobody runs. Before that it sees how that ended last time.
func (s *settings) openForDoctor(ctx context.Context, cfg *relaydoctor.Config) (findings.List, func()) {
	none := func() {}
	if s.databaseURL != "" {
		cfg.Database.URL = s.databaseURL
		return nil, none
	}
	cluster := localpg.Config{Dir: s.databaseFolder(), BinDir: s.postgresBin, Logger: cfg.Logger}
	there, err := localpg.HasCluster(cluster)
	switch {
	case err != nil:
		return findings.List{{Name: "database", Level: findings.Fail, Text: err.Error(), Do: "see Troubleshooting in docs/operators.md"}}, none
	case !there:
		return findings.List{{Name: "database", Level: findings.Warn, Text: "there is none in " + s.databaseFolder() + " yet", Do: "relayd serve makes it; or name the relay's folder with --dir"}}, none
	}
	var found findings.List
	unclean, err := localpg.Unclean(cluster)
	if err == nil && unclean {
		found = append(found, findings.Finding{Name: "leftovers", Level: findings.Warn, Text: "the private database was not shut down when it last ended; it has recovered now",
			Do: "nothing is lost; see why the relay was killed, in the system's log"})
	}
	opened, err := localpg.Open(ctx, cluster)
	if err != nil {
		return append(found, findings.Finding{Name: "database", Level: findings.Fail, Text: err.Error(), Do: "read db/start.log and db/log, look at the disk"}), none
	}
	cfg.Database.URL, cfg.Database.Folder = opened.URL(), opened.Folder()
	return found, func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_ = opened.Stop(stopping) // the next start recovers
	}
}

func (s *settings) bitcoinForDoctor(cfg *relaydoctor.Config, key *protocol.PrivateKey) findings.List {
	b, err := s.bitcoinConfig()
	if err != nil {
		return findings.List{{Name: "bitcoin", Level: findings.Fail, Text: err.Error(), Do: "relayd serve does not start like this"}}
	}
	cfg.Bitcoin.Node, cfg.Bitcoin.Bond = b.Node, s.bitcoin.bondPercent
	if !s.bitcoin.wallet || key == nil {
		return nil
	}
	cfg.Bitcoin.Wallet = func(ctx context.Context) (relaydoctor.Wallet, error) {
		view, err := relaynode.AskWallet(ctx, dialable(s.operatorListen), key)
		if errors.Is(err, relaynode.ErrNotRunning) {
			err = errors.New("the relay does not run")
		}
		return relaydoctor.Wallet{Confirmed: int64(view.Confirmed), Leased: int64(view.Leased)}, err
	}
	return nil
}
