package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/client/daemon"
	"relaymarket/client/keyagent"
	"relaymarket/client/keyfile"
)

func (p *program) unlockCommand() *cobra.Command {
	duration := 8 * time.Hour
	cmd := &cobra.Command{
		Use: "unlock", Short: "Ask for the passphrase once, for some hours", Args: cobra.NoArgs,
		Example: "  relay unlock\n  relay unlock --for 30m",
		Long: `Keeps your keys in the memory of a process in the background, so that other commands do not ask for the
passphrase. It ends by itself when the time is over, or with "relay lock".`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.unlock(cmd.Context(), duration) },
	}
	cmd.Flags().DurationVar(&duration, "for", duration, "how long, at most 168h")
	return cmd
}

// lockState is what unlock prints with --json.
type lockState struct {
	Unlocked bool       `json:"unlocked"`
	Until    *time.Time `json:"until,omitempty"`
}

func (p *program) unlock(ctx context.Context, duration time.Duration) error {
	if duration <= 0 || duration > keyagent.MaxDuration {
		return usagef("--for is more than zero and at most %s", keyagent.MaxDuration)
	}
	dir, err := p.folder()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, keyFileName)
	if _, err := keyfile.Inspect(path); err != nil {
		return err
	}
	socket, err := p.socket(dir)
	if err != nil {
		return err
	}
	passphrase, err := p.passphrase("Passphrase: ")
	if err != nil {
		return err
	}
	defer passphrase.Wipe()
	document, err := keyfile.Open(path, passphrase)
	if err != nil {
		return err
	}
	defer document.Wipe()
	entropy, err := document.Seed.Entropy()
	if err != nil {
		return err
	}
	defer clear(entropy)
	state, err := keyagent.Spawn(ctx, keyagent.SpawnConfig{
		Argv: []string{"relay", "agent", "--socket", socket, "--for", duration.String()}, Socket: socket, Secret: entropy,
	})
	if err != nil {
		return err
	}
	until := time.Now().Add(state.Remaining).Truncate(time.Second)
	if p.json {
		return p.printJSON(lockState{Unlocked: true, Until: &until})
	}
	return p.say("Unlocked until %s. End it with: relay lock\n", until.Format("2006-01-02 15:04"))
}

func (p *program) lockCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lock", Short: "Forget the passphrase that unlock keeps", Args: cobra.NoArgs,
		Example: "  relay lock",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := p.folder()
			if err != nil {
				return err
			}
			socket, err := p.socket(dir)
			if err != nil {
				return err
			}
			// Not running is what was wanted.
			if err := keyagent.Lock(cmd.Context(), socket); err != nil && !errors.Is(err, keyagent.ErrNotRunning) {
				return err
			}
			if pid, running, err := daemon.Running(dir); err == nil && running {
				p.complain("The daemon, process %d, still has your keys. To end it, too: relay daemon stop\n", pid)
			}
			if p.json {
				return p.printJSON(lockState{})
			}
			return p.say("Locked.\n")
		},
	}
}

// agentCommand is the other half of unlock, which starts it.
func (p *program) agentCommand() *cobra.Command {
	var config keyagent.Config
	cmd := &cobra.Command{
		Use: "agent", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return keyagent.ServeSpawned(cmd.Context(), config) },
	}
	cmd.Flags().StringVar(&config.Socket, "socket", "", "")
	cmd.Flags().DurationVar(&config.For, "for", 0, "")
	return cmd
}
