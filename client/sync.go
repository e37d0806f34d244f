package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Message is a message that arrived.
type Message = state.Message

// Gap is a run of messages that a friend's device numbered and that did not arrive: expired,
// deleted or hidden by a relay.
type Gap = state.Gap

// RelayReport is what came of talking to one relay.
type RelayReport struct {
	Relay     protocol.PublicKey
	Address   string
	Records   int // new ones pulled
	Delivered int // queued ones settled
	Err       error
}

// SyncResult is what a Sync found.
type SyncResult struct {
	Messages []Message      // that arrived, in order of arrival
	Gaps     []Gap          // that were noticed and did not close
	Changes  []CardChange   // of friends' cards
	Notices  []FriendNotice // all that was noticed of friends and strangers: the changes, too, and what was refused
	Pulled   []RelayReport  // the relays of friends
	Sent     []RelayReport  // own relays that had something queued, or lacked the card
	Expiring []Outgoing     // own messages that expire soon and were not fetched; each is told once
}

// Failed are the reports of relays that failed.
func (r *SyncResult) Failed() []RelayReport {
	all := append(slices.Clone(r.Pulled), r.Sent...)
	return slices.DeleteFunc(all, func(r RelayReport) bool { return r.Err == nil })
}

// Sync sends what is queued and pulls what friends left, from all their relays at once. A relay
// that fails is reported and holds up nobody else. At most once an hour it looks for newer cards of friends.
func (c *Client) Sync(ctx context.Context) (*SyncResult, error) {
	result, err := c.SyncUnseen(ctx)
	if err != nil {
		return nil, err
	}
	result.Expiring, err = c.warn(ctx)
	return result, err
}

// SyncUnseen is Sync for a program that has nobody at hand to tell what expires: it leaves that to the next Sync, see
// [Client.NearExpiry].
func (c *Client) SyncUnseen(ctx context.Context) (*SyncResult, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	before, err := c.state.LastMessage(ctx)
	if err != nil {
		return nil, err
	}
	noticed, err := c.state.LastNotice(ctx)
	if err != nil {
		return nil, err
	}
	started := c.now()
	known, err := c.posts(ctx)
	if err != nil {
		return nil, err
	}
	result := &SyncResult{}
	group, work := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		result.Pulled, err = c.pullAll(work, nil)
		return err
	})
	group.Go(func() error { return c.refreshCards(work) })
	group.Go(func() (err error) {
		result.Sent, err = c.catchUp(work)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := c.pullMoved(ctx, result, noticed); err != nil {
		return nil, err
	}
	if err := c.pullTold(ctx, known, result); err != nil {
		return nil, err
	}
	receipts, err := c.LeaveReceipts(ctx)
	if err != nil {
		return nil, err
	}
	result.Sent = append(result.Sent, receipts...)
	if result.Messages, err = c.state.Messages(ctx, state.Filter{After: before}); err != nil {
		return nil, err
	}
	result.Gaps, err = c.state.Gaps(ctx, started)
	return result, err
}

// catchUp does what relays are owed: a card that changed, which friends are told too, queued messages, then whom the user admits.
func (c *Client) catchUp(ctx context.Context) ([]RelayReport, error) {
	published, err := c.PublishCard(ctx)
	if err != nil {
		return nil, err
	}
	sent, err := c.Flush(ctx)
	if err != nil {
		return nil, err
	}
	_, err = c.PublishAdmitted(ctx)
	return append(sent, published...), err
}

// maxMoves bounds how often a Sync goes after a friend who moves on and on.
const maxMoves = 4

// pullMoved pulls the relays that friends moved to, which this Sync did not know when it began. There may lie the card of
// the next move.
func (c *Client) pullMoved(ctx context.Context, result *SyncResult, noticed int64) error {
	for range maxMoves {
		fresh, err := c.notices(ctx, noticed, false)
		if err != nil {
			return err
		}
		moved := map[protocol.PublicKey]bool{}
		for _, n := range fresh {
			noticed = n.N
			result.Notices = append(result.Notices, n)
			if n.Change == nil {
				continue
			}
			if n.Change.matters() {
				result.Changes = append(result.Changes, *n.Change)
			}
			for _, r := range n.Change.RelaysAdded {
				moved[r.PubKey] = true
			}
		}
		if len(moved) == 0 {
			return nil
		}
		reports, err := c.pullAll(ctx, moved)
		if err != nil {
			return err
		}
		result.Pulled = append(result.Pulled, reports...)
	}
	return nil
}

// pullTold pulls for the friends, and from the relays, of which another device of the user told in this Sync.
func (c *Client) pullTold(ctx context.Context, known []post, result *SyncResult) error {
	now, err := c.posts(ctx)
	if err != nil {
		return err
	}
	fresh := map[protocol.PublicKey]bool{}
	for _, p := range now {
		at := slices.IndexFunc(known, func(k post) bool { return k.key == p.key })
		fresh[p.key] = at < 0 || slices.ContainsFunc(p.friends, func(f protocol.PublicKey) bool { return !slices.Contains(known[at].friends, f) })
	}
	if !slices.ContainsFunc(now, func(p post) bool { return fresh[p.key] }) {
		return nil
	}
	reports, err := c.pullAll(ctx, fresh)
	result.Pulled = append(result.Pulled, reports...)
	return err
}

// post is a relay on which friends leave records.
type post struct {
	key       protocol.PublicKey
	addresses []string // the most trusted first
	friends   []protocol.PublicKey
	// invitations are those of friends that are nobody: keys of invitations, with which strangers leave a first word.
	invitations map[protocol.PublicKey]bool
	// backups has the parts of the user's backups kept as they come, see [state.Message].KeepBody.
	backups bool
	gone    bool // the user removed it, and nobody else is looked for there
}

// posts groups friends by relay. A friend may name any address for a relay's key, and who answers
// there learns whom we read: so our own address of a relay comes first, then the one that most friends name.
func (c *Client) posts(ctx context.Context) ([]post, error) {
	friends, err := c.Friends(ctx)
	if err != nil {
		return nil, err
	}
	own, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	guests, err := c.guests(ctx, friends)
	if err != nil {
		return nil, err
	}
	found := map[protocol.PublicKey]*post{}
	votes := map[protocol.PublicKey]map[string]int{}
	add := func(friend, relay protocol.PublicKey, address string) {
		if found[relay] == nil {
			found[relay], votes[relay] = &post{key: relay, invitations: guests.invitations}, map[string]int{}
		}
		if !slices.Contains(found[relay].friends, friend) {
			found[relay].friends = append(found[relay].friends, friend)
		}
		votes[relay][address]++
	}
	for _, f := range friends {
		if f.Key != c.Key() { // of oneself, the own list is newer than any card
			for _, r := range f.Card.Relays {
				add(f.Key, r.PubKey, r.Address)
			}
		}
		// Whom we admit may have left his new card with us. A friend without a relay can leave something nowhere else.
		if f.Key == c.Key() || len(f.Card.Relays) == 0 || guests.admitted[f.Key] {
			for _, r := range own {
				add(f.Key, r.Key, r.Address)
			}
		}
	}
	for invitation := range guests.invitations {
		for _, r := range own {
			add(invitation, r.Key, r.Address)
		}
	}
	// The user's other devices write to him, on his own relays, and on those that he left, as long as they may not know of that.
	if !slices.ContainsFunc(friends, func(f Friend) bool { return f.Key == c.Key() }) {
		for _, r := range own {
			add(c.Key(), r.Key, r.Address)
		}
	}
	gone, err := c.state.GoneRelays(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range gone {
		alone := found[r.Key] == nil
		add(c.Key(), r.Key, r.Address)
		found[r.Key].gone = alone
	}
	for _, p := range found {
		slices.SortFunc(p.friends, func(a, b protocol.PublicKey) int { return slices.Compare(a[:], b[:]) })
	}
	for _, r := range own {
		if votes[r.Key] != nil {
			votes[r.Key][r.Address] += len(friends) + 1
		}
	}
	posts := make([]post, 0, len(found))
	for key, p := range found {
		for address := range votes[key] {
			p.addresses = append(p.addresses, address)
		}
		slices.SortFunc(p.addresses, func(a, b string) int {
			if d := votes[key][b] - votes[key][a]; d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
		posts = append(posts, *p)
	}
	slices.SortFunc(posts, func(a, b post) int { return strings.Compare(a.addresses[0], b.addresses[0]) })
	return posts, nil
}

// pullAll pulls every relay, or only those named.
func (c *Client) pullAll(ctx context.Context, only map[protocol.PublicKey]bool) ([]RelayReport, error) {
	posts, err := c.posts(ctx)
	if err != nil {
		return nil, err
	}
	if only != nil {
		posts = slices.DeleteFunc(posts, func(p post) bool { return !only[p.key] })
	}
	reports := make([]RelayReport, len(posts))
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, p := range posts {
		group.Go(func() (err error) {
			if p.gone {
				reports[i], err = c.pullGone(work, p)
			} else {
				reports[i], err = c.pullPost(work, p)
			}
			return err
		})
	}
	err = group.Wait()
	return slices.DeleteFunc(reports, func(r RelayReport) bool { return r.Address == "" }), err
}

// pullGone pulls a relay that the user removed. It may be dead, or have closed his account: that is nothing to report, and not
// waited for long.
func (c *Client) pullGone(ctx context.Context, p post) (RelayReport, error) {
	limited, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	report, err := c.pullPost(limited, p)
	if err != nil && (ctx.Err() != nil || limited.Err() == nil) {
		return RelayReport{}, err
	}
	if err = errors.Join(err, report.Err); err != nil {
		c.log.Info("a relay that was removed is not looked on for word of other devices", "relay", p.addresses[0], "error", err)
		return RelayReport{}, nil
	}
	return report, nil
}

// lockPull keeps pulls of one relay in this process apart.
func (c *Client) lockPull(relay protocol.PublicKey) *sync.Mutex {
	c.mu.Lock()
	if c.pulling[relay] == nil {
		c.pulling[relay] = &sync.Mutex{}
	}
	lock := c.pulling[relay]
	c.mu.Unlock()
	lock.Lock()
	return lock
}
