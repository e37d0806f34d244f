// Package natsserve starts NATS servers that are part of this process: for relays that share a database, and for hubs.
package natsserve

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/time/rate"
)

// Start starts a server and waits until it accepts connections, at most for patience. One that does not is ended. What the
// server says goes to the log at debug level, its errors once a minute at most.
func Start(s *server.Server, log *slog.Logger, patience time.Duration) error {
	said := &serverLog{log: log, fatal: make(chan string, 1), seldom: rate.Sometimes{First: 1, Interval: time.Minute}}
	s.SetLoggerV2(said, false, false, false)
	s.Start() // returns when it runs, or cannot
	var err error
	select {
	case why := <-said.fatal:
		err = errors.New(why)
	default:
		if !s.ReadyForConnections(patience) {
			err = errors.New("it does not start")
		}
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
	return err
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
