package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"

	"relaymarket/internal/diskspace"
	"relaymarket/internal/natsnode"
)

// load fills in what the command line left open: from the environment, then from the file. Flags that were
// given are in place already. Every name in the environment and the file has to be a setting: a
// misspelt limit must not silently be the default.
// What is wrong is told all at once; the error joins one for each mistake.
func (s *settings) load(environ []string, given *pflag.FlagSet) error {
	for _, item := range s.all {
		item.origin = fromDefault
		if flag := given.Lookup(item.name); flag != nil && flag.Changed {
			item.origin = fromFlag
		}
	}
	var w wrongs
	s.loadEnvironment(environ, &w)
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return fmt.Errorf("folder %s: %w", s.dir, err)
	}
	s.dir = dir
	s.loadFile(&w)
	if len(w) > 0 {
		// Whether the rest fits together cannot be told while some of it is not what was meant.
		return w.err()
	}
	return s.checkTogether()
}

// wrongs are mistakes in what the operator wrote.
type wrongs []error

// when adds one, if it is one.
func (w *wrongs) when(wrong bool, format string, args ...any) {
	if wrong {
		w.add(fmt.Errorf(format, args...))
	}
}

func (w *wrongs) add(err error) { *w = append(*w, usageError{err}) }

func (w wrongs) err() error { return errors.Join(w...) }

func (s *settings) loadEnvironment(environ []string, w *wrongs) {
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, environmentPrefix) {
			continue
		}
		index := slices.IndexFunc(s.all, func(item *setting) bool { return item.environment() == name })
		if index < 0 {
			w.add(fmt.Errorf("environment variable %s is no setting of relayd%s", name, s.suggest(name, (*setting).environment)))
			continue
		}
		item := s.all[index]
		if item.origin == fromFlag {
			continue
		}
		if err := item.value.Set(text); err != nil {
			w.add(fmt.Errorf("environment variable %s: %w", name, err))
		}
		item.origin = fromEnvironment
	}
}

func (s *settings) loadFile(w *wrongs) {
	path := s.configFile()
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return // all defaults; serve tells whoever forgot init that there is no key
	}
	if err != nil {
		w.add(fmt.Errorf("read the configuration: %w", err))
		return
	}
	var values map[string]any
	if _, err := toml.Decode(string(content), &values); err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			err = fmt.Errorf("\n%s", strings.TrimRight(parse.ErrorWithPosition(), "\n"))
		}
		w.add(fmt.Errorf("%s is no TOML: %w", path, err))
		return
	}
	for _, name := range sortedNames(values) {
		item := s.find(name)
		if item == nil || item.section == "" {
			w.add(fmt.Errorf("%s: %s is no setting of relayd%s", path, name, s.suggest(name, func(item *setting) string { return item.name })))
			continue
		}
		if item.origin != fromDefault {
			continue
		}
		if err := setFromFile(item.value, values[name]); err != nil {
			w.add(fmt.Errorf("%s: %s: %w", path, name, err))
		}
		item.origin = fromFile
	}
}

// setFromFile takes TOML's types: text, whole numbers, and lists of text.
func setFromFile(value pflag.Value, raw any) error {
	switch v := raw.(type) {
	case string:
		return value.Set(v)
	case int64:
		return value.Set(strconv.FormatInt(v, 10))
	case bool:
		return value.Set(strconv.FormatBool(v))
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			text, ok := item.(string)
			if !ok || strings.Contains(text, ",") {
				return fmt.Errorf("write a list of texts, for example [\"one\", \"two\"]")
			}
			items[i] = text
		}
		if !isList(value) {
			return fmt.Errorf("takes one value, not a list")
		}
		return value.Set(strings.Join(items, ","))
	default:
		return fmt.Errorf("write a text in quotes or a whole number")
	}
}

// isList tells whether a value is a list, which the file shows in brackets.
func isList(value pflag.Value) bool { return strings.HasSuffix(value.Type(), ",…") }

// checkTogether refuses values that are each fine but not with each other.
func (s *settings) checkTogether() error {
	var w wrongs
	w.when(s.recordBytes < 1 || s.recordBytes > maxRecordBytes, "record-bytes is %s: it can be 1 to 8MiB", s.recordBytes)
	w.when(s.admittedBytes < 1 || s.admittedBytes > s.recordBytes, "admitted-bytes is %s: it can be 1 up to record-bytes, which is %s", s.admittedBytes, s.recordBytes)
	w.when(s.diskFree < diskspace.MinKeep, "disk-free is %s: Postgres needs at least 64MiB to live on", s.diskFree)
	w.when(s.lifetime <= 0, "lifetime is %s: nothing could be stored", s.lifetime)
	w.when(s.headerTimeout < time.Second || s.bodyTimeout < time.Second,
		"header-timeout is %s and body-timeout %s: each is at least a second, which is how they are announced", s.headerTimeout, s.bodyTimeout)
	s.checkTLS(&w)
	s.checkNATS(&w)
	s.checkBitcoin(&w)
	s.checkVolunteer(&w)
	s.checkMarket(&w)
	return w.err()
}

func (s *settings) checkNATS(w *wrongs) {
	for _, text := range s.nats {
		// Here and not where it is read: whoever refuses a value there shows it, and it may hold a password.
		_, err := natsnode.ParseURL(text)
		w.when(err != nil, "nats: %w", err)
	}
	w.when(len(s.nats) > 0 && s.natsListen != "", "nats names servers elsewhere, and nats-listen opens the one in this process: set one of the two")
	w.when(len(s.nats) == 0 && s.natsCredentials != "", "nats-credentials is for servers elsewhere: name them with nats")
}

// maxRecordBytes is the protocol's bound on an envelope.
const maxRecordBytes = 8 << 20

// suggest names the setting that was probably meant.
func (s *settings) suggest(name string, spelling func(*setting) string) string {
	best, distance := "", len(name)/3+2
	for _, item := range s.all {
		candidate := spelling(item)
		// An underscore for a hyphen, or another case, is the commonest slip.
		d := editDistance(strings.ToLower(strings.ReplaceAll(name, "_", "-")), strings.ToLower(strings.ReplaceAll(candidate, "_", "-")))
		if d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ": relayd config lists them all"
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			previous, row[j+1] = row[j+1], min(previous+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// shown is a setting's value for people: a password in a URL is none of their business.
func (s *setting) shown() string {
	text := s.value.String()
	switch {
	case text == "":
		return ""
	case slices.Contains([]string{"nats", "hubs", "hub-nats", "hub-peers"}, s.name):
		urls := strings.Split(text, ",")
		for i, u := range urls {
			urls[i] = natsnode.Redact(u)
		}
		return strings.Join(urls, ",")
	case s.name != "database-url":
		return text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return "(set)" // libpq's key=value form, where a password can be anywhere
	}
	query := u.Query()
	if query.Has("password") {
		query.Set("password", "xxxxx")
		u.RawQuery = query.Encode()
	}
	return u.Redacted()
}
