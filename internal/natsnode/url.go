package natsnode

import (
	"errors"
	"net/url"
	"strconv"
)

// ParseURL reads the URL of a NATS server: nats://host or tls://host, with a port unless it is 4222, and in front of the host user:password or a
// token if the server wants that. An error shows nothing of what may be secret.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("a NATS URL cannot be read: write for example nats://10.0.0.1:4222, and %-encode what a password has besides letters and digits")
	}
	at := Redact(text)
	switch {
	case u.Scheme != "nats" && u.Scheme != "tls":
		return nil, errors.New("a NATS URL begins with nats:// or, where TLS is spoken, tls://: write for example nats://10.0.0.1:4222")
	case u.Hostname() == "":
		return nil, errors.New(at + " names no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New(at + ": nothing may follow host and port")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New(at + " has no port from 1 to 65535")
		}
	}
	return u, nil
}

// Redact is a URL for people: a password or a token in it is none of their business.
func Redact(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "(set)"
	}
	if u.User != nil {
		if _, both := u.User.Password(); both {
			u.User = url.UserPassword(u.User.Username(), "xxxxx")
		} else {
			u.User = url.User("xxxxx") // a user without a password is a token
		}
	}
	return (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}).String() // nothing follows the host, unless by mistake
}
