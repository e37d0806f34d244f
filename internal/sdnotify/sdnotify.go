// Package sdnotify tells systemd how a service is, by the datagrams of sd_notify(3): it is ready, reads its configuration again, is
// ending, is alive. It is a socket and a few words, and no dependency.
//
// Without a service manager that asks for it, which NOTIFY_SOCKET in the environment says, everything here does nothing.
package sdnotify

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier tells the service manager. The zero value and nil tell nobody.
type Notifier struct {
	socket   string
	watchdog time.Duration // within which it wants a sign of life; 0: it does not
}

// New looks into the environment for who is to be told.
func New(environ []string) *Notifier {
	n := &Notifier{}
	var usec, pid string
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "NOTIFY_SOCKET":
			n.socket = value
		case "WATCHDOG_USEC":
			usec = value
		case "WATCHDOG_PID":
			pid = value
		}
	}
	// The variables may be another process's, that started this one.
	if micro, err := strconv.ParseInt(usec, 10, 64); err == nil && micro > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(micro) * time.Microsecond
	}
	return n
}

// Ready tells that the service serves, also after Reloading, with a line about it for people.
func (n *Notifier) Ready(status string) error { return n.tell("READY=1\nSTATUS=" + oneLine(status)) }

// Reloading tells that the configuration is read again. [Notifier.Ready] has to follow.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping tells that the service is ending.
func (n *Notifier) Stopping() error { return n.tell("STOPPING=1\nSTATUS=ending") }

// Status is a line for people.
func (n *Notifier) Status(line string) error { return n.tell("STATUS=" + oneLine(line)) }

// Watch gives a sign of life, if one is wanted, twice as often as it is wanted and only while alive succeeds, until ctx is done.
func (n *Notifier) Watch(ctx context.Context, alive func(context.Context) error) {
	if n == nil || n.socket == "" || n.watchdog <= 0 {
		return
	}
	tick := time.NewTicker(n.watchdog / 2)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, n.watchdog/2)
		if alive(asking) == nil {
			_ = n.tell("WATCHDOG=1") // one that is lost is followed by another
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tell sends one datagram.
func (n *Notifier) tell(state string) error {
	if n == nil || n.socket == "" {
		return nil
	}
	// Go writes the leading @ of an abstract address as the NUL that it stands for.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }
