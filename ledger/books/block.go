package books

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// A block is some consecutive lines of a bill as they are stored. All integers are unsigned varints (package
// encoding/binary), keys and hashes 32 bytes, ids and acknowledgements have their length before them:
//
//	write  1 record written expires maxPulls
//	end    2 record written expires ended pulls
//	lapse  3 record pulls
//	page   4 got records treed  and, if treed is 1, the hashes of all its records; read, not written any more
//	pull   5 record index       and, if the page has no hashes: path length, path; read, not written any more
//	drop   6 record of          and five quantities as decimal text: written pulled stored reservedPulled reservedStored
//	served 7 got records treed  hashes if treed is 1, reader, and how many senders the pulls are of, with their keys
//	signed 8 sender index id bytes  the sender's place among them; and, if the page has no hashes: hash, path length, path
//	whole  9 got records hashes reader sender, and of each record id bytes: a page that is on the bill with all its records; read, not written any more
//	named 10 reader id pulls bytes: all records of a page that are on the bill, how many, and their bytes together. The rest is where the page is
//	lost  11 as named: a page that was damaged or gone when it was to be written out. Nobody can tell its lines
//	record = from to hash id bytes
//
// A pull is of the page before it in the block. Pulls are most of what a busy ledger has, and what those of a page have in common
// is said once: it halves what they take. Numbers of lines are not stored: they count up to the block's last.

const (
	entryWrite = 1 + iota
	entryEnd
	entryLapse
	entryPage
	entryPull
	entryDrop
	entryServed
	entrySigned
	entryWhole
	entryNamed
	entryLost
)

// entrySize is about what an entry takes, without the hashes of its page.
const entrySize = 64

// posting is a line on its way into a block, or all pulls of one page that are on the bill.
type posting struct {
	line  ledger.Line
	ref   *pageRef // all of a page that was not read
	page  *served  // nil: none that was read
	pulls []int32  // indexes in the page, ascending
	all   int      // pulls that the page has on the bill
}

// name is what a block says of a page of which the bill has all pulls; nil: it says more.
func (p *posting) name() *pageRef {
	if p.page != nil && len(p.pulls) == p.all {
		return &pageRef{reader: p.page.reader[:], id: p.page.id, acked: p.page.acked, pulls: int32(p.all), bytes: p.page.bytesOf(p.pulls)}
	}
	return p.ref
}

func (p *posting) lines() int {
	switch {
	case p.ref != nil:
		return int(p.ref.pulls)
	case p.page != nil:
		return len(p.pulls)
	}
	return 1
}

// tree is the hashes of a page.
type tree struct {
	hashes []protocol.Hash
	paths  [][]protocol.Hash // once one was needed
}

func (p *served) tree() *tree {
	t := &tree{hashes: make([]protocol.Hash, p.records())}
	for at := range t.hashes {
		t.hashes[at] = p.hash(int32(at))
	}
	return t
}

func (t *tree) path(at int) []protocol.Hash {
	if t.paths == nil {
		t.paths, _ = protocol.MerklePaths(t.hashes)
	}
	return t.paths[at]
}

// treed tells whether the hashes of a whole page take less room than the paths of so many of its records.
func treed(records, pulls int) bool {
	depth := 0
	for n := 1; n < records; n *= 2 {
		depth++
	}
	return pulls*depth >= records
}

// encodeBlock writes postings of one bill, and tells when the first of the pages that it names was acknowledged; nil: it names none.
func encodeBlock(postings []posting) (b []byte, acked *int64) {
	size := 0
	for i := range postings {
		size += entrySize
		if p := &postings[i]; p.page != nil && len(p.pulls) != p.all {
			size += len(p.page.got) + len(p.page.hashes) + len(p.pulls)*entrySize
		}
	}
	b = make([]byte, 0, size)
	number := func(n int64) { b = binary.AppendUvarint(b, uint64(n)) }
	for i := range postings {
		p := &postings[i]
		if name := p.name(); name != nil {
			if b = appendNamed(b, entryNamed, name); acked == nil || name.acked < *acked {
				acked = &name.acked
			}
			continue
		}
		if p.page != nil {
			b = appendPage(b, p.page, p.pulls)
			continue
		}
		l := &p.line
		b = append(b, entryOf(l.Kind))
		b = append(append(append(b, l.From[:]...), l.To[:]...), l.Hash[:]...)
		number(int64(len(l.RecordID)))
		b = append(b, l.RecordID...)
		number(l.Bytes)
		switch l.Kind {
		case ledger.KindWrite:
			number(int64(l.Written))
			number(int64(l.Expires))
			number(l.MaxPulls)
		case ledger.KindEnd:
			number(int64(l.Written))
			number(int64(l.Expires))
			number(int64(l.Ended))
			number(l.Pulls)
		case ledger.KindLapse:
			number(l.Pulls)
		case ledger.KindDrop:
			number(l.Of)
			for _, d := range back(l) {
				number(int64(len(*d)))
				b = append(b, *d...)
			}
		}
	}
	return b, acked
}

// appendNamed writes the name of a page that is kept, or lost.
func appendNamed(b []byte, entry byte, name *pageRef) []byte {
	b = append(append(b, entry), name.reader...)
	b = append(binary.AppendUvarint(b, uint64(len(name.id))), name.id...)
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(name.pulls)), uint64(name.bytes))
}

// appendPage writes a page and its pulls, which are all of it that are on the bill.
func appendPage(b []byte, page *served, pulls []int32) []byte {
	number := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	b = append(b, entryServed)
	number(len(page.got))
	b = append(b, page.got...)
	number(page.records())
	var paths *tree // nil: all hashes are told
	if treed(page.records(), len(pulls)) {
		number(1)
		b = append(b, page.hashes...)
	} else {
		number(0)
		paths = page.tree()
	}
	b = append(b, page.reader[:]...)
	senders, place := sendersOf(page, pulls)
	number(len(senders))
	for s := range senders {
		b = append(b, senders[s][:]...)
	}
	for _, at := range pulls {
		b = append(b, entrySigned)
		if len(senders) > 1 {
			number(place[page.sender(at)])
		} else {
			number(0)
		}
		number(int(at))
		number(len(page.ids[at]))
		b = append(b, page.ids[at]...)
		number(int(page.sizes[at]))
		if paths != nil {
			path := paths.path(int(at))
			b = append(b, page.hashes[32*at:32*at+32]...)
			number(len(path))
			for h := range path {
				b = append(b, path[h][:]...)
			}
		}
	}
	return b
}

// sendersOf are those whose records the pulls are of, each once, and their places.
func sendersOf(page *served, pulls []int32) ([]protocol.PublicKey, map[protocol.PublicKey]int) {
	senders := []protocol.PublicKey{page.sender(pulls[0])}
	if len(page.senders) == 32 {
		return senders, nil
	}
	place := map[protocol.PublicKey]int{senders[0]: 0}
	for _, at := range pulls {
		from := page.sender(at)
		if from == senders[len(senders)-1] {
			continue
		}
		if _, known := place[from]; !known {
			place[from] = len(senders)
			senders = append(senders, from)
		}
	}
	return senders, place
}

// back are the quantities that a drop gives back.
func back(l *ledger.Line) [5]*protocol.Decimal {
	return [5]*protocol.Decimal{&l.Back.Written, &l.Back.Pulled, &l.Back.Stored, &l.Back.ReservedPulled, &l.Back.ReservedStored}
}

func entryOf(k ledger.Kind) byte {
	switch k {
	case ledger.KindWrite:
		return entryWrite
	case ledger.KindEnd:
		return entryEnd
	case ledger.KindLapse:
		return entryLapse
	}
	return entryDrop
}

// errBlock: what is stored is not what encodeBlock writes.
var errBlock = errors.New("a block of the ledger is damaged")

// blockReader takes a block apart; the first thing that does not fit sticks.
type blockReader struct {
	rest []byte
	bad  bool
	page *ledger.Evidence
	tree *tree // nil: paths are stored

	reader  protocol.PublicKey // of the page
	senders []protocol.PublicKey
}

// namedPage is the name of a page in a block, and which bytes of it that are.
type namedPage struct {
	pageRef
	from, to int
}

// decodeBlock calls visit with each line, which has no number yet, and named with each page whose lines are not in the block.
func decodeBlock(data []byte, visit func(*ledger.Line) error, named func(namedPage) error) error {
	r := blockReader{rest: data}
	for len(r.rest) > 0 {
		from := len(data) - len(r.rest)
		kind := r.bytes(1)[0]
		var l *ledger.Line
		switch kind {
		case entryPage:
			r.readPage()
			continue
		case entryServed:
			r.readPage()
			r.readParties()
			continue
		case entrySigned:
			l = r.signed()
		case entryWhole:
			if err := r.whole(visit); err != nil {
				return err
			}
			continue
		case entryNamed:
			page := namedPage{pageRef: r.named(), from: from, to: len(data) - len(r.rest)}
			if r.bad {
				return fmt.Errorf("%w: %d bytes from its end", errBlock, len(data)-from)
			}
			if err := named(page); err != nil {
				return err
			}
			continue
		case entryLost:
			if page := r.named(); !r.bad {
				return fmt.Errorf("%w: page %s of %x is lost", errBlock, page.id, page.reader)
			}
			return errBlock
		default:
			l = r.line(kind)
		}
		if r.bad {
			return fmt.Errorf("%w: %d bytes from its end", errBlock, len(r.rest))
		}
		if err := visit(l); err != nil {
			return err
		}
	}
	if r.bad {
		return errBlock
	}
	return nil
}

func (r *blockReader) bytes(n int64) []byte {
	if n < 0 || int64(len(r.rest)) < n {
		r.bad, r.rest = true, nil
		return make([]byte, min(max(n, 0), 32))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *blockReader) number() int64 {
	n, k := binary.Uvarint(r.rest)
	if k <= 0 || n > math.MaxInt64 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[k:]
	return int64(n)
}

func (r *blockReader) hashes(n int64) []protocol.Hash {
	if n > int64(len(r.rest)/32) {
		r.bad, r.rest = true, nil
		return nil
	}
	hashes := make([]protocol.Hash, n)
	for i := range hashes {
		hashes[i] = protocol.Hash(r.bytes(32))
	}
	return hashes
}

func (r *blockReader) readPage() {
	r.page = &ledger.Evidence{Got: r.bytes(r.number())}
	r.page.Records = r.number()
	if r.tree = nil; r.number() == 1 {
		r.tree = &tree{hashes: r.hashes(r.page.Records)}
	}
}

// readParties reads whose page it is, and whose records are in it.
func (r *blockReader) readParties() {
	r.reader = protocol.PublicKey(r.bytes(32))
	n := r.number()
	if n > int64(len(r.rest)/32) {
		r.bad, r.rest, r.senders = true, nil, nil
		return
	}
	r.senders = make([]protocol.PublicKey, n)
	for i := range r.senders {
		r.senders[i] = protocol.PublicKey(r.bytes(32))
	}
}

// whole reads a page and all its pulls, which must not be before it is known to have them.
func (r *blockReader) whole(visit func(*ledger.Line) error) error {
	page := ledger.Evidence{Got: r.bytes(r.number())}
	page.Records = r.number()
	t := &tree{hashes: r.hashes(page.Records)}
	reader, sender := protocol.PublicKey(r.bytes(32)), protocol.PublicKey(r.bytes(32))
	for i, hash := range t.hashes {
		l := &ledger.Line{Kind: ledger.KindPull, From: sender, To: reader, Hash: hash, RecordID: protocol.RecordID(r.bytes(r.number())), Bytes: r.number()}
		if r.bad {
			break
		}
		evidence := page
		evidence.Index, evidence.Path, l.Evidence = int64(i), t.path(i), &evidence
		if err := visit(l); err != nil {
			return err
		}
	}
	if r.bad {
		return fmt.Errorf("%w: %d bytes from its end", errBlock, len(r.rest))
	}
	return nil
}

// named reads the name of a page.
func (r *blockReader) named() pageRef {
	ref := pageRef{reader: r.bytes(32), id: string(r.bytes(r.number()))}
	pulls := r.number()
	ref.bytes = r.number()
	if r.bad = r.bad || pulls < 1 || pulls > protocol.MaxPageRecords; !r.bad {
		ref.pulls = int32(pulls)
	}
	return ref
}

// signed reads a pull of the page.
func (r *blockReader) signed() *ledger.Line {
	l := &ledger.Line{Kind: ledger.KindPull, To: r.reader}
	sender, index := r.number(), r.number()
	l.RecordID = protocol.RecordID(r.bytes(r.number()))
	l.Bytes = r.number()
	if r.page == nil || sender >= int64(len(r.senders)) {
		r.bad = true
		return l
	}
	evidence := *r.page
	evidence.Index, l.From, l.Evidence = index, r.senders[sender], &evidence
	switch {
	case r.tree == nil:
		l.Hash = protocol.Hash(r.bytes(32))
		evidence.Path = r.hashes(r.number())
	case index < int64(len(r.tree.hashes)):
		l.Hash, evidence.Path = r.tree.hashes[index], r.tree.path(int(index))
	default:
		r.bad = true
	}
	return l
}

func (r *blockReader) line(kind byte) *ledger.Line {
	l := &ledger.Line{From: protocol.PublicKey(r.bytes(32)), To: protocol.PublicKey(r.bytes(32)), Hash: protocol.Hash(r.bytes(32))}
	l.RecordID = protocol.RecordID(r.bytes(r.number()))
	l.Bytes = r.number()
	switch kind {
	case entryWrite:
		l.Kind, l.Written, l.Expires, l.MaxPulls = ledger.KindWrite, protocol.Timestamp(r.number()), protocol.Timestamp(r.number()), r.number()
	case entryEnd:
		l.Kind, l.Written, l.Expires = ledger.KindEnd, protocol.Timestamp(r.number()), protocol.Timestamp(r.number())
		l.Ended, l.Pulls = protocol.Timestamp(r.number()), r.number()
	case entryLapse:
		l.Kind, l.Pulls = ledger.KindLapse, r.number()
	case entryPull:
		r.pull(l)
	case entryDrop:
		l.Kind, l.Of, l.Back = ledger.KindDrop, r.number(), &protocol.UsageTotals{}
		for _, d := range back(l) {
			*d = protocol.Decimal(r.bytes(r.number()))
		}
	default:
		r.bad = true
	}
	return l
}

func (r *blockReader) pull(l *ledger.Line) {
	if l.Kind = ledger.KindPull; r.page == nil {
		r.bad = true
		return
	}
	evidence := *r.page
	evidence.Index = r.number()
	switch {
	case r.tree == nil:
		evidence.Path = r.hashes(r.number())
	case evidence.Index < int64(len(r.tree.hashes)):
		evidence.Path = r.tree.path(int(evidence.Index))
	default:
		r.bad = true
	}
	l.Evidence = &evidence
}
