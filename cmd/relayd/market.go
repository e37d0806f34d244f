package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"relaymarket/broadcast"
	"relaymarket/broadcast/hubserver"
	"relaymarket/internal/natsnode"
	"relaymarket/internal/relaynode"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

// marketSettings say where the relay announces itself, and whether it is a hub.
type marketSettings struct {
	hubs        []string
	credentials string
	bits        int64

	listen      string
	address     string
	certificate string
	key         string
	connections int64
	nats        string
	natsCreds   string
	peers       []string
	relays      int64
	hubBits     int64
}

func defaultMarket() marketSettings {
	return marketSettings{connections: hubserver.DefaultConnections, relays: int64(broadcast.DefaultBounds().Relays)}
}

func (s *settings) marketPlace() []*setting {
	const section, hub = "Market, where strangers find this relay", "Hub, where relays announce themselves"
	m := &s.market
	text := func(target *string, kind string) pflag.Value { return one[string]{target, kind, anyText, same} }
	number := func(target *int64, least, most int64) pflag.Value {
		return one[int64]{target, "number", count(least, most), formatCount}
	}
	urls := func(target *[]string) pflag.Value {
		return &many[string]{target: target, kind: "URL,…", parse: anyText, format: same}
	}
	return []*setting{
		{name: "hubs", section: section, value: urls(&m.hubs),
			help: "hubs that this relay announces itself on\nFor example tls://hub.example.org:4222. It needs an address. A hub in this process is one of them by itself."},
		{name: "hubs-credentials", section: section, value: text(&m.credentials, "file"), help: "a .creds file for the hubs, if they want one"},
		{name: "announce-bits", section: section, value: number(&m.bits, 0, 40),
			help: "bits of proof of work, 0: what is usual\nEach bit more doubles the time, and puts this relay before others when a hub is full."},
		{name: "hub-listen", section: hub, value: one[string]{&m.listen, "host:port", orEmpty(listenAddress), same},
			help: "where everybody reaches a NATS server in this process, which makes this relay a hub; empty: it is none\nFor example :4222. Its book is in the folder, under hub, and at GET /market."},
		{name: "hub-address", section: hub, value: text(&m.address, "URL"), help: "where strangers reach that server, announced\nFor example tls://relay.example.org:4222."},
		{name: "hub-certificate", section: hub, value: text(&m.certificate, "file"), help: "certificates for TLS at hub-listen, PEM; empty: plain TCP"},
		{name: "hub-key", section: hub, value: text(&m.key, "file"), help: "private key of hub-certificate, PEM"},
		{name: "hub-connections", section: hub, value: number(&m.connections, 1, 1_000_000), help: "connections at hub-listen at once"},
		{name: "hub-nats", section: hub, value: text(&m.nats, "URL"),
			help: "a NATS server elsewhere that the hub keeps its book on, instead of hub-listen\nIt has to be set up as relayd hub-policy shows. User and password belong here or into the environment, not on the command line."},
		{name: "hub-nats-credentials", section: hub, value: text(&m.natsCreds, "file"), help: "a .creds file for hub-nats, if it wants one"},
		{name: "hub-peers", section: hub, value: urls(&m.peers), help: "other hubs whose announcements this hub takes too\nWhich are checked as if their relays had sent them."},
		{name: "hub-relays", section: hub, value: number(&m.relays, 1, 10_000_000), help: "relays in the book at most, some 2 KB of disk and 500 bytes of memory each\nWhen it is full those who worked least go first."},
		{name: "hub-bits", section: hub, value: number(&m.hubBits, 0, 64), help: "bits of proof of work that the hub asks for, 0: what is usual"},
	}
}

func (s *settings) hubFolder() string { return filepath.Join(s.dir, "hub") }

func (m *marketSettings) isHub() bool { return m.listen != "" || m.nats != "" }

// checkMarket refuses values that are each fine but not with each other.
func (s *settings) checkMarket(w *wrongs) {
	m := &s.market
	for _, urls := range []struct {
		name string
		list []string
	}{{"hubs", m.hubs}, {"hub-peers", m.peers}, {"hub-nats", optional(m.nats)}} {
		for _, text := range urls.list {
			// Here and not where it is read: whoever refuses a value there shows it, and it may hold a password.
			u, err := natsnode.ParseURL(text)
			if err == nil && u.Port() == "" {
				err = fmt.Errorf("%s has no port: it usually is 4222", natsnode.Redact(text))
			}
			w.when(err != nil, "%s: %w", urls.name, err)
		}
	}
	if m.address != "" {
		if strings.Contains(m.address, "@") {
			w.add(errors.New("hub-address is announced to everybody: leave user and password out"))
		} else if err := protocol.ValidateHub(m.address); err != nil {
			w.add(fmt.Errorf("hub-address: %w", err))
		}
	}
	w.when(m.listen != "" && m.nats != "", "hub-listen opens a NATS server in this process, and hub-nats names one elsewhere: set one of the two")
	w.when((m.certificate == "") != (m.key == ""), "hub-certificate and hub-key belong together: set both, or none")
	w.when(m.certificate != "" && m.listen == "", "hub-certificate is for hub-listen, which is not set")
	w.when(len(m.peers) > 0 && !m.isHub(), "hub-peers is for a hub: set hub-listen, or hub-nats")
	w.when(m.natsCreds != "" && m.nats == "", "hub-nats-credentials is for hub-nats, which is not set")
	w.when(len(m.hubs) > 0 && len(s.addresses) == 0 && s.bitcoin.network != protocol.Regtest, "hubs announces this relay, and nobody knows where it is: set address")
}

func optional(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// marketConfig is what the settings mean for the relay. The files are those of hub-certificate, nil without it.
func (s *settings) marketConfig(files *relaytls.Files) (relaynode.Market, error) {
	m := &s.market
	cfg := relaynode.Market{Network: s.bitcoin.network, Hubs: m.hubs, Credentials: m.credentials, Bits: int(m.bits)}
	if !m.isHub() {
		return cfg, nil
	}
	cfg.Hub = &relaynode.Hub{Listen: m.listen, Folder: s.hubFolder(), Connections: int(m.connections), NATS: m.nats, Credentials: m.natsCreds,
		Address: m.address, Peers: m.peers, Relays: int(m.relays), Bits: int(m.hubBits)}
	if files != nil {
		cfg.Hub.TLS = files.Config()
	}
	return cfg, nil
}

// policyPassword stands where the operator writes his own.
const policyPassword = "CHANGE-ME"

func (p program) hubPolicyCommand() *cobra.Command {
	s := newSettings(p.environ)
	cmd := &cobra.Command{
		Use:     "hub-policy",
		Example: "  relayd hub-policy > accounts.conf",
		Short:   "Print what to put into the configuration of a NATS server that is to hold a hub's book",
		Long: `hub-policy prints accounts and permissions for a NATS server of your own, with JetStream, that
hub-nats names. Strangers may then do what a hub is for, and nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			_, err := fmt.Fprintf(p.out, "# Strangers take what they may at most: payloads, subscriptions, and what waits for them.\n"+
				"max_payload: 8KB\nmax_subscriptions: 8\nmax_pending: 4MB\njetstream { store_dir: \"/var/lib/nats\" }\n%s",
				hubserver.Policy(s.bitcoin.network, policyPassword))
			return err
		},
	}
	s.flags(cmd.Flags(), "dir", "bitcoin-network")
	return cmd
}
