package hubserver

import (
	"strconv"
	"strings"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

// HubUser is the user that a hub connects as, where the server asks for one.
const HubUser = "hub"

// Policy is the part of a NATS server's configuration that says who may do what, in the server's own language: for the server in this
// process, and for operators who run a server themselves. hubPassword is for [HubUser].
//
// The book is in an account of its own, which alone has JetStream, and strangers are in another, so that no reply
// subject that a stranger names can be one of the stream's.
func Policy(n protocol.Network, hubPassword string) string {
	return strings.NewReplacer(
		"$INGEST", strconv.Quote(broadcast.IngestSubject(n)),
		"$ANNOUNCE", strconv.Quote(broadcast.AnnounceWildcard(n)),
		"$GET", strconv.Quote(broadcast.DirectGetSubject(n)),
		"$INBOX", strconv.Quote(broadcast.InboxWildcard),
		"$USER", HubUser,
		"$PASSWORD", strconv.Quote(hubPassword),
	).Replace(policy)
}

const policy = `accounts {
  HUB {
    jetstream: enabled
    users: [ { user: $USER, password: $PASSWORD } ]
    exports: [
      { stream: $ANNOUNCE }
      { service: $INGEST, threshold: "5s" }
      { service: $GET, response: stream, threshold: "5s" }
    ]
  }
  PUBLIC {
    users: [ {
      user: public, password: public
      permissions: {
        publish: { allow: [ $INGEST, $GET ] }
        subscribe: { allow: [ $ANNOUNCE, $INBOX ] }
      }
    } ]
    imports: [
      { stream: { account: HUB, subject: $ANNOUNCE } }
      { service: { account: HUB, subject: $INGEST } }
      { service: { account: HUB, subject: $GET } }
    ]
  }
}
no_auth_user: public
`
