package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"

	"relaymarket/protocol"
)

// reader pulls what all senders of the round have for him, and acknowledges it.
type reader struct {
	*caller
	key     *protocol.PrivateKey
	senders []protocol.PublicKey
	after   *string
	next    int
	pages   map[protocol.PageID]*page
	pending *page                     // waits for its acknowledgement
	late    map[protocol.PageID]*page // answered empty, while an attempt whose reply was cut may still arrive, and find something
	reopen  *page                     // one of these, which did
	seen    map[protocol.Path]bool    // in pages of his inbox
	order   []*record                 // as they came there
}

// page is what a reader knows of one.
type page struct {
	id      protocol.PageID
	root    protocol.Hash
	leaves  int
	gots    map[string]bool // acknowledgements that were sent
	acked   bool
	tried   int  // how often it was asked for
	unknown bool // spent: he never had it whole
}

func newReader(c *caller, key *protocol.PrivateKey) *reader {
	r := &reader{caller: c, key: key, pages: map[protocol.PageID]*page{}, late: map[protocol.PageID]*page{}, seen: map[protocol.Path]bool{}}
	for _, k := range c.cohort.writers() {
		r.senders = append(r.senders, k.Public())
	}
	return r
}

// run pulls until stop is closed, and then until nothing is left.
func (r *reader) run(ctx context.Context, stop <-chan struct{}) error {
	defer r.close()
	for {
		stopped, err := r.enough(ctx, stop)
		if err != nil || r.cohort.isBroken() {
			return err
		}
		if !stopped && r.random.IntN(8) == 0 {
			if err := r.single(ctx); err != nil {
				return err
			}
		}
		empty, err := r.pull(ctx)
		if err != nil {
			return err
		}
		if empty && stopped {
			return r.acknowledge(ctx)
		}
	}
}

func (r *reader) newPage(prefix string) *page {
	r.next++
	return &page{id: protocol.PageID(fmt.Sprintf("%s-%d", prefix, r.next)), gots: map[string]bool{}}
}

// pull asks for the next page. It tells whether there was nothing, or the page never came.
func (r *reader) pull(ctx context.Context) (empty bool, err error) {
	riding := r.pending
	if riding != nil && r.random.IntN(2) == 0 {
		if err := r.acknowledge(ctx); err != nil {
			return true, err
		}
		riding = nil
	}
	p := r.reopen
	if r.reopen = nil; p == nil {
		p = r.newPage("page")
	}
	limit := 1 + r.random.Int64N(60)
	next := func(int) (message, error) { return r.pullMessage(p, limit, riding) }
	answer, attempts, err := r.ask(ctx, next)
	if err != nil || answer == nil {
		return true, err
	}
	if riding != nil && answer.status == http.StatusOK {
		r.acknowledged(riding)
	}
	got := r.take(p, answer, attempts)
	if got == nil {
		return answer.problem().Code != protocol.CodePageSpent && r.reopen == nil, nil
	}
	r.after = &got.Header.Cursor
	return got.Header.Records == 0 && !got.Header.More, nil
}

func (r *reader) pullMessage(p *page, limit int64, riding *page) (message, error) {
	var got *protocol.PageRoot
	if riding != nil {
		got = &protocol.PageRoot{PageID: riding.id, Root: riding.root}
	}
	pull, line, err := protocol.NewPull(protocol.PullQuery{Senders: r.senders, After: r.after, Limit: limit, PageID: p.id}, got)
	if err != nil {
		return message{}, err
	}
	e, err := protocol.Sign(r.key, r.cohort.relay, now(), pull)
	if err != nil {
		return message{}, err
	}
	if riding != nil {
		riding.gots[string(e.Bytes())] = true
	}
	return message{method: http.MethodPost, path: r.inbox(""), lines: true, body: protocol.PullBody(e, line)}, nil
}

func (r *reader) inbox(rest string) string { return "/inbox/" + r.key.Public().String() + rest }

// ask sends a pull until it is answered, sometimes on two connections at once: that is one page, too.
func (r *reader) ask(ctx context.Context, next func(int) (message, error)) (answer *reply, attempts int, err error) {
	if r.random.IntN(10) > 0 {
		return r.settled(ctx, next)
	}
	var again *reply
	var more int
	var failure error
	twin := newCaller(r.world, r.cohort, r.fork())
	defer twin.close()
	m, err := next(0)
	if err != nil {
		return nil, 0, err
	}
	var group sync.WaitGroup
	group.Go(func() { again, more, failure = twin.settled(ctx, func(int) (message, error) { return m, nil }) })
	answer, attempts, err = r.settled(ctx, next)
	group.Wait()
	if err == nil {
		err = failure
	}
	// One that came before there was anything is empty, and no page.
	if answer != nil && again != nil && isPage(again) && !isPage(answer) {
		answer = again
	}
	return answer, attempts + more, err
}

func isPage(answer *reply) bool {
	p, err := protocol.ReadPage(bytes.NewReader(answer.body))
	return answer.status == http.StatusOK && err == nil && p.Header.Records > 0
}

// take checks a page and keeps what is in it. It returns nil for an answer that is none.
func (r *reader) take(p *page, answer *reply, attempts int) *protocol.Page {
	if answer.status != http.StatusOK {
		r.refused(p, answer)
		return nil
	}
	got, err := protocol.ReadPage(bytes.NewReader(answer.body))
	if err != nil || got.Header.PageID != p.id {
		r.cohort.fault(promisePage, "page %s of %s is answered with no whole page (%v): %s", p.id, r.key.Public(), err, answer)
		return nil
	}
	p.tried += attempts
	if got.Header.Records == 0 {
		if attempts > 1 {
			r.late[p.id] = p
		}
		return got
	}
	if err := got.CheckRoot(); err != nil || got.Header.Served < 1 || got.Header.Served > int64(p.tried) {
		r.cohort.fault(promisePage, "page %s of %s, asked for %d times: served %d (%v)", p.id, r.key.Public(), p.tried, got.Header.Served, err)
	}
	p.root, p.leaves = *got.Header.Root, len(got.Lines)
	r.keep(p)
	r.cohort.acks.Add(1)
	r.cohort.counts.pages.Add(1)
	for _, line := range got.Lines {
		r.takeLine(p, line, true)
	}
	return got
}

// keep notes a page that waits for its acknowledgement.
func (r *reader) keep(p *page) { r.pages[p.id], r.pending = p, p }

// refused is for a pull without a page.
func (r *reader) refused(p *page, answer *reply) {
	problem := answer.problem()
	if late := r.lateOf(problem.PageId); late != nil && problem.Code == protocol.CodePageOpen {
		delete(r.late, late.id)
		r.reopen = late
		return
	}
	if problem.Code != protocol.CodePageSpent || problem.Root == nil {
		r.cohort.fault(promisePage, "page %s of %s is answered with %s", p.id, r.key.Public(), answer)
		return
	}
	// All its replies were lost. He says that he has it and goes on from where he was: what allows more pulls comes again.
	p.root, p.unknown = *problem.Root, true
	r.cohort.mu.Lock()
	r.cohort.lost[r.key.Public()]++
	r.cohort.mu.Unlock()
	r.keep(p)
}

// lateOf is the late page of that id.
func (r *reader) lateOf(id *string) *page {
	if id == nil {
		return nil
	}
	return r.late[protocol.PageID(*id)]
}

// takeLine notes one record of a page. Those of his inbox come once and in order.
func (r *reader) takeLine(p *page, line protocol.PageLine, inbox bool) {
	var record *record
	if line.Gone != nil {
		path := protocol.Path{Sender: line.Gone.From, Receiver: r.key.Public(), ID: line.Gone.RecordID}
		r.cohort.mu.Lock()
		if record = r.cohort.records[path]; record == nil || !record.deleting {
			r.cohort.faultLocked(promiseKept, "%s is gone from page %s, and nobody deleted it", path, p.id)
		}
		r.cohort.mu.Unlock()
	} else {
		record = r.cohort.served(line.Envelope, r.key.Public())
		r.cohort.counts.served.Add(1)
	}
	if record == nil {
		return
	}
	r.cohort.mu.Lock()
	defer r.cohort.mu.Unlock()
	record.pages++
	if !inbox {
		return
	}
	if r.seen[record.path] {
		r.cohort.faultLocked(promiseOnce, "%s is in two pages of an inbox, the second is %s", record.path, p.id)
	}
	r.seen[record.path] = true
	r.order = append(r.order, record)
}

// single pulls one record that he was told of elsewhere.
func (r *reader) single(ctx context.Context) error {
	path, found := r.known()
	if !found {
		return nil
	}
	if err := r.acknowledge(ctx); err != nil || r.pending != nil {
		return err
	}
	p := r.newPage("single")
	answer, _, err := r.settled(ctx, func(int) (message, error) {
		return r.targeted(r.key, protocol.TypeRead, http.MethodGet, path.String()+"?pageId="+string(p.id))
	})
	if err != nil || answer == nil {
		return err
	}
	code := answer.problem().Code
	switch {
	case answer.status == http.StatusOK:
		e, err := protocol.ParseEnvelope(answer.body)
		if err != nil {
			r.cohort.fault(promiseGenuine, "%s is served as %s", path, answer)
			return nil
		}
		p.root, p.leaves = e.Hash(), 1
		r.keep(p)
		r.cohort.acks.Add(1)
		r.cohort.counts.pages.Add(1)
		r.takeLine(p, protocol.PageLine{Envelope: e}, false)
	case code == protocol.CodePageSpent, code == protocol.CodePageOpen && r.lateOf(answer.problem().PageId) != nil:
		r.refused(p, answer)
	case code == protocol.CodeGone:
		r.checkGone(path, answer)
	default:
		r.cohort.fault(promiseKept, "%s is answered with %s", path, answer)
	}
	return nil
}

// known is a record for this reader that was acknowledged, any.
func (r *reader) known() (protocol.Path, bool) {
	r.cohort.mu.Lock()
	defer r.cohort.mu.Unlock()
	for path, record := range r.cohort.records {
		if path.Receiver == r.key.Public() && record.stored != nil {
			return path, true
		}
	}
	return protocol.Path{}, false
}

// checkGone holds the end of a record against what could have ended it.
func (r *reader) checkGone(path protocol.Path, answer *reply) {
	r.cohort.mu.Lock()
	defer r.cohort.mu.Unlock()
	record := r.cohort.records[path]
	if !record.deleting && !r.cohort.mayBeUsedUp(record) {
		r.cohort.faultLocked(promiseKept, "%s has %d of %d pulls left, nobody deleted it, and it is answered with %s",
			path, record.maxPulls()-int64(record.pages), record.maxPulls(), answer)
	}
}

// got signs an acknowledgement.
func (r *reader) got(p *page) ([]byte, error) {
	e, err := protocol.Sign(r.key, r.cohort.relay, now(), &protocol.Got{PageID: p.id, Root: p.root})
	if err != nil {
		return nil, err
	}
	p.gots[string(e.Bytes())] = true
	return e.Bytes(), nil
}

// acknowledge sends what is pending by itself.
func (r *reader) acknowledge(ctx context.Context) error {
	p := r.pending
	if p == nil {
		return nil
	}
	answer, _, err := r.settled(ctx, func(int) (message, error) {
		got, err := r.got(p)
		return message{method: http.MethodPost, path: r.inbox("/got"), body: got}, err
	})
	if err != nil || answer == nil {
		return err
	}
	if answer.status != http.StatusNoContent {
		r.cohort.fault(promisePage, "the acknowledgement of page %s of %s is answered with %s", p.id, r.key.Public(), answer)
	}
	r.acknowledged(p)
	return nil
}

func (r *reader) acknowledged(p *page) {
	p.acked, r.pending = true, nil
	r.cohort.acks.Add(1)
}

// checkOrder tells what came out of order. It is for when all writers have their answers.
func (r *reader) checkOrder() {
	r.cohort.mu.Lock()
	defer r.cohort.mu.Unlock()
	last := int64(0)
	for _, record := range r.order {
		if record.stored == nil {
			continue // its writer was told that it has ended
		}
		if record.stored.n <= last {
			r.cohort.faultLocked(promiseOrder, "%s at %d came to its reader after %d", record.path, record.stored.n, last)
		}
		last = max(last, record.stored.n)
	}
}
