package state

import (
	"context"
	"database/sql"
	"errors"

	"relaymarket/client/devices"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// EnqueueBatch takes what the owner's other devices are to be told, at most so many bytes, has that sealed into one record to
// himself, and stores it with a queued copy for each relay, all in one step. It is false if nothing is to be told now.
func (s *Store) EnqueueBatch(ctx context.Context, relays []Relay, most int, seal func(*devices.Batch) (*Outgoing, error)) (bool, error) {
	queued := false
	err := s.tx(ctx, func(tx *sql.Tx) error {
		var hello bool
		b := &devices.Batch{Device: s.id(), At: s.now()}
		var restated protocol.Timestamp
		if err := tx.QueryRowContext(ctx, `SELECT hello, seq + 1, restated FROM sharing`).Scan(&hello, &b.Seq, &restated); err != nil {
			return err
		}
		if err := s.fold(ctx, tx); err != nil {
			return err
		}
		if err := s.recount(ctx, tx); err != nil {
			return err
		}
		if restated <= s.now().Add(-RestateEvery) || restated > s.now() {
			if err := s.restate(ctx, tx); err != nil {
				return err
			}
		}
		due, err := s.dueChanges(ctx, tx)
		if err != nil || len(due) == 0 && !hello {
			return err
		}
		told, err := s.fill(ctx, tx, b, due, most)
		if err != nil {
			return err
		}
		for _, c := range told {
			if _, err := tx.ExecContext(ctx, `DELETE FROM changes WHERE kind = ? AND key = ?`, c.kind, c.key); err != nil {
				return err
			}
		}
		if empty(b) && !hello {
			return nil // all of it came and went
		}
		if err := s.introduce(ctx, tx, b); err != nil {
			return err
		}
		m, err := seal(b)
		if err != nil {
			return err
		}
		m.To, m.Device, m.Created = s.owner, s.device, s.now()
		if err := s.insertOutgoing(ctx, tx, m, relays); err != nil {
			return err
		}
		queued = true
		_, err = tx.ExecContext(ctx, `UPDATE sharing SET seq = ?, hello = 0`, b.Seq)
		return err
	})
	return queued, err
}

func empty(b *devices.Batch) bool {
	return len(b.Devices)+len(b.Friends)+len(b.Marks)+len(b.Messages)+len(b.Relays)+len(b.Sent) == 0 && b.Label == nil
}

// dueChanges are those to be told now. Alone, nothing is until nothing more came for a while, or one waited for long.
func (s *Store) dueChanges(ctx context.Context, tx *sql.Tx) ([]change, error) {
	return sqlite.Collect(ctx, tx, scanChange, `SELECT kind, key, at FROM changes WHERE due <= ?1 AND
		((SELECT company OR hello FROM sharing) OR (SELECT max(at) NOT BETWEEN ?2 AND ?1 OR min(at) <= ?4 FROM changes WHERE due <= ?1))
		ORDER BY at, kind, key LIMIT ?3`, s.now(), s.now().Add(-AlonePause), devices.MaxEntries, s.now().Add(-aloneMost))
}

// introduce puts this device's own name into a batch that does not have it.
func (s *Store) introduce(ctx context.Context, tx *sql.Tx, b *devices.Batch) error {
	for _, d := range b.Devices {
		if d.ID == s.id() {
			return nil
		}
	}
	said, err := readRegister[devices.Device](ctx, tx, kindDevice, []byte(s.device))
	if err != nil {
		return err
	}
	own := devices.Device{ID: s.id(), Stamp: devices.Stamp{At: 1, By: s.id()}} // whatever name it is given is later
	if said != nil {
		own = said.entry
	} else if err := writeRegister(ctx, tx, kindDevice, []byte(s.device), own, ""); err != nil {
		return err
	}
	b.Devices = append(b.Devices, own)
	return nil
}

// fill puts entries into a batch until it is full, and returns the changes that are told with it, or need not be.
func (s *Store) fill(ctx context.Context, tx *sql.Tx, b *devices.Batch, due []change, most int) (told []change, err error) {
	size := 1024 // what every batch has, and the own device
	bare, err := blank(b).Encode()
	if err != nil {
		return nil, err
	}
	for _, c := range due[:min(len(due), devices.MaxEntries-1)] { // and the own device
		add, err := s.entry(ctx, tx, c)
		if err != nil {
			return nil, err
		}
		if add == nil {
			told = append(told, c)
			continue
		}
		alone := blank(b)
		add(alone)
		n, err := readable(alone)
		n -= len(bare)
		switch {
		case err != nil:
			// What the other devices would refuse is kept back here, where the reason can be seen.
			s.log.Warn("the other devices cannot be told of a change", "kind", c.kind, "error", err)
		case size+n > most && len(told) > 0:
			return told, nil
		case size+n <= most: // else no record of ours can hold it
			size += n
			add(b)
		}
		told = append(told, c)
	}
	return told, nil
}

func blank(b *devices.Batch) *devices.Batch {
	return &devices.Batch{Device: b.Device, Seq: b.Seq, At: b.At}
}

// readable is the length of a batch that those who read it take whole.
func readable(b *devices.Batch) (int, error) {
	data, err := b.Encode()
	if err == nil {
		_, err = devices.Parse(data)
	}
	return len(data), err
}

// entry puts what is to be told of a change into a batch; nil if there is nothing to tell any more.
func (s *Store) entry(ctx context.Context, tx *sql.Tx, c change) (add func(*devices.Batch), _ error) {
	switch c.kind {
	case kindDevice:
		r, err := readRegister[devices.Device](ctx, tx, c.kind, c.key)
		if err != nil || r == nil {
			return nil, err
		}
		return func(b *devices.Batch) { b.Devices = append(b.Devices, r.entry) }, nil
	case kindFriend:
		r, err := readRegister[devices.Friend](ctx, tx, c.kind, c.key)
		if err != nil || r == nil {
			return nil, err
		}
		return func(b *devices.Batch) { b.Friends = append(b.Friends, r.entry) }, nil
	case kindRelay:
		r, err := readRegister[devices.Relay](ctx, tx, c.kind, c.key)
		if err != nil || r == nil {
			return nil, err
		}
		return func(b *devices.Batch) { b.Relays = append(b.Relays, r.entry) }, nil
	case kindLabel:
		r, err := readRegister[devices.Label](ctx, tx, c.kind, c.key)
		if err != nil || r == nil {
			return nil, err
		}
		return func(b *devices.Batch) { b.Label = &r.entry }, nil
	case kindMark:
		e, err := s.markOf(ctx, tx, c.key)
		if err != nil || e == nil {
			return nil, err
		}
		return func(b *devices.Batch) { b.Marks = append(b.Marks, *e) }, nil
	case kindMessage:
		e, err := s.messageOf(ctx, tx, c.key)
		if err != nil || e == nil {
			return nil, err
		}
		return func(b *devices.Batch) { b.Messages = append(b.Messages, *e) }, nil
	case kindSent:
		e, err := s.sentOf(ctx, tx, c.key)
		if err != nil || e == nil {
			return nil, err
		}
		return func(b *devices.Batch) { b.Sent = append(b.Sent, *e) }, nil
	}
	return nil, nil
}

func (s *Store) markOf(ctx context.Context, tx *sql.Tx, key []byte) (*devices.Mark, error) {
	m := devices.Mark{From: publicKey(key), RecordID: protocol.RecordID(key[protocol.PublicKeySize:])}
	err := tx.QueryRowContext(ctx, `SELECT coalesce(read, 0), coalesce(removed, 0), expires FROM messages WHERE sender = ? AND record_id = ?`,
		m.From[:], m.RecordID).Scan(&m.Read, &m.Removed, &m.Expires)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &m, err
}

// messageOf is a message as it is told; nil if it is removed, cannot be read, or is too long: the others pull that themselves.
func (s *Store) messageOf(ctx context.Context, tx *sql.Tx, key []byte) (*devices.Message, error) {
	found, err := sqlite.Collect(ctx, tx, scanMessage, messageColumns+`WHERE sender = ? AND record_id = ? AND removed IS NULL AND fault = ''
		AND length(body) <= ? AND NOT `+kept, key[:protocol.PublicKeySize], string(key[protocol.PublicKeySize:]), devices.MaxTold, s.owner[:])
	if err != nil || len(found) == 0 {
		return nil, err
	}
	m := &found[0]
	return &devices.Message{From: m.From, RecordID: m.ID, Content: m.Content, Envelope: m.Envelope, Relay: m.Relay, Tag: m.Tag,
		ContentType: m.ContentType, Name: m.Name, Device: m.Device, Seq: m.Seq, Body: m.Body, Fault: m.Fault, Plain: m.Plain,
		Sent: m.Sent, Expires: m.Expires}, nil
}

// sentOf is a message of the owner as it is told. Its sealed content goes with it while a copy waits, so that any device can bring it.
func (s *Store) sentOf(ctx context.Context, tx *sql.Tx, key []byte) (*devices.Sent, error) {
	found, err := sqlite.Collect(ctx, tx, scanOutgoing, outgoingColumns+`WHERE record_id = ? AND upload IS NULL`, string(key))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	m := &found[0]
	e := &devices.Sent{RecordID: m.ID, To: m.To, Tag: m.Tag, ContentType: m.ContentType, Name: m.Name, Device: devices.ID(m.Device), Seq: m.Seq,
		Body: m.Body, Expires: m.Expires, MaxPulls: m.MaxPulls, Created: m.Created, Removed: m.Removed, Copies: []devices.Copy{}}
	if e.Long = len(m.Body) > devices.MaxTold; e.Long {
		e.Body = nil
	}
	copies, err := s.copiesOf(ctx, tx, m.N)
	if err != nil {
		return nil, err
	}
	for _, c := range copies {
		if c.State == devices.Queued {
			if m.Sealed == nil || len(m.Sealed) > 2*devices.MaxTold {
				continue // nobody else can do anything about it
			}
			e.Sealed = m.Sealed
		}
		if len(e.Copies) < devices.MaxCopies {
			e.Copies = append(e.Copies, c)
		}
	}
	return e, nil
}

func (s *Store) copiesOf(ctx context.Context, tx *sql.Tx, n int64) ([]devices.Copy, error) {
	return sqlite.Collect(ctx, tx, func(scan func(...any) error) (c devices.Copy, err error) {
		var relay, stored []byte
		err = scan(&relay, &c.Address, &c.State, &c.Changed, &c.Cursor, &stored, &c.Bytes, &c.Signed, &c.Got)
		c.Relay = publicKey(relay)
		if len(c.Cursor) > protocol.MaxCursor { // of a relay that was believed once
			c.Cursor = ""
		}
		if stored != nil {
			h := hash(stored)
			c.Hash = &h
		}
		return c, err
	}, `SELECT c.relay, c.address, c.state, c.changed, c.cursor, c.hash, coalesce(a.bytes, 0), coalesce(a.signed, 0),
		coalesce((SELECT min(r.got) FROM receipts r JOIN attempts t ON t.hash = r.hash AND t.relay = r.relay WHERE t.n = c.n AND t.relay = c.relay), 0)
		FROM copies c LEFT JOIN attempts a ON a.n = c.n AND a.relay = c.relay AND a.hash = c.hash WHERE c.n = ? ORDER BY c.relay`, n)
}
