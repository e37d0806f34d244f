//go:build !linux && !darwin

package daemon

import (
	"context"
	"net"

	"relaymarket/internal/localsock"
)

type lock struct{}

func takeLock(string) (*lock, error) { return nil, localsock.ErrUnsupported }

func (*lock) release() {}

// Running says that there is none: on this system there is no daemon.
func Running(string) (pid int, running bool, err error) { return 0, false, nil }

func socketPath(string, string) (string, error) { return "", ErrNotRunning }

func listen(string, string) (net.Listener, error) { return nil, localsock.ErrUnsupported }

func dial(context.Context, string) (net.Conn, error) { return nil, ErrNotRunning }
