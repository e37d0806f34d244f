package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"relaymarket/client/devices"
	"relaymarket/protocol"
)

const (
	// linkTime is how long the link of a new device is good, and afterTime how long the rest may take once the code was typed.
	linkTime  = 10 * time.Minute
	afterTime = 2 * time.Minute
	// askEvery is how often each side looks whether the other has answered.
	askEvery = time.Second
	// codeTries is how often the code may be mistyped.
	codeTries = 3
	// A guest may leave two records, of some 5,000 bytes each.
	// By these numbers guests are known of whom a program that died left traces.
	guestBytes, guestRecords = 32_749, 2
)

// What can be wrong with a new device.
var (
	// ErrLinkEnded: nobody waits at the link, or not any more.
	ErrLinkEnded = errors.New("the link has ended")
	// ErrLinkUsed: another device has asked by this link. Whoever it is, it gets nothing without the code on its screen.
	ErrLinkUsed = errors.New("another device has used this link")
	// ErrCode: what was typed is not what the new device shows.
	ErrCode = errors.New("the code is not that of the new device: nothing was given to it")
	// ErrNotGiven: the first device gave no keys.
	ErrNotGiven = errors.New("the first device gave no keys")
)

// Adding are the person's parts in [Client.AddDevice].
type Adding struct {
	// Show shows the link to bring to the new device.
	Show func(link *devices.Link) error
	// Code asks for the code that the new device shows; name is what that calls itself, tries how often he was wrong.
	Code func(ctx context.Context, name string, tries int) (string, error)
}

// AddDevice gives the seed to a new device: it admits a guest key at one of the user's relays, shows the link, waits for the
// new device, and seals the seed to it when its code was typed. It tells what the new device calls itself, and whether that said
// that it has the keys; if not, it may have them or not. Everything left on the relay is deleted in the end.
func (c *Client) AddDevice(ctx context.Context, seed []byte, a Adding) (name string, done bool, err error) {
	if err := c.unlocked(); err != nil {
		return "", false, err
	}
	secret, err := devices.NewSecret()
	if err != nil {
		return "", false, err
	}
	guest, err := secret.Guest()
	if err != nil {
		return "", false, err
	}
	p, err := c.letInAnywhere(ctx, guest.Public())
	if err != nil {
		return "", false, err
	}
	link := &devices.Link{Owner: c.Key(), Relay: protocol.RelayRef{Address: p.address, PubKey: p.key}, Until: c.now().Add(linkTime), Secret: secret}
	m := &meeting{c: c, p: p, me: c.identity, open: c.sealing, other: guest.Public(), until: link.Until.Add(afterTime)}
	defer func() { // also when ctx ended
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		err = errors.Join(err, m.clear(short), c.letOut(short, p, guest.Public()))
	}()
	if err := a.Show(link); err != nil {
		return "", false, err
	}
	waiting, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	body, err := m.await(waiting, devices.RequestID, devices.RequestType)
	if err != nil {
		return "", false, err
	}
	request, key, err := devices.ParseRequest(body)
	if err != nil {
		return "", false, err
	}
	m.seal = key
	var challenge devices.Challenge
	if _, err := rand.Read(challenge.Nonce[:]); err != nil {
		return request.Name, false, fmt.Errorf("read entropy: %w", err)
	}
	if err := m.leave(ctx, devices.ChallengeID, devices.ChallengeType, &challenge); err != nil {
		return request.Name, false, err
	}
	if err := a.ask(waiting, request.Name, devices.Code(link, request, &challenge)); err != nil {
		refused, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if m.leave(refused, devices.KeysID, devices.RefusedType, struct{}{}) == nil {
			wait(refused, 2*askEvery, nil) // before it is deleted
		}
		return request.Name, false, err
	}
	done, err = m.give(ctx, seed)
	return request.Name, done, err
}

// ask has the code typed.
func (a *Adding) ask(ctx context.Context, name, code string) error {
	for tries := range codeTries {
		typed, err := a.Code(ctx, name, tries)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ErrLinkEnded
		}
		if devices.SameCode(typed, code) {
			return nil
		}
	}
	return ErrCode
}

// meeting is one side of a pairing: records left for the other on one relay, and read from it.
type meeting struct {
	c     *Client
	p     *peer
	me    *protocol.PrivateKey
	open  *protocol.SealingPrivateKey
	seal  *protocol.SealingPublicKey
	other protocol.PublicKey
	until protocol.Timestamp
	left  []protocol.RecordID
}

// give leaves the keys, and waits until the new device says that it has them.
func (m *meeting) give(ctx context.Context, seed []byte) (done bool, _ error) {
	c := m.c
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return false, err
	}
	keys := devices.Keys{Seed: seed, Device: c.OwnDevice(), Relays: []devices.Relay{}}
	if keys.Label, err = c.Label(ctx); err != nil {
		return false, err
	}
	for _, r := range relays {
		keys.Relays = append(keys.Relays, devices.Relay{Key: r.Key, Stamp: devices.Stamp{By: c.OwnDevice()}, Address: r.Address, Added: r.Added, Bytes: r.Bytes})
	}
	if err := m.leave(ctx, devices.KeysID, devices.KeysType, &keys); err != nil {
		return false, err
	}
	// From now on there are two: what the new one is to know is written before it looks.
	if err := c.state.Company(ctx); err != nil {
		return false, err
	}
	if _, err := c.LeaveReceipts(ctx); err != nil {
		return false, err
	}
	waiting, cancel := context.WithTimeout(ctx, afterTime)
	defer cancel()
	_, err = m.await(waiting, devices.DoneID, devices.DoneType)
	return err == nil, nil
}

// leave seals something to the other side and leaves it on the relay.
func (m *meeting) leave(ctx context.Context, id protocol.RecordID, contentType string, what any) error {
	body, err := protocol.Canonicalize(what)
	if err != nil {
		return err
	}
	defer clear(body)
	from := m.me.Public()
	sealed, err := protocol.Seal(m.seal, protocol.SealContext{From: from, To: m.other, RecordID: id},
		protocol.SealedHeader{ContentType: contentType, Device: m.c.state.Device(), Seq: 1}, body)
	if err != nil {
		return err
	}
	m.left = append(m.left, id)
	write := &protocol.Write{Relay: m.p.key, RecordID: id, Expires: m.until, MaxPulls: 1, Content: base64.StdEncoding.EncodeToString(sealed)}
	return m.again(ctx, func(ctx context.Context) error {
		_, err := m.p.write(ctx, protocol.Path{Sender: from, Receiver: m.other, ID: id}, func(at protocol.Timestamp) (*protocol.Envelope, error) {
			return protocol.Sign(m.me, m.other, at, write)
		})
		return err
	})
}

// await waits for a record of the other side, and reads it.
func (m *meeting) await(ctx context.Context, id protocol.RecordID, contentType string) ([]byte, error) {
	page := newPageID()
	pause := 100 * time.Millisecond
	for {
		var e *protocol.Envelope
		err := m.again(ctx, func(ctx context.Context) (err error) {
			e, err = m.p.record(ctx, protocol.Path{Sender: m.other, Receiver: m.me.Public(), ID: id}, page, m.me)
			return err
		})
		switch {
		case err == nil:
			if err := m.p.gotAs(ctx, &protocol.Got{PageID: page, Root: e.Hash()}, m.me); err != nil {
				m.c.log.Info("an acknowledgement was not taken", "relay", m.p.address, "error", err)
			}
			return m.read(e, id, contentType)
		case errors.Is(err, protocol.CodeNotFound), errors.Is(err, protocol.CodePageOpen): // not yet; or another program pulls just now
		default:
			return nil, err
		}
		if !wait(ctx, min(pause, askEvery), nil) {
			return nil, m.ended(ctx)
		}
		pause += 100 * time.Millisecond
	}
}

// ended says why nothing more is waited for.
func (m *meeting) ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ErrLinkEnded
	}
	return ctx.Err()
}

// again repeats what may pass by itself.
func (m *meeting) again(ctx context.Context, do func(context.Context) error) error {
	pauses := backoff{first: 250 * time.Millisecond, most: 5 * time.Second}
	for {
		limited, cancel := context.WithTimeout(ctx, requestTimeout)
		err := do(limited)
		cancel()
		var refusal *RelayError
		if err == nil || !errors.As(err, &refusal) || !refusal.Temporary() {
			return err
		}
		if !wait(ctx, pauses.next(err), nil) {
			return errors.Join(m.ended(ctx), err)
		}
	}
}

// read opens a record of the other side.
func (m *meeting) read(e *protocol.Envelope, id protocol.RecordID, contentType string) ([]byte, error) {
	var w protocol.Write
	if err := e.Decode(&w); err != nil {
		return nil, m.p.tampered("a record is not one: %v", err)
	}
	if e.From != m.other || e.To != m.me.Public() || w.RecordID != id || w.Relay != m.p.key {
		return nil, m.p.tampered("it serves another record than the one asked for")
	}
	if err := e.Verify(); err != nil {
		return nil, m.p.tampered("%v", err)
	}
	sealed, err := base64.StdEncoding.DecodeString(w.Content)
	if err != nil {
		return nil, err
	}
	header, body, err := protocol.Open(m.open, protocol.SealContext{From: e.From, To: e.To, RecordID: id}, sealed)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: what it left is sealed to another device", ErrLinkUsed)
	case header.ContentType == devices.RefusedType:
		return nil, ErrNotGiven
	case header.ContentType != contentType:
		return nil, m.p.tampered("it serves a record of another kind")
	}
	return body, nil
}

// clear deletes what this side left.
func (m *meeting) clear(ctx context.Context) error {
	var errs []error
	for _, id := range m.left {
		err := m.p.deleteAs(ctx, m.me, protocol.Path{Sender: m.me.Public(), Receiver: m.other, ID: id})
		if err != nil && !errors.Is(err, protocol.CodeNotFound) && !errors.Is(err, protocol.CodeGone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// deleteAs deletes a record as its sender, who may be a guest.
func (p *peer) deleteAs(ctx context.Context, sender *protocol.PrivateKey, path protocol.Path) error {
	return p.do(ctx, exchange{
		build: p.signedBy(sender, &protocol.Targeted{Type: protocol.TypeDelete, Target: protocol.Target(http.MethodDelete, path.String())}),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.DeleteRecord(ctx, path.Sender, path.Receiver, string(path.ID), authorize(e))
		},
	})
}

// letInAnywhere admits a guest at the first of the user's relays that lets it.
func (c *Client) letInAnywhere(ctx context.Context, guest protocol.PublicKey) (*peer, error) {
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, ErrNoRelays
	}
	if relays, err = c.taking(ctx, relays, "", false); err != nil {
		return nil, err
	}
	errs := []error{errors.New("none of your relays takes in a new device")}
	for _, r := range relays {
		limited, cancel := context.WithTimeout(ctx, lookTime)
		p, err := c.peer(r.Key, r.Address)
		if err == nil {
			err = c.letIn(limited, p, func(keys []protocol.Admitted) []protocol.Admitted {
				return append(keys, protocol.Admitted{Key: guest, Bytes: guestBytes, Records: guestRecords})
			})
		}
		cancel()
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// letOut admits a guest no more.
func (c *Client) letOut(ctx context.Context, p *peer, guest protocol.PublicKey) error {
	return c.letIn(ctx, p, func(keys []protocol.Admitted) []protocol.Admitted { return keys })
}

// letIn changes the list of those who may leave records here. What of it is for guests of the past goes by itself.
func (c *Client) letIn(ctx context.Context, p *peer, change func([]protocol.Admitted) []protocol.Admitted) error {
	account, err := p.account(ctx)
	if err != nil {
		return err
	}
	keys := []protocol.Admitted{}
	for _, u := range account.Admitted {
		if u.Bytes != guestBytes || u.Records != guestRecords {
			keys = append(keys, protocol.Admitted{Key: u.Key, Bytes: u.Bytes, Records: u.Records})
		}
	}
	return p.do(ctx, exchange{
		build: p.signed(&protocol.Admit{Keys: change(keys)}),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.PutAdmittedWithBody(ctx, contentJSON, bytes.NewReader(e.Bytes()))
		},
	})
}

// Joined is what a new device was given.
type Joined struct {
	Keys *devices.Keys
	m    *meeting
	tmp  string
}

// Join asks for the keys by a link, as the new device: it leaves a sealing key that it has just made, shows the code that is to be typed on
// the first device, and waits. Of c, only what makes requests is used. Close what is returned; and Confirm it when the
// keys are on disk.
func Join(ctx context.Context, c Config, link *devices.Link, name string, show func(code string) error) (_ *Joined, err error) {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	left := link.Until.Time().Sub(c.Clock())
	if left <= 0 {
		return nil, ErrLinkEnded
	}
	ctx, cancel := context.WithTimeout(ctx, left+afterTime)
	defer cancel()
	guest, err := link.Secret.Guest()
	if err != nil {
		return nil, err
	}
	var seed [protocol.SealingSeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("read entropy: %w", err)
	}
	own, err := protocol.NewSealingPrivateKey(seed)
	if err != nil {
		return nil, err
	}
	// The guest is somebody else than the user, so he has a state of his own, in which nothing is kept.
	j := &Joined{}
	if j.tmp, err = os.MkdirTemp("", "relay-join-*"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.Close()
		}
	}()
	c.Dir, c.Identity, c.Sealing = j.tmp, guest, own
	g, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	j.m = &meeting{c: g, me: guest, open: own, other: link.Owner, until: link.Until.Add(afterTime)}
	if j.m.p, err = g.peer(link.Relay.PubKey, link.Relay.Address); err != nil {
		return nil, err
	}
	if j.m.seal, err = g.ownerKey(ctx, j.m.p, link.Owner); err != nil {
		return nil, err
	}
	request := &devices.Request{Name: name, Sealing: own.Public().Item()}
	err = j.m.leave(ctx, devices.RequestID, devices.RequestType, request)
	switch {
	case errors.Is(err, protocol.CodeConflict), errors.Is(err, protocol.CodeGone), errors.Is(err, protocol.CodeQuotaAdmitted):
		return nil, ErrLinkUsed
	case errors.Is(err, protocol.CodeNoAccount), errors.Is(err, protocol.CodeExpired):
		return nil, ErrLinkEnded
	case err != nil:
		return nil, err
	}
	body, err := j.m.await(ctx, devices.ChallengeID, devices.ChallengeType)
	if err != nil {
		return nil, err
	}
	challenge, err := devices.ParseChallenge(body)
	if err != nil {
		return nil, err
	}
	if err := show(devices.Code(link, request, challenge)); err != nil {
		return nil, err
	}
	body, err = j.m.await(ctx, devices.KeysID, devices.KeysType)
	switch {
	case errors.Is(err, protocol.CodeGone): // a refusal is deleted soon after it was left
		return nil, ErrNotGiven
	case err != nil:
		return nil, err
	}
	defer clear(body)
	if j.Keys, err = devices.ParseKeys(body); err != nil {
		return nil, err
	}
	return j, nil
}

// ownerKey is the sealing key in the card of the link's owner, which his relay serves.
func (c *Client) ownerKey(ctx context.Context, p *peer, owner protocol.PublicKey) (*protocol.SealingPublicKey, error) {
	data, err := p.card(ctx, owner)
	if err != nil {
		return nil, err
	}
	e, id, err := protocol.ParseCard(data, c.now())
	if err != nil || e.From != owner {
		return nil, p.tampered("it serves no card of %s", owner.Short())
	}
	key, ok := id.SealingKey()
	if !ok {
		return nil, ErrNoSealing
	}
	return key, nil
}

// Confirm tells the first device that the keys arrived.
func (j *Joined) Confirm(ctx context.Context) error {
	return j.m.leave(ctx, devices.DoneID, devices.DoneType, struct{}{})
}

// Close forgets the keys and all that was made for the exchange.
func (j *Joined) Close() {
	if j.Keys != nil {
		clear(j.Keys.Seed)
	}
	if j.m != nil {
		_ = j.m.c.Close()
	}
	_ = os.RemoveAll(j.tmp)
}

// Adopt makes a fresh folder the state of a device that was given these keys: with the relays that it is to look on, and
// knowing that it has company.
func (c *Client) Adopt(ctx context.Context, k *devices.Keys, name string) error {
	if err := c.state.Adopt(ctx, k); err != nil || name == "" {
		return err
	}
	return c.NameDevice(ctx, c.OwnDevice(), name)
}
