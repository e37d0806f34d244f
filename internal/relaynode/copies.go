package relaynode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"relaymarket/escrow/relayside"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// ErrNoWallet: the relay that runs keeps no wallet.
var ErrNoWallet = errors.New("the relay that runs keeps no wallet")

// copyTimeout bounds the copy of a wallet, which is some megabytes.
const copyTimeout = 5 * time.Minute

// walletFile sends the wallet's file as it is at one moment. A copy that ends early is seen to: its last chunk does not come.
func walletFile(w *wallet.Wallet) http.HandlerFunc {
	return func(reply http.ResponseWriter, _ *http.Request) {
		reply.Header().Set("Content-Type", "application/octet-stream")
		if err := w.Copy(reply); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// CopyWallet asks a running relay for a copy of its wallet's file. The error is [ErrNotRunning] when none answers, [ErrNoWallet] when it keeps none.
func CopyWallet(ctx context.Context, operator string, key *protocol.PrivateKey, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+operator+"/wallet/file", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+operatorToken(key))
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableCompression: true}
	defer transport.CloseIdleConnections()
	reply, err := (&http.Client{Transport: transport}).Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: nothing listens on %s", ErrNotRunning, operator)
	}
	if err != nil {
		return fmt.Errorf("ask the relay on %s: %w", operator, err)
	}
	defer reply.Body.Close()
	switch reply.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return ErrNoWallet
	default:
		text, _ := io.ReadAll(io.LimitReader(reply.Body, 1<<10))
		return fmt.Errorf("the relay on %s says: %s", operator, text)
	}
	if _, err := io.Copy(to, reply.Body); err != nil {
		return fmt.Errorf("copy the wallet: %w", err)
	}
	return nil
}

// CheckWallet opens the wallet in a folder that is nobody's, and closes it: it is of this seed and can be read.
func CheckWallet(b Bitcoin, folder string, log *slog.Logger) error {
	b.Wallet = folder
	opened, err := b.open(log, time.Now)
	if err != nil {
		return err
	}
	return opened.close()
}

// CheckContracts sees whether every live contract of a database can be settled by these keys, and returns how many there are.
func CheckContracts(ctx context.Context, database string, relay *protocol.PrivateKey, b Bitcoin, log *slog.Logger) (contracts int, err error) {
	err = WithContracts(ctx, Database{URL: database, Connections: 4}, relay, b, log, func(ctx context.Context, m *relayside.Manager) error {
		contracts, err = m.Verify(ctx)
		return err
	})
	return contracts, err
}
