package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"relaymarket/protocol"
)

// one is a pflag.Value of any type that can be read from text and written as the same text.
type one[T any] struct {
	target *T
	kind   string
	parse  func(string) (T, error)
	format func(T) string
}

// Set implements pflag.Value.
func (v one[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err == nil {
		*v.target = parsed
	}
	return err
}

// String implements pflag.Value; pflag calls it on a zero value as well.
func (v one[T]) String() string {
	if v.target == nil {
		return ""
	}
	return v.format(*v.target)
}

// Type implements pflag.Value.
func (v one[T]) Type() string { return v.kind }

// many is a pflag.Value of a list: separated by commas, or given several times.
type many[T any] struct {
	target *[]T
	kind   string
	parse  func(string) (T, error)
	format func(T) string
	given  bool
}

// Set implements pflag.Value. The first call replaces the default.
func (v *many[T]) Set(s string) error {
	var parsed []T
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		value, err := v.parse(item)
		if err != nil {
			return err
		}
		parsed = append(parsed, value)
	}
	if !v.given {
		*v.target, v.given = nil, true
	}
	*v.target = append(*v.target, parsed...)
	return nil
}

// String implements pflag.Value.
func (v *many[T]) String() string {
	if v.target == nil {
		return ""
	}
	items := make([]string, len(*v.target))
	for i, item := range *v.target {
		items[i] = v.format(item)
	}
	return strings.Join(items, ",")
}

// Type implements pflag.Value.
func (v *many[T]) Type() string { return v.kind }

func same(s string) string { return s }

func anyText(s string) (string, error) { return s, nil }

// listenAddress wants host:port; the host may be missing, which listens everywhere.
func listenAddress(s string) (string, error) {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port: write for example 127.0.0.1:7447, or :7447 for all addresses of this machine", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q has no port from 0 to 65535", s)
	}
	return s, nil
}

// orEmpty also takes nothing.
func orEmpty(parse func(string) (string, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return parse(s)
	}
}

func publicAddress(s string) (string, error) {
	if err := protocol.ValidateAddress(s); err != nil {
		return "", err
	}
	return s, nil
}

func contactText(s string) (string, error) {
	if n := len([]rune(s)); n > maxContact {
		return "", fmt.Errorf("it has %d characters, at most %d are announced", n, maxContact)
	}
	return s, nil
}

func proxyPrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network: write for example 127.0.0.1 or 10.0.0.0/8", s)
	}
	return prefix.Masked(), nil
}

// period reads what time.ParseDuration does, and days: 30d.
func period(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err != nil || n < 0 || n > maxDays {
			return 0, fmt.Errorf("%q is no time: whole days go from 0d to %dd", s, maxDays)
		}
		return time.Duration(n) * day, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time: write for example 15s, 12h or 30d", s)
	}
	return d, nil
}

const (
	day     = 24 * time.Hour
	maxDays = 36_500
	// maxContact is the protocol's bound on a contact in an announcement.
	maxContact = 200
)

func formatPeriod(d time.Duration) string {
	if d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return d.String()
}

// yesNo reads yes or no.
func yesNo(target *bool) pflag.Value {
	return one[bool]{target, "yes|no", func(s string) (bool, error) {
		switch s {
		case "yes", "true":
			return true, nil
		case "no", "false":
			return false, nil
		}
		return false, fmt.Errorf("%q is neither yes nor no", s)
	}, func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}}
}

// count reads an integer from least up to most.
func count(least, most int64) func(string) (int64, error) {
	return func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		return n, nil
	}
}

func formatCount(n int64) string { return strconv.FormatInt(n, 10) }

func logLevel(s string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s)); err != nil {
		return 0, fmt.Errorf("%q is none of debug, info, warn, error", s)
	}
	return level, nil
}

func formatLevel(l slog.Level) string { return strings.ToLower(l.String()) }

func logFormat(s string) (string, error) {
	if s != "text" && s != "json" {
		return "", fmt.Errorf("%q is neither text nor json", s)
	}
	return s, nil
}
