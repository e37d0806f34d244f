package natsnode

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/time/rate"
)

// What others may do to the server in the process. Relays know one another by hand, so these are no tight bounds: they keep a
// fault, or a stranger without the token, from taking the relay's memory.
const (
	maxConnections = 256
	maxPayload     = 64 << 10
	maxPending     = 4 << 20         // bytes waiting for one that does not read, who is then cut off
	writePatience  = 2 * time.Second // for one who takes nothing
	authPatience   = 2 * time.Second // for the token to arrive
	startPatience  = 10 * time.Second
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
	said := &serverLog{log: cfg.Logger, fatal: make(chan string, 1), seldom: seldom()}
	s.SetLoggerV2(said, false, false, false)
	s.Start() // returns when it runs, or cannot
	select {
	case why := <-said.fatal:
		err = errors.New("NATS server: " + why)
	default:
		if !s.ReadyForConnections(startPatience) {
			err = errors.New("NATS server: it does not start")
		}
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
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

// serverLog takes what the server says.
type serverLog struct {
	log    *slog.Logger
	fatal  chan string // capacity 1: why it cannot start
	seldom rate.Sometimes
}

// Noticef implements server.Logger.
func (l *serverLog) Noticef(format string, v ...any) { l.debug(format, v) }

// Warnf implements server.Logger.
func (l *serverLog) Warnf(format string, v ...any) { l.debug(format, v) }

// Fatalf implements server.Logger. The server leaves it to its logger to end the process, which this one does not.
func (l *serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}

// Errorf implements server.Logger. A stranger with a wrong token is such an error: he may not fill the log.
func (l *serverLog) Errorf(format string, v ...any) {
	l.seldom.Do(func() { l.log.Warn("NATS server", "says", fmt.Sprintf(format, v...)) })
}

// Debugf implements server.Logger.
func (l *serverLog) Debugf(format string, v ...any) { l.debug(format, v) }

// Tracef implements server.Logger.
func (l *serverLog) Tracef(string, ...any) {}

func (l *serverLog) debug(format string, v []any) {
	l.log.Debug("NATS server", "says", fmt.Sprintf(format, v...))
}
