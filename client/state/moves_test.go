package state_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"relaymarket/client/state"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// A state from before friends were told of moves keeps how far each of them was pulled, what is missing, and takes it that
// they know the card there is.
func TestUpgradeToMoves(t *testing.T) {
	older := fstest.MapFS{}
	names, err := filepath.Glob("migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if filepath.Base(name) >= "0007" {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		older[name] = &fstest.MapFile{Data: data}
	}
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := sqlite.Open(t.Context(), path, true, older)
	if err != nil {
		t.Fatal(err)
	}
	me, friend, relay := key(1), key(2), key(3)
	for _, insert := range []struct {
		statement string
		args      []any
	}{
		{`INSERT INTO owner VALUES (1, ?, '0011223344556677', '', ?)`, []any{me[:], []byte("my card")}},
		{`INSERT INTO friends VALUES (?, 'anna', x'01', 1, 1)`, []any{friend[:]}},
		{`INSERT INTO cursors VALUES (?, 0, 'far')`, []any{relay[:]}},
		{`INSERT INTO memberships VALUES (?, ?, 0, NULL)`, []any{relay[:], friend[:]}},
		{`INSERT INTO gaps VALUES (?, 'd', 4, 6, 9)`, []any{friend[:]}},
	} {
		if err := db.Exec(t.Context(), insert.statement, insert.args...); err != nil {
			t.Fatalf("%s: %v", insert.statement, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	sources, err := s.Plan(t.Context(), relay, []protocol.PublicKey{friend})
	if err != nil || len(sources) != 1 || sources[0].Friend != nil || sources[0].After == nil || *sources[0].After != "far" {
		t.Errorf("pulled so far: %+v, %v", sources, err)
	}
	gaps, err := s.Gaps(t.Context(), 0)
	if err != nil || len(gaps) != 1 || gaps[0].Last != 6 || gaps[0].Shown != 0 {
		t.Errorf("gaps: %+v, %v", gaps, err)
	}
	told, err := s.Told(t.Context())
	if err != nil || len(told) != 1 || string(told[0].Card) != "my card" || told[0].N != 0 || told[0].Live {
		t.Errorf("told: %+v, %v", told, err)
	}
	// Who is removed and comes back is pulled from the beginning.
	if err := s.DeleteFriend(t.Context(), friend); err != nil {
		t.Fatal(err)
	}
	if err := s.AddFriend(t.Context(), friend, "anna", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if sources, err = s.Plan(t.Context(), relay, []protocol.PublicKey{friend}); err != nil || len(sources) != 1 || sources[0].After != nil {
		t.Errorf("when he is back: %+v, %v", sources, err)
	}
}

// A gap that was told stays told when a late message splits it.
func TestShownGapSplits(t *testing.T) {
	s := fresh(t)
	friend, relay := key(2), key(3)
	if err := s.AddFriend(t.Context(), friend, "anna", []byte("x")); err != nil {
		t.Fatal(err)
	}
	arrives := func(seq int64) {
		id := protocol.RecordID(string(rune('a' + seq)))
		if _, err := s.StoreMessages(t.Context(), []state.Message{{From: friend, ID: id, Device: "d", Seq: seq, Content: protocol.Hash{byte(seq)}, Relay: relay}}); err != nil {
			t.Fatal(err)
		}
	}
	arrives(1)
	arrives(7)
	gaps, err := s.Gaps(t.Context(), 0)
	if err != nil || len(gaps) != 1 {
		t.Fatalf("%+v, %v", gaps, err)
	}
	if err := s.ShowGap(t.Context(), gaps[0]); err != nil {
		t.Fatal(err)
	}
	arrives(4)
	arrives(9)
	if gaps, err = s.Gaps(t.Context(), 0); err != nil || len(gaps) != 3 || gaps[0].Shown == 0 || gaps[1].Shown == 0 || gaps[2].Shown != 0 {
		t.Errorf("%+v, %v", gaps, err)
	}
}
