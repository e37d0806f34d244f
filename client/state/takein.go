package state

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"

	"relaymarket/client/devices"
	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// longBody stands for the text of a message that another device sent and that is too long to be told.
const longBody = "(a long message: its text is on the device that sent it)"

// takeIn joins what a batch says with what is here. A batch that was taken in is no news; what this device said itself is none
// either, unless its state is an older one that was put back.
func (s *Store) takeIn(ctx context.Context, tx *sql.Tx, m *Message) error {
	b := m.Batch
	if m.From != s.owner {
		return errors.New("a batch of somebody else's is taken for the owner's")
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO batches SELECT ?1, ?2, ?3 WHERE ?1 <> ?4 OR ?2 > (SELECT seq FROM sharing)
		ON CONFLICT DO NOTHING`, b.Device, b.Seq, b.At, s.device)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if err := s.fold(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = 1, seq = CASE WHEN ? THEN ? ELSE seq END`, b.Device == s.id(), b.Seq); err != nil {
		return err
	}
	if err := s.takeAll(ctx, tx, b); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE sharing SET applying = 0`); err != nil {
		return err
	}
	if b.Device == s.id() {
		return nil
	}
	// A new one may be that which was added.
	if _, err := tx.ExecContext(ctx, `DELETE FROM heard WHERE device = '' AND NOT EXISTS (SELECT 1 FROM heard WHERE device = ?)`, b.Device); err != nil {
		return err
	}
	if err := s.sign(ctx, tx, b.Device, b.At); err != nil {
		return err
	}
	return s.hearOf(ctx, tx, b.Device)
}

// hearOf notes that there is company. A device that is heard for the first time, or with which company comes back, is told
// everything, unless this one is new itself. One that was taken off the list is told nothing: two that took each other off
// would answer each other for ever.
func (s *Store) hearOf(ctx context.Context, tx *sql.Tx, id devices.ID) error {
	if err := s.met(ctx, tx); err != nil {
		return err
	}
	var known, hello, before, removed bool
	if err := tx.QueryRowContext(ctx, `SELECT count(*) > 1, (SELECT hello FROM sharing), (SELECT company FROM sharing), EXISTS (SELECT 1 FROM registers
		WHERE kind = 'device' AND key = CAST(?1 AS BLOB) AND entry ->> '$.removed' = 1) FROM batches WHERE device = ?1`,
		id).Scan(&known, &hello, &before, &removed); err != nil {
		return err
	}
	if err := s.recount(ctx, tx); err != nil {
		return err
	}
	if known && before || hello || removed {
		return nil
	}
	var company bool
	if err := tx.QueryRowContext(ctx, `SELECT company FROM sharing`).Scan(&company); err != nil || !company {
		return err // it is an old word: there is nobody to be told
	}
	return s.restate(ctx, tx)
}

func (s *Store) takeAll(ctx context.Context, tx *sql.Tx, b *devices.Batch) error {
	for _, d := range b.Devices {
		if _, err := take(ctx, tx, kindDevice, []byte(d.ID), d); err != nil {
			return err
		}
		if d.ID == b.Device { // which says so itself
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO heard VALUES (?, ?, 0) ON CONFLICT DO NOTHING`, d.ID, s.now()); err != nil {
			return err
		}
	}
	renamed := false
	for _, f := range b.Friends {
		news, err := take(ctx, tx, kindFriend, f.Key[:], f)
		if err != nil {
			return err
		}
		renamed = renamed || news
	}
	if renamed {
		if err := s.showFriends(ctx, tx); err != nil {
			return err
		}
	}
	for _, r := range b.Relays {
		news, err := take(ctx, tx, kindRelay, r.Key[:], r)
		if err == nil && news {
			err = s.showRelay(ctx, tx, r.Key)
		}
		if err != nil {
			return err
		}
	}
	if b.Label != nil {
		if _, err := take(ctx, tx, kindLabel, labelKey, *b.Label); err != nil {
			return err
		}
		l, err := readRegister[devices.Label](ctx, tx, kindLabel, labelKey)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE owner SET label = ?`, l.entry.Text); err != nil {
			return err
		}
	}
	for i := range b.Marks {
		if err := s.takeMark(ctx, tx, &b.Marks[i]); err != nil {
			return err
		}
	}
	for i := range b.Messages {
		if err := s.takeMessage(ctx, tx, &b.Messages[i]); err != nil {
			return err
		}
	}
	for i := range b.Sent {
		if err := s.takeSent(ctx, tx, &b.Sent[i]); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM marks WHERE expires < ?`, s.now()-keepReceived)
	return err
}

// take joins a word with the register it is about. It tells whether that changed.
func take[T interface{ Join(T) T }](ctx context.Context, tx *sql.Tx, kind string, key []byte, word T) (bool, error) {
	before, err := readRegister[T](ctx, tx, kind, key)
	if err != nil {
		return false, err
	}
	shown := ""
	if before != nil {
		shown = before.shown
		if word = before.entry.Join(word); reflect.DeepEqual(word, before.entry) {
			return false, nil
		}
	}
	return true, writeRegister(ctx, tx, kind, key, word, shown)
}

// shownFriend is a friend as the registers have him.
type shownFriend struct {
	devices.Friend
	shown string
}

// showFriends brings the list of friends in line with the registers. Of two who were given one name, the one with the smaller key
// keeps it, and the other gets some of his key behind it: every device shows the same.
func (s *Store) showFriends(ctx context.Context, tx *sql.Tx) error {
	all, err := sqlite.Collect(ctx, tx, func(scan func(...any) error) (f shownFriend, err error) {
		var entry string
		if err := scan(&entry, &f.shown); err != nil {
			return f, err
		}
		return f, json.Unmarshal([]byte(entry), &f.Friend)
	}, `SELECT entry, shown FROM registers WHERE kind = 'friend' ORDER BY key`)
	if err != nil {
		return err
	}
	names := namesOf(all)
	// Names change places: none may be in the way of another.
	for i := range all {
		f := &all[i]
		if f.Removed {
			err = ignore(s.deleteFriend(ctx, tx, f.Key), ErrNoFriend)
		} else if f.shown != names[i] {
			_, err = tx.ExecContext(ctx, `UPDATE friends SET name = ? WHERE key = ?`, f.Key.String(), f.Key[:])
		}
		if err != nil {
			return err
		}
	}
	for i := range all {
		f := &all[i]
		if !f.Removed {
			// A newer card is told to the person here as well, whoever brought it.
			card, err := protocol.ParseEnvelope(f.Card)
			if err == nil {
				err = s.takeCard(ctx, tx, card, Brought{Signed: 1})
			}
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO told SELECT ?, card, NULL, NULL, ? FROM owner WHERE true ON CONFLICT (friend) DO NOTHING`, f.Key[:], s.now()); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO friends (key, name, card, added, refreshed) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (key) DO UPDATE SET name = excluded.name, card = excluded.card`, f.Key[:], names[i], []byte(f.Card), s.now(), s.now()); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE registers SET shown = ? WHERE kind = 'friend' AND key = ?`, names[i], f.Key[:]); err != nil {
			return err
		}
	}
	return nil
}

// namesOf are the names under which friends are shown, empty for those removed.
func namesOf(all []shownFriend) []string {
	names := make([]string, len(all))
	taken := map[string]bool{}
	for i := range all {
		if folded := lower(all[i].Name); !all[i].Removed && !taken[folded] {
			names[i], taken[folded] = all[i].Name, true
		}
	}
	for i := range all {
		if all[i].Removed || names[i] != "" {
			continue
		}
		text := all[i].Key.Bech32()[len("relay1"):]
		if names[i] = all[i].Name + "-" + text[:8]; taken[lower(names[i])] {
			names[i] = text
		}
		taken[lower(names[i])] = true
	}
	return names
}

// lower is a name as SQLite's NOCASE compares it: only ASCII has no case.
func lower(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, name)
}

// showRelay brings one of the owner's relays in line with its register.
func (s *Store) showRelay(ctx context.Context, tx *sql.Tx, key protocol.PublicKey) error {
	r, err := readRegister[devices.Relay](ctx, tx, kindRelay, key[:])
	if err != nil {
		return err
	}
	if r.entry.Removed {
		if _, err := tx.ExecContext(ctx, `DELETE FROM relays WHERE key = ?`, key[:]); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'failed', error = 'the relay was removed from the list' WHERE relay = ? AND state = 'queued'
			AND n NOT IN (SELECT n FROM outbox WHERE content_type = ?)`, key[:], devices.LogType)
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO relays (key, address, added, bytes) VALUES (?, ?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET address = excluded.address, added = excluded.added, bytes = excluded.bytes`,
		key[:], r.entry.Address, r.entry.Added, r.entry.Bytes); err != nil {
		return err
	}
	return s.met(ctx, tx)
}

func (s *Store) takeMark(ctx context.Context, tx *sql.Tx, m *devices.Mark) error {
	known := devices.Mark{From: m.From, RecordID: m.RecordID}
	err := tx.QueryRowContext(ctx, `SELECT read, removed, expires FROM marks WHERE sender = ? AND record_id = ?`, m.From[:], m.RecordID).
		Scan(&known.Read, &known.Removed, &known.Expires)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	j := known.Join(*m)
	if _, err := tx.ExecContext(ctx, `INSERT INTO marks VALUES (?, ?, ?, ?, ?) ON CONFLICT (sender, record_id)
		DO UPDATE SET read = excluded.read, removed = excluded.removed, expires = excluded.expires`, j.From[:], j.RecordID, j.Read, j.Removed, j.Expires); err != nil {
		return err
	}
	return s.applyMark(ctx, tx, m.From, m.RecordID)
}

// applyMark marks a message, if it is here, as the owner's devices did.
func (s *Store) applyMark(ctx context.Context, tx *sql.Tx, from protocol.PublicKey, id protocol.RecordID) error {
	var here, there devices.Mark
	err := tx.QueryRowContext(ctx, `SELECT coalesce(m.read, 0), coalesce(m.removed, 0), k.read, k.removed FROM messages m JOIN marks k USING (sender, record_id)
		WHERE m.sender = ? AND m.record_id = ?`, from[:], id).Scan(&here.Read, &here.Removed, &there.Read, &there.Removed)
	if err != nil {
		return ignore(err, sql.ErrNoRows)
	}
	j := here.Join(there)
	if j == here {
		return nil
	}
	// Not a change of ours, also when the message comes only now.
	return s.quietly(ctx, tx, `UPDATE messages SET read = nullif(?, 0), removed = nullif(?, 0), body = CASE WHEN ? THEN NULL ELSE body END
		WHERE sender = ? AND record_id = ?`, j.Read, j.Removed, j.Removed > 0, from[:], id)
}

func (s *Store) takeMessage(ctx context.Context, tx *sql.Tx, e *devices.Message) error {
	m := Message{From: e.From, ID: e.RecordID, Content: e.Content, Envelope: e.Envelope, Relay: e.Relay, Tag: e.Tag, ContentType: e.ContentType,
		Name: e.Name, Device: e.Device, Seq: e.Seq, Body: e.Body, Fault: e.Fault, Plain: e.Plain, Sent: e.Sent, Expires: e.Expires}
	if m.Body == nil {
		m.Body = []byte{}
	}
	if _, err := s.storeMessages(ctx, tx, []Message{m}); err != nil {
		return err
	}
	// It was told: once is enough.
	_, err := tx.ExecContext(ctx, `DELETE FROM changes WHERE kind = 'message' AND key = ?`, messageKey(e.From, e.RecordID))
	return err
}

func (s *Store) takeSent(ctx context.Context, tx *sql.Tx, e *devices.Sent) error {
	body := e.Body
	if e.Long && strings.HasPrefix(e.ContentType, "text/") {
		body = []byte(longBody)
	}
	if body == nil {
		body = []byte{}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO outbox (record_id, receiver, sealed, tag, content_type, name, device, seq, body, expires, max_pulls, created)
		VALUES (?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (record_id) DO NOTHING`, e.RecordID, e.To[:], e.Tag, e.ContentType, e.Name,
		e.Device, e.Seq, body, e.Expires, e.MaxPulls, e.Created); err != nil {
		return err
	}
	var n int64
	var removed protocol.Timestamp
	var bringable bool
	err := tx.QueryRowContext(ctx, `SELECT n, coalesce(removed, 0), sealed IS NOT NULL FROM outbox WHERE record_id = ? AND receiver = ? AND upload IS NULL`,
		e.RecordID, e.To[:]).Scan(&n, &removed, &bringable)
	if err != nil {
		return ignore(err, sql.ErrNoRows) // another record has that name here: nothing of ours can be joined with it
	}
	if gone := devices.First(removed, e.Removed); gone != removed {
		if err := s.takeRemoval(ctx, tx, n, gone); err != nil {
			return err
		}
		removed = gone
	}
	if !bringable && e.Sealed != nil && removed == 0 && e.Expires > s.now() {
		if _, err := tx.ExecContext(ctx, `UPDATE outbox SET sealed = ? WHERE n = ?`, e.Sealed, n); err != nil {
			return err
		}
		bringable = true
	}
	here, err := s.copiesOf(ctx, tx, n)
	if err != nil {
		return err
	}
	for i := range e.Copies {
		if err := s.takeCopy(ctx, tx, n, e, here, e.Copies[i], removed, bringable); err != nil {
			return err
		}
	}
	// Also copies of which only this device knew.
	if removed > 0 {
		if _, err := tx.ExecContext(ctx, `UPDATE copies SET state = 'removing', error = '', changed = max(changed, ?) WHERE n = ? AND state IN ('queued', 'stored')`,
			removed, n); err != nil {
			return err
		}
	}
	return settle(ctx, tx, n)
}

// takeRemoval notes that another device removed a message; if it told of a file that this one sent, its pieces go, too.
func (s *Store) takeRemoval(ctx context.Context, tx *sql.Tx, n int64, at protocol.Timestamp) error {
	if _, err := tx.ExecContext(ctx, `UPDATE outbox SET removed = ? WHERE n = ?`, at, n); err != nil {
		return err
	}
	var upload int64
	err := tx.QueryRowContext(ctx, `SELECT n FROM uploads WHERE manifest = ? AND removed IS NULL`, n).Scan(&upload)
	if err != nil {
		return ignore(err, sql.ErrNoRows)
	}
	return s.removeUpload(ctx, tx, upload)
}

func (s *Store) takeCopy(ctx context.Context, tx *sql.Tx, n int64, e *devices.Sent, here []devices.Copy, c devices.Copy, removed protocol.Timestamp, bringable bool) error {
	known := false
	for i := range here {
		if here[i].Relay != c.Relay {
			continue
		}
		if c, known = here[i].Join(c), true; reflect.DeepEqual(c, here[i]) {
			return nil
		}
	}
	if removed > 0 && (c.State == devices.Queued || c.State == devices.Stored) {
		c.State, c.Changed = devices.Removing, max(c.Changed, removed)
	}
	if !known && c.State == devices.Queued && !bringable {
		return nil
	}
	var stored any
	if c.Hash != nil {
		stored = c.Hash[:]
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO copies (n, relay, address, state, error, changed, hash, cursor) VALUES (?, ?, ?, ?, '', ?, ?, ?)
		ON CONFLICT (n, relay) DO UPDATE SET state = excluded.state, changed = excluded.changed, hash = excluded.hash, cursor = excluded.cursor,
		error = CASE WHEN state = excluded.state THEN error ELSE '' END`, n, c.Relay[:], c.Address, c.State, c.Changed, stored, c.Cursor); err != nil {
		return err
	}
	if c.Hash == nil {
		return nil
	}
	if c.Bytes > 0 {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO attempts (n, relay, hash, bytes, signed) VALUES (?, ?, ?, ?, ?)`, n, c.Relay[:], stored, c.Bytes, c.Signed); err != nil {
			return err
		}
	}
	if c.Got > 0 {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO receipts (relay, hash, reader, bytes, got, filed) VALUES (?, ?, ?, ?, ?, ?)`,
			c.Relay[:], stored, e.To[:], c.Bytes, c.Got, s.now()); err != nil {
			return err
		}
	}
	return s.tell(ctx, tx, n, c.Relay)
}
