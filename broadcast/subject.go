package broadcast

import (
	"strings"

	"relaymarket/protocol"
)

// subjects begin with this; v1 is the version of everything below it.
const prefix = "relaymarket.v1."

// IngestSubject is where relays send their announcements to a hub. A request is answered with a [Receipt].
func IngestSubject(n protocol.Network) string { return prefix + string(n) + ".ingest" }

// AnnounceSubject is where a hub publishes the announcement of one relay.
func AnnounceSubject(n protocol.Network, relay protocol.PublicKey) string {
	return prefix + string(n) + ".announce." + relay.String()
}

// AnnounceWildcard is the announcements of all relays.
func AnnounceWildcard(n protocol.Network) string { return prefix + string(n) + ".announce.*" }

// StreamName is the JetStream stream with the last announcement of each relay.
func StreamName(n protocol.Network) string { return "relaymarket-v1-" + string(n) }

// DirectGetSubject is the one JetStream request that the public may make: get messages of the stream.
func DirectGetSubject(n protocol.Network) string { return "$JS.API.DIRECT.GET." + StreamName(n) }

// InboxWildcard is where replies to the public go.
const InboxWildcard = "_INBOX.>"

// subjectRelay is whose announcement belongs on a subject.
func subjectRelay(n protocol.Network, subject string) (protocol.PublicKey, error) {
	text, ok := strings.CutPrefix(subject, prefix+string(n)+".announce.")
	if !ok {
		return protocol.PublicKey{}, refuse(ReasonSubject, "%.80q is no subject of announcements", subject)
	}
	var key protocol.PublicKey
	if err := key.UnmarshalText([]byte(text)); err != nil {
		return protocol.PublicKey{}, refuse(ReasonSubject, "%.80q names no key", subject)
	}
	return key, nil
}

// CheckOn is [Rules.Check] for what came on a subject of announcements, where it has to belong.
func (r Rules) CheckOn(subject string, data []byte, now protocol.Timestamp, known func(protocol.PublicKey) Known) (*Offer, error) {
	relay, err := subjectRelay(r.Network, subject)
	if err != nil {
		return nil, err
	}
	o, err := r.Check(data, now, known)
	if err == nil && o.Relay != relay {
		return nil, refuse(ReasonSubject, "it is on the subject of %s", relay.Short())
	}
	return o, err
}
