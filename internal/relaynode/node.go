// Package relaynode is a whole relay in one process: database, records, accounts, contracts and their wallet, NATS, the
// public and the operator's HTTP servers, wired together and run as one.
//
// # Start and end
//
// Run opens the database (a private Postgres cluster, or one given by URL), migrates it, listens on both
// addresses, and calls Ready. When its context is done it ends in this order, so that whatever was accepted
// is finished and nothing is acknowledged that is not durable:
//
//	no new connections, listeners' streams end ─► requests at work finish (ShutdownTimeout at most)
//	─► writes in the queue are committed and answered, other processes are told ─► the pool closes
//	─► the private Postgres stops ─► NATS ends
//
// The operator's server stays up until the requests are done: /readyz is red meanwhile and /metrics can be read.
//
// A private Postgres that ends by itself ends Run with an error, since nothing would bring it back. An external
// database that goes away does not: requests are answered 503 and /readyz is red until it is back. NATS that goes away, or
// was never there, ends nothing and turns nothing red: listeners hear a moment later of what other processes store. Nor does
// a Bitcoin node that is away: what is open is served, and new contracts are refused until it is back.
//
// cmd/relayd calls it, and testnode for tests.
package relaynode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"relaymarket/api"
	"relaymarket/broadcast/publisher"
	"relaymarket/internal/diskspace"
	"relaymarket/internal/natsnode"
	"relaymarket/internal/relaycare"
	"relaymarket/ledger/books"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
	"relaymarket/records"
)

// Config is everything a relay is run with. Key, Database, the two addresses and Logger are required.
type Config struct {
	Key             *protocol.PrivateKey
	Database        Database
	NATS            NATS
	Bitcoin         Bitcoin
	Market          Market
	Volunteer       willing.Policy
	TLS             *tls.Config // of the public interface; nil: plain HTTP
	Listen          string      // host:port of the public interface; port 0 takes a free one
	OperatorListen  string      // host:port of /livez, /readyz and /metrics
	Addresses       []string
	Contact         string
	TrustedProxies  []netip.Prefix
	Limits          records.Limits
	Rates           api.Rates
	Bounds          api.Bounds
	ShutdownTimeout time.Duration // for requests at work to finish
	Clock           func() time.Time
	Logger          *slog.Logger
	Ready           func(Ready) // called once, when both servers accept
}

// Ready is what Run knows once it serves.
type Ready struct {
	URL         string // of the public interface, on this machine
	OperatorURL string
	NATSURL     string // where other relayd reach the NATS server in this process; empty if it listens nowhere
	HubURL      string // where everybody reaches the hub's NATS server in this process; empty if there is none
	Key         protocol.PublicKey
	// Change sets what can change while the relay runs. On an error nothing has changed.
	Change func(Live) error
}

// node is a relay whose parts are made and not yet running.
type node struct {
	cfg       Config
	registry  *prometheus.Registry
	nats      *natsnode.Node
	store     *store
	room      *diskspace.Watch // nil with an external database
	care      *relaycare.Keeper
	books     *books.Store
	willing   *willing.Store
	bitcoin   *bitcoin // nil: no contracts
	market    *market  // nil: in no market
	records   *records.Store
	api       *api.Server
	public    *http.Server
	operator  *http.Server
	listeners [2]net.Listener // of public and operator
	patience  atomic.Int64    // Config.ShutdownTimeout, until it is changed
	look      look            // for the operator
}

// Run runs a relay until ctx is done, which is a clean end and no error, or until a part of it fails.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	n := &node{cfg: cfg, registry: prometheus.NewRegistry(), look: look{started: cfg.Clock()}}
	n.patience.Store(int64(cfg.ShutdownTimeout))
	// Before the database, which takes a while: a port in use is found out at once.
	if err := n.listen(ctx); err != nil {
		return err
	}
	defer n.closeListeners()
	if err := n.startNATS(n.registry); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.nats.Close()) }()
	if err := n.startMarket(); err != nil {
		return err
	}
	defer func() { n.market.close() }()
	if n.store, err = cfg.Database.open(ctx, startWithRoom); err != nil {
		return n.unlessEnded(ctx, err)
	}
	defer func() { err = errors.Join(err, n.store.close(context.WithoutCancel(ctx))) }()
	if cfg.Bitcoin.Node.Host != "" {
		if n.bitcoin, err = cfg.Bitcoin.open(cfg.Logger, cfg.Clock); err != nil {
			return n.unlessEnded(ctx, err)
		}
		defer func() { err = errors.Join(err, n.bitcoin.close()) }()
	}
	if err := n.wire(ctx); err != nil {
		return n.unlessEnded(ctx, err)
	}
	return n.run(ctx)
}

// unlessEnded is for the error of a start: one that was told to end has not failed, whatever it was doing.
func (n *node) unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	n.cfg.Logger.Info("ended while starting", "err", err)
	return nil
}

// wire makes the parts, inside out.
func (n *node) wire(ctx context.Context) error {
	cfg := n.cfg
	registry := n.registry
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	accounts := books.New(books.Config{DB: n.store.db, Clock: cfg.Clock, Logger: cfg.Logger})
	n.books = accounts
	if err := accounts.Register(registry); err != nil {
		return err
	}
	var err error
	if n.room, err = n.store.watch(cfg, registry); err != nil {
		return err
	}
	if n.care, err = relaycare.New(relaycare.Config{DB: n.store.db, Free: n.store.free(), Clock: cfg.Clock, Logger: cfg.Logger, Registerer: registry}); err != nil {
		return err
	}
	var room, pageRoom func() error
	if n.room != nil {
		room, pageRoom = n.room.Room, n.room.Pages
	}
	n.records, err = records.New(ctx, records.Config{
		DB: n.store.db, Books: accounts, Relay: cfg.Key.Public(), Clock: cfg.Clock, Logger: cfg.Logger, Limits: cfg.Limits, Registerer: registry,
		Waker: n.waker(registry), Room: room, PageRoom: pageRoom,
	})
	if err != nil {
		return err
	}
	n.willing = willing.New(willing.Config{DB: n.store.db, Books: accounts, Policy: cfg.Volunteer, Clock: cfg.Clock, Logger: cfg.Logger})
	if err := n.willing.Refresh(ctx); err != nil {
		return err
	}
	public := api.Config{
		Key: cfg.Key, Records: n.records, Books: accounts, Willing: n.willing, Clock: cfg.Clock, Logger: cfg.Logger, Registry: registry,
		Limits: cfg.Limits, Addresses: cfg.Addresses, Contact: cfg.Contact,
		Rates: cfg.Rates, TrustProxy: cfg.TrustedProxies, Bounds: cfg.Bounds,
	}
	if n.bitcoin != nil {
		if err := n.bitcoin.manage(cfg, n.store, accounts, n.willing.Denies, registry); err != nil {
			return err
		}
		public.Contracts, public.Network, public.Offer = n.bitcoin.manager, cfg.Bitcoin.Node.Network, cfg.Bitcoin.Offer
	}
	n.market.announced(&public, n.ownURL())
	if n.api, err = api.New(public); err != nil {
		return err
	}
	if err := n.market.publish(n, publisher.Store{DB: n.store.db}, public.Addresses); err != nil {
		return err
	}
	n.public = n.server(n.api.Handler())
	n.public.TLSConfig = n.cfg.TLS
	n.operator = n.server(n.operatorHandler())
	return nil
}

// run serves until something fails or ctx is done, and ends in the order the package comment gives.
func (n *node) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	// The store outlives ctx: it answers what the servers still finish.
	storing, stopStoring := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStoring()
	stored := make(chan struct{})
	group.Go(func() error {
		defer close(stored)
		if err := n.records.Run(storing); err != nil && storing.Err() == nil {
			return fmt.Errorf("records: %w", err)
		}
		return nil
	})
	group.Go(func() error { return n.books.Run(ctx) })
	group.Go(func() error { return n.willing.Run(ctx) })
	group.Go(func() error { return n.care.Run(ctx) })
	if n.room != nil {
		group.Go(func() error { return n.room.Run(ctx, n.records.Reusable) })
	}
	group.Go(func() error { n.look.run(ctx, n); return nil })
	n.bitcoin.run(ctx, group)
	n.market.run(ctx, group)
	group.Go(func() error { return serve(n.public, n.listeners[0]) })
	group.Go(func() error { return serve(n.operator, n.listeners[1]) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-n.store.exited():
			return errors.New("the private database ended by itself: its log is in the relay's folder, under db")
		}
	})
	group.Go(func() error {
		<-ctx.Done()
		n.shutDown(context.WithoutCancel(ctx), stopStoring, stored)
		return nil
	})
	ready := n.ready()
	n.cfg.Logger.Info("relay ready", "url", ready.URL, "operator", ready.OperatorURL, "key", ready.Key.Bech32())
	if n.cfg.Ready != nil {
		n.cfg.Ready(ready)
	}
	return group.Wait()
}

// shutDown finishes what was accepted.
func (n *node) shutDown(ctx context.Context, stopStoring func(), stored <-chan struct{}) {
	log := n.cfg.Logger
	wait := time.Duration(n.patience.Load())
	log.Info("relay ending", "patience", wait)
	n.api.Drain()
	patience, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := n.public.Shutdown(patience); err != nil {
		log.Warn("requests were cut off because they did not finish in time", "patience", wait)
		_ = n.public.Close()
	}
	stopStoring()
	<-stored
	_ = n.operator.Close()
	log.Info("relay ended")
}

func (n *node) ready() Ready {
	return Ready{
		URL:         n.ownURL(),
		OperatorURL: "http://" + reachable(n.listeners[1].Addr()),
		NATSURL:     n.nats.URL(),
		HubURL:      n.market.url(),
		Key:         n.cfg.Key.Public(),
		Change:      n.change,
	}
}

// ownURL is the public interface, on this machine.
func (n *node) ownURL() string {
	scheme := "http://"
	if n.cfg.TLS != nil {
		scheme = "https://"
	}
	return scheme + reachable(n.listeners[0].Addr())
}
