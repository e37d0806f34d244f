package relaynode

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// A wallet has one process. While that is the relay, commands ask it over the operator's listener, and show that they
// have the relay's key.

// WalletView is what an operator sees of his wallet.
type WalletView struct {
	Network     protocol.Network `json:"network"`
	Address     string           `json:"address"`     // to pay to
	Confirmed   btcutil.Amount   `json:"confirmed"`   // satoshi, leased ones included
	Leased      btcutil.Amount   `json:"leased"`      // promised to fundings
	Unconfirmed btcutil.Amount   `json:"unconfirmed"` // change of what was sent
	Immature    btcutil.Amount   `json:"immature"`
}

// WalletPayment is a payment out of the wallet.
type WalletPayment struct {
	Key     string         `json:"key"` // names it: again under this key, it is the same payment
	To      string         `json:"to"`
	Amount  btcutil.Amount `json:"amount"`  // satoshi
	All     bool           `json:"all"`     // everything, less the fee, instead of Amount
	Feerate escrow.Feerate `json:"feerate"` // sat per 1000 vB
}

// LookAtWallet reads the view.
func LookAtWallet(ctx context.Context, w *wallet.Wallet, n protocol.Network) (WalletView, error) {
	to, err := w.ReceiveAddress(ctx)
	if err != nil {
		return WalletView{}, err
	}
	b, err := w.Balance(ctx)
	return WalletView{Network: n, Address: to.EncodeAddress(), Confirmed: b.Confirmed, Leased: b.Leased, Unconfirmed: b.Unconfirmed, Immature: b.Immature}, err
}

// Pay makes a payment and returns its transaction id.
func (p WalletPayment) Pay(ctx context.Context, w *wallet.Wallet, n protocol.Network) (string, error) {
	params, err := escrow.Params(n)
	if err != nil {
		return "", err
	}
	to, err := address.DecodeAddress(p.To, params)
	if err != nil {
		return "", fmt.Errorf("%q is no address of %s: %w", p.To, n, err)
	}
	tx, err := w.Send(ctx, wallet.SendRequest{Key: p.Key, To: to, Amount: p.Amount, All: p.All, Feerate: p.Feerate})
	if err != nil {
		return "", err
	}
	return tx.TxHash().String(), nil
}

// tagOperatorToken makes the token a value of its own, as the one for NATS.
const tagOperatorToken = "relaymarket/v1/operator-token"

func operatorToken(key *protocol.PrivateKey) string {
	secret := key.Secret()
	token := protocol.TaggedHash(tagOperatorToken, secret[:])
	return hex.EncodeToString(token[:])
}

const (
	walletTimeout  = 30 * time.Second
	maxWalletReply = 64 << 10
)

// operatorHandler adds the wallet to the operator's own interface.
func (n *node) operatorHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", n.api.Operator())
	mux.HandleFunc("GET /status", n.forOperator("the status", func(ctx context.Context, _ *http.Request) (any, error) { return n.status(ctx) }))
	if n.bitcoin == nil || n.bitcoin.wallet == nil {
		none := func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "this process keeps no wallet: ask the one that has bitcoin-rpc and bitcoin-wallet = \"yes\"", http.StatusNotFound)
		}
		mux.HandleFunc("/wallet", none)
		mux.HandleFunc("/wallet/file", none)
		return mux
	}
	mux.HandleFunc("GET /wallet/file", n.known("the wallet", walletFile(n.bitcoin.wallet)))
	network := n.cfg.Bitcoin.Node.Network
	mux.HandleFunc("GET /wallet", n.forOperator("the wallet", func(ctx context.Context, _ *http.Request) (any, error) {
		return LookAtWallet(ctx, n.bitcoin.wallet, network)
	}))
	mux.HandleFunc("POST /wallet/payments", n.forOperator("the wallet", func(ctx context.Context, r *http.Request) (any, error) {
		var p WalletPayment
		if err := json.NewDecoder(io.LimitReader(r.Body, maxWalletReply)).Decode(&p); err != nil {
			return nil, fmt.Errorf("read the payment: %w", err)
		}
		return p.Pay(ctx, n.bitcoin.wallet, network)
	}))
	return mux
}

// known lets in those who show that they have the relay's key.
func (n *node) known(what string, do http.HandlerFunc) http.HandlerFunc {
	token := []byte("Bearer " + operatorToken(n.cfg.Key))
	return func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), token) != 1 {
			http.Error(w, what+" is for who has the relay's key", http.StatusUnauthorized)
			return
		}
		do(w, r)
	}
}

// forOperator answers those who show that they have the relay's key with a value.
func (n *node) forOperator(what string, do func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return n.known(what, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), walletTimeout)
		defer cancel()
		value, err := do(ctx, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	})
}

// ErrNotRunning: no relay answers on the operator's address.
var ErrNotRunning = errors.New("the relay does not run")

// AskWallet asks a running relay for its wallet. The error is [ErrNotRunning] when none answers.
func AskWallet(ctx context.Context, operator string, key *protocol.PrivateKey) (view WalletView, err error) {
	err = askOperator(ctx, operator, key, http.MethodGet, "/wallet", nil, &view)
	return view, err
}

// PayFromWallet has a running relay pay, and returns the transaction id. The error is [ErrNotRunning] when none answers.
func PayFromWallet(ctx context.Context, operator string, key *protocol.PrivateKey, p WalletPayment) (txid string, err error) {
	err = askOperator(ctx, operator, key, http.MethodPost, "/wallet/payments", p, &txid)
	return txid, err
}

func askOperator(ctx context.Context, operator string, key *protocol.PrivateKey, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, walletTimeout)
	defer cancel()
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+operator+path, &content)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+operatorToken(key))
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext}
	defer transport.CloseIdleConnections()
	reply, err := (&http.Client{Transport: transport}).Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: nothing listens on %s", ErrNotRunning, operator)
	}
	if err != nil {
		return fmt.Errorf("ask the relay on %s: %w", operator, err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(io.LimitReader(reply.Body, maxWalletReply))
	if err != nil {
		return fmt.Errorf("ask the relay on %s: %w", operator, err)
	}
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("the relay on %s says: %s", operator, bytes.TrimSpace(text))
	}
	return json.Unmarshal(text, answer)
}
