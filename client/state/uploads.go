package state

import (
	"context"
	"database/sql"
	"errors"

	"relaymarket/internal/sqlite"
	"relaymarket/protocol"
)

// ErrNoUpload: no file is being sent under this number.
var ErrNoUpload = errors.New("no such file is being sent")

// Upload is a file that is sent in pieces.
type Upload struct {
	N          int64
	ID         protocol.RecordID // of the message that tells the friend
	To         protocol.PublicKey
	Path       string // absolute
	Name       string // as the friend sees it
	Size       int64
	Modified   int64 // ns since 1970
	ChunkBytes int64
	Secret     protocol.FileSecret
	SHA256     protocol.Hash
	Hashes     []protocol.Hash // of all pieces, those of the index behind
	Expires    protocol.Timestamp
	MaxPulls   int64
	Copies     int // how many relays must have every piece
	Created    protocol.Timestamp
	Manifest   int64 // the number of the message that tells the friend; 0: not sent yet
}

// NewPiece names a piece whose row is to be made.
type NewPiece struct {
	ID     protocol.RecordID
	Reader protocol.PublicKey
}

// StartUpload stores a file and, in steps, a row for each of its pieces with a queued copy for each relay. What a program
// that died left half made is dropped. The pieces come from next, one after the other.
func (s *Store) StartUpload(ctx context.Context, u *Upload, relays []Relay, holder string, until protocol.Timestamp, next func(i int64) (NewPiece, error)) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM uploads WHERE ready = 0 AND held_until < ?`, s.now()); err != nil {
			return err
		}
		u.Created = s.now()
		result, err := tx.ExecContext(ctx, `INSERT INTO uploads (record_id, receiver, path, name, size, modified, chunk_bytes, secret, sha256, hashes, expires,
			max_pulls, copies, created, ready, holder, held_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)`, u.ID, u.To[:], u.Path, u.Name, u.Size,
			u.Modified, u.ChunkBytes, u.Secret[:], u.SHA256[:], joinHashes(u.Hashes), u.Expires, u.MaxPulls, u.Copies, u.Created, holder, until)
		if err != nil {
			return err
		}
		u.N, err = result.LastInsertId()
		return err
	})
	const batch = 2000
	for first := int64(0); err == nil && first < int64(len(u.Hashes)); first += batch {
		err = s.tx(ctx, func(tx *sql.Tx) error {
			for i := first; i < min(first+batch, int64(len(u.Hashes))); i++ {
				piece, err := next(i)
				if err != nil {
					return err
				}
				if err := s.insertPiece(ctx, tx, u, i, piece, relays); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	return s.exec(ctx, `UPDATE uploads SET ready = 1, held_until = 0 WHERE n = ?`, u.N)
}

func (s *Store) insertPiece(ctx context.Context, tx *sql.Tx, u *Upload, i int64, piece NewPiece, relays []Relay) error {
	result, err := tx.ExecContext(ctx, `INSERT INTO outbox (record_id, receiver, sealed, tag, content_type, name, device, seq,
		body, expires, max_pulls, created, upload, piece) VALUES (?, ?, NULL, '', '', '', ?, 0, x'', ?, ?, ?, ?, ?)`,
		piece.ID, piece.Reader[:], s.device, u.Expires, u.MaxPulls, u.Created, u.N, i)
	if err != nil {
		return err
	}
	n, err := result.LastInsertId()
	if err != nil {
		return err
	}
	return insertCopies(ctx, tx, n, relays, u.Created)
}

func insertCopies(ctx context.Context, tx *sql.Tx, n int64, relays []Relay, at protocol.Timestamp) error {
	for _, r := range relays {
		if _, err := tx.ExecContext(ctx, `INSERT INTO copies (n, relay, address, state, error, changed, cursor)
			VALUES (?, ?, ?, 'queued', '', ?, '')`, n, r.Key[:], r.Address, at); err != nil {
			return err
		}
	}
	return nil
}

func joinHashes(list []protocol.Hash) []byte {
	joined := make([]byte, 0, len(list)*len(protocol.Hash{}))
	for i := range list {
		joined = append(joined, list[i][:]...)
	}
	return joined
}

func splitHashes(joined []byte) []protocol.Hash {
	const size = len(protocol.Hash{})
	list := make([]protocol.Hash, len(joined)/size)
	for i := range list {
		copy(list[i][:], joined[i*size:])
	}
	return list
}

const uploadColumns = `SELECT n, record_id, receiver, path, name, size, modified, chunk_bytes, secret, sha256, hashes, expires, max_pulls, copies,
	created, coalesce(manifest, 0) FROM uploads `

func scanUpload(scan func(...any) error) (Upload, error) {
	var u Upload
	var receiver, secret, sum, hashes []byte
	err := scan(&u.N, &u.ID, &receiver, &u.Path, &u.Name, &u.Size, &u.Modified, &u.ChunkBytes, &secret, &sum, &hashes, &u.Expires, &u.MaxPulls,
		&u.Copies, &u.Created, &u.Manifest)
	u.To, u.SHA256, u.Hashes = publicKey(receiver), hash(sum), splitHashes(hashes)
	copy(u.Secret[:], secret)
	return u, err
}

// Upload finds one. ErrNoUpload.
func (s *Store) Upload(ctx context.Context, n int64) (*Upload, error) {
	found, err := sqlite.Collect(ctx, s.sql, scanUpload, uploadColumns+`WHERE ready = 1 AND n = ?`, n)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNoUpload
	}
	return &found[0], nil
}

// UploadOf finds the file whose manifest a message is. ErrNoUpload.
func (s *Store) UploadOf(ctx context.Context, manifest int64) (*Upload, error) {
	found, err := sqlite.Collect(ctx, s.sql, scanUpload, uploadColumns+`WHERE ready = 1 AND manifest = ?`, manifest)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNoUpload
	}
	return &found[0], nil
}

// UploadNamed finds one by its id. ErrNoUpload.
func (s *Store) UploadNamed(ctx context.Context, id protocol.RecordID) (*Upload, error) {
	found, err := sqlite.Collect(ctx, s.sql, scanUpload, uploadColumns+`WHERE ready = 1 AND record_id = ?`, id)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNoUpload
	}
	return &found[0], nil
}

// Unsent lists the files that have a piece to send, or of which the friend was not told, and that did not expire; the
// oldest first.
func (s *Store) Unsent(ctx context.Context) ([]Upload, error) {
	return sqlite.Collect(ctx, s.sql, scanUpload, uploadColumns+`u WHERE ready = 1 AND removed IS NULL AND expires > ? AND (manifest IS NULL OR EXISTS
		(SELECT 1 FROM outbox o JOIN copies c ON c.n = o.n WHERE o.upload = u.n AND c.state = 'queued')) ORDER BY n`, s.now())
}

// QueuedPiece is a piece that a relay does not have yet.
type QueuedPiece struct {
	N     int64 // of the outbox
	Piece int64
}

// QueuedPieces lists what is to be sent of a file to a relay, in order.
func (s *Store) QueuedPieces(ctx context.Context, upload int64, relay protocol.PublicKey) ([]QueuedPiece, error) {
	return sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (p QueuedPiece, err error) { return p, scan(&p.N, &p.Piece) },
		`SELECT o.n, o.piece FROM outbox o JOIN copies c ON c.n = o.n AND c.relay = ? WHERE o.upload = ? AND c.state = 'queued' ORDER BY o.piece`,
		relay[:], upload)
}

// RelayPieces is where the pieces of a file stand on one relay.
type RelayPieces struct {
	Relay   protocol.PublicKey
	Address string
	Pieces  map[CopyState]int64
	Pulled  int64  // of which the reader left a receipt
	Error   string // one of those noted
}

// UploadCopies tells it for each relay.
func (s *Store) UploadCopies(ctx context.Context, upload int64) ([]RelayPieces, error) {
	var all []RelayPieces
	_, err := sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (struct{}, error) {
		var relay []byte
		var address, reason string
		var state CopyState
		var count, pulled int64
		if err := scan(&relay, &address, &state, &count, &pulled, &reason); err != nil {
			return struct{}{}, err
		}
		key := publicKey(relay)
		if len(all) == 0 || all[len(all)-1].Relay != key {
			all = append(all, RelayPieces{Relay: key, Address: address, Pieces: map[CopyState]int64{}})
		}
		r := &all[len(all)-1]
		r.Pieces[state] += count
		r.Pulled += pulled
		if reason != "" {
			r.Error = reason
		}
		return struct{}{}, nil
	}, `SELECT c.relay, max(c.address), c.state, count(*),
		sum(EXISTS (SELECT 1 FROM receipts r WHERE r.relay = c.relay AND r.hash = c.hash)), max(c.error)
		FROM outbox o JOIN copies c ON c.n = o.n WHERE o.upload = ? GROUP BY c.relay, c.state ORDER BY c.relay, c.state`, upload)
	return all, err
}

// ThinPieces counts the pieces of a file that fewer relays have than it asks for, and those of them that no relay will
// have any more without somebody doing something.
func (s *Store) ThinPieces(ctx context.Context, upload int64) (thin, lost int64, err error) {
	err = s.sql.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(stored + queued < copies), 0) FROM (
		SELECT u.copies, coalesce(sum(c.state = 'stored'), 0) AS stored, coalesce(sum(c.state = 'queued'), 0) AS queued
		FROM uploads u JOIN outbox o ON o.upload = u.n LEFT JOIN copies c ON c.n = o.n WHERE u.n = ? GROUP BY o.n)
		WHERE stored < copies`, upload).Scan(&thin, &lost)
	return thin, lost, err
}

// PieceFriends maps the keys to which pieces of files are written to the friends to whom the files go.
func (s *Store) PieceFriends(ctx context.Context) (map[protocol.PublicKey]protocol.PublicKey, error) {
	friends := map[protocol.PublicKey]protocol.PublicKey{}
	_, err := sqlite.Collect(ctx, s.sql, func(scan func(...any) error) (struct{}, error) {
		var reader, friend []byte
		if err := scan(&reader, &friend); err != nil {
			return struct{}{}, err
		}
		friends[publicKey(reader)] = publicKey(friend)
		return struct{}{}, nil
	}, `SELECT o.receiver, u.receiver FROM outbox o JOIN uploads u ON u.n = o.upload`)
	return friends, err
}

// EnqueueManifest queues the message that tells the friend of a file, once: the error is ErrNoUpload if it was before.
func (s *Store) EnqueueManifest(ctx context.Context, upload int64, to protocol.PublicKey, relays []Relay,
	seal func(device string, seq int64) (*Outgoing, error)) (*Outgoing, error) {
	var message *Outgoing
	err := s.tx(ctx, func(tx *sql.Tx) (err error) {
		var waits bool
		err = tx.QueryRowContext(ctx, `SELECT manifest IS NULL FROM uploads WHERE n = ?`, upload).Scan(&waits)
		if errors.Is(err, sql.ErrNoRows) || err == nil && !waits {
			return ErrNoUpload
		}
		if err != nil {
			return err
		}
		if message, err = s.enqueue(ctx, tx, to, relays, seal); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE uploads SET manifest = ? WHERE n = ?`, message.N, upload)
		return err
	})
	return message, err
}

// RemoveUpload marks a file as removed, with all its pieces that are or may be on a relay. Its message, if there is one, is
// removed by [Store.Remove].
func (s *Store) RemoveUpload(ctx context.Context, n int64) error {
	return s.tx(ctx, func(tx *sql.Tx) error { return s.removeUpload(ctx, tx, n) })
}

func (s *Store) removeUpload(ctx context.Context, tx *sql.Tx, n int64) error {
	now := s.now()
	if _, err := tx.ExecContext(ctx, `UPDATE uploads SET removed = coalesce(removed, ?) WHERE n = ?`, now, n); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE outbox SET removed = coalesce(removed, ?) WHERE upload = ?`, now, n); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE copies SET error = '', changed = ?1,
		state = CASE WHEN EXISTS (SELECT 1 FROM attempts a WHERE a.n = copies.n AND a.relay = copies.relay) THEN 'removing' ELSE 'gone' END
		WHERE state IN ('queued', 'stored') AND n IN (SELECT n FROM outbox WHERE upload = ?2)`, now, n)
	return err
}

// LeaseUpload makes holder the one program that sends a file until then. It is false while another one does; held is until when.
func (s *Store) LeaseUpload(ctx context.Context, n int64, holder string, until protocol.Timestamp) (ours bool, held protocol.Timestamp, err error) {
	ours, err = s.changed(ctx, `UPDATE uploads SET holder = ?2, held_until = ?3 WHERE n = ?1 AND (holder = ?2 OR held_until < ?4)`, n, holder, until, s.now())
	if err == nil && !ours {
		err = s.sql.QueryRowContext(ctx, `SELECT held_until FROM uploads WHERE n = ?`, n).Scan(&held)
	}
	return ours, held, err
}

// ReleaseUpload ends a lease.
func (s *Store) ReleaseUpload(ctx context.Context, n int64, holder string) error {
	return s.exec(ctx, `UPDATE uploads SET held_until = 0 WHERE n = ? AND holder = ?`, n, holder)
}
