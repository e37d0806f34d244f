package main

import (
	"context"
	"fmt"
)

const (
	firstWords  = "Are you there? I am off to the mountains."
	answerWords = "I was asleep. Your relay died, your words did not."
	liveWords   = "Do you see this at once?"
	daveWords   = "My relay is not to be trusted."
	movedWords  = "They are all gone. I am here now."
)

// scene prints what is about to happen.
func scene(format string, args ...any) { fmt.Printf("\n── "+format+"\n", args...) }

// tell prints what did.
func tell(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// cast is who appears.
type cast struct {
	north, south, home *relay // two that strangers rent, and one of a friend's
	spare              *relay // Dave's, which lied for a while
	alice, bob         *person
	contracts          []*contract // in the order they were opened
	messages           map[string]bool
	sum                summary
}

// summary is the last line of the demo.
type summary struct {
	OK            bool    `json:"ok"`
	Sent          int     `json:"messages_sent"`
	Read          int     `json:"messages_read"`
	Files         int     `json:"files"`
	RelaysLost    int     `json:"relays_lost"` // of a sender
	Moved         int     `json:"moved"`       // senders who went to another relay and were found there
	Contracts     int     `json:"contracts"`
	PaidSat       int64   `json:"paid_sat"`      // by signed states
	ReceivedSat   int64   `json:"received_sat"`  // by relays, on the chain
	FeesSat       int64   `json:"fees_sat"`      // what miners got
	RefundedSat   int64   `json:"refunded_sat"`  // to users, on the chain
	DepositedSat  int64   `json:"deposited_sat"` // inputs of the fundings less their change
	DisputedLines int64   `json:"disputed_lines"`
	Seconds       float64 `json:"seconds"`
}

type step func(context.Context, *stage, *cast) error

// aNet is what make localnet keeps up, and how the story begins.
var aNet = []step{aChain, threeRelays, aPurse, theMarket, aFriendsRelay}

// theStory goes on from there.
var theStory = []step{
	sheRentsTwo, theySwapCards, oneWritesWhileTheOtherIsAway, aRelayDies, heListens, aFile, aStranger, aLiar, theDeadReturn,
	theBills, aCheat, theyClose, aRelayVanishes, sheMoves, theBooks,
}

func perform(ctx context.Context, s *stage, c *cast, steps []step) error {
	for _, step := range steps {
		if err := step(ctx, s, c); err != nil {
			return err
		}
	}
	return nil
}

// read counts a message that somebody read, once.
func (c *cast) read(what string) {
	if c.messages == nil {
		c.messages = make(map[string]bool)
	}
	c.messages[what] = true
	c.sum.Read = len(c.messages)
}
