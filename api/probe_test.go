package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	"relaymarket/protocol"
)

// trials stands for the network, which answers what a test wants; package reach is tested with the real one.
type trials struct {
	refused protocol.Code // of Admit
	why     protocol.Unreached
	busy    bool
	tried   []string
}

var _ Prober = (*trials)(nil)

func (p *trials) Admit([]byte, protocol.PublicKey, string) error {
	if p.refused != "" {
		return protocol.Errorf(p.refused, "it is none")
	}
	return nil
}

func (p *trials) Try(_ context.Context, address string, _ protocol.PublicKey) (time.Duration, protocol.Unreached, error) {
	if p.busy {
		return 0, "", protocol.Errorf(protocol.CodeOverloaded, "busy")
	}
	p.tried = append(p.tried, address)
	return 120 * time.Millisecond, p.why, nil
}

// A relay asks whether it is reached, and has a signed answer to this very request. It may ask a few times, from one address as from one key.
func TestProbe(t *testing.T) {
	network := &trials{}
	g := newRig(t, func(c *Config) { c.Prober = network })
	asks := func(key *protocol.PrivateKey) (*protocol.Envelope, answer) {
		e := g.sign(key, g.key.Public(), &protocol.Probe{Address: "https://other.example", Announcement: []byte(`{}`)})
		return e, g.post("/probe", e)
	}
	answered := func(e *protocol.Envelope, a answer) *protocol.ProbeAnswer {
		t.Helper()
		said, err := protocol.ParseEnvelope(a.body)
		if err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		var answer protocol.ProbeAnswer
		if err := said.Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if err := said.Verify(); err != nil || said.From != g.key.Public() || said.To != e.From || answer.Request != e.Hash() || answer.Address != "https://other.example" {
			t.Errorf("the answer is %+v from %s to %s (%v)", answer, said.From, said.To, err)
		}
		return &answer
	}
	one := newKey(t)
	if answer := answered(asks(one)); !answer.Reached || answer.TookMs != 120 {
		t.Errorf("reached: %+v", answer)
	}
	network.why = protocol.UnreachedTLS
	if answer := answered(asks(one)); answer.Reached || answer.Unreached != protocol.UnreachedTLS {
		t.Errorf("not reached: %+v", answer)
	}
	network.refused = protocol.CodeInvalidValue
	_, a := asks(one)
	g.refused(a, protocol.CodeInvalidValue)
	network.refused, network.busy = "", true
	_, a = asks(one)
	g.refused(a, protocol.CodeOverloaded)
	network.busy = false
	if _, a = asks(one); a.status != 200 {
		t.Errorf("the fourth: %s", a.body)
	}
	tried := fmt.Sprint(network.tried)
	_, a = asks(newKey(t)) // another key from the same address
	g.refused(a, protocol.CodeRateAddress)
	if fmt.Sprint(network.tried) != tried {
		t.Error("the address was tried beyond the rate")
	}
	none := newRig(t, func(c *Config) { c.Prober = nil })
	e := none.sign(one, none.key.Public(), &protocol.Probe{Address: "https://other.example", Announcement: []byte(`{}`)})
	none.refused(none.post("/probe", e), protocol.CodeNotFound)
}
