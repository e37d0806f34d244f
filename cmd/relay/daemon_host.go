package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"relaymarket/client"
	"relaymarket/client/daemon"
	"relaymarket/client/keyfile"
)

// host is what a daemon lends to the commands that it runs.
type host struct {
	dir    string
	seed   *keyfile.Seed
	client *client.Client
	daemon *daemon.Daemon
	log    *slog.Logger

	mu    sync.Mutex
	money *money // nil while there are no contracts
}

// moneyEvery is how often a daemon without contracts looks whether there are some.
const moneyEvery = 30 * time.Second

// run runs one command for somebody.
func (h *host) run(ctx context.Context, c *daemon.Command) int {
	var input []byte
	if c.Input != nil {
		input = *c.Input
	}
	in, err := inputOf(input)
	if err != nil {
		h.log.Error("a command was not run", "error", err)
		return exitFailed
	}
	defer in.Close()
	p := &program{getenv: noEnvironment, in: in, out: c.Out, err: c.Err, host: h, from: caller{folder: c.Folder, ask: c.Ask}}
	if c.Terminal != nil {
		p.from.asks, p.from.width = c.Terminal.Asks, c.Terminal.Width
	}
	return p.run(ctx, c.Arguments)
}

// noEnvironment is what commands see of the daemon's environment: it is not that of their users.
func noEnvironment(string) string { return "" }

// lendMoney is nil if there are no contracts.
func (h *host) lendMoney(p *program, c *client.Client) *money {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.money == nil {
		return nil
	}
	lent := *h.money
	lent.p, lent.client, lent.lent = p, c, true
	return &lent
}

// errStopped says that the daemon ended while somebody listened.
var errStopped = errors.New("the daemon was stopped: run this again, and it listens without one")

// follow tells what the daemon's listener hears.
func (h *host) follow(ctx context.Context, handle func(client.Event) error) error {
	err := h.daemon.Follow(ctx, handle)
	if errors.Is(context.Cause(ctx), daemon.ErrEnding) {
		return errStopped
	}
	return err
}

// contracts looks after them, as relay contract watch does. What was done stays to be told to the user, by his next command.
func (h *host) contracts(ctx context.Context) error {
	p := &program{getenv: noEnvironment, out: io.Discard, err: lineLog{h.log}, host: h, unseen: true}
	for ctx.Err() == nil {
		m, err := p.moneyIfAny(ctx, h.dir, h.seed, h.client.Lend())
		if err != nil {
			return err
		}
		if m != nil {
			h.mu.Lock()
			h.money = m
			h.mu.Unlock()
			h.log.Info("looking after contracts")
			return p.watch(ctx, m)
		}
		select {
		case <-ctx.Done():
		case <-time.After(moneyEvery):
		}
	}
	return nil
}

// close ends the use of everything, when no command runs any more.
func (h *host) close() error {
	defer h.seed.Wipe()
	var err error
	if h.money != nil {
		err = h.money.close()
	}
	return errors.Join(err, h.client.Close())
}

// lineLog writes lines into the log.
type lineLog struct{ log *slog.Logger }

func (l lineLog) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		l.log.Info(strings.TrimRight(line, "\n"), "task", "contracts")
	}
	return len(p), nil
}
