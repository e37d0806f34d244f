package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/escrow/wallet"
	"relaymarket/internal/bytesize"
	"relaymarket/internal/localpg"
	"relaymarket/internal/relaybackup"
	"relaymarket/internal/relaynode"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

// backupStamp names a backup in a folder of backups.
const backupStamp = "relayd-20060102-150405"

func (p program) backupCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON, noRehearsal bool
	var rehearseIn string
	cmd := &cobra.Command{
		Use:   "backup TO",
		Short: "Copy everything the relay needs to go on, while it runs, and prove it",
		Long: `backup takes the database of one moment, the relay's key, its configuration, the words
and the wallet, and certificates, into a new folder TO. If TO is there, it makes a
folder in it that is named for the time. The relay may run meanwhile or not.

Then it restores the backup, into a private database that is thrown away, and checks
what came back: every row, the sums of accounts, envelopes, contracts, keys. Only a
backup of which that worked gets its name. Both need room, which is looked for first.

Who has the folder is the relay and has its money: keep it as you keep the relay's
own. relayd restore puts it back.`,
		Example: "  relayd backup /mnt/backups\n  relayd backup /mnt/backups/before-upgrade --json\n  relayd backup /mnt/backups --rehearse-in /var/tmp",
		Args:    oneArg("the folder to make, or one to make it in"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			to, err := backupPlace(args[0], time.Now())
			if err != nil {
				return err
			}
			b := &backingUp{p: p, s: s, to: to, log: p.logger(s), show: p.progressLine()}
			if !noRehearsal {
				b.rehearseIn = rehearseIn
				if b.rehearseIn == "" {
					b.rehearseIn = filepath.Dir(to)
				}
			}
			done, err := b.run(ctx)
			b.show.end()
			if err != nil {
				return err
			}
			return p.sayBackup(done, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "what was done as a JSON object")
	cmd.Flags().BoolVar(&noRehearsal, "no-rehearsal", false, "do not restore it to see whether that works")
	cmd.Flags().StringVar(&rehearseIn, "rehearse-in", "", "folder for the rehearsal's temporary database (default: where the backup is)")
	p.backupFlags(cmd, s)
	return cmd
}

// backupFlags are those that say where the relay and its database are.
func (p program) backupFlags(cmd *cobra.Command, s *settings) {
	s.flags(cmd.Flags(), "dir", "database-url", "postgres-bin", "operator-listen", "bitcoin-network", "log-format", "log-level")
	s.quiet(cmd.Flags())
}

// backupPlace is the folder to make: TO, or a new one in it.
func backupPlace(to string, now time.Time) (string, error) {
	to, err := filepath.Abs(to)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A folder that is missing may be a disk that is not mounted: a backup beside the relay would be none.
		if parent := filepath.Dir(to); !isFolder(parent) {
			return "", usagef("there is no folder %s to make the backup in: make it, or mount its disk", parent)
		}
		return to, nil
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", usagef("%s is a file: a backup is a folder", to)
	}
	if _, err := os.Lstat(filepath.Join(to, "manifest.json")); err == nil {
		return "", usagef("%s is a backup already: name the folder that it is in, or another one", to)
	}
	return filepath.Join(to, now.UTC().Format(backupStamp)), nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// backingUp is a backup under way.
type backingUp struct {
	p          program
	s          *settings
	to         string
	rehearseIn string // empty: no rehearsal
	log        *slog.Logger
	show       *progressLine

	key *protocol.PrivateKey
}

// backupDone is what backup says in the end.
type backupDone struct {
	Backup    string             `json:"backup"`
	Relay     protocol.PublicKey `json:"relay"`
	Taken     protocol.Timestamp `json:"taken"`
	Bytes     int64              `json:"bytes"`
	Files     int                `json:"files"`
	Schema    int64              `json:"schema"`
	Epoch     string             `json:"epoch"`
	TookMs    int64              `json:"tookMs"`
	Rehearsed bool               `json:"rehearsed"`
	Noted     bool               `json:"noted"` // in the database, for doctor and metrics

	RehearsalMs int64              `json:"rehearsalMs,omitempty"`
	Proof       *relaybackup.Proof `json:"proof,omitempty"`
	Contracts   int                `json:"contracts,omitempty"` // live ones, which the keys in the backup can settle
}

func (b *backingUp) run(ctx context.Context) (done *backupDone, err error) {
	if b.key, err = b.s.readKey(); err != nil {
		return nil, err
	}
	database, closeDatabase, err := openForBackup(ctx, b.s, b.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeDatabase()) }()
	files, err := b.files()
	if err != nil {
		return nil, err
	}
	draft, err := relaybackup.Take(ctx, relaybackup.Config{Database: database, BinDir: b.s.postgresBin, Relay: b.key.Public(), Program: version(),
		Files: files, To: b.to, RehearseIn: b.rehearseIn, Clock: time.Now, Report: b.show.report})
	if err != nil {
		return nil, err
	}
	m := draft.Manifest
	done = &backupDone{Backup: b.to, Relay: m.Relay, Taken: m.Taken, Bytes: m.Bytes(), Files: len(m.Files), Schema: m.Database.Schema, Epoch: m.Database.Epoch, TookMs: m.TookMs}
	if b.rehearseIn != "" {
		if err := b.rehearse(ctx, draft, done); err != nil {
			return nil, err
		}
	}
	if err := draft.Keep(); err != nil {
		return nil, errors.Join(err, draft.Drop())
	}
	if done.Noted, err = relaybackup.Note(ctx, database, m); err != nil {
		return nil, fmt.Errorf("the backup is in %s, but that could not be noted in the database: %w", b.to, err)
	}
	return done, nil
}

// rehearse restores the draft. One that cannot be restored is kept under another name, because it may be all there is.
func (b *backingUp) rehearse(ctx context.Context, draft *relaybackup.Draft, done *backupDone) error {
	began := time.Now()
	proof, err := relaybackup.Rehearse(ctx, draft.Folder, relaybackup.Stage{Folder: b.rehearseIn, BinDir: b.s.postgresBin, Report: b.show.report, Logger: b.log,
		Deep: func(ctx context.Context, url, scratch string) (err error) {
			done.Contracts, err = b.deep(ctx, url, scratch)
			return err
		}}, began)
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), draft.Drop())
	}
	if err != nil {
		as, kept := draft.KeepAs(".failed")
		return errors.Join(fmt.Errorf("the backup was made, but it could not be restored, so it is called %s: %w", as, err), kept)
	}
	done.Rehearsed, done.Proof, done.RehearsalMs = true, &proof, time.Since(began).Milliseconds()
	return draft.Proved(time.Now())
}

// deep checks what only the relay's keys can tell: they are those of the restored database and of the wallet's copy.
func (b *backingUp) deep(ctx context.Context, url, scratch string) (contracts int, err error) {
	copied := newSettings(nil)
	copied.dir = scratch
	key, err := copied.readKey()
	if err != nil {
		return 0, err
	}
	if key.Public() != b.key.Public() {
		return 0, errors.New("the key in the backup is another relay's")
	}
	if b.s.bitcoin.rpc == "" {
		return 0, nil
	}
	cfg, err := b.s.bitcoinConfig()
	if err != nil {
		return 0, err
	}
	seed, err := copied.readSeed()
	if err != nil {
		return 0, err
	}
	cfg.Branch, cfg.Birthday = seed.branch, seed.made
	folder := filepath.Join(scratch, "wallet", string(b.s.bitcoin.network))
	if _, err := os.Stat(filepath.Join(folder, wallet.FileName)); err == nil {
		if err := relaynode.CheckWallet(cfg, folder, b.log); err != nil {
			return 0, fmt.Errorf("the wallet in the backup: %w", err)
		}
	}
	return relaynode.CheckContracts(ctx, url, key, cfg, b.log)
}

// files are all that a backup takes beside the database.
func (b *backingUp) files() ([]relaybackup.Source, error) {
	s := b.s
	var all []relaybackup.Source
	for _, path := range []string{s.keyFile(), s.configFile(), s.seedFile(), filepath.Join(s.dir, relaytls.KeyFile), filepath.Join(s.dir, relaytls.CertificateFile)} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		all = append(all, b.own(path))
	}
	certified, err := filesBelow(filepath.Join(s.dir, "acme"))
	if err != nil {
		return nil, err
	}
	for _, path := range certified {
		all = append(all, b.own(path))
	}
	named, err := b.named()
	if err != nil {
		return nil, err
	}
	all = append(all, named...)
	keeps := filepath.Join(s.walletFolder(), wallet.FileName)
	if _, err := os.Stat(keeps); err == nil {
		source := b.own(keeps)
		source.Write = b.copyWallet
		all = append(all, source)
	}
	return all, nil
}

// own is a file of the relay's folder.
func (b *backingUp) own(path string) relaybackup.Source {
	within, err := filepath.Rel(b.s.dir, path)
	if err != nil {
		within = filepath.Base(path) // both are absolute: it does not happen
	}
	return relaybackup.Source{Name: relaybackup.InFolder(within), From: path}
}

// named are the files that settings name, those of the relay's folder under their names there.
func (b *backingUp) named() (all []relaybackup.Source, err error) {
	for _, name := range []string{"tls-cert", "tls-key", "hub-certificate", "hub-key", "bitcoin-password-file", "bitcoin-certificate",
		"nats-credentials", "hubs-credentials", "hub-nats-credentials"} {
		path := b.s.find(name).value.String()
		if path == "" {
			continue
		}
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		source := relaybackup.Source{Name: relaybackup.Elsewhere(name, path), Setting: name, From: path}
		if within, err := filepath.Rel(b.s.dir, path); err == nil && filepath.IsLocal(within) {
			source.Name = relaybackup.InFolder(within)
		}
		if info, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%s names a file that is not there: correct the setting, or bring the file back: %w", name, err)
		} else if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is %s, which is no file: correct the setting", name, path)
		}
		if !taken(all, source.Name) {
			all = append(all, source)
		}
	}
	return all, nil
}

func taken(all []relaybackup.Source, name string) bool {
	for _, s := range all {
		if s.Name == name {
			return true
		}
	}
	return false
}

// filesBelow lists the files of a folder and of those in it; a folder that is not there has none.
func filesBelow(folder string) (files []string, err error) {
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && !strings.HasSuffix(path, ".lock") {
			files = append(files, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return files, err
}

// copyWallet asks the relay that has the wallet open, or copies the file itself when none has.
func (b *backingUp) copyWallet(ctx context.Context, to io.Writer) error {
	err := relaynode.CopyWallet(ctx, dialable(b.s.operatorListen), b.key, to)
	if !errors.Is(err, relaynode.ErrNotRunning) && !errors.Is(err, relaynode.ErrNoWallet) {
		return err
	}
	return wallet.CopyFolder(b.s.walletFolder(), to)
}

// openForBackup is the relay's database, which it starts if it is private and nobody runs it. Unlike other commands it makes none and changes none:
// it is run before an upgrade.
func openForBackup(ctx context.Context, s *settings, log *slog.Logger) (url string, end func() error, err error) {
	if s.databaseURL != "" {
		return s.databaseURL, func() error { return nil }, nil
	}
	cfg := localpg.Config{Dir: s.databaseFolder(), BinDir: s.postgresBin, Logger: log}
	there, err := localpg.HasCluster(cfg)
	if err != nil {
		return "", nil, err
	}
	if !there {
		return "", nil, fmt.Errorf("there is no database in %s yet: relayd serve makes it; or name the relay's folder with --dir", s.databaseFolder())
	}
	cluster, err := localpg.Open(ctx, cfg)
	if err != nil {
		return "", nil, err
	}
	return cluster.URL(), func() error {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return cluster.Stop(stopping)
	}, nil
}

func (p program) sayBackup(d *backupDone, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.out).Encode(d)
	}
	if _, err := fmt.Fprintf(p.out, "%s\n  %s in %d files, of %s, in %s\n", d.Backup, bytesize.Text(d.Bytes), d.Files,
		d.Taken.Time().UTC().Format("2006-01-02 15:04:05Z"), roundTime(d.TookMs)); err != nil {
		return err
	}
	if d.Proof == nil {
		_, err := fmt.Fprintln(p.out, "  NOT rehearsed: whether it can be restored is not known")
		return err
	}
	said := fmt.Sprintf("  restored in %s to see that it can be: %d rows of %d tables, the sums of %d accounts, %d envelopes",
		roundTime(d.RehearsalMs), d.Proof.Rows, d.Proof.Tables, d.Proof.Accounts, d.Proof.Envelopes)
	if d.Contracts > 0 {
		said += fmt.Sprintf(", %d contracts with their keys", d.Contracts)
	}
	if _, err := fmt.Fprintln(p.out, said); err != nil {
		return err
	}
	if !d.Noted {
		_, err := fmt.Fprintln(p.out, "  not noted in the database, whose schema is older than this program: doctor will not know of it")
		return err
	}
	return nil
}

func roundTime(ms int64) time.Duration {
	d := time.Duration(ms) * time.Millisecond
	if d > 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}
