package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/term"

	relaybook "relaymarket/broadcast/market"
	"relaymarket/client"
	"relaymarket/client/keyagent"
	"relaymarket/client/keyfile"
	"relaymarket/protocol"
)

const keyFileName = "key.age"

// errNoPassphrase says that there is no passphrase and nobody to ask.
var errNoPassphrase = errors.New("the keys are locked, and there is no terminal to ask for the passphrase")

// folder is the absolute folder of keys and state.
func (p *program) folder() (string, error) {
	if p.host != nil {
		return p.host.dir, nil
	}
	dir := p.dir
	if dir == "" {
		dir = p.getenv("RELAY_DIR")
	}
	if dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return "", usagef("there is no configuration folder (%v): name one with --dir", err)
		}
		dir = filepath.Join(base, "relay")
	}
	return filepath.Abs(dir)
}

func (p *program) socket(dir string) (string, error) {
	return keyagent.SocketPath(dir, p.getenv("XDG_RUNTIME_DIR"))
}

func (p *program) logger() *slog.Logger {
	if !p.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(p.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// proxyURL is what relays are asked through; nil is what the environment says for everybody.
func (p *program) proxyURL() (*url.URL, error) {
	text := p.proxy
	if text == "" {
		text = p.getenv("RELAY_PROXY")
	}
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Port() == "" || u.Scheme != "socks5" && u.Scheme != "socks5h" && u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("the proxy is not %q: write socks5://host:port, or http://host:port", text)
	}
	return u, nil
}

// open opens the state alone. What needs no secret works with it.
func (p *program) open(ctx context.Context) (*client.Client, error) {
	if p.host != nil {
		return p.host.client.Lend(), nil
	}
	dir, err := p.folder()
	if err != nil {
		return nil, err
	}
	proxy, err := p.proxyURL()
	if err != nil {
		return nil, err
	}
	return client.Open(ctx, client.Config{Dir: dir, Proxy: proxy, Logger: p.logger()})
}

// openKeys opens the state with the keys.
func (p *program) openKeys(ctx context.Context) (*client.Client, error) {
	if p.host != nil {
		return p.host.client.Lend(), nil
	}
	dir, err := p.folder()
	if err != nil {
		return nil, err
	}
	seed, err := p.seed(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer seed.Wipe()
	return p.openWith(ctx, dir, seed)
}

func (p *program) openWith(ctx context.Context, dir string, seed *keyfile.Seed) (*client.Client, error) {
	secret, err := seed.Identity()
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	identity, err := protocol.NewPrivateKey(secret)
	if err != nil {
		return nil, err
	}
	sealingSeed, err := seed.Sealing(0)
	if err != nil {
		return nil, err
	}
	defer sealingSeed.Wipe()
	sealing, err := protocol.NewSealingPrivateKey(sealingSeed)
	if err != nil {
		return nil, err
	}
	hubs, err := relaybook.Addresses(ctx, filepath.Join(dir, marketFile))
	if err != nil {
		return nil, err
	}
	proxy, err := p.proxyURL()
	if err != nil {
		return nil, err
	}
	return client.Open(ctx, client.Config{Dir: dir, Identity: identity, Sealing: sealing, Hubs: hubs, Proxy: proxy, Logger: p.logger()})
}

// seed gets the secret: with the passphrase file if one is named, else from the agent, else with the
// passphrase of the environment or of the user.
func (p *program) seed(ctx context.Context, dir string) (*keyfile.Seed, error) {
	path := filepath.Join(dir, keyFileName)
	if _, err := keyfile.Inspect(path); err != nil {
		return nil, err
	}
	if p.passphraseFile == "" {
		if seed, err := p.fetch(ctx, dir); err == nil {
			return seed, nil
		} else if !errors.Is(err, keyagent.ErrNotRunning) && !errors.Is(err, keyagent.ErrUnsupported) {
			p.complain("relay: %v\n", err)
		}
	}
	passphrase, err := p.passphrase("Passphrase: ")
	if err != nil {
		return nil, err
	}
	defer passphrase.Wipe()
	document, err := keyfile.Open(path, passphrase)
	if err != nil {
		return nil, err
	}
	return document.Seed, nil
}

func (p *program) fetch(ctx context.Context, dir string) (*keyfile.Seed, error) {
	socket, err := p.socket(dir)
	if err != nil {
		return nil, err
	}
	entropy, err := keyagent.Fetch(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer clear(entropy)
	return keyfile.SeedFromEntropy(entropy)
}

// passphrase is that of the file, of the environment or of the user.
func (p *program) passphrase(prompt string) (keyfile.Passphrase, error) {
	passphrase, err := p.givenPassphrase()
	if passphrase != nil || err != nil {
		return passphrase, err
	}
	typed, err := p.ask(prompt)
	if err != nil {
		return nil, err
	}
	return typed[0], nil
}

// givenPassphrase is nil if neither file nor environment has one.
func (p *program) givenPassphrase() (keyfile.Passphrase, error) {
	if p.passphraseFile != "" {
		f, err := os.Open(p.passphraseFile)
		if err != nil {
			return nil, usagef("the passphrase file: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, keyfile.MaxPassphrase+3))
		if err != nil {
			return nil, fmt.Errorf("the passphrase file: %w", err)
		}
		data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
		if len(data) == 0 {
			return nil, usagef("the passphrase file %s is empty", p.passphraseFile)
		}
		return data, nil
	}
	if text := p.getenv("RELAY_PASSPHRASE"); text != "" {
		return keyfile.Passphrase(text), nil
	}
	return nil, nil
}

// ask asks the user, without echo, once for each prompt. Standard input may be a message: then the terminal itself
// is asked. The terminal is raw from before the first prompt to after the last answer, so that nothing typed
// ahead is shown, and Ctrl-C is seen as what it is.
func (p *program) ask(prompts ...string) ([]keyfile.Passphrase, error) {
	if p.host != nil { // its terminal is not the user's
		return nil, exitError{exitLocked, errNoPassphrase}
	}
	terminal := p.in
	if !term.IsTerminal(int(terminal.Fd())) {
		var err error
		if terminal, err = os.OpenFile("/dev/tty", os.O_RDWR, 0); err != nil {
			return nil, exitError{exitLocked, errNoPassphrase}
		}
		defer terminal.Close()
	}
	before, err := term.MakeRaw(int(terminal.Fd()))
	if err != nil {
		return nil, exitError{exitLocked, fmt.Errorf("%w: %w", errNoPassphrase, err)}
	}
	defer func() { _ = term.Restore(int(terminal.Fd()), before) }()
	screen := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{terminal, p.err}, "")
	var typed []keyfile.Passphrase
	for _, prompt := range prompts {
		line, err := screen.ReadPassword(prompt)
		if err != nil {
			p.complain("\r\n")
			return nil, exitError{exitFailed, errors.New("given up: no passphrase was typed")}
		}
		typed = append(typed, keyfile.Passphrase(line))
	}
	return typed, nil
}

// newPassphrase asks twice, unless it is given.
func (p *program) newPassphrase() (keyfile.Passphrase, error) {
	passphrase, err := p.givenPassphrase()
	if passphrase != nil || err != nil {
		return passphrase, err
	}
	typed, err := p.ask("New passphrase: ", "Once more: ")
	if err != nil {
		return nil, err
	}
	defer typed[1].Wipe()
	if !bytes.Equal(typed[0], typed[1]) {
		typed[0].Wipe()
		return nil, errors.New("the two passphrases differ: run this again")
	}
	return typed[0], nil
}
