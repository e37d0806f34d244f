package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/internal/localpg"
	"relaymarket/internal/relaybackup"
	"relaymarket/migrations"
	"relaymarket/protocol"
)

func (p program) restoreCommand() *cobra.Command {
	s := newSettings(nil) // of the relay that is made: what this machine's environment says of another one has no part in it
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FROM --dir NEW",
		Short: "Put a backup back: into a new folder, or that and an empty database",
		Long: `restore makes a relay's folder NEW from a backup of relayd backup, with its private
database, or fills the empty database of --database-url. It writes over nothing, and
nothing is there under that name until all of it is.

It checks every file and row, and begins a new epoch of the cursor: readers start over
and recognize what they have. Whatever was written, pulled, paid or granted after the
backup is not there. Senders' clients write again what they still keep; users with a
contract are asked for the highest state that they signed. See docs/operators.md.

The old relay must not run any more: two with one key are not one relay.`,
		Example: "  relayd restore /mnt/backups/relayd-20261121-030000 --dir /var/lib/relayd\n" +
			"  RELAYD_DATABASE_URL=postgres://relayd@db/new relayd restore /mnt/backups/relayd-20261121-030000 --dir /var/lib/relayd",
		Args: oneArg("the folder of a backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if !cmd.Flags().Changed("dir") {
				return usagef("name the new folder of the relay: relayd restore %s --dir NEW", args[0])
			}
			if url := lookup(p.environ, "RELAYD_DATABASE_URL"); url != "" && !cmd.Flags().Changed("database-url") {
				s.databaseURL = url
			}
			var err error
			if s.dir, err = filepath.Abs(s.dir); err != nil {
				return err
			}
			show := p.progressLine()
			done, err := p.restore(ctx, s, args[0], show)
			show.end()
			if err != nil {
				return err
			}
			return p.sayRestored(done, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "what was done as a JSON object")
	s.flags(cmd.Flags(), "dir", "database-url", "postgres-bin", "log-format", "log-level")
	s.quiet(cmd.Flags())
	return cmd
}

// restoreDone is what restore says in the end.
type restoreDone struct {
	Dir       string             `json:"dir"`
	Relay     protocol.PublicKey `json:"relay"`
	Taken     protocol.Timestamp `json:"taken"`
	AgeMs     int64              `json:"ageMs"`
	Epoch     string             `json:"epoch"`
	External  bool               `json:"external"` // the database is not in the folder
	Contracts int64              `json:"contracts"`
	Elsewhere []relaybackup.Copy `json:"elsewhere"`
	Proof     relaybackup.Proof  `json:"proof"`
	TookMs    int64              `json:"tookMs"`
}

func (p program) restore(ctx context.Context, s *settings, from string, show *progressLine) (done *restoreDone, err error) {
	began, log := time.Now(), p.logger(s)
	m, err := relaybackup.Verify(ctx, from, show.report)
	if err != nil {
		return nil, err
	}
	if newest, err := migrations.Newest(); err != nil {
		return nil, err
	} else if m.Database.Schema > newest {
		return nil, fmt.Errorf("the backup's database has schema %d, this relayd knows up to %d: use the relayd that made it (%s)", m.Database.Schema, newest, m.Program)
	}
	folder, err := relaybackup.NewFolder(ctx, from, m, s.dir)
	if err != nil {
		return nil, err
	}
	dropped := func(err error) (*restoreDone, error) { return nil, errors.Join(err, folder.Drop()) }
	restored := newSettings(nil)
	restored.dir = folder.Path
	if key, err := restored.readKey(); err != nil {
		return dropped(err)
	} else if key.Public() != m.Relay {
		return dropped(fmt.Errorf("%w: the key is another relay's", relaybackup.ErrDamaged))
	}
	var life relaybackup.Life
	cluster := localpg.Config{Dir: restored.databaseFolder(), BinDir: s.postgresBin, Logger: log}
	if s.databaseURL == "" {
		life, err = relaybackup.RestorePrivate(ctx, from, m, cluster, show.report, began)
	} else {
		life, err = relaybackup.Restore(ctx, from, m, relaybackup.Into{Database: s.databaseURL, BinDir: s.postgresBin, Report: show.report}, began)
	}
	if err != nil {
		return dropped(err)
	}
	if err := folder.Keep(); err != nil {
		return dropped(errors.Join(err, localpg.Remove(context.WithoutCancel(ctx), cluster)))
	}
	return &restoreDone{Dir: s.dir, Relay: m.Relay, Taken: m.Taken, AgeMs: m.Age(began).Milliseconds(), Epoch: life.Epoch, External: s.databaseURL != "",
		Contracts: m.Database.Contracts, Elsewhere: append([]relaybackup.Copy{}, folder.Elsewhere...), Proof: life.Proof, TookMs: time.Since(began).Milliseconds()}, nil
}

func (p program) sayRestored(d *restoreDone, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.out).Encode(d)
	}
	text := fmt.Sprintf("%s\n  the relay %s as it was %s ago, with %d records\n  readers start over (epoch %s)\n", d.Dir, d.Relay.Bech32(), roundTime(d.AgeMs), d.Proof.Records, d.Epoch)
	for _, c := range d.Elsewhere {
		text += fmt.Sprintf("  %s was %s: its copy is %s\n", c.Setting, c.From, c.Now)
	}
	text += "\nNext:\n  see that the old relay does not run, and will not be started again\n"
	if len(d.Elsewhere) > 0 {
		text += "  put those files where the configuration names them, or name the copies in it\n"
	}
	if d.External {
		text += "  see that database-url in relayd.toml names the database that was filled now\n"
	}
	text += fmt.Sprintf("  relayd serve --dir %s\n", d.Dir)
	if d.Contracts > 0 {
		text += fmt.Sprintf(`  relayd contracts list --dir %s
      %d contracts were open. What their users paid after the backup is not here: their clients
      show it when they next ask, and it is taken then. Contracts that were opened after the
      backup are not known, and nothing is earned from them. End those that are open when their
      users have been here (relayd contracts request): a bill that was sent after the backup cannot
      be sent again as it was.
`, d.Dir, d.Contracts)
	}
	_, err := fmt.Fprint(p.out, text)
	return err
}
