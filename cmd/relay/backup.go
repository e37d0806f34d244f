package main

import (
	"context"
	"errors"
	"runtime/debug"

	"github.com/spf13/cobra"

	"relaymarket/client/backup"
	"relaymarket/client/keyfile"
	"relaymarket/escrow/userside"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
)

func (p *program) backupCommand() *cobra.Command {
	var check, relays bool
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Back up what your 24 words cannot give back, and prove it", Args: cobra.MaximumNArgs(1),
		Long: `Writes all that your 24 words cannot give back to one file: contracts and what was paid on them, friends, messages, what waits to be
sent, settings, relays. Other relay commands may go on meanwhile. The file is encrypted with a key that your words make: with the words
you can restore it, without them nobody can. Your keys are not in it.

Before the file gets its name its restore is rehearsed: it is decrypted, unpacked beside your folder, compared, opened, and the keys of
your contracts are made again. A backup that was at FILE stays until then. --check does the same with a file that is there.

--to-relays leaves the same, sealed for you, on your relays for 90 days.`,
		Example: "  relay backup /media/stick/relay.backup\n  relay backup --to-relays\n  relay backup --check /media/stick/relay.backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if len(args) == 1 {
				path = args[0]
			}
			switch {
			case check && relays:
				return usagef("--check is for a file")
			case path == "" && !relays:
				return usagef("name the file to write, on another disk than this one; or give --to-relays")
			case check:
				return p.checkBackup(cmd.Context(), path)
			}
			return p.backup(cmd.Context(), path, relays)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "only rehearse the restore of a file that is there")
	cmd.Flags().BoolVar(&relays, "to-relays", false, "leave it on your relays, too")
	return cmd
}

// backupConfig is what package backup needs of the keys. The caller wipes the secret.
func (p *program) backupConfig(dir string, seed *keyfile.Seed) (c backup.Config, end func(), err error) {
	secret, err := seed.Identity()
	if err != nil {
		return c, nil, err
	}
	defer secret.Wipe()
	identity, err := protocol.NewPrivateKey(secret)
	if err != nil {
		return c, nil, err
	}
	c = backup.Config{Dir: dir, Owner: identity.Public(), Program: "(unknown)"}
	if info, ok := debug.ReadBuildInfo(); ok {
		c.Program = info.Main.Version
	}
	if c.Secret, err = seed.Backup(); err != nil {
		return c, nil, err
	}
	branch, err := seed.Bitcoin()
	if err != nil {
		return c, nil, err
	}
	c.Keys = userside.BranchKeys{Branch: branch}
	done := func() {}
	c.Progress = func(step string) {
		done()
		done = p.busy(step)
	}
	return c, func() { done(); done = func() {}; branch.Zero(); c.Secret.Wipe() }, nil
}

func (p *program) backup(ctx context.Context, path string, relays bool) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	seed, err := p.seed(ctx, dir)
	if err != nil {
		return err
	}
	defer seed.Wipe()
	c, end, err := p.backupConfig(dir, seed)
	if err != nil {
		return err
	}
	defer end()
	var file, onRelays *backup.Report
	if path != "" {
		if file, err = backup.Write(ctx, c, path); err != nil {
			return err
		}
	}
	if relays {
		if onRelays, err = p.backupToRelays(ctx, dir, seed, c); err != nil {
			if file != nil && !p.json {
				err = errors.Join(p.showBackup("Wrote", file), err)
			}
			return err
		}
	}
	end() // what shows progress, too
	return p.showBackups(file, onRelays)
}

// showBackups shows what was written where; nil is nowhere.
func (p *program) showBackups(file, onRelays *backup.Report) error {
	if !p.json {
		var failures []error
		for _, each := range []struct {
			verb   string
			report *backup.Report
		}{{"Wrote", file}, {"Left on", onRelays}} {
			if each.report != nil {
				failures = append(failures, p.showBackup(each.verb, each.report))
			}
		}
		return errors.Join(failures...)
	}
	written := map[string]*backupResult{"file": nil, "relays": nil}
	faults := 0
	for name, report := range map[string]*backup.Report{"file": file, "relays": onRelays} {
		if report != nil {
			result := backupJSON(report)
			written[name] = &result
			faults += len(report.Faults)
		}
	}
	if err := p.printJSON(written); err != nil || faults == 0 {
		return err
	}
	return exitError{code: exitPartial}
}

func (p *program) checkBackup(ctx context.Context, path string) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	seed, err := p.seed(ctx, dir)
	if err != nil {
		return err
	}
	defer seed.Wipe()
	c, end, err := p.backupConfig(dir, seed)
	if err != nil {
		return err
	}
	defer end()
	report, err := backup.Check(ctx, c, path)
	if err != nil {
		return err
	}
	return p.showBackup("Rehearsed", report)
}

// backupResult is what backup and restore print of a backup with --json.
type backupResult struct {
	File      string           `json:"file"`
	Bytes     int64            `json:"bytes"`
	SHA256    string           `json:"sha256"`
	Taken     *string          `json:"taken"`
	Rehearsed bool             `json:"rehearsed"`
	Checks    []string         `json:"checks"`
	Faults    []string         `json:"faults"`
	Rows      map[string]int64 `json:"rows"` // of the state's tables
	Contracts int              `json:"contracts"`
}

func backupJSON(r *backup.Report) backupResult {
	result := backupResult{File: r.Path, Bytes: r.Bytes, SHA256: r.SHA256.String(), Taken: stamp(r.Manifest.Taken), Rehearsed: true,
		Checks: r.Checks, Faults: r.Faults, Contracts: r.Contracts}
	if result.Faults == nil {
		result.Faults = []string{}
	}
	for _, f := range r.Manifest.Files {
		if f.Name == backup.StateFile {
			result.Rows = f.Rows
		}
	}
	return result
}

// showBackup shows what was proven. A contract that could not be is a failure of a part.
func (p *program) showBackup(verb string, r *backup.Report) error {
	var err error
	if p.json {
		err = p.printJSON(backupJSON(r))
	} else {
		proof := "The restore was rehearsed:"
		if verb == restoredVerb {
			proof = "Before that it was proven:"
		}
		err = p.say("%s %s, %s, taken %s.\n%s\n", verb, r.Path, bytesize.Text(r.Bytes), when(r.Manifest.Taken), proof)
		for _, check := range r.Checks {
			if err == nil {
				err = p.say("  ok  %s\n", escape(check))
			}
		}
	}
	if err != nil || len(r.Faults) == 0 {
		return err
	}
	if !p.json {
		for _, fault := range r.Faults {
			p.complain("relay: %s\n", escape(fault))
		}
	}
	return exitError{code: exitPartial}
}

// backupToRelays leaves a backup on the user's relays.
func (p *program) backupToRelays(ctx context.Context, dir string, seed *keyfile.Seed, c backup.Config) (*backup.Report, error) {
	at, err := p.openWith(ctx, dir, seed)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	report, parts, err := backup.Leave(ctx, c, at)
	if err != nil {
		return nil, err
	}
	report.Path = "your relays, in " + count(parts, "part")
	return report, nil
}
