package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/spf13/pflag"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/relayside"
	"relaymarket/internal/relaynode"
	"relaymarket/protocol"
)

// bitcoinSettings are those of the Bitcoin node, the wallet and what contracts cost.
type bitcoinSettings struct {
	rpc          string
	network      protocol.Network
	user         string
	passwordFile string
	cookieFile   string
	tls          bool
	certificate  string
	wallet       bool
	feeFloor     int64
	feeCeiling   int64

	contracts      bool
	storagePrice   int64
	bandwidthPrice int64
	openingPrice   int64
	creditLimit    int64
	bondPercent    int64
	minDeposit     int64
	shortest       int64
	longest        int64
	writeOff       int64
}

func defaultBitcoin() bitcoinSettings {
	return bitcoinSettings{
		network: protocol.Mainnet, tls: true, wallet: true, feeFloor: protocol.MinContractFeerate, feeCeiling: 200_000,
		contracts: true, storagePrice: 2_000, bandwidthPrice: 50_000, openingPrice: 5_000, creditLimit: 5_000, minDeposit: 50_000, writeOff: 100,
		shortest: int64(escrow.MinLifetime), longest: int64(escrow.MaxLifetime),
	}
}

func (s *settings) bitcoinNode() []*setting {
	const section = "Bitcoin, which contracts need"
	b := &s.bitcoin
	text := func(target *string, kind string) pflag.Value { return one[string]{target, kind, anyText, same} }
	return []*setting{
		{name: "bitcoin-rpc", section: section, value: one[string]{&b.rpc, "host:port", orEmpty(nodeAddress), same},
			help: "RPC of a Bitcoin node, btcd or Bitcoin Core, with its transaction index; empty: no contracts\nFor example 127.0.0.1:8334. Run relayd wallet init first."},
		{name: "bitcoin-network", section: section, value: one[protocol.Network]{&b.network, "network", network, func(n protocol.Network) string { return string(n) }},
			help: "mainnet, testnet4, signet or regtest, announced"},
		{name: "bitcoin-user", section: section, value: text(&b.user, "name"), help: "who logs in at the node"},
		{name: "bitcoin-password-file", section: section, value: text(&b.passwordFile, "file"), help: "file that holds the password, and nothing else"},
		{name: "bitcoin-cookie-file", section: section, value: text(&b.cookieFile, "file"), help: "Bitcoin Core's .cookie, instead of a user and password"},
		{name: "bitcoin-tls", section: section, value: yesNo(&b.tls), help: "whether the node speaks TLS\nbtcd does, Bitcoin Core does not: say no only on loopback or a network of your own."},
		{name: "bitcoin-certificate", section: section, value: text(&b.certificate, "file"), help: "the node's own certificate, like btcd's rpc.cert; empty: the system's authorities"},
		{name: "bitcoin-wallet", section: section, value: yesNo(&b.wallet),
			help: "whether this process keeps the wallet, follows the chain and settles\nOf several relayd on one database one does; each has the same bitcoin.words."},
		{name: "feerate-floor", section: section, value: feerate(&b.feeFloor), help: "least that the relay's transactions pay, satoshi per 1000 vB"},
		{name: "feerate-ceiling", section: section, value: feerate(&b.feeCeiling), help: "most that the relay's transactions pay, satoshi per 1000 vB\nA settlement that may not pay enough comes late, and then the deposit is the user's again."},
	}
}

func (s *settings) contractTerms() []*setting {
	const section = "What a contract costs, which the relay announces"
	b := &s.bitcoin
	number := func(target *int64, kind string, most int64) pflag.Value {
		return one[int64]{target, kind, count(0, most), formatCount}
	}
	sat := func(target *int64) pflag.Value { return number(target, "satoshi", btcutil.MaxSatoshi) }
	return []*setting{
		{name: "contracts", section: section, value: yesNo(&b.contracts), help: "whether new contracts are opened\nThose that are open go on in any case."},
		{name: "storage-price", section: section, value: number(&b.storagePrice, "msat", protocol.MaxInteger), help: "millisatoshi for a GB (10^9 bytes) stored for a day"},
		{name: "bandwidth-price", section: section, value: number(&b.bandwidthPrice, "msat", protocol.MaxInteger), help: "millisatoshi for a GB written, and again for each time it is pulled"},
		{name: "opening-price", section: section, value: sat(&b.openingPrice), help: "satoshi that a contract costs in any case\nIt pays for the settlement: 182 vB at least."},
		{name: "credit-limit", section: section, value: sat(&b.creditLimit), help: "satoshi that a user may owe, which is what you may lose\nMore than opening-price pays for those who come under many names and never pay."},
		{name: "bond-percent", section: section, value: number(&b.bondPercent, "percent", 100), help: "what the relay adds to a deposit, from its wallet, as a promise to be there"},
		{name: "min-deposit", section: section, value: sat(&b.minDeposit), help: "satoshi that a user deposits at least"},
		{name: "shortest-contract", section: section, value: lifetime(&b.shortest),
			help: "blocks that a new contract lives at least, not announced\n864 at least: for half of that nothing is written any more. Users ask for 4320, a month, unless they say otherwise."},
		{name: "longest-contract", section: section, value: lifetime(&b.longest),
			help: "blocks that a new contract lives at most, not announced\n26280 at most, half a year. Your bond, and what was paid, are locked as long."},
		{name: "write-off-percent", section: section, value: number(&b.writeOff, "percent", 100),
			help: "share of opening-price that a user may refuse to pay, and the contract goes on\nNever more than it brought beyond credit-limit. 0 settles the contract at the first line that is refused."},
	}
}

// lifetime is in blocks, within the protocol's bounds.
func lifetime(target *int64) pflag.Value {
	return one[int64]{target, "blocks", count(int64(escrow.MinLifetime), int64(escrow.MaxLifetime)), formatCount}
}

// nodeAddress wants host:port, both of them.
func nodeAddress(s string) (string, error) {
	if strings.HasPrefix(s, ":") {
		return "", fmt.Errorf("%q names no host: write for example 127.0.0.1:8334", s)
	}
	return listenAddress(s)
}

func network(s string) (protocol.Network, error) {
	n := protocol.Network(s)
	return n, n.Validate()
}

func feerate(target *int64) pflag.Value {
	return one[int64]{target, "number", count(protocol.MinContractFeerate, protocol.MaxContractFeerate), formatCount}
}

// checkBitcoin refuses values that are each fine but not with each other.
func (s *settings) checkBitcoin(w *wrongs) {
	b := &s.bitcoin
	if b.rpc == "" {
		return
	}
	w.when(b.feeFloor > b.feeCeiling, "feerate-floor is %d and feerate-ceiling %d: the floor is not above the ceiling", b.feeFloor, b.feeCeiling)
	w.when(b.passwordFile == "" && b.cookieFile == "", "bitcoin-rpc wants a login: set bitcoin-user and bitcoin-password-file, or bitcoin-cookie-file")
	w.when(b.passwordFile != "" && b.cookieFile != "", "bitcoin-password-file and bitcoin-cookie-file are two ways to log in: set one of them")
	w.when(!b.tls && b.certificate != "", "bitcoin-certificate is for TLS, and bitcoin-tls is no: set one of the two")
	w.when(b.minDeposit < b.openingPrice+int64(escrow.MinUserRest),
		"min-deposit is %d: at least opening-price and %d satoshi more, so that a deposit can be spent", b.minDeposit, int64(escrow.MinUserRest))
	w.when(b.shortest > b.longest, "shortest-contract is %d and longest-contract %d: the shortest is not above the longest", b.shortest, b.longest)
}

// bitcoinConfig is what the settings mean for the relay; without a node it is empty.
func (s *settings) bitcoinConfig() (relaynode.Bitcoin, error) {
	b := &s.bitcoin
	if b.rpc == "" {
		return relaynode.Bitcoin{}, nil
	}
	node, err := b.node()
	if err != nil {
		return relaynode.Bitcoin{}, err
	}
	seed, err := s.readSeed()
	if err != nil {
		return relaynode.Bitcoin{}, err
	}
	cfg := relaynode.Bitcoin{Node: node, Branch: seed.branch, Birthday: seed.made,
		Limits: relayside.Limits{Shortest: uint32(b.shortest), Longest: uint32(b.longest), WriteOff: btcutil.Amount(b.writeOff)}}
	if b.writeOff == 0 {
		cfg.Limits.WriteOff = -1 // nothing: 0 is the default there
	}
	if b.wallet {
		cfg.Wallet = s.walletFolder()
	}
	cfg.Offer = b.offer()
	return cfg, nil
}

// offer is what new contracts cost; nil: none are opened.
func (b *bitcoinSettings) offer() *protocol.ContractOffer {
	if !b.contracts {
		return nil
	}
	return &protocol.ContractOffer{
		StorageMsatPerGBDay: b.storagePrice, BandwidthMsatPerGB: b.bandwidthPrice,
		OpeningPrice: btcutil.Amount(b.openingPrice), CreditLimit: btcutil.Amount(b.creditLimit), BondPercent: b.bondPercent,
		MinPrepay: btcutil.Amount(b.minDeposit),
	}
}

func (b *bitcoinSettings) node() (chain.Config, error) {
	cfg := chain.Config{Network: b.network, Host: b.rpc, User: b.user, CookieFile: b.cookieFile, Plain: !b.tls,
		FeeFloor: escrow.Feerate(b.feeFloor), FeeCeiling: escrow.Feerate(b.feeCeiling)}
	if b.passwordFile != "" {
		text, err := os.ReadFile(b.passwordFile)
		if err != nil {
			return cfg, fmt.Errorf("read bitcoin-password-file: %w", err)
		}
		cfg.Password = string(bytes.TrimSpace(text))
		if cfg.Password == "" {
			return cfg, fmt.Errorf("bitcoin-password-file %s is empty: write the node's RPC password into it", b.passwordFile)
		}
	}
	if b.certificate != "" {
		var err error
		if cfg.Certificate, err = os.ReadFile(b.certificate); err != nil {
			return cfg, fmt.Errorf("read bitcoin-certificate: %w", err)
		}
	}
	return cfg, nil
}

// errNoNode is for commands that need one.
var errNoNode = errors.New("no Bitcoin node is configured: set bitcoin-rpc and its login, see docs/operators.md")

func (s *settings) walletFolder() string {
	return filepath.Join(s.dir, "wallet", string(s.bitcoin.network))
}
func (s *settings) seedFile() string { return filepath.Join(s.dir, "bitcoin.words") }
