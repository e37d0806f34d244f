package natsnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"
)

const (
	connectPatience = 2 * time.Second // for a server to answer, and to take what is sent
	flushPatience   = time.Second     // for what was published to go out at the end
	closePatience   = 5 * time.Second
	// A server that is there and says nothing is found out after pingInterval × (pingsOut + 1).
	pingInterval = 5 * time.Second
	pingsOut     = 2
	// Between attempts to connect the pauses double.
	firstPause = 20 * time.Millisecond
	longPause  = 5 * time.Second
)

// joinInProcess connects to the server in this process.
func (n *Node) joinInProcess(cfg Config) (err error) {
	n.hangUp = func() {}
	l := &link{node: n, log: cfg.Logger, servers: "in this process", seldom: seldom()}
	// Nobody else is in between: where this takes long the machine is busy, and the relay is to start all the same.
	n.conn, err = nats.Connect("", append(l.options(), nats.InProcessServer(n.server), nats.Token(cfg.Token), nats.Timeout(startPatience))...)
	if err != nil {
		n.conn = nil
		return err
	}
	n.connected.Store(true)
	return nil
}

// join begins to connect to servers elsewhere, and does not wait for them.
func (n *Node) join(cfg Config) error {
	shown := make([]string, len(cfg.URLs))
	secret := cfg.Credentials != ""
	for i, text := range cfg.URLs {
		u, err := ParseURL(text)
		if err != nil {
			return err
		}
		shown[i], secret = Redact(text), secret || u.User != nil
	}
	ctx, hangUp := context.WithCancel(context.Background())
	l := &link{node: n, log: cfg.Logger, servers: strings.Join(shown, ","), seldom: seldom()}
	d := &dialer{ctx: ctx}
	options := append(l.options(), nats.RetryOnFailedConnect(true), nats.SetCustomDialer(d), nats.SkipHostLookup())
	switch {
	case cfg.Credentials != "":
		if err := checkCredentials(cfg.Credentials); err != nil {
			hangUp()
			return err
		}
		options = append(options, nats.UserCredentials(cfg.Credentials))
	case !secret && cfg.Token != "":
		options = append(options, nats.Token(cfg.Token))
	}
	conn, err := nats.Connect(strings.Join(cfg.URLs, ","), options...)
	if err != nil {
		hangUp()
		return fmt.Errorf("NATS at %s: %w", l.servers, err)
	}
	n.conn, n.hangUp = conn, hangUp
	l.conn.Store(conn)
	d.open.Store(true)
	return nil
}

// checkCredentials finds out what is wrong with a file now, not when a server first asks.
func checkCredentials(path string) error {
	var o nats.Options
	err := nats.UserCredentials(path)(&o)
	if err == nil {
		_, err = o.UserJWT()
	}
	if err == nil {
		_, err = o.SignatureCB([]byte("nonce"))
	}
	if err != nil {
		return fmt.Errorf("NATS credentials in %s: %w", path, err)
	}
	return nil
}

// dialer connects until its context is done, which also ends what was connected: so nothing waits at the end for a server that does not
// answer. It refuses until it is open: [nats.Connect] tries each server once before it returns, and nobody
// should wait for that.
type dialer struct {
	ctx  context.Context
	open atomic.Bool
}

var errNotYet = errors.New("not tried yet")

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if !d.open.Load() {
		return nil, errNotYet
	}
	conn, err := (&net.Dialer{Timeout: connectPatience}).DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(d.ctx, func() { _ = conn.Close() })
	return &dialled{conn, stop}, nil
}

// dialled lets go of the dialer's context when it is closed.
type dialled struct {
	net.Conn
	stop func() bool
}

// Close implements net.Conn.
func (c *dialled) Close() error {
	c.stop()
	return c.Conn.Close()
}

// link follows how the connection stands.
type link struct {
	node    *Node
	log     *slog.Logger
	servers string // for people
	conn    atomic.Pointer[nats.Conn]
	away    atomic.Bool // it was told
	last    atomic.Pointer[error]
	seldom  rate.Sometimes // for faults that may come with each message
}

func (l *link) options() []nats.Option {
	return []nats.Option{
		nats.Name("relayd"), nats.Timeout(connectPatience), nats.FlusherTimeout(connectPatience),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(pingsOut),
		nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.CustomReconnectDelay(l.pause),
		// A password that is wrong now may be right later, and a relay is not restarted for it.
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(l.back), nats.ReconnectHandler(l.back),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { l.gone(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if !errors.Is(err, errNotYet) {
				l.last.Store(&err)
			}
		}),
		nats.ErrorHandler(l.fault),
		nats.ClosedHandler(func(*nats.Conn) { l.node.connected.Store(false); close(l.node.closed) }),
	}
}

// pause is how long to wait before the next attempt, when all servers were tried once more; attempt counts from 1.
func (l *link) pause(attempt int) time.Duration {
	// The reason comes by another goroutine: perhaps only after the next attempt.
	if err := l.reason(); attempt > 2 || attempt == 2 && err != nil {
		l.gone(err)
	}
	d := longPause
	if attempt < 10 {
		d = min(d, firstPause<<(attempt-1))
	}
	return d/2 + rand.N(d/2) // not all relays at once
}

// reason is why the last attempt failed: nats.go tells of some on the connection, of others to the handler.
func (l *link) reason() error {
	if c := l.conn.Load(); c != nil {
		if err := c.LastError(); err != nil && !errors.Is(err, errNotYet) {
			return err
		}
	}
	if err := l.last.Load(); err != nil {
		return *err
	}
	return nil
}

// gone tells once that NATS is away.
func (l *link) gone(err error) {
	l.node.connected.Store(false)
	if l.node.closing.Load() || l.away.Swap(true) {
		l.log.Debug("NATS is away", "servers", l.servers, "err", err)
		return
	}
	l.log.Warn("NATS is away: trying again, and meanwhile this relay finds what others stored by looking", "servers", l.servers, "err", err)
}

func (l *link) back(*nats.Conn) {
	l.node.connected.Store(true)
	l.away.Store(false)
	l.log.Info("NATS is connected", "servers", l.servers)
}

// fault is what a server says of this user: that he may not do something. Of a subscriber who does not keep up its own counters tell.
func (l *link) fault(_ *nats.Conn, _ *nats.Subscription, err error) {
	if l.away.Load() || errors.Is(err, nats.ErrSlowConsumer) {
		return
	}
	l.seldom.Do(func() { l.log.Warn("NATS refuses", "servers", l.servers, "err", err) })
}

func seldom() rate.Sometimes { return rate.Sometimes{First: 1, Interval: time.Minute} }
