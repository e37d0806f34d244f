package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// sheMoves loses the second of Alice's relays, too. Nothing that Bob knows of her answers any more.
func sheMoves(ctx context.Context, s *stage, c *cast) error {
	scene("The relay south dies as well: both of Alice's relays are lost. She moves to Dave's, and nobody can tell Bob.")
	if err := c.south.kill(); err != nil {
		return err
	}
	if err := c.spare.admin(ctx, "grant", c.alice.key); err != nil {
		return err
	}
	var added struct {
		Told struct {
			Friends int `json:"friends"`
			Reached int `json:"reached"`
		} `json:"told"`
	}
	if err := c.alice.json(ctx, &added, "relays", "add", c.spare.url); err != nil {
		return err
	}
	if added.Told.Friends != 1 || added.Told.Reached != 1 {
		return fmt.Errorf("her new card lies for %d of %d friends where they look", added.Told.Reached, added.Told.Friends)
	}
	for _, lost := range []*relay{c.north, c.south} {
		rm := c.alice.command(ctx, "relays", "rm", lost.url)
		// The other lost one cannot be told, which is a failure of its own.
		if said, err := rm.CombinedOutput(); err != nil && rm.ProcessState.ExitCode() != exitPartial {
			return fmt.Errorf("alice: relay relays rm: %w\n%s", err, said)
		}
		c.sum.RelaysLost++
	}
	tell("her new card lies on home, where Bob lets his friends leave such things: %s", c.home.url)
	if err := c.alice.sends(ctx, c, "bob", movedWords); err != nil {
		return err
	}
	return c.bob.findsHer(ctx, s, c)
}

// findsHer has Bob look once: he has to be told of the move, and then to have what was written at the new place.
func (p *person) findsHer(ctx context.Context, s *stage, c *cast) error {
	cmd := p.command(ctx, "inbox", "--json")
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); err != nil && code != exitPartial { // two of the relays that he asks are dead
		return fmt.Errorf("%s: relay inbox: exit code %d: %w\n%s", p.name, code, err, out)
	}
	var in struct {
		Changes []struct {
			Name    string
			Was, Is []struct{ Address string }
		}
	}
	if err := json.Unmarshal(out, &in); err != nil {
		return fmt.Errorf("%s: relay inbox --json printed %q: %w", p.name, out, err)
	}
	if len(in.Changes) != 1 || in.Changes[0].Name != "alice" || len(in.Changes[0].Was) != 2 || len(in.Changes[0].Is) != 1 || in.Changes[0].Is[0].Address != c.spare.url {
		return fmt.Errorf("%s was not told where alice is now:\n%s", p.name, out)
	}
	var was []string
	for _, r := range in.Changes[0].Was {
		was = append(was, r.Address)
	}
	c.sum.Moved++
	tell("bob is told: alice was on %s, is on %s", strings.Join(was, " and "), c.spare.url)
	if err := p.reads(ctx, c, "alice", movedWords); err != nil {
		return err
	}
	tell("and reads: %q", movedWords)
	return nil
}
