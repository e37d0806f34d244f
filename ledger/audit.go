package ledger

import (
	"errors"
	"fmt"

	"relaymarket/protocol"
)

// Reason is why a line, or a part of it, is refused.
type Reason string

// The reasons. They are shown to people and kept in files, so each keeps its word.
const (
	Unknown    Reason = "unknown"     // no record that I know of: never written, or written by a device or writer whose records are not here
	NotWritten Reason = "not_written" // no accepted write line of this record stands before
	Altered    Reason = "altered"     // size, expiry, pulls or path are not those of the record
	Misdated   Reason = "misdated"    // written before it was signed, or ended in the future
	Doubled    Reason = "doubled"     // billed before
	NoEvidence Reason = "no_evidence" // the reader has not signed for it
	TooMany    Reason = "too_many"    // more pulls than the record allows
	EndedLate  Reason = "ended_late"  // stored longer than the record was there: the excess is refused
)

// Reasons are all of them, in the order in which they are shown.
func Reasons() []Reason {
	return []Reason{Unknown, NotWritten, Altered, Misdated, Doubled, NoEvidence, TooMany, EndedLate}
}

// clockSlack is how far a relay's clock may lie from the writer's, in ms.
const clockSlack = protocol.Timestamp(protocol.FreshnessWindow / 1e6)

// Own is what a payer knows of a record that he pays for.
type Own struct {
	Path     protocol.Path
	Bytes    int64
	Signed   protocol.Timestamp // the envelope's
	Expires  protocol.Timestamp
	MaxPulls int64
	Deleted  protocol.Timestamp // when the relay confirmed that it is deleted; 0: not
}

// Standing is what accepted lines have said of a record so far. The zero value is nothing.
type Standing struct {
	Write    int64 // line, 0: none
	Written  protocol.Timestamp
	Expires  protocol.Timestamp
	Bytes    int64
	MaxPulls int64
	Pulled   int64 // accepted pulls
	Returned int64 // pulls that came back, by an end or a lapse
	End      int64 // line, 0: none
	Ended    protocol.Timestamp
}

// Outstanding is how many pulls are still reserved.
func (s Standing) Outstanding() int64 { return s.MaxPulls - s.Pulled - s.Returned }

// Accrued is the storage that a record which did not end has used until now, bytes × ms.
func (s Standing) Accrued(now protocol.Timestamp) Quantity {
	if s.Write == 0 || s.End != 0 {
		return Quantity{}
	}
	return stored(s.Bytes, s.Written.Time(), min(now, max(s.Expires, s.Written)).Time())
}

// Memory is what an [Audit] keeps of records, by the hashes of their envelopes. What it says must be durable with the
// place in the chain of reports, or not at all.
type Memory interface {
	// Own tells what is known of a record; nil: nothing.
	Own(hash protocol.Hash) (*Own, error)
	// Standing is the zero value for a record that no accepted line was about.
	Standing(hash protocol.Hash) (Standing, error)
	SetStanding(hash protocol.Hash, s Standing) error
	// Claim notes that a line bills the pull of a record in a page. It is false when another one did before.
	Claim(hash protocol.Hash, page protocol.PageID, seq int64) (bool, error)
}

// Verdict is what an audit says of one line. What the line makes of reservations into use is parted between Accepted
// and Refused.
type Verdict struct {
	Reason   Reason // empty: accepted
	Why      string // the same for people
	Accepted Usage
	Refused  Usage
	Until    protocol.Timestamp // of an end that is billed too long: storage is accepted up to then; else 0
	// Dropped is what a drop gives up, reservations included. Its line names the one that was refused.
	Dropped Usage
}

// Audit judges the lines of one contract, one by one in their order: against what the payer wrote, against the
// evidence of readers, and against lines before. It is not for concurrent use.
type Audit struct {
	witness *Witness
	memory  Memory
	now     protocol.Timestamp
	mine    Totals
}

// NewAudit goes on from the totals of the lines accepted before.
func NewAudit(relay protocol.PublicKey, memory Memory, now protocol.Timestamp, accepted Totals) *Audit {
	return &Audit{witness: NewWitness(relay), memory: memory, now: now, mine: accepted}
}

// Accepted are the totals of what was accepted: what the bill should say.
func (a *Audit) Accepted() Totals { return a.mine }

// refusal is a verdict on its way out.
type refusal struct {
	reason Reason
	why    string
}

func (r *refusal) Error() string { return string(r.reason) + ": " + r.why }

func refuse(reason Reason, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// Judge judges the next line. A drop takes from what the relay claims, never from what was accepted. The error is the
// memory's, or an [ErrOverflow]; a line that is wrong is a verdict.
func (a *Audit) Judge(l *Line) (Verdict, error) {
	return a.rule(l, func() (protocol.PageID, error) { return a.witness.Check(l) })
}

// JudgeRead judges the next line, whose evidence was checked already.
func (a *Audit) JudgeRead(r *Reading) (Verdict, error) {
	return a.rule(r.Line, func() (protocol.PageID, error) { return r.Page, r.noEvidence })
}

func (a *Audit) rule(l *Line, evidence func() (protocol.PageID, error)) (Verdict, error) {
	if l.Kind == KindDrop {
		return a.judgeDrop(l)
	}
	own, err := a.memory.Own(l.Hash)
	if err != nil {
		return Verdict{}, err
	}
	s, err := a.memory.Standing(l.Hash)
	if err != nil {
		return Verdict{}, err
	}
	before, accepted := a.mine, *l
	if err = compare(l, own, s); err == nil {
		err = a.judge(&accepted, own, &s, evidence)
	}
	var no *refusal
	if errors.As(err, &no) {
		return Verdict{Reason: no.reason, Why: no.why, Refused: l.use()}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	if err := a.mine.Apply(&accepted); err != nil {
		a.mine = before
		return Verdict{}, err
	}
	v := Verdict{Accepted: accepted.use()}
	if excess, ok := l.use().Minus(v.Accepted); ok && excess != (Usage{}) {
		v.Reason, v.Refused, v.Until = EndedLate, excess, accepted.Ended
		v.Why = fmt.Sprintf("it was deleted by %s, and is billed until %s", accepted.Ended.Time().Format("2006-01-02 15:04:05Z"), l.Ended.Time().Format("2006-01-02 15:04:05Z"))
	}
	return v, a.memory.SetStanding(l.Hash, s)
}

// use is what a line makes of reservations into use.
func (l *Line) use() Usage {
	switch l.Kind {
	case KindWrite, KindPull:
		return Usage{Moved: Times(l.Bytes, 1)}
	case KindEnd:
		return Usage{Stored: l.Storage()}
	}
	return Usage{}
}

// compare holds a line against the record that it names.
func compare(l *Line, own *Own, s Standing) error {
	switch {
	case own == nil:
		return refuse(Unknown, "no record that is known here has this envelope")
	case own.Path != l.Record():
		return refuse(Altered, "that envelope is the record %s", own.Path)
	case own.Bytes != l.Bytes:
		return refuse(Altered, "the envelope has %d bytes, %d are billed", own.Bytes, l.Bytes)
	case l.Kind != KindWrite && s.Write == 0:
		return refuse(NotWritten, "no write of this record was accepted before")
	case l.Expires != 0 && l.Expires != own.Expires:
		return refuse(Altered, "it expires %d, not %d", own.Expires, l.Expires)
	}
	return nil
}

// judge judges a line of a known record and notes what it says in its standing. It cuts an end that is too late.
func (a *Audit) judge(l *Line, own *Own, s *Standing, evidence func() (protocol.PageID, error)) error {
	switch l.Kind {
	case KindWrite:
		return a.judgeWrite(l, own, s)
	case KindPull:
		return a.judgePull(l, own, s, evidence)
	case KindEnd:
		return a.judgeEnd(l, own, s)
	}
	if l.Pulls > s.Outstanding() {
		return refuse(Altered, "%d pulls are given back, %d are reserved", l.Pulls, s.Outstanding())
	}
	s.Returned += l.Pulls
	return nil
}

func (a *Audit) judgeWrite(l *Line, own *Own, s *Standing) error {
	switch {
	case s.Write != 0:
		return refuse(Doubled, "line %d bills this write already", s.Write)
	case l.MaxPulls != own.MaxPulls:
		return refuse(Altered, "it allows %d pulls, not %d", own.MaxPulls, l.MaxPulls)
	case l.Written < own.Signed-clockSlack:
		return refuse(Misdated, "it was signed %d s after it is said to be written", (own.Signed-l.Written)/1000)
	case l.Written > a.now+clockSlack:
		return refuse(Misdated, "it is said to be written in the future")
	}
	*s = Standing{Write: l.Seq, Written: l.Written, Expires: l.Expires, Bytes: l.Bytes, MaxPulls: l.MaxPulls}
	return nil
}

func (a *Audit) judgePull(l *Line, own *Own, s *Standing, evidence func() (protocol.PageID, error)) error {
	page, err := evidence()
	if err != nil {
		return refuse(NoEvidence, "%v", err)
	}
	if s.Outstanding() < 1 {
		return refuse(TooMany, "all %d pulls of the record are billed or given back", own.MaxPulls)
	}
	first, err := a.memory.Claim(l.Hash, page, l.Seq)
	if err != nil {
		return err
	}
	if !first {
		return refuse(Doubled, "the record's place in page %s is billed already", page)
	}
	s.Pulled++
	return nil
}

func (a *Audit) judgeEnd(l *Line, own *Own, s *Standing) error {
	switch {
	case s.End != 0:
		return refuse(Doubled, "line %d ends this record already", s.End)
	case l.Written != s.Written:
		return refuse(Altered, "line %d says that it was written %d, this one %d", s.Write, s.Written, l.Written)
	case l.Ended > a.now+clockSlack:
		return refuse(Misdated, "it is said to have ended in the future")
	case l.Pulls > s.Outstanding():
		return refuse(Altered, "%d pulls are given back, %d are reserved", l.Pulls, s.Outstanding())
	}
	if own.Deleted != 0 {
		l.Ended = max(min(l.Ended, own.Deleted+clockSlack), l.Written)
	}
	s.End, s.Ended = l.Seq, l.Ended
	s.Returned += l.Pulls
	return nil
}

// judgeDrop notes what the relay gave up. An end that it gave up whole ends the record all the same: nothing is stored on
// the payer's account, and no pull is reserved any more.
func (a *Audit) judgeDrop(l *Line) (Verdict, error) {
	back, err := l.back()
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{}
	if v.Dropped, err = back.Reserved(); err != nil {
		return Verdict{}, err
	}
	s, err := a.memory.Standing(l.Hash)
	if err != nil || s.Write == 0 || s.Write == l.Of || s.End != 0 || back.Stored == (Quantity{}) {
		return v, err
	}
	end := Line{Seq: l.Seq, Kind: KindEnd, Bytes: s.Bytes, Written: s.Written, Expires: s.Expires, Ended: s.Written, Pulls: s.Outstanding()}
	if err := a.mine.Apply(&end); err != nil {
		return Verdict{}, err
	}
	s.Returned += end.Pulls
	s.End, s.Ended = l.Seq, end.Ended
	return v, a.memory.SetStanding(l.Hash, s)
}

// Bill is an audit in money. Its three parts add up to Claimed, unless the relay counts less than was accepted.
type Bill struct {
	Accepted protocol.Msat // used and proven, and storage until now: to be paid
	Waiting  protocol.Msat // reserved, or served and not acknowledged yet: it will be used, or comes back
	Disputed protocol.Msat // the rest of what the relay counts
	Claimed  protocol.Msat // what the relay counts, reservations included
}

// Settle turns totals into money, rounded once and so that the parts add up: claimed are the relay's totals, accepted
// those of an audit, and accrued is the storage of accepted records that did not end ([Standing.Accrued]). The error is
// [ErrOverflow].
func Settle(p Prices, claimed, accepted Totals, accrued Quantity) (Bill, error) {
	return SettleWaiting(p, claimed, accepted, Totals{}, accrued)
}

// SettleWaiting does so when it is not known yet whether some lines are right: what they come to, and reserve, is waited
// for too. They are neither among the accepted nor in dispute.
func SettleWaiting(p Prices, claimed, accepted, unknown Totals, accrued Quantity) (Bill, error) {
	hoped, err := unknown.Reserved()
	if err != nil {
		return Bill{}, err
	}
	due, err := accepted.Used()
	if err != nil {
		return Bill{}, err
	}
	if due, err = due.Plus(Usage{Stored: accrued}); err != nil {
		return Bill{}, err
	}
	// What is reserved by both is waiting for: a pull that was billed falsely is in the relay's books no reservation any more.
	waiting := Usage{Stored: least(less(accepted.ReservedStored, accrued), less(claimed.ReservedStored, accrued)),
		Moved: least(accepted.ReservedPulled, claimed.ReservedPulled)}
	known, err := due.Plus(waiting)
	if err != nil {
		return Bill{}, err
	}
	all, err := claimed.Reserved()
	if err != nil {
		return Bill{}, err
	}
	left := Usage{Stored: less(all.Stored, known.Stored), Moved: less(all.Moved, known.Moved)}
	if known, err = known.Plus(Usage{Stored: least(hoped.Stored, left.Stored), Moved: least(hoped.Moved, left.Moved)}); err != nil {
		return Bill{}, err
	}
	disputed := Usage{Stored: less(all.Stored, known.Stored), Moved: less(all.Moved, known.Moved)}
	total, err := known.Plus(disputed)
	if err != nil {
		return Bill{}, err
	}
	var b Bill
	var upToWaiting, upToDisputed protocol.Msat
	for _, one := range []struct {
		to   *protocol.Msat
		what Usage
	}{{&b.Claimed, all}, {&b.Accepted, due}, {&upToWaiting, known}, {&upToDisputed, total}} {
		if *one.to, err = p.Cost(one.what); err != nil {
			return Bill{}, err
		}
	}
	b.Waiting, b.Disputed = upToWaiting-b.Accepted, upToDisputed-upToWaiting
	return b, nil
}

// less is q − r, or 0.
func less(q, r Quantity) Quantity {
	difference, _ := q.Minus(r)
	return difference
}

func least(q, r Quantity) Quantity {
	if _, ok := q.Minus(r); ok {
		return r
	}
	return q
}
