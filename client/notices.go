package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// NoticeKind is what the user is to be told.
type NoticeKind = state.NoticeKind

// The kinds of notices, as in package state.
const (
	NoticeCard          = state.NoticeCard
	NoticeOldCard       = state.NoticeOldCard
	NoticeTwinCards     = state.NoticeTwinCards
	NoticeBadCard       = state.NoticeBadCard
	NoticeContradiction = state.NoticeContradiction
	NoticeFirstWord     = state.NoticeFirstWord
	NoticeBadFirstWord  = state.NoticeBadFirstWord
)

// FriendNotice is something that the user is to be told of a friend, or of a stranger who was invited, once.
type FriendNotice struct {
	state.Notice
	Name   string             // what the user calls the friend; empty: he is none
	Label  string             // in the card that came: a hint, and no identity
	Dated  protocol.Timestamp // of the card that came, if one did
	Known  protocol.Timestamp // of the card that was known
	Change *CardChange        // of kind card: what it changed
}

// CardChange is what a friend's newer card changed. It is told to the user: a new sealing key decides
// who can read what he sends from now on.
type CardChange struct {
	Friend         protocol.PublicKey
	Name           string
	Label          string // the new one
	LabelChanged   bool
	SealingChanged bool
	RelaysAdded    []protocol.RelayRef
	RelaysRemoved  []protocol.RelayRef
	Was, Is        []protocol.RelayRef // all of his relays
}

// News lists what the user was not shown yet, see [Client.ShowNotice].
func (c *Client) News(ctx context.Context) ([]FriendNotice, error) { return c.notices(ctx, 0, true) }

// NoticesOf lists what there is to tell of one friend, shown or not.
func (c *Client) NoticesOf(ctx context.Context, friend protocol.PublicKey) ([]FriendNotice, error) {
	list, err := c.state.NoticesOf(ctx, friend)
	if err != nil {
		return nil, err
	}
	return c.openNotices(ctx, list)
}

// ShowNotice notes that the user saw a notice.
func (c *Client) ShowNotice(ctx context.Context, n FriendNotice) error {
	return c.state.ShowNotice(ctx, n.N)
}

// ShowGap notes that the user was told of a gap.
func (c *Client) ShowGap(ctx context.Context, g Gap) error { return c.state.ShowGap(ctx, g) }

// Contradictions counts a friend's messages of which he signed two contents.
func (c *Client) Contradictions(ctx context.Context, friend protocol.PublicKey) (int64, error) {
	return c.state.Contradictions(ctx, friend)
}

func (c *Client) notices(ctx context.Context, after int64, fresh bool) ([]FriendNotice, error) {
	list, err := c.state.Notices(ctx, after, fresh)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return c.openNotices(ctx, list)
}

func (c *Client) openNotices(ctx context.Context, list []state.Notice) ([]FriendNotice, error) {
	opened := make([]FriendNotice, 0, len(list))
	for _, n := range list {
		one, err := c.openNotice(ctx, n)
		if err != nil {
			return nil, err
		}
		opened = append(opened, *one)
	}
	return opened, nil
}

func (c *Client) openNotice(ctx context.Context, n state.Notice) (*FriendNotice, error) {
	one := &FriendNotice{Notice: n}
	f, err := c.state.Friend(ctx, n.Friend)
	if err != nil && !errors.Is(err, ErrNoFriend) {
		return nil, err
	}
	one.Name = f.Name
	var was, is protocol.Identity
	if one.Known, err = readKept(n.Before, &was); err != nil {
		return nil, err
	}
	if one.Dated, err = readKept(n.After, &is); err != nil {
		return nil, err
	}
	one.Label = is.Label
	if n.Kind == state.NoticeCard {
		one.Change = compareCards(n.Friend, f.Name, &was, &is)
	}
	return one, nil
}

// readKept reads a kept card; none is the zero time.
func readKept(card []byte, into *protocol.Identity) (protocol.Timestamp, error) {
	if card == nil {
		return 0, nil
	}
	e, err := protocol.ParseEnvelope(card)
	if err == nil {
		err = e.Decode(into)
	}
	if err != nil {
		return 0, fmt.Errorf("a kept card: %w", err)
	}
	return e.Timestamp, nil
}

func compareCards(friend protocol.PublicKey, name string, was, is *protocol.Identity) *CardChange {
	return &CardChange{
		Friend: friend, Name: name, Label: is.Label,
		LabelChanged:   was.Label != is.Label,
		SealingChanged: !slices.Equal(was.Sealing, is.Sealing),
		RelaysAdded:    missing(is.Relays, was.Relays),
		RelaysRemoved:  missing(was.Relays, is.Relays),
		Was:            was.Relays, Is: is.Relays,
	}
}

func missing(from, in []protocol.RelayRef) []protocol.RelayRef {
	return slices.DeleteFunc(slices.Clone(from), func(r protocol.RelayRef) bool { return slices.Contains(in, r) })
}

// matters tells whether a change is one of what people see. Members of the future and hubs are not.
func (change *CardChange) matters() bool {
	return change.LabelChanged || change.SealingChanged || len(change.RelaysAdded)+len(change.RelaysRemoved) > 0
}
