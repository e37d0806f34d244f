package willing

import (
	"context"
	"errors"

	"relaymarket/protocol"
)

// Active tells whether a key has an account that takes writes.
func (s *Store) Active(ctx context.Context, key protocol.PublicKey) (bool, error) {
	a, err := s.cfg.Books.Get(ctx, key)
	if errors.Is(err, protocol.CodeNoAccount) {
		return false, nil
	}
	return a.Active, err
}
