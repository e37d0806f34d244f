package protocol

import (
	"net/url"
	"strings"
)

// Limits of names.
const (
	MaxRecordID = 64 // bytes of a record id, and of a page id
	MaxTag      = 32 // bytes of a tag
)

// RecordID names a record within one outbox: 1–64 of [A-Za-z0-9_-], chosen by the sender.
type RecordID string

// Validate checks length and alphabet; the error has code [CodeMalformed].
func (id RecordID) Validate() error { return validateName(string(id), MaxRecordID, "record id") }

// PageID names a page of one reader on one relay: the same grammar as a record id, chosen by the
// reader, never used for two pages.
type PageID string

// Validate checks length and alphabet; the error has code [CodeMalformed].
func (id PageID) Validate() error { return validateName(string(id), MaxRecordID, "page id") }

// Tag is a word the relay can see beside a record: 1–32 of [A-Za-z0-9_-].
type Tag string

// Validate checks length and alphabet; the error has code [CodeMalformed].
func (t Tag) Validate() error { return validateName(string(t), MaxTag, "tag") }

func validateName(s string, most int, what string) error {
	if len(s) < 1 || len(s) > most {
		return Errorf(CodeMalformed, "a %s has 1 to %d characters, this has %d", what, most, len(s))
	}
	for i := range len(s) {
		c := s[i]
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_') {
			return Errorf(CodeMalformed, "a %s is letters, digits, - and _ only", what)
		}
	}
	return nil
}

// Path names a record: /sender/outbox/receiver/id.
type Path struct {
	Sender   PublicKey
	Receiver PublicKey
	ID       RecordID
}

// String is the path on the wire, /<64 hex>/outbox/<64 hex>/<id>.
func (p Path) String() string {
	return "/" + p.Sender.String() + "/outbox/" + p.Receiver.String() + "/" + string(p.ID)
}

// ParsePath reads a record path. Errors have code [CodeBadPath].
func ParsePath(s string) (Path, error) {
	var p Path
	segments := strings.Split(s, "/")
	if len(segments) != 5 || segments[0] != "" || segments[2] != "outbox" {
		return p, Errorf(CodeBadPath, "a record path is /sender/outbox/receiver/id")
	}
	if p.Sender.UnmarshalText([]byte(segments[1])) != nil || p.Receiver.UnmarshalText([]byte(segments[3])) != nil {
		return Path{}, Errorf(CodeBadPath, "sender and receiver are 64 lower-case hex digits each")
	}
	p.ID = RecordID(segments[4])
	if p.ID.Validate() != nil {
		return Path{}, Errorf(CodeBadPath, "a record id is 1 to %d of letters, digits, - and _", MaxRecordID)
	}
	return p, nil
}

// Target is what a request without a body signs: method, one space, path, and the query as sent.
func Target(method, requestURI string) string { return method + " " + requestURI }

// maxAddress bounds a relay's address in bytes.
const maxAddress = 255

// ValidateAddress checks the address of a relay or hub: an https:// base URL, http:// only for a
// loopback or onion host, with nothing after host and port, in exactly the form it is compared by
// (lower-case host, no default port). Errors have code [CodeInvalidValue].
func ValidateAddress(address string) error {
	if len(address) > maxAddress {
		return Errorf(CodeInvalidValue, "an address has at most %d bytes", maxAddress)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return Errorf(CodeInvalidValue, "%.80q is not an address: write https://host or https://host:port", address)
	}
	if u.Scheme+"://"+u.Host != address || strings.ToLower(address) != address {
		return Errorf(CodeInvalidValue, "%.80q is not an address: nothing may follow host and port, all in lower case", address)
	}
	host := u.Hostname()
	if !validHost(host) {
		return Errorf(CodeInvalidValue, "%.80q is not an address: the host is no host name or IP", address)
	}
	switch u.Scheme {
	case "https":
		if u.Port() == "443" {
			return Errorf(CodeInvalidValue, "%.80q is not an address: leave out the default port", address)
		}
	case "http":
		if !strings.HasSuffix(host, ".onion") && !isLoopback(host) {
			return Errorf(CodeInvalidValue, "%.80q: http:// is for loopback and onion hosts only, use https://", address)
		}
		if u.Port() == "80" {
			return Errorf(CodeInvalidValue, "%.80q is not an address: leave out the default port", address)
		}
	default:
		return Errorf(CodeInvalidValue, "%.80q is not an address: it starts with https://", address)
	}
	return validPort(u)
}
