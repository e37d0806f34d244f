// Package natsnode is a relay's end of NATS: a server inside the process, or a connection to servers elsewhere.
//
// # Which
//
//	URLs           a client of those servers, whoever runs them
//	Listen         a server in this process, which other relayd reach there with the Token
//	neither        a server in this process that listens nowhere: nobody else is on it, see [Node.Shared]
//
// A server in this process is reached through memory, not through a port. JetStream is off and nothing is kept on disk.
//
// # When NATS is away
//
// Nothing may depend on it. Start does not wait for a server elsewhere, and no failure of one ends the relay: the connection
// is tried again for ever, after pauses that grow to some seconds. It is told once in the log that NATS is away, and once that it is back;
// Connected and a metric say how it stands. Messages published meanwhile are refused, not kept: what they said is out of date by the time
// there is somebody to hear it.
//
// relaynode starts it; internal/wake uses it.
package natsnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says where NATS is. The zero value, with a Logger, is a server in the process for this process alone.
type Config struct {
	URLs        []string // of servers elsewhere, as ParseURL takes them
	Credentials string   // a .creds file to show those servers; empty: what the URL holds, else Token
	Listen      string   // host:port where the server in the process takes others; port 0 takes a free one
	Token       string   // what others must show there, and what is shown to servers elsewhere when nothing else is set
	Logger      *slog.Logger
	Registerer  prometheus.Registerer // nil: metrics are kept and not shown
}

// Node is NATS as a relay has it. It is safe for concurrent use.
type Node struct {
	log       *slog.Logger
	shared    bool
	server    *server.Server // nil when it is elsewhere
	conn      *nats.Conn
	connected atomic.Bool
	closing   atomic.Bool
	hangUp    context.CancelFunc // ends whatever the connection waits for
	closed    chan struct{}
}

// Start starts the server in the process, and errs if it cannot listen; or begins to connect to those elsewhere, and errs only if
// what is configured cannot be right. The caller must Close it.
func Start(cfg Config) (*Node, error) {
	n := &Node{log: cfg.Logger, shared: len(cfg.URLs) > 0 || cfg.Listen != "", closed: make(chan struct{})}
	if err := n.open(cfg); err != nil {
		return nil, err
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "relaymarket_nats_connected",
			Help: "1 while there is a connection to NATS, 0 while it is away."}, func() float64 {
			if n.Connected() {
				return 1
			}
			return 0
		}))
	}
	return n, nil
}

func (n *Node) open(cfg Config) error {
	if len(cfg.URLs) > 0 {
		if cfg.Listen != "" {
			return errors.New("NATS is either elsewhere or in this process, not both")
		}
		return n.join(cfg)
	}
	s, err := startServer(cfg)
	if err != nil {
		return err
	}
	n.server = s
	if err := n.joinInProcess(cfg); err != nil {
		return errors.Join(fmt.Errorf("connect to the NATS server in this process: %w", err), n.Close())
	}
	return nil
}

// Shared tells whether another process can be on this NATS. If not, what is published is for nobody.
func (n *Node) Shared() bool { return n.shared }

// Connected tells whether there is a connection at this moment. It never waits, as the connection's own methods do while it
// is being made.
func (n *Node) Connected() bool { return n.connected.Load() }

// Conn is the connection. Its methods may take connectPatience while it is being made.
func (n *Node) Conn() *nats.Conn { return n.conn }

// URL is where others reach the server in this process, without the token; empty if it listens nowhere.
func (n *Node) URL() string {
	if n.server == nil || n.server.Addr() == nil {
		return ""
	}
	return "nats://" + n.server.Addr().String()
}

// Close sends what was published, ends the connection, and then the server in the process.
func (n *Node) Close() error {
	var err error
	n.closing.Store(true)
	if n.conn != nil {
		if n.Connected() {
			if flush := n.conn.FlushTimeout(flushPatience); flush != nil {
				n.log.Debug("NATS went away at the end", "err", flush)
			}
		}
		n.hangUp()
		n.conn.Close()
		select {
		case <-n.closed:
		case <-time.After(closePatience):
			err = fmt.Errorf("the connection to NATS did not end within %s", closePatience)
		}
	}
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
	}
	return err
}
