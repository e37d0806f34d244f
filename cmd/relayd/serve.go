package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"relaymarket/api"
	"relaymarket/internal/localpg"
	"relaymarket/internal/relaynode"
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
second one ends it at once; no acknowledged record is lost either way.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			return p.serve(cmd.Context(), s, asJSON)
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "the line that says it is ready as JSON")
	return cmd
}

func (p program) serve(ctx context.Context, s *settings, asJSON bool) error {
	// The first signal ends the context; from then on the next one has its usual effect, which is to
	// end the process where it stands. Postgres recovers from that.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	defer roomyCollector(p.environ)()

	key, err := s.readKey()
	if err != nil {
		return err
	}
	cfg := s.node(p.logger(s))
	cfg.Key = key
	if cfg.Bitcoin, err = s.bitcoinConfig(); err != nil {
		return err
	}
	if cfg.Market, err = s.marketConfig(); err != nil {
		return err
	}
	cfg.Volunteer = s.policy()
	var said error
	cfg.Ready = func(r relaynode.Ready) { said = p.sayReady(r, asJSON) }
	if err := relaynode.Run(ctx, cfg); err != nil {
		return err
	}
	return said
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

func (p program) logger(s *settings) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.logLevel}
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
