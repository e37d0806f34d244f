package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/moving"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// What is admitted if the user does not say otherwise.
const (
	// FriendBytes and FriendRecords are what any friend may leave with the user at once: his card when he moved, and receipts.
	FriendBytes   = 256 << 10
	FriendRecords = 16
	// InvitationBytes is what one first word may have, with the largest card. An invitation is for one, for a month.
	InvitationBytes   = 48 << 10
	InvitationRecords = 1
	InvitationTTL     = 30 * 24 * time.Hour
	MaxInvited        = 100 // strangers by one invitation

	// lookAtAdmitted is how often a relay is asked what it has in its list, when nothing is to change.
	lookAtAdmitted = 24 * time.Hour
	// wordsLinger is how long first words are looked for after their invitation ended.
	wordsLinger = 30 * 24 * time.Hour
)

// ErrUsedUp: the invitation was used by somebody else, ended, or was taken back.
var ErrUsedUp = errors.New("no relay takes a first word by this invitation any more: it was used, ended or was taken back")

// Admission is whom the user lets leave records for him on his account, otherwise than any friend; see [Client.Admitted].
type Admission = state.Admission

// Admitted is somebody who may leave records for the user, on his account.
type Admitted struct {
	Admission
	Name string // of a friend; empty: an invitation
	Own  bool   // the user said so himself; else it is what any friend gets
	On   int    // relays that have it so, as far as is known
}

// Admit lets a friend leave records for the user on his account: so many bytes and records at once. With 0 bytes he may not.
// PublishAdmitted tells the relays, as Sync does.
func (c *Client) Admit(ctx context.Context, friend protocol.PublicKey, most, records int64) error {
	if _, err := c.state.Friend(ctx, friend); err != nil {
		return err
	}
	if friend == c.Key() {
		return errors.New("you are not admitted with yourself: your account is yours")
	}
	if err := checkAdmission(most, records); err != nil {
		return err
	}
	return c.state.Admit(ctx, Admission{Admitted: protocol.Admitted{Key: friend, Bytes: most, Records: records}})
}

// AdmitLikeAny takes back what was said of a friend, so that he gets what any does.
func (c *Client) AdmitLikeAny(ctx context.Context, friend protocol.PublicKey) error {
	_, err := c.state.DeleteAdmission(ctx, friend)
	return err
}

// AdmitFriends says what any friend may leave, of whom nothing else was said; with 0 bytes, nobody may anything.
func (c *Client) AdmitFriends(ctx context.Context, most, records int64) error {
	if err := checkAdmission(most, records); err != nil {
		return err
	}
	return c.state.SetFriendAdmission(ctx, most, records)
}

// AnyFriend is what any friend may leave.
func (c *Client) AnyFriend(ctx context.Context) (most, records int64, err error) {
	most, records, said, err := c.state.FriendAdmission(ctx)
	if !said {
		most, records = FriendBytes, FriendRecords
	}
	return most, records, err
}

func checkAdmission(most, records int64) error {
	if most < 0 || records < 0 || (most == 0) != (records == 0) || most > 1<<40 || records > 1<<20 {
		return errors.New("say how many bytes (up to a terabyte) and how many records (up to a million) may be left at once")
	}
	return nil
}

// Invite makes an invitation: a link with which strangers can leave the user a first word, one each, so many of them, for ttl. The
// secret in it is kept nowhere. It takes effect once a relay was told: see PublishAdmitted.
func (c *Client) Invite(ctx context.Context, strangers int64, ttl time.Duration, note string) (*protocol.Invitation, error) {
	if strangers < 1 || strangers > MaxInvited {
		return nil, fmt.Errorf("an invitation is for 1 to %d strangers", MaxInvited)
	}
	if ttl < time.Minute || ttl > 366*24*time.Hour {
		return nil, errors.New("an invitation lasts from a minute to a year")
	}
	if err := checkText(note, 0, protocol.MaxLabel); err != nil {
		return nil, err
	}
	link, err := c.Link(ctx)
	if err != nil {
		return nil, err
	}
	if len(link.Relays) == 0 {
		return nil, ErrNoRelays
	}
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	err = c.state.Admit(ctx, Admission{Admitted: protocol.Admitted{Key: key.Public(), Bytes: strangers * InvitationBytes, Records: strangers},
		Invitation: true, Note: note, Until: c.now().Add(ttl)})
	return &protocol.Invitation{Link: link, Key: key}, err
}

// Uninvite takes an invitation back. ErrNoInvitation.
func (c *Client) Uninvite(ctx context.Context, invitation protocol.PublicKey) error {
	all, err := c.state.Admissions(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(a Admission) bool { return a.Invitation && a.Key == invitation }) {
		return ErrNoInvitation
	}
	_, err = c.state.DeleteAdmission(ctx, invitation)
	return err
}

// ErrNoInvitation: none has this key.
var ErrNoInvitation = errors.New("there is no such invitation")

// Admitted lists who may leave records for the user, those to whom he said no (0 bytes), and his invitations.
func (c *Client) Admitted(ctx context.Context) ([]Admitted, error) {
	friends, err := c.Friends(ctx)
	if err != nil {
		return nil, err
	}
	g, err := c.guests(ctx, friends)
	if err != nil {
		return nil, err
	}
	on := map[protocol.Admitted]int{}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range relays {
		list, err := c.state.AdmittedOn(ctx, r.Key)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			on[a]++
		}
	}
	names := map[protocol.PublicKey]string{}
	for _, f := range friends {
		names[f.Key] = f.Name
	}
	var all []Admitted
	for _, a := range g.said {
		all = append(all, Admitted{Admission: a, Name: names[a.Key], Own: true, On: on[a.Admitted]})
	}
	for _, w := range g.wishes {
		if !w.Own {
			all = append(all, Admitted{Admission: Admission{Admitted: w.Admitted}, Name: names[w.Key], On: on[w.Admitted]})
		}
	}
	return all, nil
}

// guests are those who may leave records for the user on his account.
type guests struct {
	said        []Admission
	wishes      []moving.Wish
	refused     map[protocol.PublicKey]bool
	admitted    map[protocol.PublicKey]bool // friends
	invitations map[protocol.PublicKey]bool // by which a first word may have been left
}

func (c *Client) guests(ctx context.Context, friends []Friend) (*guests, error) {
	g := &guests{refused: map[protocol.PublicKey]bool{}, admitted: map[protocol.PublicKey]bool{}, invitations: map[protocol.PublicKey]bool{}}
	var err error
	if g.said, err = c.state.Admissions(ctx); err != nil {
		return nil, err
	}
	most, records, err := c.AnyFriend(ctx)
	if err != nil {
		return nil, err
	}
	now := c.now()
	said := map[protocol.PublicKey]bool{}
	for _, a := range g.said {
		said[a.Key] = true
		open := a.Bytes > 0 && (a.Until == 0 || now < a.Until) && (!a.Invitation || a.Used < a.Records)
		if open {
			g.wishes = append(g.wishes, moving.Wish{Admitted: a.Admitted, Own: true})
		} else {
			g.refused[a.Key] = true
		}
		// Of one that is used up nothing is kept any more: what lies on other relays are copies of what came, or is dropped.
		if a.Invitation && a.Used < a.Records && now < a.Until.Add(wordsLinger) {
			g.invitations[a.Key] = true
		}
		if !a.Invitation && open {
			g.admitted[a.Key] = true
		}
	}
	for _, f := range friends {
		if f.Key == c.Key() || said[f.Key] || most == 0 {
			continue
		}
		g.admitted[f.Key] = true
		g.wishes = append(g.wishes, moving.Wish{Admitted: protocol.Admitted{Key: f.Key, Bytes: most, Records: records}})
	}
	return g, nil
}

// mark is of what is wished, to see whether it changed since a relay was told.
func (g *guests) mark() protocol.Hash {
	var b bytes.Buffer
	for _, w := range g.wishes {
		fmt.Fprintf(&b, "%s %d %d %t\n", w.Key, w.Bytes, w.Records, w.Own)
	}
	refused := make([]string, 0, len(g.refused))
	for key := range g.refused {
		refused = append(refused, key.String())
	}
	slices.Sort(refused)
	fmt.Fprintln(&b, refused)
	return sha256.Sum256(b.Bytes())
}

// PublishAdmitted tells the user's relays whom he admits, if that changed, and looks once a day whether they know. The reports are about those
// that were asked.
func (c *Client) PublishAdmitted(ctx context.Context) ([]RelayReport, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	friends, err := c.Friends(ctx)
	if err != nil {
		return nil, err
	}
	g, err := c.guests(ctx, friends)
	if err != nil {
		return nil, err
	}
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	mark := g.mark()
	var due []Relay
	for _, r := range relays {
		told, looked, err := c.state.AdmissionsTold(ctx, r.Key)
		if err != nil {
			return nil, err
		}
		if told != mark && (looked != 0 || len(g.said)+len(g.wishes) > 0) || looked != 0 && c.now() >= looked.Add(lookAtAdmitted) {
			due = append(due, r)
		}
	}
	reports := make([]RelayReport, len(due))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, r := range due {
		group.Go(func() error {
			err := c.publishAdmittedOn(ctx, r, g, mark)
			if err != nil {
				c.log.Info("a relay was not told whom to admit", "relay", r.Address, "error", err)
			}
			reports[i] = RelayReport{Relay: r.Key, Address: r.Address, Err: err}
			return nil
		})
	}
	return reports, group.Wait()
}

func (c *Client) publishAdmittedOn(ctx context.Context, r Relay, g *guests, mark protocol.Hash) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, err := c.peer(r.Key, r.Address)
	if err != nil {
		return err
	}
	account, err := p.account(ctx)
	if err != nil {
		return err
	}
	lists := moving.Lists{Wishes: g.wishes, Refused: g.refused}
	for _, a := range account.Admitted {
		lists.There = append(lists.There, protocol.Admitted{Key: a.Key, Bytes: a.Bytes, Records: a.Records})
	}
	if lists.Last, err = c.state.AdmittedOn(ctx, r.Key); err != nil {
		return err
	}
	merged := moving.Merge(lists)
	if !moving.SameList(merged, lists.There) {
		if err := p.admit(ctx, merged); err != nil {
			return err
		}
	}
	return c.state.NoteAdmitted(ctx, r.Key, moving.Noted(lists, merged), mark)
}

// admit replaces the list of the keys that a relay admits.
func (p *peer) admit(ctx context.Context, keys []protocol.Admitted) error {
	if keys == nil {
		keys = []protocol.Admitted{}
	}
	build := p.signed(&protocol.Admit{Keys: keys})
	return p.do(ctx, exchange{
		build: build,
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.PutAdmittedWithBody(ctx, contentJSON, bytes.NewReader(e.Bytes()))
		},
	})
}
