package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/internal/confcheck"
)

// errFindings is for a configuration that has errors, which were told.
var errFindings = errors.New("the configuration has errors")

func (p program) configCheckCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for mistakes in the configuration, and start nothing",
		Long: `check reads the configuration as serve would, from flags, the environment, relayd.toml and
the defaults, shows every value with where it comes from, and then what is wrong: names that
are none, values that exclude each other, ports that are taken twice, addresses that nobody
reaches, certificates that do not fit or end soon, files that others can read. It starts
nothing and asks nobody. Passwords are not shown.

Exit code 0: nothing, or warnings only; 2: errors, with which serve would not start or not
be reached.`,
		Example: "  relayd config check\n  relayd config check --quiet && systemctl reload relayd\n  relayd config check --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := s.findings(s.load(p.environ, cmd.Flags()))
			if err := p.writeCheck(s, found, asJSON, quiet); err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(f confcheck.Finding) bool { return f.Level == confcheck.Error }) {
				return usageError{errFindings}
			}
			return nil
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "only what was found, and nothing if nothing was")
	return cmd
}

// findings are what load found, or, when that is nothing, all the rest.
func (s *settings) findings(loaded error) []confcheck.Finding {
	if loaded == nil {
		return confcheck.Check(s.checked(time.Now()))
	}
	found := []confcheck.Finding{}
	for _, err := range each(loaded) {
		says, do, _ := strings.Cut(err.Error(), ": did you mean ")
		switch {
		case do != "":
			do = "write " + strings.TrimSuffix(do, "?")
		case strings.Contains(says, "is no setting"):
			do = "take it out: relayd config --help lists all settings"
		default:
			do = "change it in relayd.toml, in the environment or on the command line"
		}
		found = append(found, confcheck.Finding{Level: confcheck.Error, Settings: s.namedIn(says), Says: says, Do: do})
	}
	return found
}

// each takes joined errors apart.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// namedIn are the settings that a sentence names, for programs that read it.
func (s *settings) namedIn(says string) []string {
	names := []string{}
	words := strings.FieldsFunc(says, func(r rune) bool { return r == ' ' || r == ':' || r == ',' || r == ';' })
	for _, item := range s.all {
		if slices.Contains(words, item.name) || slices.Contains(words, item.environment()) {
			names = append(names, item.name)
		}
	}
	return names
}

// checked is what of the settings is looked at together.
func (s *settings) checked(now time.Time) confcheck.Config {
	b, m, v := &s.bitcoin, &s.market, &s.volunteer
	c := confcheck.Config{Now: now}
	for _, l := range []confcheck.Listen{{Setting: "listen", Address: s.listen}, {Setting: "operator-listen", Address: s.operatorListen},
		{Setting: "nats-listen", Address: s.natsListen}, {Setting: "hub-listen", Address: m.listen}} {
		if l.Address != "" {
			c.Network.Listens = append(c.Network.Listens, l)
		}
	}
	c.Network.Addresses, c.Network.TrustProxy, c.Network.ACME, c.Network.Own = s.addresses, s.trustProxy, s.tls.acme, s.tls.own
	c.Network.Files = s.tls.certificate != ""
	c.Network.Hubs = len(m.hubs) > 0 || m.isHub()
	c.Limits = confcheck.Limits{RateAddress: s.rateAddress, BurstAddress: s.burstAddress, RateKey: s.rateKey, BurstKey: s.burstKey,
		MaxRequests: s.maxRequests, MaxListeners: s.maxListeners, ListenersPerKey: s.listenersPerKey, OpenFiles: openFiles(),
		BodyTimeout: s.bodyTimeout, ShutdownTimeout: s.shutdownTimeout, DiskFree: int64(s.diskFree), External: s.databaseURL != ""}
	for _, name := range []string{"disk-free", "postgres-bin"} {
		if s.find(name).origin != fromDefault {
			c.Limits.OnlyPrivate = append(c.Limits.OnlyPrivate, name)
		}
	}
	c.Limits.DiskTotal = diskTotal(s.dir)
	c.Business = confcheck.Business{Contracts: b.rpc != "" && b.contracts, OpeningPrice: b.openingPrice, CreditLimit: b.creditLimit,
		Prices: b.storagePrice > 0 || b.bandwidthPrice > 0, VolunteerStored: v.accounts * int64(v.stored)}
	c.Files = s.checkedFiles()
	return c
}

func (s *settings) checkedFiles() confcheck.Files {
	b, m, t := &s.bitcoin, &s.market, &s.tls
	files := confcheck.Files{Folder: s.dir, Config: s.configFile(), Key: s.keyFile(), Secret: s.holdsPassword()}
	named := []confcheck.File{
		{Setting: "tls-cert", Path: t.certificate}, {Setting: "tls-key", Path: t.key, Secret: true},
		{Setting: "hub-certificate", Path: m.certificate}, {Setting: "hub-key", Path: m.key, Secret: true},
		{Setting: "nats-credentials", Path: s.natsCredentials, Secret: true}, {Setting: "hubs-credentials", Path: m.credentials, Secret: true},
		{Setting: "hub-nats-credentials", Path: m.natsCreds, Secret: true},
	}
	if b.rpc != "" {
		named = append(named, confcheck.File{Setting: "bitcoin-password-file", Path: b.passwordFile, Secret: true},
			confcheck.File{Setting: "bitcoin-cookie-file", Path: b.cookieFile, Secret: true}, confcheck.File{Setting: "bitcoin-certificate", Path: b.certificate},
			confcheck.File{Setting: "bitcoin-rpc", Path: s.seedFile(), Secret: true, Do: "run relayd wallet init, or put back your copy"})
	}
	if s.postgresBin != "" && s.databaseURL == "" {
		named = append(named, confcheck.File{Setting: "postgres-bin", Path: filepath.Join(s.postgresBin, "postgres")},
			confcheck.File{Setting: "postgres-bin", Path: filepath.Join(s.postgresBin, "initdb")})
	}
	for _, file := range named {
		if file.Path != "" {
			files.Named = append(files.Named, file)
		}
	}
	if t.certificate != "" {
		files.Pairs = append(files.Pairs, confcheck.Pair{CertSetting: "tls-cert", KeySetting: "tls-key", Certificate: t.certificate, Key: t.key, Public: true})
	}
	if m.certificate != "" {
		files.Pairs = append(files.Pairs, confcheck.Pair{CertSetting: "hub-certificate", KeySetting: "hub-key", Certificate: m.certificate, Key: m.key})
	}
	return files
}

// holdsPassword tells whether a password stands in the file.
func (s *settings) holdsPassword() bool {
	for _, item := range s.all {
		if item.origin != fromFile || item.shown() == item.value.String() {
			continue
		}
		return true // something of it is not shown
	}
	return false
}

// openFiles is how many files a process of this user may have open: Go raises its own limit to the hard one.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Max
}

// diskTotal is the size of the disk that a folder is on, 0 if it is not there.
func diskTotal(folder string) int64 {
	var s syscall.Statfs_t
	if syscall.Statfs(folder, &s) != nil {
		return 0
	}
	return int64(s.Blocks) * int64(s.Bsize)
}

func (p program) writeCheck(s *settings, found []confcheck.Finding, asJSON, quiet bool) error {
	if asJSON {
		return p.writeCheckJSON(s, found)
	}
	if !quiet {
		table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "SETTING\tVALUE\tFROM")
		for _, item := range s.all {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", item.name, item.shown(), item.origin)
		}
		if err := errors.Join(table.Flush(), lineTo(p, "")); err != nil {
			return err
		}
	}
	for _, f := range found {
		if err := lineTo(p, "%s: %s\n  %s", f.Level, f.Says, f.Do); err != nil {
			return err
		}
	}
	if len(found) == 0 && !quiet {
		return lineTo(p, "Nothing is wrong with it.")
	}
	return nil
}

func lineTo(p program, format string, args ...any) error {
	_, err := fmt.Fprintf(p.out, format+"\n", args...)
	return err
}

func (p program) writeCheckJSON(s *settings, found []confcheck.Finding) error {
	type row struct {
		Setting     string `json:"setting"`
		Value       string `json:"value"`
		From        origin `json:"from"`
		Environment string `json:"environment"`
		Live        bool   `json:"live"` // takes effect on SIGHUP
	}
	shown := struct {
		Settings []row               `json:"settings"`
		Findings []confcheck.Finding `json:"findings"`
	}{[]row{}, found}
	for _, item := range s.all {
		shown.Settings = append(shown.Settings, row{item.name, item.shown(), item.origin, item.environment(), isLive(item.name)})
	}
	return json.NewEncoder(p.out).Encode(shown)
}
