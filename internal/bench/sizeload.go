package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"relaymarket/internal/relaynode"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// Who the loaded records are from and to: each of some people has some friends. Of the rows, one in signedEvery is a
// record that was really signed, to a reader of its own; what the others hold as their envelope are bytes of the right
// number, which nobody asks for.
const (
	roleLoaded    = "loaded"
	roleSigned    = "signed"
	loadPeople    = 1000
	loadFriends   = 20
	signedReaders = 16
	signedEvery   = 1000
	loadPulls     = 8 // maxPulls, as clients choose it
)

// One in dueEvery of the rows has been expired for over an hour, all over the table: what is swept is never a piece
// of it. It is so when the operators' records live differently long, and is the hard case.
const (
	dueEvery = 4
	loadAge  = 3 * time.Hour
	dueSince = 2 * time.Hour
	loadLife = 30 * 24 * time.Hour
)

const (
	loadRows    = 10_000 // in one COPY
	loadConns   = 2
	loadPerMS   = 30 // rows a millisecond of the times they bear
	loadBodies  = 256
	tellLoading = time.Minute
)

// loader makes rows as the relay would have written them.
type loader struct {
	g       *grown
	table   table
	first   int64 // place of row 0
	base    int   // number of row 0 among all ever loaded
	rows    int
	due     bool // one in dueEvery has expired
	now     time.Time
	people  []*protocol.PrivateKey
	keys    []protocol.PublicKey // of people
	signed  []protocol.PublicKey // readers of what was signed
	bodies  [][]byte
	next    atomic.Int64 // row to begin the next COPY at
	done    atomic.Int64
	mu      sync.Mutex
	stored  map[protocol.PublicKey]int64
	expired int // rows
}

// load adds rows to the table of the relay that grows. Sums and cursor are then what they would be.
func (r *tables) load(ctx context.Context, t table, rows int, due bool) error {
	g := r.full
	l := &loader{g: g, table: t, base: g.made, rows: rows, due: due, now: time.Now(), stored: make(map[protocol.PublicKey]int64)}
	if err := l.open(ctx); err != nil {
		return err
	}
	began := time.Now()
	told := began
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for range loadConns {
		all.Go(func() {
			if err := l.copyAll(ctx); err != nil {
				cancel(err)
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for loading := true; loading; {
		select {
		case <-finished:
			loading = false
		case <-ticker.C:
			n := l.done.Load()
			rate := float64(n) / time.Since(began).Seconds()
			what := fmt.Sprintf("loading %d rows of %d bytes: %d done, %.0f a second, %.0f s left", rows, t.bytes, n, rate, float64(int64(rows)-n)/max(rate, 1))
			r.say.step(what)
			if !r.say.terminal && time.Since(told) > tellLoading {
				told = time.Now()
				r.say.tell(what)
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	g.loaded, g.made, g.due = g.loaded+rows, g.made+rows, g.due+l.expired
	return errors.Join(l.charge(ctx), r.report.loaded(t, rows, time.Since(began)))
}

// open makes the people, their accounts and their places.
func (l *loader) open(ctx context.Context) (err error) {
	if l.people, err = people(roleLoaded, loadPeople); err != nil {
		return err
	}
	readers, err := people(roleSigned, signedReaders)
	if err != nil {
		return err
	}
	for _, k := range l.people {
		l.keys = append(l.keys, k.Public())
	}
	for _, k := range readers {
		l.signed = append(l.signed, k.Public())
	}
	for i := range int64(loadBodies) {
		body := make([]byte, l.table.bytes)
		_, _ = randomness(i).Read(body) // never fails
		l.bodies = append(l.bodies, []byte(base64.StdEncoding.EncodeToString(body))[:l.table.bytes])
	}
	if l.base == 0 {
		err = relaynode.WithBooks(ctx, l.g.relay.database(), func(ctx context.Context, b *books.Store) error {
			for _, k := range l.keys {
				if err := b.Put(ctx, books.Grant{Key: k, QuotaStored: 1e15, QuotaMoved: 1e15, LastDay: "9999-12-31"}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("grant: %w", err)
		}
	}
	// Nobody listens or pulls while a table is loaded, so the places may be taken all at once.
	err = l.g.db.QueryRow(ctx, `UPDATE relay_cursor SET n = n + $1 RETURNING n - $1 + 1`, l.rows).Scan(&l.first)
	return err
}

// copyAll copies portion after portion, until none is left.
func (l *loader) copyAll(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, l.g.cluster.URL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, `SET synchronous_commit = off`); err != nil {
		return err
	}
	columns := []string{"n", "sender", "receiver", "id", "account", "bytes", "timestamp", "expires", "written",
		"max_pulls", "request_hash", "hash", "envelope"}
	for {
		from := int(l.next.Add(loadRows)) - loadRows
		if from >= l.rows {
			return nil
		}
		k := min(loadRows, l.rows-from)
		stored, expired := make(map[protocol.PublicKey]int64), 0
		copied, err := conn.CopyFrom(ctx, pgx.Identifier{"records"}, columns, pgx.CopyFromSlice(k, func(i int) ([]any, error) {
			row, err := l.row(from + i)
			if err != nil {
				return nil, err
			}
			stored[row.sender] += int64(len(row.envelope))
			if row.expires.Before(l.now) {
				expired++
			}
			return []any{l.first + int64(from+i), row.sender[:], row.receiver[:], row.id, row.sender[:], int32(len(row.envelope)), row.timestamp.UnixMilli(),
				row.expires.UnixMilli(), row.timestamp.UnixMilli(), int32(loadPulls), row.request[:], row.hash[:], row.envelope}, nil
		}))
		if err == nil && copied != int64(k) {
			err = errors.New("COPY took fewer rows than were sent")
		}
		if err != nil {
			return err
		}
		l.done.Add(int64(k))
		l.mu.Lock()
		for key, bytes := range stored {
			l.stored[key] += bytes
		}
		l.expired += expired
		l.mu.Unlock()
	}
}

type loadedRow struct {
	sender, receiver   protocol.PublicKey
	id                 string
	timestamp, expires time.Time
	request, hash      protocol.Hash
	envelope           []byte
}

// row is the i-th row. It is the same in every run but for its time.
func (l *loader) row(i int) (loadedRow, error) {
	number := uint64(l.base + i)
	random := rand.NewPCG(number, 0)
	one, two := random.Uint64(), random.Uint64()
	sender := int(one % loadPeople)
	since := time.Duration(i/loadPerMS) * time.Millisecond
	row := loadedRow{
		sender:    l.keys[sender],
		receiver:  l.keys[(sender+1+int(two%loadFriends)*37)%loadPeople],
		timestamp: l.now.Add(since - loadAge),
		expires:   l.now.Add(since + loadLife),
	}
	// Ids are those of the usual client, version 7 UUIDs.
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[8:], one>>2|1<<63)
	binary.BigEndian.PutUint64(id[:8], uint64(row.timestamp.UnixMilli())<<16|0x7000|two>>52)
	row.id = id.String()
	if number%signedEvery == 0 {
		return row, l.sign(&row, l.people[sender], number)
	}
	if l.due && random.Uint64()%dueEvery == 0 {
		row.expires = l.now.Add(since - dueSince)
	}
	row.envelope = l.bodies[two%loadBodies]
	row.hash = sha256.Sum256(binary.BigEndian.AppendUint64(nil, number))
	row.request = sha256.Sum256(row.hash[:])
	return row, nil
}

// sign makes a row of what the relay would have stored for a write.
func (l *loader) sign(row *loadedRow, from *protocol.PrivateKey, number uint64) error {
	row.receiver = l.signed[number/signedEvery%signedReaders]
	const around = 520 // bytes of an envelope with that id and no content
	sealed := make([]byte, max(l.table.bytes-around, 4)/4*3)
	random := randomness(int64(number))
	_, _ = random.Read(sealed) // never fails
	var aux [32]byte
	_, _ = random.Read(aux[:])
	e, err := protocol.SignWith(from, row.receiver, protocol.TimestampOf(row.timestamp), &protocol.Write{
		Relay: l.g.relay.key, RecordID: protocol.RecordID(row.id), Expires: protocol.TimestampOf(row.expires), MaxPulls: loadPulls,
		Content: base64.StdEncoding.EncodeToString(sealed)}, aux)
	if err != nil {
		return err
	}
	row.request, row.hash, row.envelope = e.RequestHash(), e.Hash(), e.Bytes()
	return nil
}

// charge gives the accounts what the rows would have cost them.
func (l *loader) charge(ctx context.Context) error {
	var keys [][]byte
	var stored []int64
	for key, bytes := range l.stored {
		keys, stored = append(keys, append([]byte(nil), key[:]...)), append(stored, bytes)
	}
	y, m, _ := l.now.Add(-loadAge).UTC().Date()
	_, err := l.g.db.Exec(ctx, `UPDATE accounts a SET stored = a.stored + t.bytes, moved = a.moved + t.bytes * $3, month = $4
		FROM unnest($1::bytea[], $2::bigint[]) AS t (key, bytes) WHERE a.key = t.key`, keys, stored, 1+loadPulls, y*100+int(m))
	return err
}

// checkServed pulls some of the signed rows through the relay: they are what was signed.
func (g *grown) checkServed(ctx context.Context) error {
	reader, err := person(roleSigned, 0)
	if err != nil {
		return err
	}
	senders, err := people(roleLoaded, loadPeople)
	if err != nil {
		return err
	}
	c, err := dial(ctx, g.relay.host)
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }()
	query := protocol.PullQuery{Limit: pageRecords, PageID: g.author.pageID()}
	for _, k := range senders {
		query.Senders = append(query.Senders, k.Public())
	}
	path := "/inbox/" + reader.Public().String()
	body, err := g.author.pull(reader, query, nil)
	if err != nil {
		return err
	}
	reply, err := c.expect(http.StatusOK, request(http.MethodPost, path, g.relay.host, mediaLines, body))
	if err != nil {
		return err
	}
	page, err := protocol.ReadPage(bytes.NewReader(bytes.Clone(reply)))
	if err != nil {
		return err
	}
	if len(page.Lines) == 0 {
		return errors.New("the page has no record")
	}
	hashes := make([]protocol.Hash, len(page.Lines))
	for i, line := range page.Lines {
		if line.Envelope == nil {
			return errors.New("a record of the page is gone")
		}
		if err := line.Envelope.Verify(); err != nil {
			return fmt.Errorf("a record of the page: %w", err)
		}
		hashes[i] = line.Envelope.Hash()
	}
	// The relay judges the root: it is that of the hashes it was given.
	e, err := g.author.sign(reader, &protocol.Got{PageID: query.PageID, Root: protocol.MerkleRoot(hashes)})
	if err != nil {
		return err
	}
	_, err = c.expect(http.StatusNoContent, request(http.MethodPost, path+"/got", g.relay.host, mediaEnvelope, e.Bytes()))
	return err
}
