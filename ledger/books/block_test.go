package books

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

func bytes32(t *rapid.T, name string) (b [32]byte) {
	copy(b[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name))
	return b
}

// postings are some lines of a bill, with pages of which it has few records or many.
func postings(t *rapid.T) []posting {
	line := func(kind ledger.Kind) ledger.Line {
		return ledger.Line{Kind: kind, From: bytes32(t, "from"), To: bytes32(t, "to"), Hash: bytes32(t, "hash"),
			RecordID: protocol.RecordID(rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "id")), Bytes: rapid.Int64Range(1, 8<<20).Draw(t, "bytes")}
	}
	stamp := rapid.Map(rapid.Int64Range(1, protocol.MaxInteger), func(n int64) protocol.Timestamp { return protocol.Timestamp(n) })
	var all []posting
	for range rapid.IntRange(0, 6).Draw(t, "steps") {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 4:
			l := line(ledger.KindDrop)
			l.Of, l.Back = rapid.Int64Range(1, 1<<40).Draw(t, "of"), &protocol.UsageTotals{}
			for _, d := range back(&l) {
				*d = protocol.Decimal(rapid.StringMatching(`0|[1-9][0-9]{0,37}`).Draw(t, "back"))
			}
			all = append(all, posting{line: l})
		case 0:
			l := line(ledger.KindWrite)
			l.Written, l.Expires, l.MaxPulls = stamp.Draw(t, "written"), stamp.Draw(t, "expires"), rapid.Int64Range(1, protocol.MaxPullsLimit).Draw(t, "max")
			all = append(all, posting{line: l})
		case 1:
			l := line(ledger.KindEnd)
			l.Written, l.Expires, l.Ended, l.Pulls = stamp.Draw(t, "written"), stamp.Draw(t, "expires"), stamp.Draw(t, "ended"), rapid.Int64Range(0, 9).Draw(t, "pulls")
			all = append(all, posting{line: l})
		case 2:
			l := line(ledger.KindLapse)
			l.Pulls = rapid.Int64Range(1, 9).Draw(t, "pulls")
			all = append(all, posting{line: l})
		case 3:
			page := &acked{got: []byte(`{"got":true}`)}
			to := protocol.PublicKey(bytes32(t, "reader"))
			senders := []protocol.PublicKey{bytes32(t, "sender"), bytes32(t, "another")}
			for range rapid.IntRange(1, 40).Draw(t, "page") {
				page.hashes = append(page.hashes, protocol.TaggedHash(protocol.TagLeaf, []byte{byte(len(page.hashes)), byte(len(all))}))
			}
			for at := range page.hashes {
				if rapid.IntRange(0, 3).Draw(t, "mine") > 0 {
					l := line(ledger.KindPull)
					l.Hash, l.To, l.From = page.hashes[at], to, rapid.SampledFrom(senders).Draw(t, "of")
					page.mine++
					all = append(all, posting{line: l, page: page, at: at})
				}
			}
		}
	}
	return all
}

// What is stored of lines is the lines, and the evidence in them leads to the page's root.
func TestBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := postings(t)
		at := 0
		err := decodeBlock(encodeBlock(all), func(l *ledger.Line) error {
			p := all[at]
			at++
			if p.page != nil {
				e := l.Evidence
				root, ok := protocol.MerkleClimb(l.Hash, e.Index, e.Records, e.Path)
				if !ok || root != protocol.MerkleRoot(p.page.hashes) || string(e.Got) != string(p.page.got) || e.Index != int64(p.at) {
					t.Fatalf("line %d: %+v", at, e)
				}
				l.Evidence = nil
			}
			if !reflect.DeepEqual(*l, p.line) {
				t.Fatalf("line %d: stored %+v, read %+v", at, p.line, *l)
			}
			return nil
		})
		if err != nil || at != len(all) {
			t.Fatalf("%d of %d lines: %v", at, len(all), err)
		}
	})
}

func FuzzDecodeBlock(f *testing.F) {
	h := protocol.TaggedHash(protocol.TagLeaf, []byte{1})
	l := ledger.Line{Kind: ledger.KindWrite, RecordID: "a", Bytes: 1, Written: 1, Expires: 2, MaxPulls: 3}
	page := &acked{got: []byte("{}"), hashes: []protocol.Hash{h, h, h}, mine: 1}
	pull := l
	pull.Kind, pull.Hash = ledger.KindPull, h
	f.Add(encodeBlock([]posting{{line: l}, {line: pull, page: page, at: 2}}))
	// What blocks were before pages told what their pulls have in common: such are in databases.
	before := append([]byte{entryPage, 2, '{', '}', 3, 1}, bytes.Repeat(h[:], 3)...)
	before = append(before, entryPull)
	before = append(append(before, make([]byte, 64)...), h[:]...)
	f.Add(append(before, 1, 'a', 7, 2))
	page.mine = 3
	f.Add(encodeBlock([]posting{{line: pull, page: page, at: 0}, {line: pull, page: page, at: 1}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := 0
		err := decodeBlock(data, func(*ledger.Line) error { lines++; return nil })
		if err == nil && lines*5 > len(data) {
			t.Fatalf("%d lines in %d bytes", lines, len(data))
		}
	})
}

// A block that was written before pages told what their pulls have in common is read as ever.
func TestOldBlock(t *testing.T) {
	h := protocol.TaggedHash(protocol.TagLeaf, []byte{1})
	block := append([]byte{entryPage, 2, '{', '}', 3, 1}, bytes.Repeat(h[:], 3)...)
	block = append(block, entryPull)
	block = append(block, bytes.Repeat([]byte{1}, 32)...)
	block = append(append(block, bytes.Repeat([]byte{2}, 32)...), h[:]...)
	block = append(block, 1, 'a', 7, 2)
	lines := 0
	err := decodeBlock(block, func(l *ledger.Line) error {
		lines++
		root, ok := protocol.MerkleClimb(l.Hash, l.Evidence.Index, l.Evidence.Records, l.Evidence.Path)
		if l.Kind != ledger.KindPull || l.From != protocol.PublicKey(bytes.Repeat([]byte{1}, 32)) || l.To != protocol.PublicKey(bytes.Repeat([]byte{2}, 32)) ||
			l.Hash != h || l.RecordID != "a" || l.Bytes != 7 || l.Evidence.Index != 2 || !ok || root != protocol.MerkleRoot([]protocol.Hash{h, h, h}) {
			t.Errorf("%+v", l)
		}
		return nil
	})
	if err != nil || lines != 1 {
		t.Fatalf("%d lines: %v", lines, err)
	}
}
