package state_test

import (
	"fmt"
	"testing"
	"time"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// By an invitation for two come two first words and no more, whoever leaves them and however often, and nobody is told of the rest. A word that is
// here may come again.
func TestWordsBeyondTheInvitation(t *testing.T) {
	s := fresh(t)
	invitation := key(77)
	if err := s.Admit(t.Context(), state.Admission{Admitted: protocol.Admitted{Key: invitation, Bytes: 96 << 10, Records: 2}, Invitation: true,
		Until: protocol.TimestampOf(time.Now().Add(time.Hour))}); err != nil {
		t.Fatal(err)
	}
	_, all := people(t, 5)
	words := 0
	arrives := func(id string, content byte, word state.WordRecord) {
		t.Helper()
		n, err := s.StoreMessages(t.Context(), []state.Message{{From: invitation, ID: protocol.RecordID(id), Content: protocol.Hash{content},
			Expires: protocol.TimestampOf(time.Now().Add(time.Hour)), Word: &word}})
		if err != nil {
			t.Fatal(err)
		}
		words += n
	}
	var first *protocol.Envelope
	for i := range all {
		e, err := protocol.ParseEnvelope(all[i][0])
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = e
		}
		for j := range 2 {
			arrives(fmt.Sprint(i, "-", j), byte(10*i+j), state.WordRecord{Text: "hi", Card: e})
		}
		arrives(fmt.Sprint("bad-", i), byte(100+i), state.WordRecord{Fault: "it is no first word"})
	}
	strangers, err := s.Strangers(t.Context())
	if err != nil || len(strangers) != 1 || strangers[0].Key != first.From || words != 2 {
		t.Errorf("%d words, strangers %+v, %v", words, strangers, err)
	}
	notices, err := s.Notices(t.Context(), 0, false)
	if err != nil || len(notices) != 2 {
		t.Fatal(len(notices), err)
	}
	for _, n := range notices {
		if n.Friend != first.From || n.Kind != state.NoticeFirstWord {
			t.Errorf("%+v", n)
		}
	}
	arrives("0-0", 0, state.WordRecord{Text: "hi", Card: first})     // from another relay
	arrives("0-0", 99, state.WordRecord{Text: "other", Card: first}) // and contradicted
	if n, err := s.Contradictions(t.Context(), first.From); err != nil || n != 1 || words != 2 {
		t.Errorf("%d contradictions, %d words, %v", n, words, err)
	}
}
