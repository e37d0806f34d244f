package relaydoctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/reach"
	"relaymarket/internal/findings"
	"relaymarket/protocol"
)

const (
	hubPatience = 6 * time.Second
	askedRelays = 3   // relays that are asked for a look, at most, for each address
	triedOwn    = 3   // own addresses that are looked at
	bookSample  = 200 // relays of a hub's book that those are drawn from
	maxPage     = 2 << 20
)

// stranger is another relay, which may be asked.
type stranger struct {
	key     protocol.PublicKey
	address string
}

// market looks at what the relay announces, where it is announced, and from where it is reached.
func (d *doctor) market(ctx context.Context) findings.List {
	if d.cfg.Key == nil || !d.running {
		return nil
	}
	client := plainClient()
	defer client.CloseIdleConnections()
	e, said, err := d.announcement(ctx, client)
	if err != nil {
		return findings.List{fail("announcement", "the relay does not serve its own: "+err.Error(), "see that listen and TLS are as the relay has them, and its log")}
	}
	all := findings.List{}
	if len(said.Addresses) == 0 {
		all = append(all, warn("announcement", "it names no address: nobody finds the relay by it", "set address, for example https://relay.example.org"))
		if len(d.cfg.Market.Through) > 0 {
			all = append(all, warn("reachable", "nobody was asked: there is no address to look at", "set address first"))
		}
		return all
	}
	all = append(all, findings.Okf("announcement", "it is valid for %s and names %s", span(said.ValidUntil.Time().Sub(d.now)), strings.Join(said.Addresses, ", ")))
	found, others := d.hubs(ctx, client, said)
	all = append(all, found...)
	return append(all, d.reachable(ctx, client, e, said, others)...)
}

// plainClient makes requests whose answers are signed: it cares for no certificate, which has a check of its own.
func plainClient() *http.Client {
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: askPatience}).DialContext, TLSHandshakeTimeout: askPatience,
		ResponseHeaderTimeout: 2 * reach.Patience, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// own is the public interface, on this machine.
func (d *doctor) own() string {
	if d.cfg.Public.Secure {
		return "https://" + d.cfg.Public.Listen
	}
	return "http://" + d.cfg.Public.Listen
}

// announcement is what the relay says of itself now.
func (d *doctor) announcement(ctx context.Context, client *http.Client) (*protocol.Envelope, *protocol.Announcement, error) {
	e, said, err := d.announced(ctx, client, d.own())
	if err == nil && e.From != d.cfg.Key.Public() {
		err = fmt.Errorf("on %s another relay answers, %s", d.cfg.Public.Listen, e.From.Bech32())
	}
	return e, said, err
}

func (d *doctor) announced(ctx context.Context, client *http.Client, address string) (*protocol.Envelope, *protocol.Announcement, error) {
	data, err := get(ctx, client, address+"/.well-known/relaymarket", protocol.MaxAnnouncementSize)
	if err != nil {
		return nil, nil, err
	}
	return protocol.ParseAnnouncement(data, protocol.TimestampOf(d.cfg.Clock()))
}

func get(ctx context.Context, client *http.Client, address string, most int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return do(client, r, most)
}

// do makes a request; an answer that is no 200 is an error.
func do(client *http.Client, r *http.Request, most int64) ([]byte, error) {
	reply, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(io.LimitReader(reply.Body, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > most:
		return nil, fmt.Errorf("it answers with more than %d bytes", most)
	case reply.StatusCode != http.StatusOK:
		var problem struct{ Code, Detail string }
		if json.Unmarshal(data, &problem) == nil && problem.Code != "" {
			return nil, fmt.Errorf("it answers %s: %s", problem.Code, problem.Detail)
		}
		return nil, fmt.Errorf("it answers %s", reply.Status)
	}
	return data, nil
}

// hubs looks for the relay in the books of its hubs, and for others who are in them.
func (d *doctor) hubs(ctx context.Context, client *http.Client, said *protocol.Announcement) (all findings.List, others []stranger) {
	for _, hub := range d.cfg.Market.Hubs {
		name := hub
		if u, err := url.Parse(hub); err == nil {
			name = u.Redacted()
		}
		mine, some, err := d.hub(ctx, hub)
		others = append(others, some...)
		all = append(all, d.judgeHub(name, mine, said, err))
	}
	if d.cfg.Market.OwnHub {
		some, err := d.ownBook(ctx, client)
		others = append(others, some...)
		if err != nil {
			all = append(all, fail("hub", "the book of this hub cannot be read: "+err.Error(), "see the relay's log"))
		}
	}
	if len(d.cfg.Market.Hubs) == 0 && !d.cfg.Market.OwnHub {
		all = append(all, findings.Okf("hubs", "none is set: strangers do not find this relay"))
	}
	return all, others
}

func (d *doctor) judgeHub(name string, mine *protocol.Announcement, said *protocol.Announcement, err error) findings.Finding {
	const do = "see the relay's log for what the hub has against it, and docs/operators.md, The market"
	switch {
	case err != nil:
		return warn("hubs", name+" cannot be asked: "+err.Error(), "see that it runs and is spelt right; name others beside it")
	case mine == nil:
		return fail("hubs", name+" does not have this relay", do)
	case mine.Seq < said.Seq:
		return warn("hubs", name+" has an older announcement of this relay", "the relay sends it again within minutes; if not: "+do)
	case mine.ValidUntil.Time().Before(d.now.Add(24 * time.Hour)):
		return warn("hubs", name+" has an announcement that ends in "+span(mine.ValidUntil.Time().Sub(d.now)), do)
	}
	return findings.Okf("hubs", "%s has this relay, for %s", name, span(mine.ValidUntil.Time().Sub(d.now)))
}

// hub asks one over NATS: for this relay, and for some others.
func (d *doctor) hub(ctx context.Context, hub string) (mine *protocol.Announcement, others []stranger, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*hubPatience)
	defer cancel()
	conn, err := feed.Connect(ctx, hub, feed.Access{Name: "relayd doctor", Credentials: d.cfg.Market.Credentials})
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	for deadline := time.Now().Add(hubPatience); !conn.IsConnected(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, nil, errors.Join(errors.New("no connection"), conn.LastError())
		}
	}
	n := d.cfg.Market.Network
	body, err := json.Marshal(map[string]string{"last_by_subj": broadcast.AnnounceSubject(n, d.cfg.Key.Public())})
	if err != nil {
		return nil, nil, err
	}
	m, err := conn.RequestWithContext(ctx, broadcast.DirectGetSubject(n), body)
	if errors.Is(err, nats.ErrNoResponders) {
		err = feed.ErrNoHub
	}
	if err != nil {
		return nil, nil, err
	}
	if m.Header.Get("Status") == "" {
		_, said, err := protocol.ParseAnnouncement(m.Data, protocol.TimestampOf(d.now))
		if err == nil {
			mine = said
		}
	}
	page, err := feed.Fetch(ctx, conn, n, 0, bookSample)
	if err != nil {
		return mine, nil, err
	}
	for _, m := range page.Messages {
		others = d.add(others, m.Data)
	}
	return mine, others, nil
}

// ownBook reads the book of the hub in the relay.
func (d *doctor) ownBook(ctx context.Context, client *http.Client) (others []stranger, err error) {
	data, err := get(ctx, client, fmt.Sprintf("%s/market?limit=%d", d.own(), bookSample), maxPage)
	if err != nil {
		return nil, err
	}
	var page struct{ Announcements []json.RawMessage }
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, err
	}
	for _, a := range page.Announcements {
		others = d.add(others, a)
	}
	return others, nil
}

// add takes a relay that could be asked from its announcement.
func (d *doctor) add(others []stranger, announcement []byte) []stranger {
	n := d.cfg.Market.Network
	offer, err := broadcast.Rules{Network: n, Bits: broadcast.DefaultBits(n)}.Check(announcement, protocol.TimestampOf(d.now), nil)
	if err != nil || offer.Relay == d.cfg.Key.Public() {
		return others
	}
	return append(others, stranger{offer.Relay, offer.Addresses[0]})
}

// reachable has other relays look at the addresses.
func (d *doctor) reachable(ctx context.Context, client *http.Client, e *protocol.Envelope, said *protocol.Announcement, others []stranger) findings.List {
	const do = "relayd doctor --through https://… of a relay that you know, which is in the market"
	if len(d.cfg.Market.Through) > 0 {
		others = nil
		for _, address := range d.cfg.Market.Through {
			theirs, _, err := d.announced(ctx, client, address)
			if err != nil {
				return findings.List{warn("reachable", address+" cannot be asked: "+err.Error(), do)}
			}
			others = append(others, stranger{theirs.From, address})
		}
	}
	if len(others) == 0 {
		return findings.List{warn("reachable", "no other relay is known that could look from outside", do)}
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	ticket, err := d.ticket(ctx, e, said)
	if err != nil {
		return findings.List{warn("reachable", "the proof of work for asking was not done: "+err.Error(), "try again")}
	}
	var all findings.List
	for i, address := range said.Addresses[:min(len(said.Addresses), triedOwn)] {
		all = append(all, d.reached(ctx, client, address, ticket, slices.Concat(others[i%len(others):], others[:i%len(others)]))...)
	}
	return all
}

// ticket is an announcement with the work that relays ask for; the relay's own, if it is in the market.
func (d *doctor) ticket(ctx context.Context, e *protocol.Envelope, said *protocol.Announcement) ([]byte, error) {
	n := d.cfg.Market.Network
	if _, err := (broadcast.Rules{Network: n, Bits: broadcast.DefaultBits(n)}).Check(e.Bytes(), protocol.TimestampOf(d.now), nil); err == nil {
		return e.Bytes(), nil
	}
	own := *said
	own.Network = n
	made, err := broadcast.Prover{Workers: runtime.NumCPU()}.Announce(ctx, d.cfg.Key, protocol.TimestampOf(d.cfg.Clock()), &own, broadcast.DefaultBits(n))
	if err != nil {
		return nil, err
	}
	return made.Bytes(), nil
}

// reached asks some relays about one address: the first who reaches it is enough.
func (d *doctor) reached(ctx context.Context, client *http.Client, address string, ticket []byte, others []stranger) (all findings.List) {
	var words, silent []string
	for _, other := range others[:min(len(others), askedRelays)] {
		answer, ahead, err := d.look(ctx, client, address, ticket, other)
		if err != nil {
			silent = append(silent, fmt.Sprintf("%s: %v", other.address, err))
			continue
		}
		if off := clockOff("clock", other.address, ahead); off.Level != findings.OK {
			all = append(all, off)
		}
		if answer.Reached {
			return append(all, findings.Okf("reachable", "%s reaches %s in %d ms", other.address, address, answer.TookMs))
		}
		words = append(words, fmt.Sprintf("%s says: %s", other.address, reach.Words(answer.Unreached)))
	}
	if len(words) == 0 {
		return append(all, warn("reachable", fmt.Sprintf("whether %s is reached from outside is not known: %s", address, strings.Join(silent, "; ")), "try again, or --through another relay"))
	}
	return append(all, fail("reachable", fmt.Sprintf("%s is not reached from outside: %s", address, strings.Join(words, "; ")),
		"see that the name leads to this machine, that its firewall and router let the port in, and that the certificate is for the address"))
}

// look asks one relay, and tells how far its clock is ahead.
func (d *doctor) look(ctx context.Context, client *http.Client, address string, ticket []byte, other stranger) (*protocol.ProbeAnswer, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, reach.Patience+2*askPatience)
	defer cancel()
	e, err := protocol.Sign(d.cfg.Key, other.key, protocol.TimestampOf(d.cfg.Clock()), &protocol.Probe{Address: address, Announcement: ticket})
	if err != nil {
		return nil, 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, other.address+"/probe", bytes.NewReader(e.Bytes()))
	if err != nil {
		return nil, 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	data, err := do(client, r, protocol.MaxAnnouncementSize)
	if err != nil {
		return nil, 0, err
	}
	said, err := protocol.ParseEnvelope(data)
	if err != nil {
		return nil, 0, err
	}
	var answer protocol.ProbeAnswer
	if err := said.Decode(&answer); err != nil {
		return nil, 0, err
	}
	if err := said.Verify(); err != nil {
		return nil, 0, err
	}
	if said.From != other.key || said.To != e.From || answer.Request != e.Hash() || answer.Address != address {
		return nil, 0, errors.New("its answer is to another question")
	}
	// It was signed when the answer was on its way: later than that it cannot be.
	return &answer, said.Timestamp.Time().Sub(d.cfg.Clock()), nil
}
