package relaytls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// ACME says how certificates are had from a public authority (RFC 8555), which reaches the server by TLS-ALPN (RFC 8737) at port 443 of
// each host.
type ACME struct {
	Hosts     []string
	Email     string         // optional
	Directory string         // empty: Let's Encrypt
	Folder    string         // account, keys and certificates
	Listen    string         // host:port that the server listens on
	Roots     *x509.CertPool // of the directory's own certificate; nil: those of the system
	Logger    *slog.Logger
}

// FromACME is a server's side of TLS with certificates that are asked for and renewed until ctx is done. It does not wait for them: a
// handshake before the first is there fails.
func FromACME(ctx context.Context, a ACME) (*tls.Config, error) {
	_, text, err := net.SplitHostPort(a.Listen)
	if err != nil {
		return nil, fmt.Errorf("ACME: %w", err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("ACME: the port of %s: %w", a.Listen, err)
	}
	if a.Directory == "" {
		a.Directory = certmagic.LetsEncryptProductionCA
	}
	logger := zap.New(&logCore{log: a.Logger.With("part", "acme")})
	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil }, Logger: logger,
	})
	context.AfterFunc(ctx, cache.Stop)
	magic = certmagic.New(cache, certmagic.Config{Storage: &certmagic.FileStorage{Path: a.Folder}, Logger: logger})
	magic.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(magic, certmagic.ACMEIssuer{
		CA: a.Directory, Email: a.Email, Agreed: true, TrustedRoots: a.Roots, DisableHTTPChallenge: true, AltTLSALPNPort: port, Logger: logger,
	})}
	if err := magic.ManageAsync(ctx, a.Hosts); err != nil {
		return nil, fmt.Errorf("ACME: %w", err)
	}
	secure := magic.TLSConfig()
	secure.NextProtos = append([]string{"h2", "http/1.1"}, secure.NextProtos...)
	return secure, nil
}

// logCore lets certmagic, which logs with zap, log to where the rest does.
type logCore struct{ log *slog.Logger }

// Enabled implements [zapcore.Core].
func (c *logCore) Enabled(l zapcore.Level) bool { return c.log.Enabled(context.Background(), level(l)) }

// With implements [zapcore.Core].
func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	return &logCore{c.log.With(attributes(fields)...)}
}

// Check implements [zapcore.Core].
func (c *logCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements [zapcore.Core].
func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), level(e.Level), e.Message, attributes(fields)...)
	return nil
}

// Sync implements [zapcore.Core].
func (c *logCore) Sync() error { return nil }

func level(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.InfoLevel:
		return slog.LevelInfo
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

func attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	all := make([]any, 0, 2*len(encoder.Fields))
	for _, name := range slices.Sorted(maps.Keys(encoder.Fields)) {
		all = append(all, name, encoder.Fields[name])
	}
	return all
}
