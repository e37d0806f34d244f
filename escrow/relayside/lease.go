package relayside

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// errNotMine ends the work of a process whose lease another one took.
var errNotMine = errors.New("another process does the work of contracts")

func (m *Manager) drawName() error {
	if _, err := rand.Read(m.holder[:]); err != nil {
		return fmt.Errorf("read entropy: %w", err)
	}
	return nil
}

// lease takes or renews the right to work. The error is [errNotMine] while another process has it.
func (m *Manager) lease(ctx context.Context) error {
	now := m.now()
	tag, err := m.db.Pool().Exec(ctx, `UPDATE contract_work SET holder = $1, until = $2 WHERE holder = $1 OR holder IS NULL OR until < $3`,
		m.holder[:], now.Add(m.limits.Lease), now)
	if err != nil {
		return wrap(err, "lease the work of contracts")
	}
	if tag.RowsAffected() == 0 {
		return errNotMine
	}
	return nil
}

// unleasePatience bounds the end: a lease that is not given back runs out by itself.
const unleasePatience = 2 * time.Second

// unlease lets the next process begin at once.
func (m *Manager) unlease() {
	ctx, cancel := context.WithTimeout(context.Background(), unleasePatience)
	defer cancel()
	if _, err := m.db.Pool().Exec(ctx, `UPDATE contract_work SET holder = NULL, until = 0 WHERE holder = $1`, m.holder[:]); err != nil {
		m.log.Warn("the lease of the work of contracts is left to run out", "err", err)
	}
}

// workTx is a transaction of the work: it holds the lease's row, so that it and another worker's never overlap, and
// it changes nothing if the lease is another's by now.
func (m *Manager) workTx(ctx context.Context, fn func(pgx.Tx) error) error {
	return m.db.Tx(ctx, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, `SELECT coalesce(holder = $1, false) FROM contract_work FOR UPDATE`, m.holder[:]).Scan(&mine); err != nil {
			return err
		}
		if !mine {
			return errNotMine
		}
		return fn(tx)
	})
}
