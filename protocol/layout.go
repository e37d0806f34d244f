package protocol

import "bytes"

// The fast readers of the requests that a relay gets all the time. Canonical form leaves an object of known
// members one layout: fixed text, with the values in between. What does not have that layout, or a value that
// is not valid, they leave to the generic reader, decodeSlow, which reads the same from what they accept, and has the words for
// what is wrong; tests hold the two against each other.

// laidOut is a [Request] with a fast reader.
type laidOut interface {
	Request
	// readLayout fills the request from a canonical object, all of it, and tells whether it did and the
	// request is valid. Otherwise it may have filled in anything.
	readLayout(object []byte) bool
}

var (
	_ laidOut = (*Write)(nil)
	_ laidOut = (*Pull)(nil)
	_ laidOut = (*Got)(nil)
)

// layout takes an object apart from the front. After the first thing that does not fit, bad stays set and what its
// methods return means nothing.
type layout struct {
	rest []byte
	bad  bool
}

func (l *layout) literal(s string) {
	if !l.optional(s) {
		l.bad = true
	}
}

// optional takes s if it comes next.
func (l *layout) optional(s string) bool {
	if len(l.rest) < len(s) || string(l.rest[:len(s)]) != s {
		return false
	}
	l.rest = l.rest[len(s):]
	return true
}

// text takes what stands before the next quote. An escaped character is left to the generic reader.
func (l *layout) text() []byte {
	end := bytes.IndexByte(l.rest, '"')
	if end < 0 || bytes.IndexByte(l.rest[:end], '\\') >= 0 {
		l.bad = true
		return nil
	}
	s := l.rest[:end]
	l.rest = l.rest[end:]
	return s
}

func (l *layout) hex(dst []byte) {
	if len(l.rest) < 2*len(dst) || !readHex(dst, l.rest[:2*len(dst)]) {
		l.bad = true
		return
	}
	l.rest = l.rest[2*len(dst):]
}

// integer takes the digits that come next. Canonical form keeps their number in bounds; where there are none, what
// comes next will not fit.
func (l *layout) integer() int64 {
	i, n := 0, int64(0)
	for ; i < len(l.rest) && '0' <= l.rest[i] && l.rest[i] <= '9'; i++ {
		n = n*10 + int64(l.rest[i]-'0')
	}
	l.rest = l.rest[i:]
	return n
}

// done tells whether everything did fit and nothing is left.
func (l *layout) done() bool { return !l.bad && len(l.rest) == 0 }

func (w *Write) readLayout(object []byte) bool {
	content, ok := w.readTerms(object)
	if ok {
		w.Content = string(content)
	}
	return ok
}

// readTerms fills in all but the content, which it checks and returns as part of the object.
func (w *Write) readTerms(object []byte) (content []byte, ok bool) {
	l := layout{rest: object}
	*w = Write{Type: TypeWrite}
	l.literal(`{"content":"`)
	content = l.text()
	l.literal(`","expires":`)
	w.Expires = Timestamp(l.integer())
	l.literal(`,"maxPulls":`)
	w.MaxPulls = l.integer()
	l.literal(`,"recordId":"`)
	w.RecordID = RecordID(l.text())
	l.literal(`","relay":"`)
	l.hex(w.Relay[:])
	if l.optional(`","tag":"`) {
		tag := Tag(l.text())
		w.Tag = &tag
	}
	l.literal(`","type":"write"}`)
	return content, l.done() && w.validateTerms() == nil && len(content) > 0 && isBase64(content)
}

func (p *Pull) readLayout(object []byte) bool {
	l := layout{rest: object}
	*p = Pull{Type: TypePull}
	l.literal(`{`)
	if l.optional(`"got":{"pageId":"`) {
		p.Got = &PageRoot{PageID: PageID(l.text())}
		l.literal(`","root":"`)
		l.hex(p.Got.Root[:])
		l.literal(`"},`)
	}
	l.literal(`"query":"`)
	l.hex(p.Query[:])
	l.literal(`","type":"pull"}`)
	return l.done() && p.Validate() == nil
}

// readLayout is that of a [laidOut], which a query, having no type, is not.
func (q *PullQuery) readLayout(object []byte) bool {
	l := layout{rest: object}
	*q = PullQuery{}
	l.literal(`{`)
	if l.optional(`"after":"`) {
		after := string(l.text())
		q.After = &after
		l.literal(`",`)
	}
	l.literal(`"limit":`)
	q.Limit = l.integer()
	l.literal(`,"pageId":"`)
	q.PageID = PageID(l.text())
	l.literal(`","salt":"`)
	l.hex(q.Salt[:])
	l.literal(`","senders":["`)
	const each = 2*PublicKeySize + len(`","`)
	q.Senders = make([]PublicKey, 0, min(len(l.rest)/each+1, MaxSenders))
	for more := true; more && !l.bad && len(q.Senders) < MaxSenders; more = l.optional(`","`) {
		var key PublicKey
		l.hex(key[:])
		q.Senders = append(q.Senders, key)
	}
	l.literal(`"]}`)
	return l.done() && q.Validate() == nil
}

func (g *Got) readLayout(object []byte) bool {
	l := layout{rest: object}
	*g = Got{Type: TypeGot}
	l.literal(`{"pageId":"`)
	g.PageID = PageID(l.text())
	l.literal(`","root":"`)
	l.hex(g.Root[:])
	l.literal(`","type":"got"}`)
	return l.done() && g.Validate() == nil
}
