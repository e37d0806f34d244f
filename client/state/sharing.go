package state

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/go-json-experiment/json"

	"relaymarket/client/devices"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

const (
	// AlonePause is how long a device that has no company waits for more before it tells a change: who adds ten friends
	// writes one record.
	AlonePause = 10 * time.Minute
	// aloneMost is how long it waits at most: somebody else may see to it that it is never quiet.
	aloneMost = time.Hour
	// cardPause is how long a friend's newer card alone waits: each device looks for those itself, and how often he changes it is up to him.
	cardPause = 24 * time.Hour
	// RestateEvery is how often everything is said again, for those who missed something. Records of the log live three times as long.
	RestateEvery = 10 * 24 * time.Hour

	// Of messages, the newest are said again: so many, and bytes of them.
	restatedMessages = 500
	restatedBytes    = 1 << 20
	// fewPulls is with how many pulls left to it a message is told at once: the other devices may get none of them.
	fewPulls = 4
	// toldBytes is how much of a friend's messages is told on a day: what costs him one pull must not cost the owner any number of them.
	// What is beyond, the other devices get if they come in time.
	toldBytes = 1 << 20
	// entryBytes is about what a message takes in a batch beside its body.
	entryBytes = 700
	// toldLife is how long a message has to live to be told, ms: a batch lives for a month.
	toldLife = 24 * 60 * 60 * 1000

	// silentAfter is how long nothing has to be heard of a device to be no company, ms. Each says everything again in a sixth of that.
	silentAfter = 60 * 24 * 60 * 60 * 1000
)

// Kinds of what is told, in the tables changes and registers.
const (
	kindDevice  = "device"
	kindFriend  = "friend"
	kindRelay   = "relay"
	kindLabel   = "label"
	kindMark    = "mark"
	kindMessage = "message"
	kindSent    = "sent"
)

// stamped gives a change its time. The trigger for cards notes 1 for when they are due.
const stamped = `at = ?1, due = CASE due WHEN 1 THEN ?1 + ?2 ELSE due END`

// labelKey is the key of what there is one of: SQLite takes an empty one for none.
var labelKey = []byte{0}

// register is what one name, relay and so on comes to.
type register[T any] struct {
	entry T
	shown string
}

// readRegister is nil if nobody said anything yet.
func readRegister[T any](ctx context.Context, tx *sql.Tx, kind string, key []byte) (*register[T], error) {
	var r register[T]
	var entry string
	err := tx.QueryRowContext(ctx, `SELECT entry, shown FROM registers WHERE kind = ? AND key = ?`, kind, key).Scan(&entry, &r.shown)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &r, json.Unmarshal([]byte(entry), &r.entry)
}

func writeRegister[T any](ctx context.Context, tx *sql.Tx, kind string, key []byte, entry T, shown string) error {
	text, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO registers VALUES (?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET entry = excluded.entry, shown = excluded.shown`, kind, key, string(text), shown)
	return err
}

// change is something the others were not told.
type change struct {
	kind string
	key  []byte
	at   protocol.Timestamp
}

func scanChange(scan func(...any) error) (c change, err error) {
	return c, scan(&c.kind, &c.key, &c.at)
}

// fold brings the registers up to what was changed here, so that it competes with what others say under the time at which it
// was changed, and not that at which it is told.
func (s *Store) fold(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `UPDATE changes SET `+stamped+` WHERE at = 0`, s.now(), cardPause.Milliseconds()); err != nil {
		return err
	}
	all, err := sqlite.Collect(ctx, tx, scanChange, `SELECT kind, key, at FROM changes WHERE kind IN ('friend', 'relay', 'label') ORDER BY at`)
	if err != nil {
		return err
	}
	for _, c := range all {
		switch c.kind {
		case kindFriend:
			err = s.foldFriend(ctx, tx, publicKey(c.key), c.at)
		case kindRelay:
			err = s.foldRelay(ctx, tx, publicKey(c.key), c.at)
		case kindLabel:
			err = s.foldLabel(ctx, tx, c.at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) id() devices.ID { return devices.ID(s.device) }

func (s *Store) foldFriend(ctx context.Context, tx *sql.Tx, key protocol.PublicKey, at protocol.Timestamp) error {
	before, err := readRegister[devices.Friend](ctx, tx, kindFriend, key[:])
	if err != nil {
		return err
	}
	now := devices.Friend{Key: key}
	var shown string
	var card []byte
	err = tx.QueryRowContext(ctx, `SELECT name, card FROM friends WHERE key = ?`, key[:]).Scan(&shown, &card)
	gone := errors.Is(err, sql.ErrNoRows)
	if err != nil && !gone {
		return err
	}
	switch {
	case gone && before == nil:
		return nil // came and went before anybody heard of it
	case gone:
		now.Name, now.Card, now.Removed = before.entry.Name, before.entry.Card, true
	case before != nil && before.shown == shown:
		now.Name, now.Card = before.entry.Name, card
	default:
		now.Name, now.Card = shown, card
	}
	if before == nil {
		now.Stamp = devices.Stamp{}.Next(at, s.id())
		return writeRegister(ctx, tx, kindFriend, key[:], now, shown)
	}
	now.Stamp = before.entry.Stamp // of a newer card there is nothing to stamp: the newest counts
	if now.Name != before.entry.Name || now.Removed != before.entry.Removed {
		now.Stamp = before.entry.Stamp.Next(at, s.id())
	}
	now = before.entry.Join(now)
	if err := writeRegister(ctx, tx, kindFriend, key[:], now, shown); err != nil || gone {
		return err
	}
	// Who was removed and is added again by an older card than he had is shown with the newer one.
	return s.quietly(ctx, tx, `UPDATE friends SET card = ? WHERE key = ? AND card <> ?`, []byte(now.Card), key[:], []byte(now.Card))
}

// quietly runs a statement that is no change of ours to be told.
func (s *Store) quietly(ctx context.Context, tx *sql.Tx, statement string, args ...any) error {
	if _, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = applying + 2`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = applying - 2`)
	return err
}

func (s *Store) foldRelay(ctx context.Context, tx *sql.Tx, key protocol.PublicKey, at protocol.Timestamp) error {
	before, err := readRegister[devices.Relay](ctx, tx, kindRelay, key[:])
	if err != nil {
		return err
	}
	now := devices.Relay{Key: key}
	err = tx.QueryRowContext(ctx, `SELECT address, added, bytes FROM relays WHERE key = ?`, key[:]).Scan(&now.Address, &now.Added, &now.Bytes)
	gone := errors.Is(err, sql.ErrNoRows)
	if err != nil && !gone || gone && before == nil {
		return ignore(err, sql.ErrNoRows)
	}
	if before == nil {
		now.Stamp = devices.Stamp{}.Next(at, s.id())
		return writeRegister(ctx, tx, kindRelay, key[:], now, "")
	}
	if gone {
		now = before.entry
		now.Removed = true
	}
	if now.Stamp = before.entry.Stamp; now == before.entry {
		return nil
	}
	now.Stamp = before.entry.Stamp.Next(at, s.id())
	return writeRegister(ctx, tx, kindRelay, key[:], now, "")
}

func (s *Store) foldLabel(ctx context.Context, tx *sql.Tx, at protocol.Timestamp) error {
	before, err := readRegister[devices.Label](ctx, tx, kindLabel, labelKey)
	if err != nil {
		return err
	}
	var now devices.Label
	if err := tx.QueryRowContext(ctx, `SELECT label FROM owner`).Scan(&now.Text); err != nil {
		return err
	}
	if before != nil {
		if before.entry.Text == now.Text {
			return nil
		}
		now.Stamp = before.entry.Stamp
	}
	now.Stamp = now.Stamp.Next(at, s.id())
	return writeRegister(ctx, tx, kindLabel, labelKey, now, "")
}

// ignore is the error unless it is that one.
func ignore(err, but error) error {
	if errors.Is(err, but) {
		return nil
	}
	return err
}

// noteArrival notes a message that came, to be told to the others: at once if it has few pulls, else when half its life is
// over, because until then they pull it themselves.
func (s *Store) noteArrival(ctx context.Context, tx *sql.Tx, m *Message) error {
	if err := s.applyMark(ctx, tx, m.From, m.ID); err != nil {
		return err
	}
	if told, err := s.affordable(ctx, tx, m); err != nil || !told {
		return err
	}
	due := m.Sent + (m.Expires-m.Sent)/2
	if m.MaxPulls < fewPulls {
		due = 0
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO changes SELECT 'message', ?1, ?2, ?3 FROM sharing WHERE company AND NOT applying
		AND NOT EXISTS (SELECT 1 FROM changes WHERE kind = 'message' AND key = ?1)`, messageKey(m.From, m.ID), s.now(), due)
	return err
}

// affordable tells whether a message is to be told, and takes it off what is told of its sender's on that day.
func (s *Store) affordable(ctx context.Context, tx *sql.Tx, m *Message) (bool, error) {
	if m.Expires-m.Sent < toldLife || m.Fault != "" || len(m.Body) > devices.MaxTold {
		return false, nil
	}
	if m.From == s.owner {
		return true, nil
	}
	day := s.now() / (24 * 60 * 60 * 1000)
	if _, err := tx.ExecContext(ctx, `INSERT INTO arrivals SELECT ?, ?, 0 FROM sharing WHERE company AND NOT applying
		ON CONFLICT (sender) DO UPDATE SET day = excluded.day, bytes = 0 WHERE day <> excluded.day`, m.From[:], day); err != nil {
		return false, err
	}
	size := len(m.Body) + entryBytes
	result, err := tx.ExecContext(ctx, `UPDATE arrivals SET bytes = bytes + ?1 WHERE sender = ?2 AND bytes + ?1 <= ?3
		AND (SELECT company AND NOT applying FROM sharing)`, size, m.From[:], toldBytes)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

func messageKey(from protocol.PublicKey, id protocol.RecordID) []byte { return append(from[:], id...) }

// restate has everything said again.
func (s *Store) restate(ctx context.Context, tx *sql.Tx) error {
	now := s.now()
	for _, step := range []struct {
		statement string
		args      []any
	}{
		{`UPDATE sharing SET restated = ?`, []any{now}},
		{`INSERT INTO changes SELECT kind, key, ?, 0 FROM registers WHERE true ON CONFLICT (kind, key) DO NOTHING`, []any{now}},
		{`INSERT INTO changes SELECT 'message', CAST(sender || record_id AS BLOB), ?1, 0 FROM
			(SELECT sender, record_id, n, sum(length(body) + ?5) OVER (ORDER BY n DESC) AS total FROM messages
			 WHERE removed IS NULL AND fault = '' AND length(body) <= ?2 AND expires - sent >= ?6 ORDER BY n DESC LIMIT ?3)
			WHERE total <= ?4 AND (SELECT company FROM sharing) ON CONFLICT (kind, key) DO UPDATE SET due = 0`,
			[]any{now, devices.MaxTold, restatedMessages, restatedBytes, entryBytes, toldLife}},
		{`INSERT INTO changes SELECT 'sent', key, ?1, 0 FROM
			(SELECT t.key, o.n, sum(min(length(o.body), ?2) + 1500) OVER (ORDER BY o.n DESC) AS total FROM outbox o JOIN sayable t ON t.n = o.n ORDER BY o.n DESC LIMIT ?3)
			WHERE total <= ?4 AND (SELECT company FROM sharing) ON CONFLICT (kind, key) DO NOTHING`,
			[]any{now, devices.MaxTold, restatedMessages, restatedBytes}},
		{`INSERT INTO changes SELECT 'mark', CAST(sender || record_id AS BLOB), ?1, 0 FROM
			(SELECT sender, record_id FROM messages WHERE (read IS NOT NULL OR removed IS NOT NULL) AND expires > ?1 ORDER BY n DESC LIMIT ?2)
			WHERE (SELECT company FROM sharing) ON CONFLICT (kind, key) DO NOTHING`, []any{now, 2 * restatedMessages}},
	} {
		if _, err := tx.ExecContext(ctx, step.statement, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// SayHello has the owner's other devices told of this one at once: it is new, and has his keys from somewhere.
func (s *Store) SayHello(ctx context.Context) error {
	return s.exec(ctx, `UPDATE sharing SET hello = 1`)
}

// Company notes that there is another device, and has it told everything.
func (s *Store) Company(ctx context.Context) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE sharing SET company = 1`); err != nil {
			return err
		}
		if err := s.sign(ctx, tx, "", s.now()); err != nil {
			return err
		}
		if err := s.met(ctx, tx); err != nil {
			return err
		}
		if err := s.fold(ctx, tx); err != nil {
			return err
		}
		return s.restate(ctx, tx)
	})
}

// Adopt takes in what a device was given with the keys: whatever is said of the relays and the label is later than that.
func (s *Store) Adopt(ctx context.Context, k *devices.Keys) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = 1, hello = 1, company = 1`); err != nil {
			return err
		}
		given := &devices.Batch{Relays: k.Relays, Devices: []devices.Device{{ID: k.Device, Stamp: devices.Stamp{By: k.Device}}}}
		if k.Label != "" {
			given.Label = &devices.Label{Stamp: devices.Stamp{By: k.Device}, Text: k.Label}
		}
		if err := s.takeAll(ctx, tx, given); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = 0`)
		return err
	})
}

// HasCompany tells whether the owner has another device, as far as is known.
func (s *Store) HasCompany(ctx context.Context) (company bool, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT company FROM sharing`).Scan(&company)
	return company, err
}

// Device is what is known of one of the owner's devices.
type Device struct {
	ID      devices.ID
	Name    string // empty: it was given none
	Own     bool   // this one
	Removed bool
	First   protocol.Timestamp // its first and last batch that came, by its clock; 0: none did
	Last    protocol.Timestamp
	Missing int64              // batches between them that did not come
	Changed protocol.Timestamp // when it was named or removed
}

// Devices lists the owner's devices, this one first.
func (s *Store) Devices(ctx context.Context) (all []Device, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		found, err := sqlite.Collect(ctx, tx, func(scan func(...any) error) (d Device, err error) {
			return d, scan(&d.ID, &d.First, &d.Last, &d.Missing)
		}, `SELECT id, coalesce(min(b.at), 0), coalesce(max(b.at), 0), coalesce(max(b.seq) - min(b.seq) + 1 - count(*), 0) FROM
			(SELECT ?1 AS id UNION SELECT device FROM batches UNION SELECT CAST(key AS TEXT) FROM registers WHERE kind = 'device')
			LEFT JOIN batches b ON b.device = id GROUP BY id ORDER BY id <> ?1, min(b.at), id`, s.device)
		if err != nil {
			return err
		}
		for i := range found {
			d := &found[i]
			d.Own = d.ID == s.id()
			said, err := readRegister[devices.Device](ctx, tx, kindDevice, []byte(d.ID))
			if err != nil {
				return err
			}
			if said != nil {
				d.Name, d.Removed, d.Changed = said.entry.Name, said.entry.Removed, said.entry.Stamp.At
			}
		}
		all = found
		return nil
	})
	return all, err
}

// ChangeDevice names a device, or takes it off the list. The others are told.
func (s *Store) ChangeDevice(ctx context.Context, id devices.ID, change func(*devices.Device)) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		said, err := readRegister[devices.Device](ctx, tx, kindDevice, []byte(id))
		if err != nil {
			return err
		}
		d := devices.Device{ID: id}
		if said != nil {
			d = said.entry
		}
		before := d
		if change(&d); said != nil && d == before {
			return nil
		}
		d.Stamp = before.Stamp.Next(s.now(), s.id())
		if err := writeRegister(ctx, tx, kindDevice, []byte(id), d, ""); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO changes VALUES ('device', ?, 0, 0) ON CONFLICT (kind, key) DO UPDATE SET at = 0`, []byte(id)); err != nil {
			return err
		}
		return s.recount(ctx, tx)
	})
}

// sign notes a sign of life of a device.
func (s *Store) sign(ctx context.Context, tx *sql.Tx, id devices.ID, at protocol.Timestamp) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO heard VALUES (?, ?, 0) ON CONFLICT (device) DO UPDATE SET at = max(at, excluded.at)
		WHERE excluded.at > since`, id, min(at, s.now()))
	return err
}

// others are the devices that are company: those that were heard lately, and not taken off the list.
const others = `FROM heard WHERE device <> ?1 AND at > ?2
	AND NOT EXISTS (SELECT 1 FROM registers WHERE kind = 'device' AND key = CAST(device AS BLOB) AND entry ->> '$.removed' = 1)`

// Living counts the owner's devices that are in use, this one too.
func (s *Store) Living(ctx context.Context) (n int64, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT count(*) + 1 `+others, s.device, s.now()-silentAfter).Scan(&n)
	return n, err
}

// recount finds out whether there is company still. Alone, nothing is told but what whoever restores the words needs.
func (s *Store) recount(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `UPDATE sharing SET company = EXISTS (SELECT 1 `+others+`)`, s.device, s.now()-silentAfter); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM changes WHERE kind IN ('message', 'sent', 'mark') AND NOT (SELECT company FROM sharing)`)
	return err
}
