package records_test

import (
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
	active      bool
	quotaStored int64
	quotaMoved  int64
	stored      int64
	moved       int64
	month       time.Time // that moved is of

	admitBytes, admitRecords int64 // 0: not admitted
	usedBytes, usedRecords   int64

	open *modelPage // of the one reader
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
	case !m.active, admitted && m.admitRecords == 0:
		return nil, false, protocol.CodeNoAccount
	case admitted && (m.usedBytes+bytes > m.admitBytes || m.usedRecords+1 > m.admitRecords):
		return nil, false, protocol.CodeQuotaAdmitted
	case m.stored+bytes > m.quotaStored:
		return nil, false, protocol.CodeQuotaStored
	case m.moved+bytes*(1+pulls) > m.quotaMoved:
		return nil, false, protocol.CodeQuotaMoved
	}
	m.stored += bytes
	m.moved += bytes * (1 + pulls)
	if admitted {
		m.usedBytes += bytes
		m.usedRecords++
	}
	m.head++
	row = &modelRow{path: path, request: request, n: m.head, bytes: bytes, left: pulls, most: pulls, expires: expires, month: m.month}
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
	if row.path.Sender == m.friend {
		m.usedBytes -= row.bytes
		m.usedRecords--
	}
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
	m.open = &modelPage{id: id, rows: rows, made: m.now, served: 1, cursor: cursor, more: more}
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
