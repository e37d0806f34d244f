package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/internal/regtest"
)

// inn is what an operator of the story asks and promises.
type inn struct {
	name        string
	bandwidth   int64 // msat for a GB, dear enough for two messages to be seen on a bill
	storage     int64 // msat for a GB and day
	bondPercent int
	hub         bool
}

var inns = []inn{
	{name: "north", bandwidth: 2_000_000_000, storage: 2_000_000_000, bondPercent: 10, hub: true},
	{name: "south", bandwidth: 1_500_000_000, storage: 1_000_000_000},
	{name: "home", bandwidth: 9_000_000_000, storage: 9_000_000_000},
}

// operatorsPurse is what the operator of a relay with a bond has for it, in satoshi.
const operatorsPurse = 50_000

// aChain starts the private Bitcoin chain.
func aChain(ctx context.Context, s *stage, _ *cast) (err error) {
	scene("A private Bitcoin chain is started.")
	tell("building btcd, if it was not built before")
	if s.node, err = regtest.Launch(ctx, regtest.Config{Dir: filepath.Join(s.dir, "bitcoin"), Plain: true}); err != nil {
		return err
	}
	s.password = filepath.Join(s.dir, "rpc.password")
	return os.WriteFile(s.password, []byte(regtest.Password+"\n"), 0o600)
}

// threeRelays starts them side by side: they know nothing of each other but the hub.
func threeRelays(ctx context.Context, s *stage, c *cast) error {
	scene("Three operators start a relay each, with prices and terms of their own. One of them is a hub, where relays announce themselves.")
	hub, err := freeAddress()
	if err != nil {
		return err
	}
	s.hub = "nats://" + hub
	for _, in := range inns {
		r, err := s.addRelay(ctx, in.name)
		if err != nil {
			return err
		}
		settings := append(s.bitcoin(), setting{"bandwidth-price", in.bandwidth}, setting{"storage-price", in.storage},
			setting{"bond-percent", in.bondPercent}, setting{"contact", in.name + "@operators.example"})
		if in.hub {
			settings = append(settings, setting{"hub-listen", hub}, setting{"hub-address", s.hub})
		} else {
			settings = append(settings, setting{"hubs", []string{s.hub}})
		}
		if err := r.configure(settings...); err != nil {
			return err
		}
	}
	c.north, c.south, c.home = s.relays[0], s.relays[1], s.relays[2]
	if err := together(s.relays, func(r *relay) error {
		if err := r.admin(ctx, "wallet", "init"); err != nil {
			return err
		}
		return r.start(ctx)
	}); err != nil {
		return err
	}
	w, err := c.north.wallet(ctx)
	if err != nil {
		return err
	}
	if err := s.pay(w.Address, operatorsPurse); err != nil {
		return err
	}
	if err := c.north.has(ctx, operatorsPurse); err != nil {
		return err
	}
	for i, r := range s.relays {
		also := ""
		if inns[i].hub {
			also = ", the hub at " + s.hub
		}
		tell("%-5s is ready on %s%s", r.name, r.url, also)
	}
	return nil
}

// together does something for each of the relays at once.
func together(relays []*relay, do func(*relay) error) error {
	ended := make(chan error, len(relays))
	for _, r := range relays {
		go func() { ended <- do(r) }()
	}
	var all error
	for range relays {
		all = errors.Join(all, <-ended)
	}
	return all
}

// offer is a line of relay market --json, as far as it matters here.
type offer struct {
	Addresses   []string `json:"addresses"`
	SatPerMonth *int64   `json:"satPerMonth"`
}

func aPurse(ctx context.Context, s *stage, c *cast) (err error) {
	scene("Alice knows no operator, and none knows her. She has the address of a hub, and a wallet.")
	if c.alice, err = s.newPerson(ctx, "alice"); err != nil {
		return err
	}
	if err := c.alice.wallet(ctx, coin, coin); err != nil {
		return err
	}
	tell("alice is %s…, and has %d satoshi", c.alice.key[:16], purse)
	_, err = c.alice.relay(ctx, "hubs", "add", s.hub, "--network", "regtest")
	return err
}

// theMarket waits until the hub shows all three: each works off its announcement's proof first.
func theMarket(ctx context.Context, s *stage, c *cast) error {
	scene("She looks at the market.")
	for {
		var out struct {
			Relays []offer `json:"relays"`
		}
		if err := c.alice.json(ctx, &out, "market", "--kept", "1MB", "--moved", "5MB"); err != nil {
			return err
		}
		if len(out.Relays) < len(inns) {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("the market shows %d relays: %w", len(out.Relays), err)
			}
			continue
		}
		for _, o := range out.Relays {
			if o.SatPerMonth == nil || len(o.Addresses) == 0 {
				return fmt.Errorf("a relay of the market has no price or no address: %+v", o)
			}
			tell("%-5s %6d satoshi a month for 1 MB kept and 5 MB moved", s.nameOf(o.Addresses[0]), *o.SatPerMonth)
		}
		return nil
	}
}

// nameOf is the name of the relay at an address.
func (s *stage) nameOf(address string) string {
	for _, r := range s.relays {
		if u, err := url.Parse(address); err == nil && strings.HasSuffix(r.url, u.Host) {
			return r.name
		}
	}
	return address
}

// wallet connects a person's wallet to the chain, with some coins in it.
func (p *person) wallet(ctx context.Context, coins ...int64) error {
	s := p.stage
	_, err := p.relay(ctx, "wallet", "connect", "http://"+s.node.Host(), "--network", "regtest", "--rpc-user", regtest.User,
		"--rpc-password-file", s.password)
	if err != nil {
		return err
	}
	var sum int64
	for _, c := range coins {
		var a struct {
			Address string `json:"address"`
		}
		if err := p.json(ctx, &a, "wallet", "address"); err != nil {
			return err
		}
		if err := s.pay(a.Address, btcutil.Amount(c)); err != nil {
			return err
		}
		sum += c
	}
	b, err := p.balance(ctx)
	if err != nil || b != sum {
		return fmt.Errorf("%s's wallet has %d satoshi, not %d: %w", p.name, b, sum, err)
	}
	return nil
}

// bitcoin is how a relay reaches the chain.
func (s *stage) bitcoin() []setting {
	return []setting{{"bitcoin-rpc", s.node.Host()}, {"bitcoin-tls", "no"}, {"bitcoin-user", regtest.User},
		{"bitcoin-password-file", s.password}, {"bitcoin-network", "regtest"}}
}
