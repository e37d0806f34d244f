package relaynode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"

	"relaymarket/api"
)

// listen takes both addresses. They stand for who may get there: strangers, and the operator.
func (n *node) listen(ctx context.Context) error {
	for i, wanted := range []struct{ setting, address string }{{"listen", n.cfg.Listen}, {"operator-listen", n.cfg.OperatorListen}} {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", wanted.address)
		if err != nil {
			n.closeListeners()
			return cannotListen(wanted.setting, wanted.address, err)
		}
		n.listeners[i] = l
	}
	return nil
}

func cannotListen(setting, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program, perhaps by another relayd: stop that one, or choose another address with --%s", address, setting)
	}
	return fmt.Errorf("cannot listen on %s, choose another address with --%s: %w", address, setting, err)
}

// closeListeners closes those that no server has closed.
func (n *node) closeListeners() {
	for _, l := range n.listeners {
		if l != nil {
			_ = l.Close() // a second time is an error without meaning
		}
	}
}

// server bounds what a stranger can hold open. The body and the reply are bounded by the api, which knows
// how much time each route may take.
func (n *node) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: n.cfg.Bounds.HeaderTimeout,
		IdleTimeout:       api.IdleTimeout,
		MaxHeaderBytes:    api.MaxHeaderBytes,
		// What strangers do to their connections is no news.
		ErrorLog: slog.NewLogLogger(n.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

func serve(s *http.Server, l net.Listener) error {
	do := s.Serve
	if s.TLSConfig != nil {
		do = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	if err := do(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

// reachable is an address to connect to on this machine: one that listens everywhere listens on loopback too.
func reachable(a net.Addr) string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return a.String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port()).String()
}
