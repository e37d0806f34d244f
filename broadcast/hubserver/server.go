// Package hubserver is the NATS server of a hub, inside the process: JetStream for the book, and a port for everybody. A stranger, who
// needs no password, may do four things and nothing else: send an announcement to be checked, follow those that were
// taken, get them from the stream, and hear the answers to his own requests (see [Policy]). What he can make the server hold is bounded: by
// connections, subscriptions, message size, and what waits for a connection that does not read, which is cut off.
//
// relaynode starts it where the operator wants a hub, and connects the hub to it through memory. It is apart from the
// server by which the processes of one relay wake each other, which no stranger reaches.
package hubserver

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"relaymarket/internal/natsserve"
	"relaymarket/protocol"
)

// What strangers may take.
const (
	maxPayload       = 8 << 10 // an announcement has half of that
	maxSubscriptions = 8       // of one connection
	maxPending       = 4 << 20 // bytes waiting for one that does not read, and in one answer from the stream
	writePatience    = 5 * time.Second
	helloPatience    = 5 * time.Second // for TLS and the first line of a client
	pingInterval     = 30 * time.Second
	pingsOut         = 2
	startPatience    = 10 * time.Second
)

// DefaultConnections is how many may be connected at once when the operator says nothing.
const DefaultConnections = 4096

// Config says where the server is. All but TLS is required.
type Config struct {
	Network     protocol.Network
	Listen      string // host:port for everybody; port 0 takes a free one
	Folder      string // of the stream; it is made
	Bytes       int64  // on disk at most
	Connections int    // at once; 0 is DefaultConnections
	TLS         *tls.Config
	Logger      *slog.Logger
}

// Server is a running one. It is safe for concurrent use.
type Server struct {
	server   *server.Server
	password string
	secure   bool
}

// Start starts it. An address that cannot be listened on is an error of package net. The caller must Close it.
func Start(cfg Config) (*Server, error) {
	s := &Server{password: rand.Text(), secure: cfg.TLS != nil}
	options := &server.Options{}
	if err := options.ProcessConfigString(Policy(cfg.Network, s.password)); err != nil {
		return nil, fmt.Errorf("hub: its own policy: %w", err)
	}
	if err := cfg.fill(options); err != nil {
		return nil, err
	}
	var err error
	if s.server, err = server.NewServer(options); err != nil {
		return nil, fmt.Errorf("hub: NATS server: %w", err)
	}
	if err := natsserve.Start(s.server, cfg.Logger.With("of", "hub"), startPatience); err != nil {
		return nil, fmt.Errorf("hub: NATS server: %w", err)
	}
	return s, nil
}

func (c Config) fill(o *server.Options) error {
	// The server itself would not say in a form that can be told apart what is wrong with an address.
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	_ = l.Close()
	host, text, _ := net.SplitHostPort(c.Listen)
	port, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("hub: %q is no port", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	o.Host, o.Port = host, port
	o.ServerName, o.NoSigs = "relayd-hub", true
	o.JetStream, o.StoreDir = true, c.Folder
	o.JetStreamMaxStore, o.JetStreamMaxMemory = c.Bytes, 1<<20
	o.MaxConn = c.Connections
	if o.MaxConn == 0 {
		o.MaxConn = DefaultConnections
	}
	o.MaxPayload, o.MaxPending, o.MaxSubs, o.MaxControlLine = maxPayload, maxPending, maxSubscriptions, 1024
	o.WriteDeadline, o.AuthTimeout = writePatience, helloPatience.Seconds()
	o.PingInterval, o.MaxPingsOut = pingInterval, pingsOut
	if c.TLS != nil {
		o.TLS, o.TLSConfig, o.TLSTimeout = true, c.TLS, helloPatience.Seconds()
		o.TLSHandshakeFirst = false
	}
	return nil
}

// Connect connects the hub, through memory. The connection is the caller's to close, before the server.
func (s *Server) Connect(options ...nats.Option) (*nats.Conn, error) {
	own := []nats.Option{nats.Name("relayd"), nats.InProcessServer(s.server), nats.UserInfo(HubUser, s.password),
		nats.Timeout(startPatience), // its own two seconds are little for a machine that has much to do while a relay starts
		// A flood is counted by the hub itself.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}
	return nats.Connect("", append(own, options...)...)
}

// URL is where everybody reaches the server.
func (s *Server) URL() string {
	scheme := "nats"
	if s.secure {
		scheme = "tls"
	}
	addr := s.server.Addr()
	if addr == nil {
		return ""
	}
	return scheme + "://" + addr.String()
}

// Connections is how many are connected now.
func (s *Server) Connections() int { return s.server.NumClients() }

// Slow is how many were cut off because they did not read.
func (s *Server) Slow() int64 { return s.server.NumSlowConsumers() }

// Close ends the server and waits until its files are closed.
func (s *Server) Close() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
