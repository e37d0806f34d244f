package relaynode

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"relaymarket/internal/status"
	"relaymarket/protocol"
)

const (
	// accountsShown is how many of the busiest accounts are, and accountsEvery how old what is shown of them may be: they are read by
	// going through all accounts.
	accountsShown = 20
	accountsEvery = 10 * time.Second
	// lookPatience is how long the database may take for a status.
	lookPatience = 2 * time.Second
	// freeEvery is how often the disk is looked at for the forecast.
	freeEvery = time.Minute
)

// look is what a node remembers for its operator.
type look struct {
	started  time.Time
	forecast status.Forecast

	mu       sync.Mutex // held while they are read: of several who ask, one does
	accounts []status.Account
	at       time.Time
}

// run follows the disk until ctx is done.
func (l *look) run(ctx context.Context, n *node) {
	if n.room == nil {
		return
	}
	tick := time.NewTicker(freeEvery)
	defer tick.Stop()
	for {
		free, _ := n.room.Free()
		l.forecast.Look(n.cfg.Clock(), free)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// status is how the relay is. A database that is away is part of it.
func (n *node) status(ctx context.Context) (*status.Status, error) {
	s, err := status.Collect(n.registry)
	if err != nil {
		return nil, fmt.Errorf("collect the metrics: %w", err)
	}
	now := n.cfg.Clock()
	s.At, s.Started, s.Key = now.UTC(), n.look.started.UTC(), n.cfg.Key.Public()
	if n.room != nil {
		free, keep := n.room.Free()
		s.Disk = n.look.forecast.Tell(now, free, keep)
	}
	asking, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	began := time.Now()
	if err := n.records.Ready(asking); err != nil {
		s.Database.Why = err.Error()
	} else {
		s.Database.Answers = true
	}
	s.Database.Millis = float64(time.Since(began).Microseconds()) / 1000
	readers, writers := n.store.db.Pool().Stat(), n.store.db.WritePool().Stat()
	s.Database.Connections = int64(readers.TotalConns() + writers.TotalConns())
	s.Database.Busy = int64(readers.AcquiredConns() + writers.AcquiredConns())
	s.Database.Most = int64(readers.MaxConns() + writers.MaxConns())
	s.Accounts, s.AccountsAt = n.busiest(asking, s.Database.Answers)
	return s, nil
}

// busiest are the accounts that move most, as they were a few seconds ago, or as they were when the database answered last.
func (n *node) busiest(ctx context.Context, answers bool) ([]status.Account, time.Time) {
	n.look.mu.Lock()
	defer n.look.mu.Unlock()
	now := n.cfg.Clock()
	if age := now.Sub(n.look.at); !answers || n.look.accounts != nil && age >= 0 && age < accountsEvery {
		return append([]status.Account{}, n.look.accounts...), n.look.at.UTC()
	}
	found, err := n.books.Busiest(ctx, accountsShown)
	if err != nil {
		n.cfg.Logger.Warn("the busiest accounts cannot be read", "err", err)
		return append([]status.Account{}, n.look.accounts...), n.look.at.UTC()
	}
	all := make([]status.Account, len(found))
	for i, a := range found {
		all[i] = status.Account{Key: a.Key, Kind: string(a.Kind), Note: a.Note, Stored: a.Stored, Moved: a.Moved, Active: a.Active}
	}
	n.look.accounts, n.look.at = all, now
	return append([]status.Account{}, all...), now.UTC()
}

// AskStatus is how to ask a running relay how it is. The error is [ErrNotRunning] when none answers.
func AskStatus(operator string, key *protocol.PrivateKey) func(context.Context) (*status.Status, error) {
	return func(ctx context.Context) (*status.Status, error) {
		var s status.Status
		err := askOperator(ctx, operator, key, http.MethodGet, "/status", nil, &s)
		return &s, err
	}
}
