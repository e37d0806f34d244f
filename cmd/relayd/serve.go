package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"relaymarket/api"
	"relaymarket/internal/localpg"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/sdnotify"
	"relaymarket/records"
)

func (p program) serveCommand() *cobra.Command {
	s := newSettings(p.environ)
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the relay until SIGINT or SIGTERM",
		Long: `serve runs the relay. When it is ready it says so in one line on standard output;
logs are on standard error.

SIGINT or SIGTERM ends it: nothing new is accepted, what was accepted is finished. A
second one ends it at once; no acknowledged record is lost either way.

SIGHUP has it read its configuration again. What can change while it runs does; the log
names what needs a restart. Of a configuration with a mistake nothing is taken.`,
		Example: "  relayd serve\n  relayd serve --dir /var/lib/relayd --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			return p.serve(cmd.Context(), s, cmd.Flags(), asJSON)
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "the line that says it is ready as JSON")
	return cmd
}

func (p program) serve(ctx context.Context, s *settings, given *pflag.FlagSet, asJSON bool) error {
	// The first signal ends the context; from then on the next one has its usual effect, which is to
	// end the process where it stands. Postgres recovers from that.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	defer roomyCollector(p.environ)()
	again := make(chan os.Signal, 1) // one that comes before the relay is ready is followed then
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	notify := sdnotify.New(p.environ)
	context.AfterFunc(ctx, func() { _ = notify.Stopping() })

	key, err := s.readKey()
	if err != nil {
		return err
	}
	level := &slog.LevelVar{}
	level.Set(s.logLevel)
	cfg := s.node(p.loggerAt(s, level))
	cfg.Key = key
	cfg.Logger.Info("relay starting", "key", key.Public().Bech32()) // from here on a signal has it end cleanly
	certs, err := openCertificates(s)
	if err != nil {
		return err
	}
	if cfg.Bitcoin, err = s.bitcoinConfig(); err != nil {
		return err
	}
	if cfg.Market, err = s.marketConfig(certs.hub); err != nil {
		return err
	}
	if cfg.TLS, err = s.tlsConfig(ctx, key, certs.public, cfg.Logger); err != nil {
		return err
	}
	cfg.Volunteer = s.policy()
	var said error
	var beside sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	cfg.Ready = func(r relaynode.Ready) {
		reload := newReloader(p.environ, given, s, certs, level, cfg.Logger)
		reload.change, reload.notify, reload.status = r.Change, notify, "serves on "+r.URL
		if err := notify.Ready(reload.status); err != nil {
			cfg.Logger.Warn("the service manager does not know that the relay is ready", "err", err)
		}
		beside.Go(func() { reload.run(ctx, again) })
		beside.Go(func() { notify.Watch(ctx, lives(r.OperatorURL)) })
		said = p.sayReady(r, asJSON)
	}
	err = relaynode.Run(ctx, cfg)
	cancel()
	beside.Wait()
	return errors.Join(err, said)
}

// node is what the settings mean for the relay; the key is the caller's to add.
func (s *settings) node(log *slog.Logger) relaynode.Config {
	bounds := api.DefaultBounds()
	bounds.HeaderTimeout, bounds.BodyTimeout = s.headerTimeout, s.bodyTimeout
	bounds.MaxConcurrent, bounds.MaxListeners, bounds.MaxListenersPerKey = int(s.maxRequests), int(s.maxListeners), int(s.listenersPerKey)
	return relaynode.Config{
		Database:       s.databaseConfig(log),
		NATS:           relaynode.NATS{URLs: s.nats, Credentials: s.natsCredentials, Listen: s.natsListen},
		Listen:         s.listen,
		OperatorListen: s.operatorListen,
		Addresses:      s.addresses,
		Contact:        s.contact,
		TrustedProxies: s.trustProxy,
		Limits:         records.Limits{RecordBytes: int64(s.recordBytes), AdmittedBytes: int64(s.admittedBytes), Lifetime: s.lifetime, MaxPulls: s.maxPulls},
		Rates: api.Rates{
			Address: api.Rate{PerSecond: float64(s.rateAddress), Burst: int(s.burstAddress)},
			Key:     api.Rate{PerSecond: float64(s.rateKey), Burst: int(s.burstKey)},
			Opening: int(s.volunteer.address),
		},
		Bounds:          bounds,
		ShutdownTimeout: s.shutdownTimeout,
		Logger:          log,
	}
}

func (s *settings) databaseConfig(log *slog.Logger) relaynode.Database {
	return relaynode.Database{
		URL:         s.databaseURL,
		Cluster:     localpg.Config{Dir: s.databaseFolder(), BinDir: s.postgresBin, Logger: log},
		Connections: int32(s.databaseConns),
		Keep:        int64(s.diskFree),
	}
}

func (p program) logger(s *settings) *slog.Logger { return p.loggerAt(s, s.logLevel) }

func (p program) loggerAt(s *settings, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(p.err, options))
	}
	return slog.New(slog.NewTextHandler(p.err, options))
}

func (p program) sayReady(r relaynode.Ready, asJSON bool) error {
	if !asJSON {
		_, err := fmt.Fprintf(p.out, "relayd ready on %s as %s\n", r.URL, r.Key.Bech32())
		return err
	}
	line, err := json.Marshal(struct {
		Event    string `json:"event"`
		URL      string `json:"url"`
		Operator string `json:"operator"`
		NATS     string `json:"nats,omitempty"`
		Hub      string `json:"hub,omitempty"`
		Key      string `json:"key"`
		Relay    string `json:"relay"`
	}{"ready", r.URL, r.OperatorURL, r.NATSURL, r.HubURL, r.Key.String(), r.Key.Bech32()})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "%s\n", line)
	return err
}
