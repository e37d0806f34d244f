package books

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// Who pays for a key: its own account while that takes writes, otherwise the contract that lists it as a writer. Most
// keys have an account, and need no question; for the others the answer is remembered, and checked in the statement
// that relies on it.

// maxDelegates bounds the memory of writers without an account of their own: 100 bytes each. When it is full it
// starts anew: each of them then costs one transaction that judges.
const maxDelegates = 100_000

// delegates remembers the payers of keys without an account. It is safe for concurrent use.
type delegates struct {
	mu     sync.RWMutex
	payers map[protocol.PublicKey]protocol.PublicKey
}

func (d *delegates) payer(key protocol.PublicKey) protocol.PublicKey {
	if payer, ok := d.payers[key]; ok {
		return payer
	}
	return key
}

func (d *delegates) learn(owner, payer protocol.PublicKey) {
	d.mu.RLock()
	same := d.payer(owner) == payer
	d.mu.RUnlock()
	if same {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if owner == payer {
		delete(d.payers, owner)
		return
	}
	if d.payers == nil || len(d.payers) >= maxDelegates {
		d.payers = make(map[protocol.PublicKey]protocol.PublicKey)
	}
	d.payers[owner] = payer
}

// payersOf reads which of the keys $1 are writers of whom.
const payersOf = `SELECT t.key, w.account FROM unnest($1::bytea[]) AS t (key) CROSS JOIN LATERAL (
	SELECT account FROM writers WHERE key = t.key OFFSET 0) w`

// payableBy are the accounts that may pay for the keys $1, locked in the order of their keys.
const payableBy = `SELECT ` + accountColumns + ` FROM accounts WHERE key = ANY(ARRAY(
	SELECT key FROM unnest($1::bytea[]) AS t (key) UNION SELECT account FROM (` + payersOf + `) w)) ORDER BY key FOR UPDATE`

// payers is who pays for whom, in one transaction that has locked the accounts.
type payers struct {
	writers  map[protocol.PublicKey]protocol.PublicKey
	accounts map[protocol.PublicKey]*use
}

// of is the key of the account that pays for owner; without one, owner.
func (p *payers) of(owner protocol.PublicKey) protocol.PublicKey {
	own := p.accounts[owner]
	if own != nil && own.account.Active {
		return owner
	}
	payer, listed := p.writers[owner]
	if other := p.accounts[payer]; listed && other != nil && (own == nil || other.account.Active) {
		return payer
	}
	return owner
}

// read queues the question, and reads its answer.
func (p *payers) read(b *pgx.Batch, owners [][]byte) {
	b.Queue(payersOf, owners).Query(func(rows pgx.Rows) error {
		var key, account []byte
		_, err := pgx.ForEachRow(rows, []any{&key, &account}, func() error {
			p.writers[protocol.PublicKey(key)] = protocol.PublicKey(account)
			return nil
		})
		return err
	})
}

// Querier is a transaction, or a pool.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}
