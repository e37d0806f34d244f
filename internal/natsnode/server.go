package natsnode

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"relaymarket/internal/natsserve"
)

// What others may do to the server in the process. Relays know one another by hand, so these are no tight bounds: they keep a
// fault, or a stranger without the token, from taking the relay's memory.
const (
	maxConnections = 256
	maxPayload     = 64 << 10
	maxPending     = 4 << 20         // bytes waiting for one that does not read, who is then cut off
	writePatience  = 2 * time.Second // for one who takes nothing
	authPatience   = 5 * time.Second // for the token to arrive
	startPatience  = 30 * time.Second
)

// startServer starts the server in the process.
func startServer(cfg Config) (*server.Server, error) {
	options := &server.Options{
		ServerName: "relayd", NoSigs: true, NoSystemAccount: true, DontListen: cfg.Listen == "",
		Authorization: cfg.Token, AuthTimeout: authPatience.Seconds(),
		MaxConn: maxConnections, MaxPayload: maxPayload, MaxPending: maxPending, WriteDeadline: writePatience,
		PingInterval: pingInterval, MaxPingsOut: pingsOut,
	}
	if cfg.Listen != "" {
		if err := listenOn(options, cfg); err != nil {
			return nil, err
		}
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	if err := natsserve.Start(s, cfg.Logger, startPatience); err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	return s, nil
}

// listenOn makes the server one that others reach.
func listenOn(o *server.Options, cfg Config) error {
	if cfg.Token == "" {
		return errors.New("a NATS server that others reach needs a token")
	}
	// The server itself would not say in a form that can be told apart what is wrong with an address.
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("NATS server: %w", err)
	}
	_ = l.Close()
	host, text, _ := net.SplitHostPort(cfg.Listen)
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("NATS server: %q is no port", text)
	}
	o.Host, o.Port = host, int(port)
	if port == 0 {
		o.Port = server.RANDOM_PORT
	}
	return nil
}
