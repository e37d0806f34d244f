package relaybackup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// ErrDiffers: what came back is not what was backed up.
var ErrDiffers = errors.New("what came back is not what was backed up")

func differs(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDiffers, fmt.Sprintf(format, args...))
}

// Proof is what was seen of a database that came back.
type Proof struct {
	Tables    int   `json:"tables"`
	Rows      int64 `json:"rows"`
	Records   int64 `json:"records"`
	Accounts  int64 `json:"accounts"`  // whose sums are those of their records
	Envelopes int   `json:"envelopes"` // that were drawn, and are as their senders signed them
}

const (
	samples    = 64 // places from which envelopes are drawn
	sampleSize = 8  // envelopes from each
)

// check holds a database that came back against the manifest. Nobody has written to it yet.
func check(ctx context.Context, conn *pgx.Conn, m *Manifest) (p Proof, err error) {
	version, err := schemaVersion(ctx, conn)
	if err != nil {
		return p, err
	}
	if version != m.Database.Schema {
		return p, differs("its schema is %d, and was %d", version, m.Database.Schema)
	}
	if err := p.count(ctx, conn, m); err != nil {
		return p, err
	}
	indexes, rules, err := countRules(ctx, conn)
	if err != nil {
		return p, err
	}
	if indexes != m.Database.Indexes || rules != m.Database.Rules {
		return p, differs("it has %d indexes and %d constraints, and had %d and %d", indexes, rules, m.Database.Indexes, m.Database.Rules)
	}
	if err := p.sums(ctx, conn); err != nil {
		return p, err
	}
	return p, p.draw(ctx, conn, m.Database.Cursor)
}

func (p *Proof) count(ctx context.Context, conn *pgx.Conn, m *Manifest) error {
	rows, err := countRows(ctx, conn)
	if err != nil {
		return err
	}
	delete(rows, "relay_cursor")
	if len(rows) != len(m.Database.Rows) {
		return differs("it has %d tables, and had %d", len(rows), len(m.Database.Rows))
	}
	for name, had := range m.Database.Rows {
		if has, there := rows[name]; !there || has != had {
			return differs("%s has %d rows, and had %d", name, has, had)
		}
		p.Rows += had
	}
	p.Tables, p.Records, p.Accounts = len(rows), rows["records"], rows["accounts"]
	return nil
}

// sums holds what accounts say is stored against what is stored.
func (p *Proof) sums(ctx context.Context, conn *pgx.Conn) error {
	var wrong int64
	err := conn.QueryRow(ctx, `SELECT count(*) FROM accounts a
		FULL JOIN (SELECT account, sum(bytes) AS bytes FROM records WHERE state = 0 GROUP BY account) r ON r.account = a.key
		WHERE coalesce(a.stored, 0) <> coalesce(r.bytes, 0)`).Scan(&wrong)
	if err == nil && wrong > 0 {
		err = differs("what is stored of %d accounts is not what they say", wrong)
	}
	return err
}

// draw reads envelopes from all over the table: hash and signature tell whether a byte of them has changed.
func (p *Proof) draw(ctx context.Context, conn *pgx.Conn, cursor int64) error {
	drawn := map[int64]bool{} // in a small table the places overlap
	for range samples {
		rows, err := conn.Query(ctx, `SELECT n, sender, receiver, id, hash, envelope FROM records WHERE n >= $1 AND state = 0 ORDER BY n LIMIT $2`, rand.Int64N(cursor+1), sampleSize)
		if err != nil {
			return err
		}
		var sender, receiver, hash, envelope []byte
		var id string
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&n, &sender, &receiver, &id, &hash, &envelope}, func() error {
			if drawn[n] {
				return nil
			}
			drawn[n] = true
			p.Envelopes++
			return checkRecord(sender, receiver, id, hash, envelope)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func checkRecord(sender, receiver []byte, id string, hash, envelope []byte) error {
	e, err := protocol.ParseEnvelope(envelope)
	if err != nil {
		return differs("the record %.64q is no envelope: %v", id, err)
	}
	sum := e.Hash()
	if !slices.Equal(e.From[:], sender) || !slices.Equal(e.To[:], receiver) || !slices.Equal(sum[:], hash) {
		return differs("the record %.64q is another one", id)
	}
	if err := e.Verify(); err != nil {
		return differs("the record %.64q is not as it was signed", id)
	}
	return nil
}
