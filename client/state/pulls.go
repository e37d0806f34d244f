package state

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// Scope is whose records a page is about: a group of friends, or one newcomer.
type Scope struct {
	Group  int64
	Friend *protocol.PublicKey // a newcomer; Group has no meaning then
}

// Source is what is to be pulled from one relay with one cursor.
type Source struct {
	Scope
	Senders []protocol.PublicKey
	After   *string // nil: from the beginning
}

// Page is a page that was asked for and is not yet stored.
type Page struct {
	ID      protocol.PageID
	Scope   *Scope // nil: another device's page, which moves no cursor of ours
	Senders []protocol.PublicKey
	After   *string
	Limit   int64
}

// Ack is a page that is stored here and not yet acknowledged to the relay.
type Ack struct {
	Page protocol.PageID
	Root protocol.Hash
}

// Pending is what an earlier pull, perhaps of a program that died, left to do on a relay.
type Pending struct {
	Page  *Page
	Ack   *Ack
	Limit int64 // records to ask for in the next page
}

// Plan brings the memberships of a relay in line with the friends who are on it, and says what to
// pull: the groups, then each newcomer. Friends join a relay that was never pulled as one group.
func (s *Store) Plan(ctx context.Context, relay protocol.PublicKey, friends []protocol.PublicKey) ([]Source, error) {
	var sources []Source
	err := s.tx(ctx, func(tx *sql.Tx) error {
		known, err := readMembers(ctx, tx, relay)
		if err != nil {
			return err
		}
		joined := false
		for _, m := range known {
			if !slices.Contains(friends, m.friend) {
				if _, err := tx.ExecContext(ctx, `DELETE FROM memberships WHERE relay = ? AND friend = ?`, relay[:], m.friend[:]); err != nil {
					return err
				}
			} else if m.group.Valid {
				joined = true
			}
		}
		if !joined {
			if err := startGroups(ctx, tx, relay, friends); err != nil {
				return err
			}
		}
		for _, f := range friends {
			if _, err := tx.ExecContext(ctx, `INSERT INTO memberships (relay, friend) VALUES (?, ?) ON CONFLICT DO NOTHING`, relay[:], f[:]); err != nil {
				return err
			}
		}
		sources, err = readSources(ctx, tx, relay)
		return err
	})
	return sources, err
}

func startGroups(ctx context.Context, tx *sql.Tx, relay protocol.PublicKey, friends []protocol.PublicKey) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM cursors WHERE relay = ?`, relay[:]); err != nil {
		return err
	}
	for i, f := range friends {
		group := i / protocol.MaxSenders
		if _, err := tx.ExecContext(ctx, `INSERT INTO cursors VALUES (?, ?, NULL) ON CONFLICT DO NOTHING`, relay[:], group); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO memberships (relay, friend, grp) VALUES (?, ?, ?)
			ON CONFLICT (relay, friend) DO UPDATE SET grp = excluded.grp, after = NULL`, relay[:], f[:], group); err != nil {
			return err
		}
	}
	return nil
}

type member struct {
	friend protocol.PublicKey
	group  sql.NullInt64
	after  sql.NullString
}

func readMembers(ctx context.Context, q sqlite.Querier, relay protocol.PublicKey) ([]member, error) {
	return sqlite.Collect(ctx, q, func(scan func(...any) error) (m member, err error) {
		var key []byte
		err = scan(&key, &m.group, &m.after)
		m.friend = publicKey(key)
		return m, err
	}, `SELECT friend, grp, after FROM memberships WHERE relay = ? ORDER BY friend`, relay[:])
}

func readSources(ctx context.Context, q sqlite.Querier, relay protocol.PublicKey) ([]Source, error) {
	members, err := readMembers(ctx, q, relay)
	if err != nil {
		return nil, err
	}
	groups, err := sqlite.Collect(ctx, q, func(scan func(...any) error) (src Source, err error) {
		var after sql.NullString
		err = scan(&src.Group, &after)
		src.After = textPointer(after)
		return src, err
	}, `SELECT grp, after FROM cursors WHERE relay = ? ORDER BY grp`, relay[:])
	if err != nil {
		return nil, err
	}
	var newcomers []Source
	for _, m := range members {
		if !m.group.Valid {
			friend := m.friend
			newcomers = append(newcomers, Source{Scope: Scope{Friend: &friend}, Senders: []protocol.PublicKey{friend}, After: textPointer(m.after)})
			continue
		}
		for i := range groups {
			if groups[i].Group == m.group.Int64 {
				groups[i].Senders = append(groups[i].Senders, m.friend)
			}
		}
	}
	groups = slices.DeleteFunc(groups, func(src Source) bool { return len(src.Senders) == 0 })
	return append(groups, newcomers...), nil
}

// Join puts a newcomer whose records were all pulled into a group that has room. What the
// group has pulled and he wrote is here already: he was pulled after the group.
func (s *Store) Join(ctx context.Context, relay, friend protocol.PublicKey) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var group int64
		err := tx.QueryRowContext(ctx, `SELECT c.grp FROM cursors c LEFT JOIN memberships m ON m.relay = c.relay AND m.grp = c.grp
			WHERE c.relay = ? GROUP BY c.grp HAVING count(m.friend) < ? ORDER BY c.grp LIMIT 1`, relay[:], protocol.MaxSenders).Scan(&group)
		if errors.Is(err, sql.ErrNoRows) {
			err = tx.QueryRowContext(ctx, `INSERT INTO cursors SELECT relay, (SELECT coalesce(max(grp), -1) + 1 FROM cursors WHERE relay = ?1), after
				FROM memberships WHERE relay = ?1 AND friend = ?2 RETURNING grp`, relay[:], friend[:]).Scan(&group)
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE memberships SET grp = ?, after = NULL WHERE relay = ? AND friend = ?`, group, relay[:], friend[:])
		return err
	})
}

// Sources says what [Store.Plan] said last, without changing it.
func (s *Store) Sources(ctx context.Context, relay protocol.PublicKey) ([]Source, error) {
	return readSources(ctx, s.sql, relay)
}

// Pending reads what is left to do on a relay.
func (s *Store) Pending(ctx context.Context, relay protocol.PublicKey) (*Pending, error) {
	var page, after, ack sql.NullString
	var group, limit sql.NullInt64
	var friend, senders, root []byte
	p := &Pending{Limit: protocol.MaxPageRecords}
	err := s.sql.QueryRowContext(ctx, `SELECT page, page_grp, page_friend, page_senders, page_after, page_limit, ack_page, ack_root,
		next_limit FROM pulls WHERE relay = ?`, relay[:]).Scan(&page, &group, &friend, &senders, &after, &limit, &ack, &root, &p.Limit)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if ack.Valid {
		p.Ack = &Ack{Page: protocol.PageID(ack.String), Root: hash(root)}
	}
	if !page.Valid {
		return p, nil
	}
	p.Page = &Page{ID: protocol.PageID(page.String), After: textPointer(after), Limit: limit.Int64}
	for chunk := range slices.Chunk(senders, protocol.PublicKeySize) {
		p.Page.Senders = append(p.Page.Senders, publicKey(chunk))
	}
	switch {
	case friend != nil:
		key := publicKey(friend)
		p.Page.Scope = &Scope{Friend: &key}
	case group.Valid:
		p.Page.Scope = &Scope{Group: group.Int64}
	}
	return p, nil
}

// NotePage remembers a page before it is asked for, so that after a crash the same one is asked again.
func (s *Store) NotePage(ctx context.Context, relay protocol.PublicKey, p *Page) error {
	var group, friend any
	if p.Scope != nil {
		if friend = optionalKey(p.Scope.Friend); friend == nil {
			group = p.Scope.Group
		}
	}
	senders := make([]byte, 0, len(p.Senders)*protocol.PublicKeySize)
	for _, k := range p.Senders {
		senders = append(senders, k[:]...)
	}
	return s.exec(ctx, `INSERT INTO pulls (relay, page, page_grp, page_friend, page_senders, page_after, page_limit, next_limit, holder, held_until)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', 0) ON CONFLICT (relay) DO UPDATE SET page = excluded.page, page_grp = excluded.page_grp,
		page_friend = excluded.page_friend, page_senders = excluded.page_senders, page_after = excluded.page_after, page_limit = excluded.page_limit`,
		relay[:], p.ID, group, friend, senders, optionalText(p.After), p.Limit, protocol.MaxPageRecords)
}

// StoreMessages keeps the records of a page that was cut. The page stays noted. It returns how many were new.
func (s *Store) StoreMessages(ctx context.Context, messages []Message) (stored int, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if stored, err = s.storeMessages(ctx, tx, messages); err != nil {
			return err
		}
		return s.noteReceived(ctx, tx, messages, "")
	})
	return stored, err
}

// StorePage keeps a whole page in one step: its records, how far it reached, and that it is to be
// acknowledged. Only after that may anybody sign that the page is here. An empty page has no root.
// If another process was faster with the same page, only its records count.
func (s *Store) StorePage(ctx context.Context, relay protocol.PublicKey, p *Page, messages []Message, root *protocol.Hash, cursor string) (stored int, err error) {
	var ackPage, ackRoot any
	if root != nil {
		ackPage, ackRoot = p.ID, root[:]
	}
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if stored, err = s.storeMessages(ctx, tx, messages); err != nil {
			return err
		}
		if err := s.noteReceived(ctx, tx, messages, p.ID); err != nil {
			return err
		}
		// The relay served this page, so it has the acknowledgement of the one before.
		var before sql.NullString
		err := tx.QueryRowContext(ctx, `SELECT ack_page FROM pulls WHERE relay = ? AND page = ?`, relay[:], p.ID).Scan(&before)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if before.Valid && before.String != string(p.ID) {
			if err := s.acknowledged(ctx, tx, relay, before.String); err != nil {
				return err
			}
		}
		result, err := tx.ExecContext(ctx, `UPDATE pulls SET page = NULL, page_senders = NULL, ack_page = ?, ack_root = ?,
			next_limit = min(next_limit * 2, ?) WHERE relay = ? AND page = ?`, ackPage, ackRoot, protocol.MaxPageRecords, relay[:], p.ID)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 || p.Scope == nil {
			return err
		}
		if p.Scope.Friend != nil {
			_, err = tx.ExecContext(ctx, `UPDATE memberships SET after = ? WHERE relay = ? AND friend = ? AND grp IS NULL`, cursor, relay[:], p.Scope.Friend[:])
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE cursors SET after = ? WHERE relay = ? AND grp = ?`, cursor, relay[:], p.Scope.Group)
		return err
	})
	return stored, err
}

// SpentPage gives up a page that the relay serves no more: its root is to be acknowledged, and the
// next pages are smaller, so that they come through where this one was cut.
func (s *Store) SpentPage(ctx context.Context, relay protocol.PublicKey, id protocol.PageID, root protocol.Hash) error {
	return s.exec(ctx, `UPDATE pulls SET page = NULL, page_senders = NULL, ack_page = ?, ack_root = ?, next_limit = max(1, next_limit / 4)
		WHERE relay = ? AND page = ?`, id, root[:], relay[:], id)
}

// Acked forgets an acknowledgement that the relay took, or that it knows nothing of.
func (s *Store) Acked(ctx context.Context, relay protocol.PublicKey, id protocol.PageID) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if err := s.acknowledged(ctx, tx, relay, string(id)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE pulls SET ack_page = NULL, ack_root = NULL WHERE relay = ? AND ack_page = ?`, relay[:], id)
		return err
	})
}

// StartOver forgets how far a relay was pulled, because its cursors are of another life.
func (s *Store) StartOver(ctx context.Context, relay protocol.PublicKey) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		for _, statement := range []string{
			`UPDATE cursors SET after = NULL WHERE relay = ?`,
			`UPDATE memberships SET after = NULL WHERE relay = ?`,
			`UPDATE pulls SET page = NULL, page_senders = NULL WHERE relay = ?`,
		} {
			if _, err := tx.ExecContext(ctx, statement, relay[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Lease makes holder the one process that pulls a relay until then. It is false while another one
// is. It saves work and pages; what is stored is right without it, too.
func (s *Store) Lease(ctx context.Context, relay protocol.PublicKey, holder string, until protocol.Timestamp) (bool, error) {
	return s.changed(ctx, `INSERT INTO pulls (relay, next_limit, holder, held_until) VALUES (?, ?, ?, ?) ON CONFLICT (relay)
		DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
		WHERE pulls.holder = excluded.holder OR pulls.held_until < ?`, relay[:], protocol.MaxPageRecords, holder, until, s.now())
}

// Release ends a lease.
func (s *Store) Release(ctx context.Context, relay protocol.PublicKey, holder string) error {
	return s.exec(ctx, `UPDATE pulls SET held_until = 0 WHERE relay = ? AND holder = ?`, relay[:], holder)
}
