package chain_test

import (
	"errors"
	"fmt"
	"testing"

	"relaymarket/escrow/chain"
	"relaymarket/internal/regtest"
)

// follower remembers blocks as a manager would.
type follower struct {
	t      *testing.T
	c      *chain.Client
	recent []chain.BlockID
	back   int // blocks disconnected
	// patient asks again while the node is in the middle of a reorganization.
	patient bool
}

// catchUp follows to the tip and checks every step.
func (f *follower) catchUp() {
	f.t.Helper()
	for {
		event, err := f.c.Next(f.t.Context(), f.recent)
		if errors.Is(err, chain.ErrUpToDate) {
			return
		}
		if f.patient && errors.Is(err, chain.ErrBehind) {
			continue
		}
		if err != nil {
			f.t.Fatal(err)
		}
		newest := f.recent[len(f.recent)-1]
		switch event.Kind {
		case chain.Connect:
			if event.Block.Height != newest.Height+1 || event.Msg.Header.PrevBlock != newest.Hash || event.Msg.BlockHash() != event.Block.Hash || !event.Time.Equal(event.Msg.Header.Timestamp) {
				f.t.Fatalf("%v after %v", event.Block, newest)
			}
			f.recent = append(f.recent, event.Block)
			f.recent = f.recent[max(0, len(f.recent)-chain.Depth):]
		case chain.Disconnect:
			if event.Block != newest {
				f.t.Fatalf("%v taken back, not %v", event.Block, newest)
			}
			f.recent = f.recent[:len(f.recent)-1]
			f.back++
		}
	}
}

// check compares what is known with the node's chain.
func (f *follower) check() {
	f.t.Helper()
	for _, known := range f.recent {
		at, err := f.c.BlockAt(f.t.Context(), known.Height)
		if err != nil || at != known {
			f.t.Fatalf("%v is known, %v on the chain, %v", known, at, err)
		}
	}
	tip, err := f.c.Tip(f.t.Context())
	if err != nil || f.recent[len(f.recent)-1] != tip.BlockID {
		f.t.Fatalf("at %v, the tip is %v, %v", f.recent[len(f.recent)-1], tip, err)
	}
}

func follow(t *testing.T, c *chain.Client, height uint32) *follower {
	t.Helper()
	start, err := c.BlockAt(t.Context(), height)
	if err != nil {
		t.Fatal(err)
	}
	return &follower{t: t, c: c, recent: []chain.BlockID{start}}
}

func TestFollowReorganizations(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	f := follow(t, client(t, n), 10)
	f.catchUp()
	f.check()
	for _, depth := range []int{1, 3, 6, chain.Depth - 1} {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			n.Mine(2)
			f.catchUp()
			f.back = 0
			n.Reorg(depth)
			f.catchUp()
			f.check()
			if f.back != depth {
				t.Errorf("%d blocks taken back", f.back)
			}
		})
	}
}

// One that is deeper than what is known, and one that ends shorter for a while.
func TestFollowLimits(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	c := client(t, n)
	f := follow(t, c, uint32(n.Height()-5))
	f.catchUp()
	n.Invalidate(3)
	_, err := c.Next(t.Context(), f.recent)
	want(t, err, chain.ErrBehind)
	n.MineTo(someAddress(t, 9), 3)
	f.back = 0
	f.catchUp()
	f.check()
	if f.back != 3 {
		t.Errorf("%d blocks taken back", f.back)
	}
	f = follow(t, c, uint32(n.Height()-2))
	f.catchUp()
	n.Reorg(3)
	f.recent = f.recent[:1]
	_, err = c.Next(t.Context(), f.recent)
	want(t, err, chain.ErrTooDeep)
	if _, err := c.Next(t.Context(), nil); err == nil {
		t.Error("a follower from nowhere")
	}
}

// The node goes and comes back, with another branch.
func TestFollowThroughRestart(t *testing.T) {
	n := regtest.Start(t)
	f := follow(t, client(t, n), 100)
	f.catchUp()
	n.Stop()
	_, err := f.c.Next(t.Context(), f.recent)
	want(t, err, chain.ErrUnreachable)
	n.Restart()
	n.Reorg(3)
	f.catchUp()
	f.check()
	if f.back != 3 {
		t.Errorf("%d blocks taken back", f.back)
	}
}

// The chain changes while it is followed.
func TestFollowWhileItChanges(t *testing.T) {
	n := regtest.Start(t, regtest.Plain)
	f := follow(t, client(t, n), 10)
	f.patient = true
	f.catchUp() // from here on there is a block that each reorganization takes back, however late it is seen
	done := make(chan error, 1)
	go func() {
		for i := range 60 {
			if _, err := n.Node.Reorg(1 + i%4); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for changing := true; changing; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			changing = false
		default:
		}
		f.catchUp()
	}
	f.check()
	if f.back == 0 {
		t.Error("no reorganization was seen: nothing was tested")
	}
}
