package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"relaymarket/api"
	"relaymarket/records"
)

// origin says where a setting's value came from.
type origin string

const (
	fromDefault     origin = "default"
	fromFile        origin = "file"
	fromEnvironment origin = "environment"
	fromFlag        origin = "flag"
)

// setting is one thing an operator can set: a flag, an environment variable and a key of the file, all with
// the same name.
type setting struct {
	name    string
	help    string // one sentence a line; the first is the flag's help
	section string // heading in the file; empty: not in the file
	value   pflag.Value
	origin  origin
}

// environment is the variable of a setting: RELAYD_LISTEN for listen.
func (s *setting) environment() string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

const environmentPrefix = "RELAYD_"

// settings are the values of all of them. The fields hold defaults until load.
type settings struct {
	dir             string
	listen          string
	operatorListen  string
	addresses       []string
	contact         string
	tls             tlsSettings
	trustProxy      []netip.Prefix
	databaseURL     string
	databaseConns   int64
	postgresBin     string
	nats            []string
	natsCredentials string
	natsListen      string
	diskFree        byteSize
	recordBytes     byteSize
	admittedBytes   byteSize
	lifetime        time.Duration
	maxPulls        int64
	rateAddress     int64
	burstAddress    int64
	rateKey         int64
	burstKey        int64
	maxRequests     int64
	maxListeners    int64
	listenersPerKey int64
	headerTimeout   time.Duration
	bodyTimeout     time.Duration
	shutdownTimeout time.Duration
	bitcoin         bitcoinSettings
	market          marketSettings
	volunteer       volunteerSettings
	logFormat       string
	logLevel        slog.Level

	all []*setting
}

// newSettings holds the defaults. The environment decides where the folder is.
func newSettings(environ []string) *settings {
	limits, rates, bounds := records.DefaultLimits(), api.DefaultRates(), api.DefaultBounds()
	s := &settings{
		dir:             defaultDir(environ, os.Geteuid()),
		listen:          "127.0.0.1:7447",
		operatorListen:  "127.0.0.1:7448",
		databaseConns:   18,
		diskFree:        1 << 30,
		recordBytes:     byteSize(limits.RecordBytes),
		admittedBytes:   byteSize(limits.AdmittedBytes),
		lifetime:        limits.Lifetime,
		maxPulls:        limits.MaxPulls,
		rateAddress:     int64(rates.Address.PerSecond),
		burstAddress:    int64(rates.Address.Burst),
		rateKey:         int64(rates.Key.PerSecond),
		burstKey:        int64(rates.Key.Burst),
		maxRequests:     int64(bounds.MaxConcurrent),
		maxListeners:    int64(bounds.MaxListeners),
		listenersPerKey: int64(bounds.MaxListenersPerKey),
		headerTimeout:   bounds.HeaderTimeout,
		bodyTimeout:     bounds.BodyTimeout,
		shutdownTimeout: 30 * time.Second,
		bitcoin:         defaultBitcoin(),
		market:          defaultMarket(),
		volunteer:       defaultVolunteer(),
		logFormat:       "text",
		logLevel:        slog.LevelInfo,
	}
	s.all = slices.Concat(s.network(), s.secure(), s.database(), s.processes(), s.bitcoinNode(), s.contractTerms(), s.volunteering(), s.marketPlace(), s.bounds(), s.logs())
	return s
}

func (s *settings) network() []*setting {
	const section = "Network"
	return []*setting{
		// Not in the file, which stands in it.
		{name: "dir", help: "folder of key, configuration and private database", value: one[string]{&s.dir, "folder", anyText, same}},
		{name: "listen", section: section, value: one[string]{&s.listen, "host:port", listenAddress, same},
			help: "where people reach the relay\nPlain HTTP, unless one of the settings for TLS is set or a proxy that speaks TLS stands in front; name that in trust-proxy."},
		{name: "operator-listen", section: section, value: one[string]{&s.operatorListen, "host:port", listenAddress, same},
			help: "where /livez, /readyz and /metrics are, plain HTTP\nKeep it away from strangers."},
		{name: "address", section: section, value: &many[string]{target: &s.addresses, kind: "URL,…", parse: publicAddress, format: same},
			help: "public addresses that the relay announces\nFor example https://relay.example.org; http:// is for loopback and onion addresses only."},
		{name: "contact", section: section, value: one[string]{&s.contact, "text", contactText, same},
			help: "how people reach the operator, announced with what the relay offers\nAt most 200 characters."},
		{name: "trust-proxy", section: section, value: &many[netip.Prefix]{target: &s.trustProxy, kind: "CIDR,…", parse: proxyPrefix, format: netip.Prefix.String},
			help: "networks of proxies whose X-Forwarded-For is believed\nFrom anybody else it is ignored: rates go by the address of the connection."},
	}
}

func (s *settings) database() []*setting {
	const section = "Database"
	return []*setting{
		{name: "database-url", section: section, value: one[string]{&s.databaseURL, "URL", anyText, same},
			help: "a Postgres database to use; empty: a private one in the folder\nFor example postgres://relayd@db.example.org/relayd. A password belongs here, into the environment\nor into ~/.pgpass, not on the command line, where every user of the machine can read it."},
		{name: "database-connections", section: section, value: one[int64]{&s.databaseConns, "number", count(4, 1000), formatCount},
			help: "connections to the database at most\nMore make it slower, not faster."},
		{name: "postgres-bin", section: section, value: one[string]{&s.postgresBin, "folder", anyText, same},
			help: "folder of initdb and postgres for the private database; empty: look for them"},
		{name: "disk-free", section: section, value: &s.diskFree,
			help: "bytes kept free on the private database's disk: with less, new records are refused\nReading, deleting and expiry go on, and need some of it. What Postgres' log may still grow by is kept beside it."},
	}
}

func (s *settings) processes() []*setting {
	const section = "Several relayd on one database"
	return []*setting{
		{name: "nats", section: section, value: &many[string]{target: &s.nats, kind: "URL,…", parse: anyText, format: same},
			help: "NATS servers by which they tell each other what they stored; empty: one in this process\nFor example nats://10.0.0.1:4222, which may be another relayd with nats-listen, or tls://relayd:password@nats.example.org.\nA password or token belongs here or into the environment, not on the command line."},
		{name: "nats-credentials", section: section, value: one[string]{&s.natsCredentials, "file", anyText, same},
			help: "a .creds file for the servers in nats, if they want one"},
		{name: "nats-listen", section: section, value: one[string]{&s.natsListen, "host:port", orEmpty(listenAddress), same},
			help: "where other relayd with this relay's key reach the NATS server in this process; empty: nowhere\nPlain TCP, for a network of your own."},
	}
}

func (s *settings) bounds() []*setting {
	const limits, rates, times = "Limits, which the relay announces", "Rates and room", "Times"
	number := func(target *int64, least int64) pflag.Value {
		return one[int64]{target, "number", count(least, 1_000_000), formatCount}
	}
	span := func(target *time.Duration) pflag.Value {
		return one[time.Duration]{target, "time", period, formatPeriod}
	}
	return []*setting{
		{name: "record-bytes", section: limits, value: &s.recordBytes, help: "largest record, at most 8MiB"},
		{name: "admitted-bytes", section: limits, value: &s.admittedBytes, help: "largest record that an admitted key leaves"},
		{name: "lifetime", section: limits, value: span(&s.lifetime), help: "longest that a record may ask to be kept"},
		{name: "max-pulls", section: limits, value: number(&s.maxPulls, 1), help: "most pulls that one record may allow"},
		{name: "rate-address", section: rates, value: number(&s.rateAddress, 0), help: "requests a second from one IPv4 address or IPv6 /64, 0: no limit"},
		{name: "burst-address", section: rates, value: number(&s.burstAddress, 1), help: "requests at once that an address may make after a pause"},
		{name: "rate-key", section: rates, value: number(&s.rateKey, 0), help: "requests a second signed by one key, 0: no limit"},
		{name: "burst-key", section: rates, value: number(&s.burstKey, 1), help: "requests at once that a key may make after a pause"},
		{name: "max-requests", section: rates, value: number(&s.maxRequests, 4), help: "requests at work at once, more are told to come back"},
		{name: "max-listeners", section: rates, value: number(&s.maxListeners, 1), help: "streams of listening readers at once"},
		{name: "listeners-per-key", section: rates, value: number(&s.listenersPerKey, 1), help: "streams of one reader at once"},
		{name: "header-timeout", section: times, value: span(&s.headerTimeout), help: "how long the headers of a request may take, announced"},
		{name: "body-timeout", section: times, value: span(&s.bodyTimeout), help: "how long the body of a request may take, announced"},
		{name: "shutdown-timeout", section: times, value: span(&s.shutdownTimeout), help: "how long requests that were accepted may take to finish after a signal to end"},
	}
}

func (s *settings) logs() []*setting {
	const section = "Logs, on standard error"
	return []*setting{
		{name: "log-format", section: section, value: one[string]{&s.logFormat, "format", logFormat, same}, help: "text or json"},
		{name: "log-level", section: section, value: one[slog.Level]{&s.logLevel, "level", logLevel, formatLevel}, help: "debug, info, warn or error"},
	}
}

// flags offers the named settings on a command line, all of them if none is named.
func (s *settings) flags(set *pflag.FlagSet, names ...string) {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	for _, item := range s.all {
		if len(names) == 0 || wanted[item.name] {
			short, _, _ := strings.Cut(item.help, "\n")
			set.Var(item.value, item.name, short)
		}
	}
}

// find is the setting of that name, or nil.
func (s *settings) find(name string) *setting {
	for _, item := range s.all {
		if item.name == name {
			return item
		}
	}
	return nil
}

func (s *settings) configFile() string     { return filepath.Join(s.dir, "relayd.toml") }
func (s *settings) keyFile() string        { return filepath.Join(s.dir, "relay.key") }
func (s *settings) databaseFolder() string { return filepath.Join(s.dir, "db") }

// defaultDir is the system's folder for root, and the user's own otherwise.
func defaultDir(environ []string, uid int) string {
	if uid == 0 {
		return "/var/lib/relayd"
	}
	if data := lookup(environ, "XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "relayd")
	}
	return filepath.Join(lookup(environ, "HOME"), ".local", "share", "relayd")
}

// lookup is the last value of a variable, as the kernel's list may hold one twice.
func lookup(environ []string, name string) string {
	value := ""
	for _, entry := range environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}
