package ledger_test

import (
	"fmt"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// The people of these tests. Keys are made once: it is the slowest thing here.
var (
	relayKey, payerKey = signer(1), signer(2)
	readerKeys         = []*protocol.PrivateKey{signer(3), signer(4)}
	who                = ledger.Parties{Relay: relayKey.Public(), Payer: payerKey.Public(), Contract: protocol.ContractID{7}}
	tariff             = ledger.Prices{Storage: 40_000_000, Bandwidth: 25_000_000}
)

func signer(n byte) *protocol.PrivateKey {
	k, err := protocol.NewPrivateKey([32]byte{31: n})
	if err != nil {
		panic(err)
	}
	return k
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// written is a record of this world and what became of it.
type written struct {
	ledger.Own
	hash   protocol.Hash
	reader *protocol.PrivateKey
	at     protocol.Timestamp // when the relay stored it
	served int64
	acked  int64
	lapsed int64
	ended  protocol.Timestamp
}

// world is one contract as it truly was: what happened, and the lines that an honest relay writes of it.
type world struct {
	t       fataler
	now     protocol.Timestamp
	pages   int
	records []*written
	lines   []*ledger.Line
}

func newWorld(t fataler) *world { return &world{t: t, now: 1_763_683_200_000} }

func (w *world) line(kind ledger.Kind, r *written) *ledger.Line {
	l := &ledger.Line{Seq: int64(len(w.lines) + 1), Kind: kind, From: r.Path.Sender, To: r.Path.Receiver, RecordID: r.Path.ID, Hash: r.hash, Bytes: r.Bytes}
	w.lines = append(w.lines, l)
	return l
}

func (w *world) write(reader int, bytes, maxPulls int64, life protocol.Timestamp) *written {
	n := len(w.records)
	r := &written{reader: readerKeys[reader], at: w.now, hash: protocol.TaggedHash(protocol.TagLeaf, fmt.Append(nil, n))}
	r.Own = ledger.Own{Path: protocol.Path{Sender: who.Payer, Receiver: r.reader.Public(), ID: protocol.RecordID(fmt.Sprint("r", n))},
		Bytes: bytes, Signed: w.now - 1000, Expires: w.now + life, MaxPulls: maxPulls}
	w.records = append(w.records, r)
	l := w.line(ledger.KindWrite, r)
	l.Written, l.Expires, l.MaxPulls = r.at, r.Expires, r.MaxPulls
	return r
}

// pull serves a page with these records of one reader, and has him acknowledge it.
func (w *world) pull(records ...*written) []*ledger.Line {
	w.t.Helper()
	leaves := make([]protocol.Hash, len(records))
	for i, r := range records {
		leaves[i] = r.hash
		r.served++
		r.acked++
	}
	paths, root := protocol.MerklePaths(leaves)
	w.pages++
	page := protocol.PageRoot{PageID: protocol.PageID(fmt.Sprint("p", w.pages)), Root: root}
	got := w.sign(records[0].reader, relayKey.Public(), &protocol.Got{PageID: page.PageID, Root: page.Root})
	if w.pages%2 == 0 { // it rides on the pull of the next page
		got = w.sign(records[0].reader, relayKey.Public(), &protocol.Pull{Got: &page})
	}
	var lines []*ledger.Line
	for i, r := range records {
		l := w.line(ledger.KindPull, r)
		l.Evidence = &ledger.Evidence{Got: got.Bytes(), Index: int64(i), Records: int64(len(records)), Path: paths[i]}
		lines = append(lines, l)
	}
	return lines
}

func (w *world) end(r *written, deleted bool) *ledger.Line {
	r.ended = min(w.now, r.Expires)
	if deleted {
		r.Deleted = r.ended
	}
	l := w.line(ledger.KindEnd, r)
	l.Written, l.Expires, l.Ended, l.Pulls = r.at, r.Expires, r.ended, r.MaxPulls-r.served
	return l
}

func (w *world) lapse(r *written) *ledger.Line {
	l := w.line(ledger.KindLapse, r)
	l.Pulls = r.served - r.acked - r.lapsed
	r.lapsed += l.Pulls
	return l
}

func (w *world) sign(by *protocol.PrivateKey, to protocol.PublicKey, request protocol.Request) *protocol.Envelope {
	w.t.Helper()
	e, err := protocol.SignWith(by, to, w.now, request, [32]byte{})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// report makes and signs the report over lines, as they are but for their numbers.
func (w *world) report(before ledger.Place, lines []*ledger.Line) (*protocol.Envelope, [][]byte) {
	w.t.Helper()
	b := ledger.NewBuilder(who, before)
	raw := make([][]byte, len(lines))
	for i, l := range lines {
		var err error
		if raw[i], err = b.Add(l); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.sign(relayKey, who.Payer, b.Report()), raw
}

// verify checks a report whole.
func verify(e *protocol.Envelope, raw [][]byte, before ledger.Place) ([]*ledger.Line, ledger.Place, error) {
	v, err := ledger.NewVerifier(e, who, before)
	if err != nil {
		return nil, ledger.Place{}, err
	}
	var lines []*ledger.Line
	for _, data := range raw {
		l, err := v.Line(data)
		if err != nil {
			return nil, ledger.Place{}, err
		}
		lines = append(lines, l)
	}
	place, err := v.End()
	return lines, place, err
}

// memory is what the payer of a world keeps.
type memory struct {
	own       map[protocol.Hash]*ledger.Own
	standings map[protocol.Hash]ledger.Standing
	claims    map[string]int64
}

var _ ledger.Memory = (*memory)(nil)

func (w *world) memory() *memory {
	m := &memory{own: map[protocol.Hash]*ledger.Own{}, standings: map[protocol.Hash]ledger.Standing{}, claims: map[string]int64{}}
	for _, r := range w.records {
		m.own[r.hash] = &r.Own
	}
	return m
}

func (m *memory) Own(h protocol.Hash) (*ledger.Own, error)          { return m.own[h], nil }
func (m *memory) Standing(h protocol.Hash) (ledger.Standing, error) { return m.standings[h], nil }
func (m *memory) SetStanding(h protocol.Hash, s ledger.Standing) error {
	m.standings[h] = s
	return nil
}
func (m *memory) Claim(h protocol.Hash, page protocol.PageID, seq int64) (bool, error) {
	key := h.String() + string(page)
	if m.claims[key] != 0 {
		return false, nil
	}
	m.claims[key] = seq
	return true, nil
}

func (m *memory) accrued(t fataler, now protocol.Timestamp) ledger.Quantity {
	var sum ledger.Quantity
	for _, s := range m.standings {
		var ok bool
		if sum, ok = sum.Plus(s.Accrued(now)); !ok {
			t.Fatal("too much accrued")
		}
	}
	return sum
}

// audited is an audit of lines, whole.
type audited struct {
	bill     ledger.Bill
	accepted ledger.Totals
	claimed  ledger.Totals
	verdicts []ledger.Verdict
	reasons  map[ledger.Reason]int
}

func (w *world) audit(lines []*ledger.Line) audited {
	w.t.Helper()
	m := w.memory()
	a := ledger.NewAudit(who.Relay, m, w.now, ledger.Totals{})
	out := audited{reasons: map[ledger.Reason]int{}}
	for _, l := range lines {
		if err := out.claimed.Apply(l); err != nil {
			w.t.Fatal(err)
		}
		v, err := a.Judge(l)
		if err != nil {
			w.t.Fatal(err)
		}
		if v.Reason != "" {
			out.reasons[v.Reason]++
		}
		out.verdicts = append(out.verdicts, v)
	}
	out.accepted = a.Accepted()
	var err error
	if out.bill, err = ledger.Settle(tariff, out.claimed, out.accepted, m.accrued(w.t, w.now)); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// slow is the independent model: what the world owes by its history alone, in rationals, and what may still come.
func (w *world) slow() (accepted, waiting protocol.Msat) {
	due, all := new(big.Rat), new(big.Rat)
	add := func(to *big.Rat, bytes, times int64, price protocol.Msat, unit int64) {
		n := new(big.Int).Mul(big.NewInt(bytes), big.NewInt(times))
		to.Add(to, new(big.Rat).SetFrac(n.Mul(n, big.NewInt(int64(price))), big.NewInt(unit)))
	}
	for _, r := range w.records {
		until, most := r.ended, r.acked+(r.served-r.acked-r.lapsed)
		reserved := r.ended
		if r.ended == 0 {
			until, reserved, most = min(w.now, r.Expires), r.Expires, r.MaxPulls-r.lapsed
		}
		add(due, r.Bytes, 1+r.acked, tariff.Bandwidth, ledger.GB)
		add(due, r.Bytes, int64(until-r.at), tariff.Storage, ledger.Denominator)
		add(all, r.Bytes, 1+most, tariff.Bandwidth, ledger.GB)
		add(all, r.Bytes, int64(reserved-r.at), tariff.Storage, ledger.Denominator)
	}
	return ceil(due), ceil(all) - ceil(due)
}

func ceil(r *big.Rat) protocol.Msat {
	n := new(big.Int).Add(r.Num(), new(big.Int).Sub(r.Denom(), big.NewInt(1)))
	return protocol.Msat(n.Quo(n, r.Denom()).Int64())
}

// live makes a random history: writes, pages, deletes, expiries, lapses, in any order that can be.
func (w *world) live(t *rapid.T, steps int) {
	for range rapid.IntRange(1, steps).Draw(t, "steps") {
		w.now += protocol.Timestamp(rapid.Int64Range(0, 3_600_000).Draw(t, "pause"))
		w.step(t)
	}
}

func (w *world) step(t *rapid.T) {
	action := rapid.SampledFrom([]string{"write", "write", "pull", "pull", "serve", "delete", "sweep", "lapse"}).Draw(t, "action")
	if action == "write" || len(w.records) == 0 {
		w.write(rapid.IntRange(0, 1).Draw(t, "reader"), rapid.Int64Range(1, 1<<20).Draw(t, "bytes"),
			rapid.Int64Range(1, 5).Draw(t, "pulls"), protocol.Timestamp(rapid.Int64Range(1, 40*3_600_000).Draw(t, "life")))
		return
	}
	r := w.records[rapid.IntRange(0, len(w.records)-1).Draw(t, "record")]
	switch action {
	case "pull":
		var page []*written
		for _, other := range w.records {
			if other.reader == r.reader && other.ended == 0 && w.now < other.Expires && other.served < other.MaxPulls && len(page) < 5 {
				page = append(page, other)
			}
		}
		if len(page) > 0 {
			w.pull(page...)
		}
	case "serve": // and the reader never signs
		if r.ended == 0 && r.served < r.MaxPulls {
			r.served++
		}
	case "delete":
		if r.ended == 0 && w.now < r.Expires {
			w.end(r, true)
		}
	case "sweep":
		if r.ended == 0 && w.now >= r.Expires {
			w.end(r, false)
		}
	case "lapse":
		if r.served > r.acked+r.lapsed {
			w.lapse(r)
		}
	}
}

var _ fataler = (*testing.T)(nil)
