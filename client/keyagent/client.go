//go:build linux || darwin

package keyagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"relaymarket/internal/localsock"
)

// askAttempts is how many agents that end at this moment are asked in turn.
const askAttempts = 3

// Fetch asks the agent at the socket for its secret, which the caller wipes. It
// fails with ErrNotRunning, ErrNoAnswer, ErrForeign, ErrProtocol or ErrPath, or
// because ctx ended. It takes two seconds at most.
func Fetch(ctx context.Context, socket string) ([]byte, error) {
	_, secret, err := ask(ctx, socket, opFetch)
	if err != nil {
		return nil, err
	}
	if len(secret) == 0 {
		return nil, fmt.Errorf("%w: it has no secret", ErrProtocol)
	}
	return secret, nil
}

// Status asks how long the agent at the socket will serve. It fails as Fetch
// does.
func Status(ctx context.Context, socket string) (State, error) {
	state, secret, err := ask(ctx, socket, opStatus)
	clear(secret)
	return state, err
}

// Lock makes the agent at the socket overwrite its secret, which has happened
// when Lock returns nil, and end. It fails as Fetch does; ErrNotRunning means
// that there is nothing to lock.
func Lock(ctx context.Context, socket string) error {
	_, secret, err := ask(ctx, socket, opLock)
	clear(secret)
	return err
}

func ask(ctx context.Context, socket string, op operation) (State, []byte, error) {
	if err := checkPath(socket); err != nil {
		return State{}, nil, err
	}
	for attempt := 1; ; attempt++ {
		state, secret, err := askOnce(ctx, socket, op)
		// An agent that ends while it is asked may have been replaced: then the
		// socket leads to the new one already.
		if !errors.Is(err, ErrNotRunning) || attempt == askAttempts {
			return state, secret, err
		}
	}
}

func askOnce(ctx context.Context, socket string, op operation) (State, []byte, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return State{}, nil, err
	}
	return exchange(ctx, conn, op)
}

// dial connects to an agent of this user.
func dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	dialer := net.Dialer{Timeout: exchangeTime}
	c, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, exchangeError(ctx, err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%w: a %T", ErrProtocol, c)
	}
	if err := checkPeer(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// exchange sends one request, reads the answer and closes the connection.
func exchange(ctx context.Context, conn *net.UnixConn, op operation) (State, []byte, error) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return State{}, nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := writeLine(conn, request{Version: protocolVersion, Op: op}); err != nil {
		return State{}, nil, exchangeError(ctx, err)
	}
	state, secret, err := readReply(conn)
	if err != nil {
		return State{}, nil, exchangeError(ctx, err)
	}
	return state, secret, nil
}

// checkPeer fails with ErrForeign unless the other end is the same user.
func checkPeer(conn *net.UnixConn) error {
	err := localsock.CheckPeer(conn)
	if errors.Is(err, localsock.ErrForeign) {
		return ErrForeign
	}
	return err
}

// exchangeError names what the operating system says. An agent that ends while
// it is asked is one that is not running.
func exchangeError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrNoAnswer
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOTDIR),
		errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, io.EOF):
		return ErrNotRunning
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return ErrNoAnswer
	}
	return err
}
