package protocol

import (
	"net/url"
	"strings"
)

const (
	linkScheme = "relaymarket:" // starts an invitation link
	maxLink    = 8192           // bytes
)

// Link is what fits in a link or QR code: a key and where its card can be fetched.
//
//	relaymarket:relay1…?relay=<percent-encoded address>&relay=…&pin=<relay's key>%40<host or host:port>
type Link struct {
	Key    PublicKey
	Relays []string // addresses, at most [MaxCardRelays]
	// Pins are the keys of relays that have no certificate but their own, at https:// addresses; at most [MaxCardRelays].
	Pins []RelayRef
}

// String is the text of the link.
func (l Link) String() string {
	var b strings.Builder
	b.WriteString(linkScheme + l.Key.Bech32())
	for i, r := range l.Relays {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString("relay=" + url.QueryEscape(r))
	}
	for i, p := range l.Pins {
		b.WriteByte("?&"[min(i+len(l.Relays), 1)])
		b.WriteString("pin=" + url.QueryEscape(p.PubKey.Bech32()+"@"+strings.TrimPrefix(p.Address, pinScheme)))
	}
	return b.String()
}

// ParseLink reads a link. Unknown parameters are ignored, so that links can grow. Errors have
// code [CodeMalformed] or [CodeInvalidValue].
func ParseLink(s string) (Link, error) {
	rest, ok := strings.CutPrefix(s, linkScheme)
	if !ok || len(s) > maxLink {
		return Link{}, Errorf(CodeMalformed, "a link starts with %s and has at most %d bytes", linkScheme, maxLink)
	}
	keyText, query, _ := strings.Cut(rest, "?")
	key, err := ParsePublicKey(keyText)
	if err != nil {
		return Link{}, err
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Link{}, Errorf(CodeMalformed, "the link's parameters are not percent-encoded")
	}
	l := Link{Key: key, Relays: values["relay"]}
	if len(l.Relays) > MaxCardRelays {
		return Link{}, Errorf(CodeInvalidValue, "a link names at most %d relays", MaxCardRelays)
	}
	for _, r := range l.Relays {
		if err := ValidateAddress(r); err != nil {
			return Link{}, err
		}
	}
	l.Pins, err = parsePins(values["pin"])
	if err != nil {
		return Link{}, err
	}
	return l, nil
}

const pinScheme = "https://"

func parsePins(texts []string) ([]RelayRef, error) {
	if len(texts) > MaxCardRelays {
		return nil, Errorf(CodeInvalidValue, "a link has at most %d pins", MaxCardRelays)
	}
	var pins []RelayRef
	for _, text := range texts {
		keyText, host, _ := strings.Cut(text, "@")
		key, err := ParsePublicKey(keyText)
		if err != nil {
			return nil, err
		}
		if err := ValidateAddress(pinScheme + host); err != nil {
			return nil, err
		}
		pins = append(pins, RelayRef{Address: pinScheme + host, PubKey: key})
	}
	return pins, nil
}
