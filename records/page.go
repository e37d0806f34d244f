package records

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// serveAgain answers a page that exists, and counts the serve before it happens. It returns nil
// when there is no such page. When only is given, the page has to be of that record alone.
func (s *Store) serveAgain(ctx context.Context, tx pgx.Tx, reader protocol.PublicKey, id protocol.PageID, only *protocol.Path) (*Page, error) {
	var ns []int64
	var senders, names, hashes, rootRaw []byte
	var end int64
	page := &Page{Header: protocol.PageHeader{PageID: id}}
	err := tx.QueryRow(ctx, `
		SELECT ns, senders, names, hashes, root, after_n, more, served FROM pages WHERE reader = $1 AND page_id = $2`,
		reader[:], string(id)).Scan(&ns, &senders, &names, &hashes, &rootRaw, &end, &page.Header.More, &page.Header.Served)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ids, _, err := books.ReadNames(names, len(ns))
	if err != nil {
		return nil, err
	}
	if only != nil && (len(ids) != 1 || string(ids[0]) != string(only.ID) || !bytes.Equal(senders, only.Sender[:])) {
		return nil, protocol.Errorf(protocol.CodeConflict, "the page id %s was used for another page", id)
	}
	root := protocol.Hash(rootRaw)
	if page.Header.Served >= protocol.MaxPageServes {
		return nil, &PageError{Code: protocol.CodePageSpent, PageID: id, Root: &root,
			Detail: fmt.Sprintf("page %s was served %d times: acknowledge its root and pull on", id, page.Header.Served)}
	}
	if _, err := tx.Exec(ctx, `UPDATE pages SET served = served + 1 WHERE reader = $1 AND page_id = $2`, reader[:], string(id)); err != nil {
		return nil, err
	}
	live, err := s.liveEnvelopes(ctx, tx, ns)
	if err != nil {
		return nil, err
	}
	page.Header.Served++
	page.Header.Root, page.Header.Cursor, page.Header.Records = &root, s.cursor(end), int64(len(ns))
	page.Lines = make([]Line, len(ns))
	for i, n := range ns {
		if envelope, ok := live[n]; ok {
			page.Lines[i].Envelope = envelope
			continue
		}
		page.Lines[i].Gone = &protocol.GoneRecord{
			From:     senderOf(senders, i),
			RecordID: protocol.RecordID(ids[i]),
			Hash:     protocol.Hash(hashes[32*i : 32*i+32]),
		}
	}
	return page, nil
}

// liveEnvelopes reads the envelopes that may still be served: a page that used up a record's last
// pull serves it until its bytes are freed.
func (s *Store) liveEnvelopes(ctx context.Context, tx pgx.Tx, ns []int64) (map[int64][]byte, error) {
	rows, err := tx.Query(ctx, `SELECT n, envelope FROM records WHERE n = ANY($1) AND state = 0 AND expires > $2`, ns, int64(s.now()))
	if err != nil {
		return nil, err
	}
	live := make(map[int64][]byte, len(ns))
	var n int64
	var envelope []byte
	_, err = pgx.ForEachRow(rows, []any{&n, &envelope}, func() error {
		live[n], envelope = envelope, nil
		return nil
	})
	return live, err
}
