package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/escrow/chain"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// nodeSettings say which Bitcoin node is asked. They hold no secret: the password stays in its file.
type nodeSettings struct {
	Network      protocol.Network   `json:"network"`
	Host         string             `json:"host"` // host:port
	Plain        bool               `json:"plain"`
	User         string             `json:"user,omitempty"`
	PasswordFile string             `json:"passwordFile,omitempty"`
	CookieFile   string             `json:"cookieFile,omitempty"`
	Certificate  string             `json:"certificate,omitempty"` // PEM
	Since        protocol.Timestamp `json:"since"`                 // the wallet has no coin from before
}

// defaultPorts are those that btcd's RPC has on each network.
var defaultPorts = map[protocol.Network]string{
	protocol.Mainnet: "8334", protocol.Testnet4: "48334", protocol.Signet: "38332", protocol.Regtest: "18334",
}

func (p *program) connectCommand() *cobra.Command {
	var s nodeSettings
	network, certificate, since := string(protocol.Mainnet), "", ""
	cmd := &cobra.Command{
		Use: "connect URL", Short: "Name the Bitcoin node to ask", Args: oneArg("the URL of the node's RPC"),
		Long: `Names the Bitcoin node, btcd or Bitcoin Core, whose chain is followed and that gets your transactions. http:// is for a
node on this machine, https:// for any other, with its certificate if it made that itself (btcd: rpc.cert). The node needs its
transaction index (btcd: --txindex; Bitcoin Core: txindex=1). The password stays in its file and is never copied.

The wallet looks for your coins in blocks from today on. If you restored your words and had coins before, say since when.`,
		Example: `  relay wallet connect https://127.0.0.1:8334 --rpc-user me --rpc-password-file ~/rpc.password --rpc-cert ~/.btcd/rpc.cert
  relay wallet connect http://127.0.0.1:18334 --network regtest --rpc-user me --rpc-password-file ~/rpc.password`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Network = protocol.Network(network)
			if err := s.complete(args[0], certificate, since); err != nil {
				return exitError{exitUsage, err}
			}
			return p.connect(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&network, "network", network, "mainnet, testnet4, signet or regtest")
	flags.StringVar(&s.User, "rpc-user", "", "the node's RPC user")
	flags.StringVar(&s.PasswordFile, "rpc-password-file", "", "file with the node's RPC password")
	flags.StringVar(&s.CookieFile, "rpc-cookie-file", "", "Bitcoin Core's cookie file, instead of user and password")
	flags.StringVar(&certificate, "rpc-cert", "", "file with the node's own certificate")
	flags.StringVar(&since, "since", "", "day from which on the wallet may have coins, 2026-01-31")
	cmd.MarkFlagsMutuallyExclusive("rpc-cookie-file", "rpc-password-file")
	cmd.MarkFlagsOneRequired("rpc-cookie-file", "rpc-password-file")
	return cmd
}

// complete takes the URL apart and makes the names of files absolute.
func (s *nodeSettings) complete(typed, certificate, since string) error {
	if err := s.Network.Validate(); err != nil {
		return err
	}
	u, err := url.Parse(typed)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("the node's URL is http://host:port or https://host:port, not %q", typed)
	}
	if u.User != nil {
		return errors.New("leave user and password out of the URL: give --rpc-user and --rpc-password-file")
	}
	port := u.Port()
	if port == "" {
		port = defaultPorts[s.Network]
	}
	s.Host, s.Plain = net.JoinHostPort(u.Hostname(), port), u.Scheme == "http"
	for _, file := range []*string{&s.PasswordFile, &s.CookieFile} {
		if *file == "" {
			continue
		}
		if *file, err = filepath.Abs(*file); err != nil {
			return err
		}
	}
	if certificate != "" {
		pem, err := os.ReadFile(certificate)
		if err != nil {
			return fmt.Errorf("the node's certificate: %w", err)
		}
		s.Certificate = string(pem)
	}
	if since == "" {
		return nil
	}
	day, err := time.Parse(time.DateOnly, since)
	if err != nil {
		return fmt.Errorf("--since %q is not a day: write 2026-01-31", since)
	}
	s.Since = protocol.TimestampOf(day)
	return nil
}

// sinceWhen is what was said, now or at an earlier connect, or today.
func (s *nodeSettings) sinceWhen(before *nodeSettings) protocol.Timestamp {
	switch {
	case s.Since != 0:
		return s.Since
	case before != nil && before.Network == s.Network:
		return before.Since
	}
	return protocol.TimestampOf(time.Now())
}

// client makes the client of the node. It reads the password, and does not connect.
func (s *nodeSettings) client() (*chain.Client, error) {
	cfg := chain.Config{Network: s.Network, Host: s.Host, User: s.User, CookieFile: s.CookieFile, Plain: s.Plain, Certificate: []byte(s.Certificate)}
	if s.PasswordFile != "" {
		password, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("the password of the Bitcoin node: %w", err)
		}
		cfg.Password = string(bytes.TrimRight(password, "\r\n"))
	}
	return chain.New(cfg, time.Now)
}

func (p *program) connect(ctx context.Context, s nodeSettings) error {
	node, err := s.client()
	if err != nil {
		return err
	}
	tip, err := node.Tip(ctx)
	if err != nil {
		return err
	}
	c, err := p.openKeys(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	key := c.Key()
	store, err := p.contractStore(ctx, &key)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := p.sameNetwork(ctx, store, s.Network); err != nil {
		return err
	}
	before, err := readNode(ctx, store)
	if err != nil && !errors.Is(err, userside.ErrNoNode) {
		return err
	}
	s.Since = s.sinceWhen(before)
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := store.SetNode(ctx, data); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]any{"network": s.Network, "host": s.Host, "height": tip.Height})
	}
	return p.say("Connected to %s on %s, at block %d. Your address: relay wallet address\n", s.Host, s.Network, tip.Height)
}

// sameNetwork refuses to leave contracts unwatched.
func (p *program) sameNetwork(ctx context.Context, store *userside.Store, network protocol.Network) error {
	records, err := store.Contracts(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Network != network && r.Step != userside.StepOver && r.State != protocol.StateArchived {
			return fmt.Errorf("contract %s is on %s and not over: use another folder for %s", r.ID.Short(), r.Network, network)
		}
	}
	return nil
}

// readNode reads the settings of the node. userside.ErrNoNode.
func readNode(ctx context.Context, store *userside.Store) (*nodeSettings, error) {
	data, err := store.Node(ctx)
	if err != nil {
		return nil, err
	}
	var s nodeSettings
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("the settings of the Bitcoin node cannot be read (connect again): %w", err)
	}
	return &s, nil
}
