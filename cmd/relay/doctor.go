package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/client"
	"relaymarket/client/daemon"
	"relaymarket/client/doctor"
	"relaymarket/client/keyagent"
	"relaymarket/client/state"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

func (p *program) doctorCommand() *cobra.Command {
	timeout := time.Minute
	var offline bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong or will be, and say what to do", Args: cobra.NoArgs,
		Long: `Looks at your key file, your folder and its databases, the disk, backups, what waits to be sent or expires, limits, the proxy; asks your
relays whether they are there, and compares clocks and certificates. If your keys are unlocked it asks for your accounts, too; it asks for no
passphrase. It changes nothing. Each finding that is not ok says what to do.

Exit codes: 0 nothing is broken, there may be warnings; 1 something is.`,
		Example: "  relay doctor\n  relay doctor --offline --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 || timeout > time.Hour {
				return usagef("--timeout is more than zero and at most 1h")
			}
			return p.doctor(cmd.Context(), offline, timeout)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "ask nobody")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to look at most")
	return cmd
}

// examination is one run of doctor.
type examination struct {
	p       *program
	dir     string
	offline bool
	all     []doctor.Finding
	done    func() // takes away what is shown as under way
}

func (x *examination) begin(what string) {
	x.done()
	x.done = x.p.busy(what)
}

func (x *examination) add(findings ...doctor.Finding) { x.all = append(x.all, findings...) }

func (p *program) doctor(ctx context.Context, offline bool, timeout time.Duration) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	x := &examination{p: p, dir: dir, offline: offline, done: func() {}}
	x.add(doctor.Keys(filepath.Join(dir, keyFileName)), doctor.Folder(dir), x.agent(limited), x.daemon(limited), doctor.Limits())
	x.begin("looking through the databases")
	half, stop := context.WithTimeout(limited, timeout/2) // the rest is for the network
	x.add(doctor.Databases(half, dir)...)
	stop()
	x.state(limited)
	x.contracts(limited)
	x.network(limited)
	x.done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return p.showFindings(x.all)
}

// agent tells whether the keys are unlocked.
func (x *examination) agent(ctx context.Context) doctor.Finding {
	socket, err := x.p.socket(x.dir)
	if err == nil {
		var state keyagent.State
		if state, err = keyagent.Status(ctx, socket); err == nil {
			return doctor.Finding{Check: "agent", Level: doctor.OK, Text: fmt.Sprintf("your keys are unlocked for %s", state.Remaining.Truncate(time.Minute))}
		}
	}
	if errors.Is(err, keyagent.ErrNotRunning) || errors.Is(err, keyagent.ErrUnsupported) {
		return doctor.Finding{Check: "agent", Level: doctor.OK, Text: "your keys are locked; relay unlock asks for the passphrase once for some hours"}
	}
	return doctor.Finding{Check: "agent", Level: doctor.Warn, Text: err.Error(), Do: "relay lock; relay unlock"}
}

// daemon tells whether one runs, and answers.
func (x *examination) daemon(ctx context.Context) doctor.Finding {
	const stop = "relay daemon stop; relay daemon"
	pid, running, err := daemon.Running(x.dir)
	switch {
	case err != nil:
		return doctor.Finding{Check: "daemon", Level: doctor.Warn, Text: err.Error(), Do: stop}
	case !running:
		return doctor.Finding{Check: "daemon", Level: doctor.OK, Text: "none runs: messages come and go when you run a command (relay daemon --help)"}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	at, err := daemon.Find(x.dir, x.p.getenv("XDG_RUNTIME_DIR"))
	if err == nil {
		defer at.Close()
		_, err = at.Status(ctx)
	}
	if err != nil {
		return doctor.Finding{Check: "daemon", Level: doctor.Warn, Text: fmt.Sprintf("process %d does not answer: %v", pid, err), Do: stop}
	}
	return doctor.Finding{Check: "daemon", Level: doctor.OK, Text: fmt.Sprintf("process %d runs and answers", pid)}
}

// state looks at what the state says. That it cannot be opened was said, if it is damaged.
func (x *examination) state(ctx context.Context) {
	s, err := state.Open(ctx, state.Config{Path: filepath.Join(x.dir, client.StateFile)})
	if errors.Is(err, state.ErrNone) {
		return
	}
	if errors.Is(err, state.ErrNewer) {
		x.add(doctor.Finding{Check: "state", Level: doctor.Fail, Text: err.Error(), Do: "install the newest version of relay"})
		return
	}
	now := time.Now()
	if err != nil {
		x.add(doctor.Disk(x.dir, state.Health{}, now)) // it may be why
		return
	}
	defer s.Close()
	h, err := s.Health(ctx)
	if err != nil {
		x.add(doctor.Finding{Check: "state", Level: doctor.Fail, Text: err.Error(), Do: "restore the folder from a backup: relay --dir NEW-FOLDER restore BACKUP"})
		return
	}
	expiring, err := s.Expiring(ctx, false)
	if err != nil {
		x.add(doctor.Finding{Check: "outbox", Level: doctor.Fail, Text: err.Error(), Do: "relay outbox"})
	}
	x.add(doctor.Disk(x.dir, h, now), doctor.Backup(ctx, s, now, x.precious(ctx)))
	x.add(doctor.Queue(h, len(expiring), now)...)
}

// precious tells whether there are contracts that may hold money.
func (x *examination) precious(ctx context.Context) bool {
	store, err := x.p.contractStore(ctx, nil)
	if err != nil {
		return false
	}
	defer store.Close()
	n, err := store.Unfinished(ctx)
	return err == nil && n > 0
}

// contracts looks at contracts, and asks the Bitcoin node how near their ends are.
func (x *examination) contracts(ctx context.Context) {
	store, err := x.p.contractStore(ctx, nil)
	if err != nil {
		return // there are none, or the databases said so
	}
	defer store.Close()
	records, err := store.Contracts(ctx)
	if err != nil || len(records) == 0 {
		return
	}
	x.add(doctor.Contracts(records, x.tip(ctx, store))...)
}

// tip is the height of the chain, 0 if the node does not say.
func (x *examination) tip(ctx context.Context, store *userside.Store) uint32 {
	if x.offline {
		return 0
	}
	x.begin("asking the Bitcoin node")
	settings, err := readNode(ctx, store)
	if err != nil {
		return 0
	}
	node, err := settings.client()
	if err != nil {
		x.add(doctor.Finding{Check: "node", Level: doctor.Fail, Text: err.Error(), Do: "name it again: relay wallet connect --help"})
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tip, err := node.Tip(ctx)
	if err != nil {
		x.add(doctor.Finding{Check: "node", Level: doctor.Fail, Text: err.Error(), Do: "start the Bitcoin node; or name another: relay wallet connect --help"})
		return 0
	}
	x.add(doctor.Finding{Check: "node", Level: doctor.OK, Text: fmt.Sprintf("%s is at block %d", settings.Host, tip.Height)})
	return tip.Height
}

// network looks at the proxy and at the relays, all at once.
func (x *examination) network(ctx context.Context) {
	if x.offline {
		return
	}
	proxy, err := x.p.proxyURL()
	if err != nil {
		x.add(doctor.Finding{Check: "proxy", Level: doctor.Fail, Text: err.Error(), Do: "write --proxy socks5://host:port, or set $RELAY_PROXY so"})
		return
	}
	x.add(doctor.Proxy(ctx, proxy))
	c, unlocked := x.client(ctx)
	if c == nil {
		return
	}
	defer c.Close()
	relays, err := c.Relays(ctx)
	if err != nil || len(relays) == 0 {
		x.add(doctor.Finding{Check: "relay", Level: doctor.Warn, Text: "you use no relay: nobody can write to you, nor you to anybody", Do: "relay relays add ADDRESS, or see the market: relay market"})
		return
	}
	x.begin("asking your relays")
	findings := make([][]doctor.Finding, len(relays))
	var each sync.WaitGroup
	places := make(chan struct{}, 16)
	for i, r := range relays {
		each.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			findings[i] = doctor.Relay(ctx, r, proxy, time.Now)
			if unlocked {
				findings[i] = append(findings[i], doctor.Account(ctx, c, r, time.Now())...)
			}
		})
	}
	each.Wait()
	x.add(slices.Concat(findings...)...)
	if !unlocked {
		x.add(doctor.Finding{Check: "account", Level: doctor.Skipped, Text: "your accounts were not looked at: the keys are locked", Do: "relay unlock; relay doctor"})
	}
}

// client is the state with the keys if they can be had without asking, else without them; nil if there is none.
func (x *examination) client(ctx context.Context) (c *client.Client, unlocked bool) {
	if seed, err := x.p.fetch(ctx, x.dir); err == nil {
		defer seed.Wipe()
		if c, err := x.p.openWith(ctx, x.dir, seed); err == nil {
			return c, true
		}
	}
	if x.p.passphraseFile != "" || x.p.getenv("RELAY_PASSPHRASE") != "" {
		if c, err := x.p.openKeys(ctx); err == nil {
			return c, true
		} else if !errors.Is(err, client.ErrNoState) {
			x.add(doctor.Finding{Check: "keys", Level: doctor.Fail, Text: err.Error(), Do: advice(err)})
		}
	}
	c, err := x.p.open(ctx)
	if err != nil {
		return nil, false
	}
	return c, false
}

func (p *program) showFindings(all []doctor.Finding) error {
	worst := doctor.Worst(all)
	if p.json {
		if err := p.printJSON(map[string]any{"worst": worst, "at": stamp(protocol.TimestampOf(time.Now())), "findings": all}); err != nil {
			return err
		}
	} else if err := p.sayFindings(all); err != nil {
		return err
	}
	if worst == doctor.Fail {
		return exitError{code: exitFailed}
	}
	return nil
}

func (p *program) sayFindings(all []doctor.Finding) error {
	counts := map[doctor.Level]int{}
	for _, f := range all {
		counts[f.Level]++
		if err := p.say("%-8s%-12s%s\n", f.Level, f.Check, escape(f.Text)); err != nil {
			return err
		}
		if f.Do != "" && f.Level != doctor.OK {
			if err := p.say("%20s→ %s\n", "", escape(f.Do)); err != nil {
				return err
			}
		}
	}
	words := []string{fmt.Sprintf("%d ok", counts[doctor.OK])}
	for _, l := range []doctor.Level{doctor.Warn, doctor.Fail, doctor.Skipped} {
		if counts[l] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[l], l))
		}
	}
	return p.say("\n%s\n", strings.Join(words, ", "))
}
