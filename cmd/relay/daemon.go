package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/client/daemon"
	"relaymarket/client/daemon/localapi"
	"relaymarket/client/keyagent"
	"relaymarket/client/keyfile"
	"relaymarket/internal/atomicfile"
)

// daemonOptions say how a daemon runs.
type daemonOptions struct {
	poll, heal time.Duration
	log        string
	wait       bool
}

func (p *program) daemonCommand() *cobra.Command {
	o := daemonOptions{}
	cmd := &cobra.Command{
		Use: "daemon", Short: "Stay, and have messages come and go by themselves", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: `Listens to your friends' relays, sends what waits, puts back what your relays lose, or never had because they are new, looks after
contracts as relay contract watch does, and logs what messages of yours expire unread. The other commands notice it and have it do their work, with the keys unlocked and
the connections open: they do the same, faster. --no-daemon keeps one from it.

It asks for the passphrase when it starts, unless it gets it from --passphrase-file, $RELAY_PASSPHRASE or relay unlock; with --wait it waits for
relay unlock. It keeps the keys in its memory until it ends: with relay daemon stop, Ctrl-C or SIGTERM. What was being sent then stays
queued. It may be killed: nothing is lost.

relay daemon install has systemd start it when you log in.`,
		Example: "  relay daemon\n  relay daemon --passphrase-file ~/.relay-passphrase --log json\n  relay daemon status\n  relay daemon install --wait",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.runDaemon(cmd.Context(), o) },
	}
	flags := cmd.PersistentFlags()
	flags.DurationVar(&o.poll, "poll", daemon.DefaultPollEvery, "how often relays are asked for what listening missed, about")
	flags.DurationVar(&o.heal, "heal", daemon.DefaultHealEvery, "how often your relays are asked what they lost, about")
	flags.StringVar(&o.log, "log", "text", "form of the log on standard error: text or json")
	flags.BoolVar(&o.wait, "wait", false, "wait for relay unlock if there is no passphrase")
	cmd.AddCommand(p.daemonStatusCommand(), p.daemonStopCommand(), p.daemonUnitCommand(&o), p.daemonInstallCommand(&o))
	return cmd
}

func (o *daemonOptions) check() error {
	switch {
	case o.log != "text" && o.log != "json":
		return usagef("--log is text or json")
	case o.poll < time.Second || o.heal < time.Second:
		return usagef("--poll and --heal are a second or more")
	}
	return nil
}

func (p *program) runDaemon(ctx context.Context, o daemonOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	dir, err := p.folder()
	if err != nil {
		return err
	}
	// Asked first, so that nobody types a passphrase for nothing. The daemon itself asks again, and then holds it.
	if pid, running, err := daemon.Running(dir); err == nil && running {
		return &daemon.RunningError{Folder: dir, PID: pid}
	}
	log := p.daemonLog(o.log)
	notify := p.getenv("NOTIFY_SOCKET")
	seed, err := p.daemonSeed(ctx, dir, o.wait, func() {
		log.Info("the keys are locked: waiting for relay unlock")
		daemon.Notify(notify, "READY=1", "STATUS=The keys are locked: run relay unlock")
	})
	if err != nil {
		return err
	}
	h := &host{dir: dir, seed: seed, log: log}
	if h.client, err = p.openWith(ctx, dir, seed); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	settings, err := p.settings()
	if err != nil {
		return err
	}
	boundMemory()
	h.daemon = daemon.New(daemon.Config{
		Client: h.client, Folder: dir, RuntimeFolder: p.getenv("XDG_RUNTIME_DIR"), Settings: settings, Run: h.run,
		Tasks:     []daemon.Task{{Name: "contracts", Run: h.contracts}},
		PollEvery: o.poll, HealEvery: o.heal, Logger: log,
		Ready: func() { daemon.Notify(notify, "READY=1", "STATUS=Running") },
	})
	err = h.daemon.Run(ctx)
	daemon.Notify(notify, "STOPPING=1")
	return err
}

func (p *program) daemonLog(form string) *slog.Logger {
	o := &slog.HandlerOptions{}
	if p.verbose {
		o.Level = slog.LevelDebug
	}
	if form == "json" {
		return slog.New(slog.NewJSONHandler(p.err, o))
	}
	return slog.New(slog.NewTextHandler(p.err, o))
}

// unlockedEvery is how often a daemon that waits looks whether the keys are unlocked.
const unlockedEvery = time.Second

// daemonSeed gets the secret as every command does; or it waits for relay unlock, and says so by waiting.
func (p *program) daemonSeed(ctx context.Context, dir string, wait bool, waiting func()) (*keyfile.Seed, error) {
	given, err := p.givenPassphrase()
	if err != nil {
		return nil, err
	}
	given.Wipe()
	if given != nil || !wait {
		return p.seed(ctx, dir)
	}
	if _, err := keyfile.Inspect(filepath.Join(dir, keyFileName)); err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		seed, err := p.fetch(ctx, dir)
		if err == nil || !errors.Is(err, keyagent.ErrNotRunning) {
			return seed, err
		}
		if !told {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, exitError{code: 0} // ended by the user
		case <-time.After(unlockedEvery):
		}
	}
}

func (p *program) daemonStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what the daemon does", Args: cobra.NoArgs,
		Long:    "Shows what the daemon does. If none runs, the exit code is 3.",
		Example: "  relay daemon status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := p.findDaemon()
			if err != nil {
				return err
			}
			defer at.Close()
			s, err := at.Status(cmd.Context())
			if err != nil {
				return notRunning(err)
			}
			if p.json {
				return p.printJSON(s)
			}
			return p.showDaemon(s)
		},
	}
}

func (p *program) showDaemon(s *localapi.Status) error {
	local := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
	err := p.say("Process:  %d, since %s\nFolder:   %s\nWaiting:  %s\n\n", s.Pid, local(s.Started), s.Folder, count(s.Waiting, "message"))
	if err != nil {
		return err
	}
	rows := [][]string{{"RELAY", "STATE", "SINCE", "NOTE"}}
	for _, r := range s.Relays {
		state, note := "listening", ""
		if !r.Listening {
			state = "not listening"
		}
		if r.Error != nil {
			note = escape(*r.Error)
		}
		rows = append(rows, []string{escape(r.Address), state, local(r.Since), note})
	}
	if len(rows) > 1 {
		if err := errors.Join(p.table(rows), p.say("\n")); err != nil {
			return err
		}
	}
	rows = [][]string{{"TASK", "LAST", "NOTE"}}
	for _, t := range s.Tasks {
		last, note := "", ""
		if t.Last != nil {
			last = local(*t.Last)
		}
		if t.Error != nil {
			note = strings.ReplaceAll(escapeText(*t.Error), "\n", "; ")
		}
		rows = append(rows, []string{t.Name, last, note})
	}
	return p.table(rows)
}

func (p *program) findDaemon() (*daemon.Caller, error) {
	dir, err := p.folder()
	if err != nil {
		return nil, err
	}
	at, err := daemon.Find(dir, p.getenv("XDG_RUNTIME_DIR"))
	return at, notRunning(err)
}

func notRunning(err error) error {
	if errors.Is(err, daemon.ErrNotRunning) {
		return exitError{exitNothing, err}
	}
	return err
}

// stopTime is how long a daemon may take to end.
const stopTime = 30 * time.Second

func (p *program) daemonStopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "End the daemon", Args: cobra.NoArgs,
		Long:    "Ends the daemon, and returns when it has ended. What was being sent stays queued. If none runs, the exit code is 3.",
		Example: "  relay daemon stop",
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := p.findDaemon()
			if err != nil {
				return err
			}
			defer at.Close()
			process, err := at.Stop(cmd.Context())
			if err != nil {
				return notRunning(err)
			}
			if err := p.awaitEnd(cmd.Context(), process.Pid); err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]int{"stopped": process.Pid})
			}
			return p.say("Stopped process %d.\n", process.Pid)
		},
	}
}

func (p *program) awaitEnd(ctx context.Context, pid int) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	defer p.busy("waiting for it to end")()
	for started := time.Now(); time.Since(started) < stopTime; {
		now, running, err := daemon.Running(dir)
		if err != nil || !running || now != pid {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("process %d has not ended yet: it may be killed, and nothing is lost by that", pid)
}

func (p *program) daemonUnitCommand(o *daemonOptions) *cobra.Command {
	return &cobra.Command{
		Use: "unit", Short: "Print a systemd unit that runs the daemon", Args: cobra.NoArgs,
		Long:    "Prints what relay daemon install writes, with the flags that are given here.",
		Example: "  relay daemon unit --wait",
		RunE: func(*cobra.Command, []string) error {
			unit, err := p.unit(o)
			if err != nil {
				return err
			}
			return p.say("%s", unit)
		},
	}
}

// unit is the systemd unit of a daemon with the flags that were given to this command.
func (p *program) unit(o *daemonOptions) (string, error) {
	if err := o.check(); err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err := p.folder()
	if err != nil {
		return "", err
	}
	argv := []string{self, "--dir", dir}
	if p.passphraseFile != "" {
		file, err := filepath.Abs(p.passphraseFile)
		if err != nil {
			return "", err
		}
		argv = append(argv, "--passphrase-file", file)
	}
	if proxy, err := p.proxyURL(); err != nil {
		return "", err
	} else if proxy != nil && proxy.User != nil {
		return "", usagef("a proxy's password does not belong in a unit: set RELAY_PROXY there by hand (systemctl --user edit relay)")
	} else if proxy != nil {
		argv = append(argv, "--proxy", proxy.String())
	}
	argv = append(argv, "daemon", "--log", o.log, "--poll", o.poll.String(), "--heal", o.heal.String())
	if p.passphraseFile == "" {
		argv = append(argv, "--wait") // nobody can be asked there
	}
	return daemon.Unit(argv)
}

func (p *program) daemonInstallCommand(o *daemonOptions) *cobra.Command {
	return &cobra.Command{
		Use: "install", Short: "Have systemd start the daemon when you log in", Args: cobra.NoArgs,
		Long: `Writes ~/.config/systemd/user/relay.service, with the flags that are given here, and says what to type then. Without --passphrase-file the
daemon waits, each time, for relay unlock.`,
		Example: "  relay daemon install\n  relay daemon install --passphrase-file ~/.relay-passphrase",
		RunE: func(*cobra.Command, []string) error {
			unit, err := p.unit(o)
			if err != nil {
				return err
			}
			return p.install(unit)
		},
	}
}

func (p *program) install(unit string) error {
	config, err := os.UserConfigDir()
	if err != nil {
		return usagef("there is no configuration folder (%v)", err)
	}
	folder := filepath.Join(config, "systemd", "user")
	path := filepath.Join(folder, daemon.UnitName)
	if data, err := os.ReadFile(path); err == nil && !strings.HasPrefix(string(data), daemon.UnitMark) {
		return fmt.Errorf("%s is there already, and not from this program: rename it, or compare it with relay daemon unit", path)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := atomicfile.Replace(path, []byte(unit)); err != nil {
		return err
	}
	commands := []string{"systemctl --user daemon-reload", "systemctl --user enable --now relay", "journalctl --user -u relay -f"}
	if p.passphraseFile == "" {
		commands = append(commands, "relay unlock")
	}
	if p.json {
		return p.printJSON(map[string]any{"unit": path, "commands": commands})
	}
	text := "Wrote " + path + ". Now type:\n\n  " + strings.Join(commands[:2], "\n  ") + "\n"
	if p.passphraseFile == "" {
		text += "  relay unlock                     (it waits for that, also after each start)\n"
	}
	return p.say("%s\nWhat it does: %s\nTo have it run while you are not logged in: loginctl enable-linger\n", text, commands[2])
}
