package books

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
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
			page := &served{got: []byte(`{"got":true}`), reader: bytes32(t, "reader")}
			senders := [][32]byte{bytes32(t, "sender"), bytes32(t, "another")}
			several := rapid.Bool().Draw(t, "several")
			p := posting{page: page}
			for at := range int32(rapid.IntRange(1, 40).Draw(t, "page")) {
				l := line(ledger.KindPull)
				leaf := protocol.TaggedHash(protocol.TagLeaf, []byte{byte(at), byte(len(all))})
				page.hashes, page.ids, page.sizes = append(page.hashes, leaf[:]...), append(page.ids, []byte(l.RecordID)), append(page.sizes, int32(l.Bytes))
				if from := rapid.SampledFrom(senders).Draw(t, "of"); several {
					page.senders = append(page.senders, from[:]...)
				} else {
					page.senders = senders[0][:]
				}
				if rapid.IntRange(0, 3).Draw(t, "mine") > 0 {
					p.pulls = append(p.pulls, at)
				}
			}
			if len(p.pulls) > 0 {
				all = append(all, p)
			}
		}
	}
	return all
}

// wanted is a line that a block is to have, with the page that its evidence is of.
type wanted struct {
	line ledger.Line
	page *served
	at   int32
}

func linesOf(postings []posting) (lines []wanted) {
	for _, p := range postings {
		if p.page == nil {
			lines = append(lines, wanted{line: p.line})
		}
		for _, at := range p.pulls {
			lines = append(lines, wanted{page: p.page, at: at, line: ledger.Line{Kind: ledger.KindPull, From: p.page.sender(at), To: p.page.reader,
				RecordID: protocol.RecordID(p.page.ids[at]), Hash: p.page.hash(at), Bytes: int64(p.page.sizes[at])}})
		}
	}
	return lines
}

func rootOf(p *served) protocol.Hash {
	hashes := make([]protocol.Hash, p.records())
	for i := range hashes {
		hashes[i] = p.hash(int32(i))
	}
	return protocol.MerkleRoot(hashes)
}

// blockOf is a block of these.
func blockOf(postings []posting) []byte {
	block, _ := encodeBlock(postings)
	return block
}

// What is stored of lines is the lines, and the evidence in them leads to the page's root.
func TestBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := postings(t)
		lines, at := linesOf(all), 0
		err := decodeBlock(blockOf(all), func(l *ledger.Line) error {
			p := lines[at]
			at++
			if p.page != nil {
				e := l.Evidence
				root, ok := protocol.MerkleClimb(l.Hash, e.Index, e.Records, e.Path)
				if !ok || root != rootOf(p.page) || string(e.Got) != string(p.page.got) || e.Index != int64(p.at) {
					t.Fatalf("line %d: %+v", at, e)
				}
				l.Evidence = nil
			}
			if !reflect.DeepEqual(*l, p.line) {
				t.Fatalf("line %d: stored %+v, read %+v", at, p.line, *l)
			}
			return nil
		}, nil)
		if err != nil || at != len(lines) {
			t.Fatalf("%d of %d lines: %v", at, len(lines), err)
		}
	})
}

// wholeBlock is what a page was stored as that was on one bill and of one sender: such are in databases.
func wholeBlock(p *served) []byte {
	b := append(binary.AppendUvarint([]byte{entryWhole}, uint64(len(p.got))), p.got...)
	b = append(append(append(binary.AppendUvarint(b, uint64(p.records())), p.hashes...), p.reader[:]...), p.senders[:32]...)
	for at, id := range p.ids {
		b = AppendName(b, string(id), p.sizes[at])
	}
	return b
}

// A page that was stored whole gives the lines of one that says what its pulls have in common, and so does one of which the block has the name.
func TestWholePages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		page, _ := pageRow(t)
		page.senders = page.senders[:32]
		all := make([]int32, page.records())
		for i := range all {
			all[i] = int32(i)
		}
		var lines [3][]ledger.Line
		for i, block := range [][]byte{wholeBlock(page), blockOf([]posting{{page: page, pulls: all}})} {
			block := append(slices.Clone(block), block...)
			if err := decodeBlock(block, func(l *ledger.Line) error { lines[i] = append(lines[i], *l); return nil }, nil); err != nil {
				t.Fatal(err)
			}
		}
		named := make([]*ledger.Line, page.records())
		page.appendLines(named[:0], all)
		for _, l := range append(named, named...) {
			lines[2] = append(lines[2], *l)
		}
		if len(lines[0]) != 2*page.records() || !reflect.DeepEqual(lines[0], lines[1]) || !reflect.DeepEqual(lines[1], lines[2]) {
			t.Fatalf("%+v, %+v, %+v", lines[0], lines[1], lines[2])
		}
	})
}

// pageRow is a page as it is stored: its bills and senders each, or once if they are one.
func pageRow(t *rapid.T) (page *served, bills []int64) {
	page = &served{reader: bytes32(t, "reader"), got: []byte("{}")}
	kinds := []int64{0, 7, 9}[rapid.IntRange(0, 2).Draw(t, "least"):]
	n := rapid.IntRange(1, 40).Draw(t, "records")
	for i := range n {
		leaf, from := bytes32(t, "hash"), [32]byte{byte(rapid.IntRange(0, 2).Draw(t, "from"))}
		page.hashes, page.senders = append(page.hashes, leaf[:]...), append(page.senders, from[:]...)
		page.ids, page.sizes = append(page.ids, fmt.Append(nil, i)), append(page.sizes, int32(i+1))
		bills = append(bills, rapid.SampledFrom(kinds).Draw(t, "bill"))
	}
	if rapid.Bool().Draw(t, "one sender") {
		page.senders = page.senders[:32]
	}
	if rapid.Bool().Draw(t, "one bill") {
		bills = bills[:1]
	}
	return page, bills
}

// Each record of a page is posted on its own bill, whether bills and senders are stored for each or once.
func TestPagesOfBills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		page, bills := pageRow(t)
		var names []byte
		for at, id := range page.ids {
			names = AppendName(names, string(id), page.sizes[at])
		}
		read, err := newServed(page.reader[:], page.senders, names, page.hashes, page.got)
		if err != nil || !reflect.DeepEqual(read, page) {
			t.Fatalf("%+v, %v, want %+v", read, err, page)
		}
		if _, err := newServed(page.reader[:], page.senders, names[:len(names)-1], page.hashes, page.got); err == nil {
			t.Fatal("names that end too early are read")
		}
		found := make(map[int32]int64)
		page.part(bills, func(bill int64, p posting) {
			for _, at := range p.pulls {
				found[at] = bill
			}
		})
		for at := range page.sizes {
			if want := bills[min(at, len(bills)-1)]; found[int32(at)] != want {
				t.Fatalf("record %d is posted on %d, want %d", at, found[int32(at)], want)
			}
		}
	})
}

// Pulls that are reserved together are added together; of those that are not, each that is.
func TestPullsOfWhatIsReserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		page, _ := pageRow(t)
		all := make([]int32, page.records())
		for i := range all {
			all[i] = int32(i)
		}
		reserved := rapid.Int64Range(0, 2*page.bytesOf(all)).Draw(t, "reserved")
		s := &billState{totals: ledger.Totals{ReservedPulled: ledger.Times(reserved, 1)}}
		slow := s.totals
		var want []int32
		for _, at := range all {
			if slow.Apply(&ledger.Line{Kind: ledger.KindPull, Bytes: int64(page.sizes[at])}) == nil {
				want = append(want, at)
			}
		}
		left := 0
		added, err := s.addPulls(page, slices.Clone(all), func(error) { left++ })
		if err != nil || !slices.Equal(added, want) || left != len(all)-len(want) || s.totals != slow {
			t.Fatalf("added %v, want %v; %d left out, %v", added, want, left, err)
		}
	})
}

// Pages are named in a block if the bill has all that it can have of them, and the block knows when the first of them was acknowledged.
func TestNamesInBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []posting
		var first *int64
		var want []pageRef
		for range rapid.IntRange(0, 6).Draw(t, "postings") {
			acked := rapid.Int64Range(1, 1<<50).Draw(t, "acked")
			if rapid.Bool().Draw(t, "unread") {
				reader := bytes32(t, "reader")
				all = append(all, posting{ref: &pageRef{reader: reader[:], id: "page", acked: acked, pulls: rapid.Int32Range(1, protocol.MaxPageRecords).Draw(t, "pulls"), bytes: rapid.Int64Range(0, 1<<40).Draw(t, "bytes")}})
			} else {
				page, bills := pageRow(t)
				page.id, page.acked = "another", acked
				page.part(bills, func(bill int64, p posting) {
					if bill == 7 {
						p.pulls = p.pulls[rapid.IntRange(0, 1).Draw(t, "left out")*(len(p.pulls)/2):]
						all = append(all, p)
					}
				})
			}
		}
		lines := 0
		for i := range all {
			name := all[i].name()
			if whole := all[i].ref != nil || len(all[i].pulls) == all[i].all; whole != (name != nil) {
				t.Fatalf("%+v: %+v", all[i], name)
			}
			if name == nil {
				lines += len(all[i].pulls)
				continue
			}
			if first == nil || name.acked < *first {
				first = &name.acked
			}
			want = append(want, pageRef{reader: name.reader, id: name.id, pulls: name.pulls, bytes: name.bytes})
		}
		block, acked := encodeBlock(all)
		if (acked == nil) != (first == nil) || acked != nil && *acked != *first {
			t.Fatalf("acked %v, want %v", acked, first)
		}
		var found []pageRef
		if err := decodeBlock(block, func(*ledger.Line) error { lines--; return nil }, func(p namedPage) error {
			found = append(found, p.pageRef)
			if !bytes.Equal(block[p.from:p.to], appendNamed(nil, entryNamed, &p.pageRef)) {
				t.Fatalf("%x", block[p.from:p.to])
			}
			return nil
		}); err != nil || lines != 0 || !reflect.DeepEqual(found, want) {
			t.Fatalf("%v, %d lines more; %+v, want %+v", err, -lines, found, want)
		}
	})
}

func FuzzDecodeBlock(f *testing.F) {
	h := protocol.TaggedHash(protocol.TagLeaf, []byte{1})
	l := ledger.Line{Kind: ledger.KindWrite, RecordID: "a", Bytes: 1, Written: 1, Expires: 2, MaxPulls: 3}
	page := &served{got: []byte("{}"), hashes: bytes.Repeat(h[:], 3), senders: make([]byte, 32), ids: [][]byte{{'a'}, {'b'}, {'c'}}, sizes: []int32{1, 1, 1}}
	f.Add(blockOf([]posting{{line: l}, {page: page, pulls: []int32{2}}}))
	// What blocks were before pages told what their pulls have in common: such are in databases.
	before := append([]byte{entryPage, 2, '{', '}', 3, 1}, bytes.Repeat(h[:], 3)...)
	before = append(before, entryPull)
	before = append(append(before, make([]byte, 64)...), h[:]...)
	f.Add(append(before, 1, 'a', 7, 2))
	f.Add(blockOf([]posting{{page: page, pulls: []int32{0, 1}}}))
	f.Add(wholeBlock(page))
	f.Add(blockOf([]posting{{line: l}, {page: page, pulls: []int32{0, 1, 2}, all: 3}, {ref: &pageRef{reader: make([]byte, 32), id: "page", pulls: 2, bytes: 7}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := 0
		err := decodeBlock(data, func(*ledger.Line) error { lines++; return nil }, func(p namedPage) error {
			if p.pulls < 1 || p.pulls > protocol.MaxPageRecords || p.bytes < 0 || len(p.reader) != 32 || p.to-p.from < len(appendNamed(nil, entryNamed, &p.pageRef)) {
				t.Fatalf("%+v", p)
			}
			return nil
		})
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
	}, nil)
	if err != nil || lines != 1 {
		t.Fatalf("%d lines: %v", lines, err)
	}
}

func FuzzReadNames(f *testing.F) {
	f.Add(AppendName(AppendName(nil, "a", 1), "another", 1<<30), 2)
	f.Add([]byte{129, 128, 128, 0, 'a', 130, 128, 128, 0}, 1) // as the database writes them
	f.Fuzz(func(t *testing.T, names []byte, records int) {
		ids, sizes, err := ReadNames(names, records)
		if err != nil {
			return
		}
		var again []byte
		for i := range ids {
			again = AppendName(again, string(ids[i]), sizes[i])
		}
		if len(ids) != records || len(again) > len(names) {
			t.Fatalf("%x of %x", again, names)
		}
	})
}
