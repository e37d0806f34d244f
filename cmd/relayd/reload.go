package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"relaymarket/internal/relaynode"
	"relaymarket/internal/sdnotify"
	"relaymarket/relaytls"
)

// isLive tells whether a setting takes effect on SIGHUP; the others need a restart. docs/operators.md names them.
func isLive(name string) bool {
	switch name {
	case "log-level", "contact", "trust-proxy", "disk-free", "shutdown-timeout",
		"tls-cert", "tls-key", "hub-certificate", "hub-key",
		"record-bytes", "admitted-bytes", "max-pulls", "body-timeout",
		"rate-address", "burst-address", "rate-key", "burst-key", "max-requests", "max-listeners", "listeners-per-key",
		"contracts", "storage-price", "bandwidth-price", "opening-price", "credit-limit", "bond-percent", "min-deposit":
		return true
	}
	return strings.HasPrefix(name, "volunteer")
}

// certificates are those in files that serve, each nil if there is none.
type certificates struct{ public, hub *relaytls.Files }

func openCertificates(s *settings) (c certificates, err error) {
	if t := &s.tls; t.certificate != "" {
		if c.public, err = relaytls.OpenFiles(t.certificate, t.key); err != nil {
			return c, err
		}
	}
	if m := &s.market; m.certificate != "" && m.listen != "" {
		c.hub, err = relaytls.OpenFiles(m.certificate, m.key)
	}
	return c, err
}

// take serves what next was opened with. What was not there at the start, or is not any more, is left as it is: that needs a restart.
func (c *certificates) take(next certificates) {
	if c.public != nil && next.public != nil {
		c.public.Take(next.public)
	}
	if c.hub != nil && next.hub != nil {
		c.hub.Take(next.hub)
	}
}

// reloader reads the configuration again when it is told to.
type reloader struct {
	environ []string
	given   *pflag.FlagSet // the command line's
	running map[string]*setting
	values  map[string]string // that are in force, by name
	certs   certificates
	level   *slog.LevelVar
	change  func(relaynode.Live) error
	notify  *sdnotify.Notifier
	status  string // what the service manager shows
	log     *slog.Logger
}

func newReloader(environ []string, given *pflag.FlagSet, s *settings, certs certificates, level *slog.LevelVar, log *slog.Logger) *reloader {
	r := &reloader{environ: environ, given: given, certs: certs, level: level, log: log, values: map[string]string{}, running: map[string]*setting{}}
	for _, item := range s.all {
		r.values[item.name], r.running[item.name] = item.value.String(), item
	}
	return r
}

// run reads it again for each signal, until ctx is done.
func (r *reloader) run(ctx context.Context, again <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
			r.reload(ctx)
		}
	}
}

// reload takes over what can change. Of a configuration in which anything is wrong, it takes nothing.
func (r *reloader) reload(ctx context.Context) {
	if err := r.notify.Reloading(); err != nil {
		r.log.Warn("reload", "err", err)
	}
	status := r.status
	if err := r.take(ctx); err != nil {
		// One line for each of several mistakes reads badly in a log.
		r.log.Error("the configuration is not taken, nothing has changed: see relayd config check", "err", strings.ReplaceAll(err.Error(), "\n", "; "))
		status += "; the configuration read last was not taken, see the log"
	}
	if err := r.notify.Ready(status); err != nil {
		r.log.Warn("reload", "err", err)
	}
}

func (r *reloader) take(ctx context.Context) error {
	next, err := r.read()
	if err != nil {
		return err
	}
	certs, err := openCertificates(next)
	if err != nil {
		return err
	}
	cfg := next.node(r.log)
	cfg.Volunteer, cfg.Bitcoin.Offer = next.policy(), next.bitcoin.offer()
	if err := r.change(cfg.Live()); err != nil {
		return err
	}
	r.certs.take(certs)
	changed := r.compare(next, certs)
	if next.logLevel != r.level.Level() {
		r.level.Set(next.logLevel)
	}
	r.log.LogAttrs(ctx, slog.LevelInfo, "the configuration was read again", slog.Int("changed", changed))
	return nil
}

// read is what serve would run with if it started now.
func (r *reloader) read() (*settings, error) {
	next := newSettings(r.environ)
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	next.flags(flags)
	var failed error
	r.given.Visit(func(f *pflag.Flag) {
		if flags.Lookup(f.Name) != nil {
			failed = errors.Join(failed, flags.Set(f.Name, f.Value.String()))
		}
	})
	if failed != nil {
		return nil, failed
	}
	return next, next.load(r.environ, flags)
}

// compare logs what is different from what is in force, and tells how much of it has changed. What needs a restart is told again each time.
func (r *reloader) compare(next *settings, certs certificates) (changed int) {
	for _, item := range next.all {
		text := item.value.String()
		if text == r.values[item.name] {
			continue
		}
		was := r.running[item.name].shown()
		if !isLive(item.name) || r.otherWay(item.name, certs) {
			r.log.Warn("a setting needs a restart", "setting", item.name, "now", was, "then", item.shown())
			continue
		}
		changed++
		r.log.Info("a setting has changed", "setting", item.name, "from", was, "to", item.shown())
		r.values[item.name], r.running[item.name] = text, item
	}
	return changed
}

// otherWay tells whether a setting is of a certificate in files where there was none before, or is none any more: another way to
// have a certificate is another way to listen.
func (r *reloader) otherWay(name string, next certificates) bool {
	switch name {
	case "tls-cert", "tls-key":
		return r.certs.public == nil || next.public == nil
	case "hub-certificate", "hub-key":
		return r.certs.hub == nil || next.hub == nil
	}
	return false
}

// lives asks the relay whether it answers at all; whether its database does is another matter, and no reason to start the relay again.
func lives(operator string) func(context.Context) error {
	transport := &http.Transport{DisableKeepAlives: true}
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, operator+"/livez", nil)
		if err != nil {
			return err
		}
		reply, err := transport.RoundTrip(r)
		if err != nil {
			return err
		}
		_ = reply.Body.Close()
		if reply.StatusCode != http.StatusOK {
			return errors.New(reply.Status)
		}
		return nil
	}
}
