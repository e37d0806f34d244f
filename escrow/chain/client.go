package chain

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/rpcclient"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

const (
	// DefaultTimeout is how long one request may take, unless [Config] says otherwise.
	DefaultTimeout = 15 * time.Second
	// DefaultStaleAfter is the age of the newest block from which the node counts as behind: on a live network, two
	// hours without a block happen once in a few years.
	DefaultStaleAfter = 2 * time.Hour

	// slots is how many requests one client has under way at most. btcd serves ten connections unless told otherwise, and
	// the wallet is on one of them.
	slots = 4
	// probeAfter is how long an answer may take until the client looks whether anybody listens at all: rpcclient itself
	// would retry for twenty seconds.
	probeAfter = 250 * time.Millisecond
)

// Config says where the node is and how to ask it.
type Config struct {
	Network protocol.Network
	Host    string // host:port of the node's RPC

	// User and Password log in, or CookieFile, which Core writes anew whenever it starts.
	User       string
	Password   string
	CookieFile string

	// Plain turns TLS off. Certificate is the node's own (PEM); without it the system's authorities count.
	Plain       bool
	Certificate []byte

	// Timeout bounds each request; 0: DefaultTimeout.
	Timeout time.Duration
	// StaleAfter is the age of the newest block from which [Client.Stale] refuses; 0: DefaultStaleAfter, and on regtest
	// never, where blocks come when somebody wants them.
	StaleAfter time.Duration
	// FeeFloor and FeeCeiling bound what [Client.Feerate] answers; 0: the protocol's own bounds.
	FeeFloor   escrow.Feerate
	FeeCeiling escrow.Feerate
}

// Client asks one node. It is safe for concurrent use.
type Client struct {
	cfg    Config
	params *chaincfg.Params
	now    func() time.Time
	busy   chan struct{}
}

// New checks the configuration. It does not connect: the node may be down.
func New(cfg Config, now func() time.Time) (*Client, error) {
	params, err := escrow.Params(cfg.Network)
	if err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(cfg.Host); err != nil {
		return nil, fmt.Errorf("the Bitcoin node's address %q is not host:port: %w", cfg.Host, err)
	}
	if cfg.Password == "" && cfg.CookieFile == "" {
		return nil, errors.New("the Bitcoin node wants a login: give a user and password, or a cookie file")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.StaleAfter == 0 && cfg.Network != protocol.Regtest {
		cfg.StaleAfter = DefaultStaleAfter
	}
	if cfg.FeeFloor == 0 {
		cfg.FeeFloor = protocol.MinContractFeerate
	}
	if cfg.FeeCeiling == 0 {
		cfg.FeeCeiling = protocol.MaxContractFeerate
	}
	if err := errors.Join(cfg.FeeFloor.Validate(), cfg.FeeCeiling.Validate()); err != nil {
		return nil, err
	}
	if cfg.FeeFloor > cfg.FeeCeiling {
		return nil, fmt.Errorf("the least feerate, %d, is above the highest, %d", cfg.FeeFloor, cfg.FeeCeiling)
	}
	return &Client{cfg: cfg, params: params, now: now, busy: make(chan struct{}, slots)}, nil
}

// Network is the network that the node has to be on.
func (c *Client) Network() protocol.Network { return c.cfg.Network }

func (c *Client) connConfig() *rpcclient.ConnConfig {
	return &rpcclient.ConnConfig{
		Host:         c.cfg.Host,
		User:         c.cfg.User,
		Pass:         c.cfg.Password,
		CookiePath:   c.cfg.CookieFile,
		Params:       c.params.Name,
		DisableTLS:   c.cfg.Plain,
		Certificates: c.cfg.Certificate,
		HTTPPostMode: true,
	}
}

// call makes one request and decodes its answer. What the node itself refuses is a *btcjson.RPCError, whatever keeps it
// from answering is ErrUnreachable.
//
// Every call has a connection of its own: rpcclient sends the requests of one client one after the other, takes no
// context, and retries for long where nobody listens. Ending a client ends its request at once.
func (c *Client) call(ctx context.Context, method string, answer any, params ...any) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case c.busy <- struct{}{}:
		defer func() { <-c.busy }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %s waited for other requests: %w", ErrUnreachable, method, ctx.Err())
	}
	raw := make([]json.RawMessage, len(params))
	for i, p := range params {
		var err error
		if raw[i], err = json.Marshal(p); err != nil {
			return err
		}
	}
	rpc, err := rpcclient.New(c.connConfig(), nil)
	if err != nil {
		return err
	}
	defer rpc.WaitForShutdown()
	defer rpc.Shutdown()
	result, err := c.await(ctx, rpc.RawRequestAsync(method, raw))
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if err := json.Unmarshal(result, answer); err != nil {
		return fmt.Errorf("%w: %s: an answer that cannot be read: %w", ErrUnreachable, method, err)
	}
	return nil
}

func (c *Client) await(ctx context.Context, future rpcclient.FutureRawResult) (json.RawMessage, error) {
	probe := time.NewTimer(probeAfter)
	defer probe.Stop()
	for {
		select {
		case response := <-future:
			again := make(chan *rpcclient.Response, 1)
			again <- response
			result, err := rpcclient.ReceiveFuture(again)
			return result, c.explain(err)
		case <-probe.C:
			if err := c.probe(ctx); err != nil {
				return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.cfg.Host, err)
			}
			probe.Reset(time.Second)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.cfg.Host, ctx.Err())
		}
	}
}

// probe finds out whether anybody listens, and whether it is the one that the certificate is of.
func (c *Client) probe(ctx context.Context) error {
	dial := new(net.Dialer).DialContext
	if !c.cfg.Plain {
		var trusted tls.Config
		if len(c.cfg.Certificate) > 0 {
			trusted.RootCAs = x509.NewCertPool()
			trusted.RootCAs.AppendCertsFromPEM(c.cfg.Certificate)
		}
		dial = (&tls.Dialer{Config: &trusted}).DialContext
	}
	conn, err := dial(ctx, "tcp", c.cfg.Host)
	if err != nil {
		return err
	}
	return conn.Close()
}

// explain leaves the node's own refusals as they are and says of the rest that the node did not answer.
func (c *Client) explain(err error) error {
	var refusal *btcjson.RPCError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal) && refusal.Code != btcjson.ErrRPCInWarmup:
		return err
	case strings.HasPrefix(err.Error(), "status code: 401"):
		return fmt.Errorf("%w: %s refuses the login: check the RPC user and password", ErrUnreachable, c.cfg.Host)
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.cfg.Host, err)
}

// refusedWith tells whether the node refused with one of these codes.
func refusedWith(err error, codes ...btcjson.RPCErrorCode) bool {
	var refusal *btcjson.RPCError
	if !errors.As(err, &refusal) {
		return false
	}
	for _, code := range codes {
		if refusal.Code == code {
			return true
		}
	}
	return false
}
