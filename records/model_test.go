package records_test

import (
	"math/big"
	"time"

	"relaymarket/protocol"
)

// model is what the store promises for one account, in the plainest form: one thing after the
// other, all of it looked at each time.
type model struct {
	now  time.Time
	head int64 // of the cursor
	rows map[protocol.Path]*modelRow

	owner       protocol.PublicKey // has the account
	friend      protocol.PublicKey // may be admitted
	active      bool               // the grant, if there is no contract
	closed      bool               // there was a contract, and no grant since
	contract    *modelContract
	since       time.Time // of the newest contract
	latest      time.Time // what was charged last was written then
	quotaStored int64
	quotaMoved  int64
	stored      int64
	moved       int64
	month       time.Time // that moved is of

	admitBytes, admitRecords int64 // 0: not admitted
	usedBytes, usedRecords   int64

	page *modelPage // of the one reader, open
}

// modelContract is the contract that is the account, if it is one. Its totals are in the plainest numbers.
type modelContract struct {
	n             int
	taking        bool
	credit        int64 // msat
	since         time.Time
	stored, moved big.Int // byte-milliseconds, bytes
}

// cost of the totals and as much more, in msat, not rounded.
func (c *modelContract) cost(stored, moved int64) *big.Rat {
	s := new(big.Rat).SetFrac(new(big.Int).Add(&c.stored, big.NewInt(stored)), big.NewInt(1e9*86_400_000))
	m := new(big.Rat).SetFrac(new(big.Int).Add(&c.moved, big.NewInt(moved)), big.NewInt(1e9))
	return s.Add(s.Mul(s, big.NewRat(int64(dear.Storage), 1)), m.Mul(m, big.NewRat(int64(dear.Bandwidth), 1)))
}

func (c *modelContract) add(stored, moved int64) {
	c.stored.Add(&c.stored, big.NewInt(stored))
	c.moved.Add(&c.moved, big.NewInt(moved))
}

type modelRow struct {
	path     protocol.Path
	request  protocol.Hash
	n        int64
	bytes    int64
	left     int64
	most     int64
	expires  time.Time
	month    time.Time // that it was counted in
	written  time.Time
	contract *modelContract // that it was charged to
	lastPull time.Time
	ended    protocol.Code // "" while its bytes are here
	deleted  bool
}

type modelPage struct {
	id     protocol.PageID
	rows   []*modelRow
	made   time.Time
	served int64
	cursor int64
	more   bool
}

func monthStart(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}

// takes tells whether the account takes writes.
func (m *model) takes() bool {
	if m.contract != nil {
		return m.contract.taking
	}
	return m.active && !m.closed
}

// open makes a contract the account.
func (m *model) open(n int) {
	c := &modelContract{n: n, taking: true, since: m.now}
	if !c.since.After(m.latest) {
		c.since = m.latest.Add(time.Millisecond)
	}
	if !c.since.After(m.since) {
		c.since = m.since.Add(time.Millisecond)
	}
	m.contract, m.closed, m.since = c, false, c.since
}

func (m *model) roll() {
	if month := monthStart(m.now); m.month.Before(month) {
		m.moved, m.month = 0, month
	}
}

// write decides one write; an empty code is stored, or was stored before.
func (m *model) write(path protocol.Path, request protocol.Hash, bytes, pulls int64, expires time.Time) (row *modelRow, replayed bool, code protocol.Code) {
	m.roll()
	if row := m.rows[path]; row != nil {
		switch {
		case row.request != request:
			return nil, false, protocol.CodeConflict
		case row.ended != "" || row.left == 0 || !row.expires.After(m.now):
			return nil, false, protocol.CodeGone
		}
		return row, true, ""
	}
	admitted := path.Sender == m.friend
	switch {
	case !expires.After(m.now):
		return nil, false, protocol.CodeExpired
	case !m.takes() && !admitted && m.contract != nil:
		return nil, false, protocol.CodeContractEnded
	case !m.takes(), admitted && m.admitRecords == 0:
		return nil, false, protocol.CodeNoAccount
	case admitted && (m.usedBytes+bytes > m.admitBytes || m.usedRecords+1 > m.admitRecords):
		return nil, false, protocol.CodeQuotaAdmitted
	case m.contract == nil && m.stored+bytes > m.quotaStored:
		return nil, false, protocol.CodeQuotaStored
	case m.contract == nil && m.moved+bytes*(1+pulls) > m.quotaMoved:
		return nil, false, protocol.CodeQuotaMoved
	}
	written := m.now
	if c := m.contract; c != nil {
		if c.since.After(written) {
			written = c.since
		}
		held := bytes * max(expires.Sub(written).Milliseconds(), 0)
		if c.cost(held, bytes*(1+pulls)).Cmp(big.NewRat(c.credit, 1)) > 0 {
			return nil, false, protocol.CodePaymentDue
		}
		c.add(held, bytes*(1+pulls))
	}
	if m.latest.Before(written) {
		m.latest = written
	}
	m.stored += bytes
	m.moved += bytes * (1 + pulls)
	if admitted {
		m.usedBytes += bytes
		m.usedRecords++
	}
	m.head++
	row = &modelRow{path: path, request: request, n: m.head, bytes: bytes, left: pulls, most: pulls, expires: expires, month: m.month,
		written: written, contract: m.contract}
	m.rows[path] = row
	return row, false, ""
}

// release gives back what a live row holds.
func (m *model) release(row *modelRow) {
	m.roll()
	m.stored -= row.bytes
	if row.month.Equal(m.month) {
		m.moved -= row.bytes * row.left
	}
	if m.contract != nil && m.contract == row.contract {
		m.contract.add(-row.bytes*row.expires.Sub(row.end(m.now)).Milliseconds(), -row.bytes*row.left)
	}
	if row.path.Sender == m.friend {
		m.usedBytes -= row.bytes
		m.usedRecords--
	}
}

// end is up to when a row that ends now was stored.
func (row *modelRow) end(now time.Time) time.Time {
	if row.left == 0 && row.lastPull.Before(now) {
		now = row.lastPull
	}
	if row.expires.Before(now) {
		now = row.expires
	}
	if now.Before(row.written) {
		now = row.written
	}
	return now
}

func (m *model) remove(path protocol.Path) protocol.Code {
	row := m.rows[path]
	switch {
	case row == nil:
		return protocol.CodeNotFound
	case row.deleted:
		return ""
	case row.ended != "" || !row.expires.After(m.now):
		return protocol.CodeGone
	}
	m.release(row)
	row.ended, row.deleted = protocol.CodeGone, true
	return ""
}

// waiting is what a reader may be served, in order.
func (m *model) waiting(reader, sender protocol.PublicKey, after int64) (rows []*modelRow) {
	for n := after + 1; n <= m.head; n++ {
		for path, row := range m.rows {
			if row.n == n && path.Receiver == reader && path.Sender == sender && row.ended == "" && row.left > 0 && row.expires.After(m.now) {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// serve makes a page and counts it.
func (m *model) serve(id protocol.PageID, rows []*modelRow, cursor int64, more bool) {
	for _, row := range rows {
		row.left--
		row.lastPull = m.now
	}
	m.page = &modelPage{id: id, rows: rows, made: m.now, served: 1, cursor: cursor, more: more}
}

func (m *model) sweep() {
	for path, row := range m.rows {
		if !row.expires.Add(time.Hour).After(m.now) {
			if row.ended == "" {
				m.release(row)
				row.ended = protocol.CodeGone // for pages that still name it
			}
			delete(m.rows, path)
			continue
		}
		if row.ended == "" && row.left == 0 && !row.lastPull.Add(10*time.Minute).After(m.now) {
			m.release(row)
			row.ended = protocol.CodeGone
		}
	}
}
