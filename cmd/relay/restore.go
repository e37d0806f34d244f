package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/client/backup"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

func (p *program) contractBackupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write what a refund needs, beside your 24 words, to a file", Args: oneArg("a file name"),
		Example: "  relay contract backup /media/stick/contracts.backup",
		Long: `Writes the descriptors of all contracts that may still hold money. The file holds no secret, but tells which coins are
yours. The same is in contracts.backup in your folder, always up to date; keep a copy on another disk.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := p.contractStore(cmd.Context(), nil)
			if err != nil {
				return err
			}
			defer store.Close()
			n, err := store.ExportBackup(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]any{"file": args[0], "contracts": n})
			}
			return p.say("Wrote %s: %s.\n", args[0], count(n, "contract"))
		},
	}
}

func (p *program) restoreCommand() *cobra.Command {
	var files, relays []string
	cmd := &cobra.Command{
		Use: "restore [FILE]", Short: "Restore a backup, or get contracts back from descriptors", Args: cobra.MaximumNArgs(1),
		Long: `relay restore FILE restores what relay backup wrote, into a folder in which nothing was done yet. If there is no key file it asks for the
24 words, on the terminal or from standard input, and for a new passphrase. All of the backup is checked before anything is changed.
--relay ADDRESS, in such a folder, takes the newest backup that relay backup --to-relays left there.

In a folder that is used, contracts are taken in from their descriptors: from a file, contracts.backup of another disk, or from
relays where this program left them sealed for you; with neither, all your relays are asked. Then it looks at the chain, and refunds each
whose time has come; the others are watched whenever relay runs. That needs relay wallet connect.`,
		Example: "  relay restore /media/stick/relay.backup\n  relay restore --relay relay.example\n  relay restore contracts.backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (len(files) > 0 || len(relays) > 0) {
				return usagef("give one FILE, or --file and --relay")
			}
			for _, path := range slices.Concat(args, files) {
				if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("there is no file %s", path)
				}
				if !backup.Is(path) {
					continue
				}
				if len(files)+len(relays)+len(args) > 1 {
					return usagef("%s is a backup of everything: restore it alone", path)
				}
				return p.restoreAll(cmd.Context(), path)
			}
			if len(relays) > 0 && len(files) == 0 {
				if done, err := p.restoreFromRelays(cmd.Context(), relays); done || err != nil {
					return err
				}
			}
			err := p.restore(cmd.Context(), slices.Concat(args, files), relays)
			if errors.Is(err, userside.ErrNoNode) {
				err = fmt.Errorf("contracts are looked for here, not a backup, which goes to a folder that was not used (--dir NEW-FOLDER): %w", err)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&files, "file", nil, "a file of descriptors")
	cmd.Flags().StringArrayVar(&relays, "relay", nil, "address of a relay where a backup is")
	return cmd
}

// restoredLine is one restored contract in JSON.
type restoredLine struct {
	ID    string  `json:"id"`
	Fresh bool    `json:"fresh"`
	Error *string `json:"error"`
}

func (p *program) restore(ctx context.Context, files, relays []string) error {
	return p.withMoney(ctx, func(m *money) error {
		documents, failures := m.documents(ctx, files, relays)
		addresses, err := m.addresses(ctx)
		if err != nil {
			return err
		}
		restored, err := m.manager.Restore(ctx, documents, func(key protocol.PublicKey) string { return addresses[key] })
		if err != nil {
			return err
		}
		if err := m.manager.Step(ctx); err != nil {
			failures = append(failures, err)
		}
		p.tell(ctx, m.store)
		if len(restored) == 0 && len(failures) > 0 && !p.json {
			return errors.Join(failures...)
		}
		return errors.Join(append([]error{p.showRestored(restored)}, failures...)...)
	})
}

// documents reads all that can be read.
func (m *money) documents(ctx context.Context, files, relays []string) (all [][]byte, failures []error) {
	for _, file := range files {
		found, err := userside.ReadBackup(file, m.client.Key())
		if err != nil {
			failures = append(failures, err)
		}
		all = append(all, found...)
	}
	if len(files)+len(relays) == 0 {
		own, err := m.client.Relays(ctx)
		if err == nil && len(own) == 0 {
			err = fmt.Errorf("%w, or give --file FILE or --relay ADDRESS", client.ErrNoRelays)
		}
		if err != nil {
			failures = append(failures, err)
		}
		for _, r := range own {
			relays = append(relays, r.Address)
		}
	}
	for _, address := range relays {
		found, err := m.client.KeptContracts(ctx, address)
		if err != nil {
			failures = append(failures, err)
		}
		all = append(all, found...)
	}
	return all, failures
}

// addresses are where the relays are that this folder knows.
func (m *money) addresses(ctx context.Context) (map[protocol.PublicKey]string, error) {
	own, err := m.client.Relays(ctx)
	found := map[protocol.PublicKey]string{}
	for _, r := range own {
		found[r.Key] = r.Address
	}
	return found, err
}

func (p *program) showRestored(restored []userside.Restored) error {
	lines := make([]restoredLine, 0, len(restored))
	fresh := 0
	for _, r := range restored {
		line := restoredLine{ID: r.ID.String(), Fresh: r.Fresh}
		if r.Err != nil {
			text := r.Err.Error()
			line.Error = &text
			if !p.json {
				p.complain("relay: a document was not taken: %s\n", escape(text))
			}
		}
		if r.Fresh {
			fresh++
		}
		lines = append(lines, line)
	}
	if p.json {
		return p.printJSON(map[string]any{"restored": lines})
	}
	return p.say("%s found, %d of them new here. See: relay contract list\n", count(len(restored), "document"), fresh)
}
