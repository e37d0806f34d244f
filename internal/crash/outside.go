package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"relaymarket/api"
	"relaymarket/protocol"
)

func numbered(n int) string { return strconv.Itoa(n) }

// endedLooks is how many deleted records of a round are asked for.
const endedLooks = 3

// checkOutside asks the relay as its users do, whether it shows what they know.
func (c *caller) checkOutside(ctx context.Context) error {
	defer c.close()
	for _, k := range c.cohort.writers() {
		if err := c.checkInventory(ctx, k); err != nil {
			return err
		}
	}
	return c.checkEnded(ctx)
}

// checkInventory wants all of a sender's records once, in order, and each as it was acknowledged.
func (c *caller) checkInventory(ctx context.Context, key *protocol.PrivateKey) error {
	listed := map[protocol.Path]bool{}
	last, after := int64(0), ""
	for {
		target := "/" + key.Public().String() + "/outbox?limit=500"
		if after != "" {
			target += "&after=" + url.QueryEscape(after)
		}
		answer, _, err := c.settled(ctx, func(int) (message, error) {
			return c.targeted(key, protocol.TypeInventory, http.MethodGet, target)
		})
		if err != nil || answer == nil {
			return err
		}
		var page api.Inventory
		if err := json.Unmarshal(answer.body, &page); err != nil || answer.status != http.StatusOK {
			c.cohort.fault(promiseRefuse, "the inventory of %s is answered with %s", key.Public(), answer)
			return nil
		}
		for i := range page.Records {
			last = c.checkEntry(&page.Records[i], listed, last)
		}
		if after = page.Cursor; !page.More {
			break
		}
	}
	c.cohort.mu.Lock()
	defer c.cohort.mu.Unlock()
	for path, r := range c.cohort.records {
		if path.Sender == key.Public() && r.stored != nil && !r.deleting && !listed[path] && !c.cohort.mayBeUsedUp(r) {
			c.cohort.faultLocked(promiseKept, "%s was acknowledged at %d and is not in its sender's inventory", path, r.stored.n)
		}
	}
	return nil
}

// checkEntry holds one line of an inventory against the history, and returns its place.
func (c *caller) checkEntry(e *api.Record, listed map[protocol.Path]bool, last int64) int64 {
	path := protocol.Path{Sender: e.From, Receiver: e.To, ID: protocol.RecordID(e.RecordId)}
	n, err := placeOf(e.Cursor)
	c.cohort.mu.Lock()
	defer c.cohort.mu.Unlock()
	r := c.cohort.records[path]
	switch {
	case err != nil || r == nil || r.tried[e.Hash] == nil:
		c.cohort.faultLocked(promiseGenuine, "%s is listed as %s at %s, and nobody wrote it", path, e.Hash, e.Cursor)
	case listed[path]:
		c.cohort.faultLocked(promiseOnce, "%s is listed twice, the second time at %s", path, e.Cursor)
	case r.stored != nil && (r.stored.n != n || r.stored.hash != e.Hash):
		c.cohort.faultLocked(promiseKept, "%s was acknowledged at %d as %s and is listed at %d as %s", path, r.stored.n, r.stored.hash, n, e.Hash)
	case r.deleted:
		c.cohort.faultLocked(promiseDeleted, "%s is listed at %d, and its delete was acknowledged", path, n)
	case e.Pulls < int64(r.pages), e.Pulls > int64(r.pages+c.cohort.lost[path.Receiver]):
		c.cohort.faultLocked(promisePage, "%s at %d is listed with %d pulls, and came in %d pages", path, n, e.Pulls, r.pages)
	case n <= last:
		c.cohort.faultLocked(promiseOrder, "%s at %d is listed after %d", path, n, last)
	}
	listed[path] = true
	return n
}

// checkEnded asks for some records that were deleted, which must not be served.
func (c *caller) checkEnded(ctx context.Context) error {
	for _, r := range c.cohort.someDeleted(endedLooks) {
		var reader *protocol.PrivateKey
		for _, k := range c.cohort.readers {
			if k.Public() == r.path.Receiver {
				reader = k
			}
		}
		answer, _, err := c.settled(ctx, func(int) (message, error) {
			return c.targeted(reader, protocol.TypeRead, http.MethodGet, r.path.String()+"?pageId=ended")
		})
		if err != nil || answer == nil {
			return err
		}
		if answer.problem().Code != protocol.CodeGone {
			c.cohort.fault(promiseDeleted, "%s was deleted, and is answered with %s", r.path, answer)
		}
	}
	return nil
}

func (c *cohort) someDeleted(most int) (some []*record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.records {
		if r.deleted && len(some) < most {
			some = append(some, r)
		}
	}
	return some
}
