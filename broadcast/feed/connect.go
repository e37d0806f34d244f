package feed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	connectPatience = 5 * time.Second
	pingInterval    = 20 * time.Second
	pingsOut        = 2
	firstPause      = 50 * time.Millisecond
	longPause       = 30 * time.Second
)

// Access is what a hub's NATS server wants to see beside the URL; the zero value is a stranger's, whom hubs expect.
type Access struct {
	Credentials string      // a .creds file; the URL may hold user and password instead
	TLS         *tls.Config // nil: as the URL's scheme says, with the system's authorities
	Name        string      // of the program, which the server's operator sees
	// Changed is called when the connection is there (nil) and when it is lost; it may be nil.
	Changed func(error)
}

// Connect begins to connect to a hub's NATS server and does not wait for it: a connection that cannot be made, or is lost, is tried
// again until ctx is done, which also closes it. It errs only if what is given cannot be right.
func Connect(ctx context.Context, hub string, access Access) (*nats.Conn, error) {
	u, err := url.Parse(hub)
	if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" {
		return nil, errors.New("the NATS server of a hub is written nats://host:port or tls://host:port")
	}
	conn, err := nats.Connect(hub, access.options(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", u.Redacted(), err)
	}
	context.AfterFunc(ctx, conn.Close)
	return conn, nil
}

func (a Access) options(ctx context.Context) []nats.Option {
	changed := a.Changed
	if changed == nil {
		changed = func(error) {}
	}
	options := []nats.Option{
		nats.Name(a.Name), nats.Timeout(connectPatience), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(pingsOut), nats.IgnoreAuthErrorAbort(), nats.CustomReconnectDelay(pause),
		nats.SetCustomDialer(dialer{ctx}), nats.SkipHostLookup(), nats.IgnoreDiscoveredServers(),
		nats.ConnectHandler(func(*nats.Conn) { changed(nil) }), nats.ReconnectHandler(func(*nats.Conn) { changed(nil) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { changed(orClosed(err)) }),
		// Faults of single subscriptions show where they matter: in what is dropped, and in requests without an answer.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	if a.Credentials != "" {
		options = append(options, nats.UserCredentials(a.Credentials))
	}
	if a.TLS != nil {
		options = append(options, nats.Secure(a.TLS))
	}
	return options
}

func orClosed(err error) error {
	if err == nil {
		return nats.ErrConnectionClosed
	}
	return err
}

// pause grows, and is not the same for all who lost the same hub.
func pause(attempt int) time.Duration {
	d := longPause
	if attempt < 10 {
		d = min(d, firstPause<<max(attempt-1, 0))
	}
	return d/2 + rand.N(d/2)
}

// dialer gives up when its context is done, so that nothing waits at the end for a server that does not answer.
type dialer struct{ ctx context.Context }

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: connectPatience}).DialContext(d.ctx, network, address)
}
