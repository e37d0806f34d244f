package relaynode

import (
	"encoding/hex"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/internal/natsnode"
	"relaymarket/internal/wake"
	"relaymarket/protocol"
	"relaymarket/records"
)

// NATS says how the processes that share a database reach each other. The zero value is a server in this process that nobody
// else reaches.
type NATS struct {
	URLs        []string // of servers elsewhere: another relayd's, or any
	Credentials string   // a .creds file for them, may be empty
	Listen      string   // host:port where other relayd reach the server in this process; port 0 takes a free one
}

// tagNATSToken makes the token a value of its own: from it nobody learns the key, and no signature is involved.
const tagNATSToken = "relaymarket/v1/nats-token"

// natsToken is what relayd show each other. They share their relay's key already, so nothing else has to be handed around, and
// nobody else has it.
func natsToken(key *protocol.PrivateKey) string {
	secret := key.Secret()
	token := protocol.TaggedHash(tagNATSToken, secret[:])
	return hex.EncodeToString(token[:])
}

func (n *node) startNATS(r prometheus.Registerer) error {
	cfg := n.cfg.NATS
	var err error
	n.nats, err = natsnode.Start(natsnode.Config{URLs: cfg.URLs, Credentials: cfg.Credentials, Listen: cfg.Listen,
		Token: natsToken(n.cfg.Key), Logger: n.cfg.Logger, Registerer: r})
	if err != nil && cfg.Listen != "" {
		return cannotListen("nats-listen", cfg.Listen, err)
	}
	return err
}

// waker is nil where nobody would hear: a commit need not pay for that.
func (n *node) waker(r prometheus.Registerer) records.Waker {
	if !n.nats.Shared() {
		return nil
	}
	return wake.New(n.nats, n.cfg.Key.Public(), r)
}
