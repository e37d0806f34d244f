//go:build linux || darwin

package keyagent

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// errWiped: the vault holds nothing any more.
var errWiped = errors.New("wiped")

// vault holds one secret in a page of its own, outside of Go's heap: the
// garbage collector neither copies it nor leaves it behind. It is safe for
// concurrent use.
type vault struct {
	mu   sync.Mutex
	page []byte // nil once wiped
	size int
}

// newVault copies secret, which is shorter than a page, and overwrites it.
func newVault(secret []byte) (*vault, error) {
	defer clear(secret)
	page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("memory for the secret: %w", err)
	}
	// Best effort: with a limit of zero on locked memory an agent that may be
	// swapped out is still better than a passphrase typed fifty times a day.
	_ = unix.Mlock(page)
	excludeFromDumps(page)
	copy(page, secret)
	return &vault{page: page, size: len(secret)}, nil
}

// use hands the secret itself to f, which must not keep it, and fails with
// errWiped when there is none.
func (v *vault) use(f func(secret []byte) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.page == nil {
		return errWiped
	}
	return f(v.page[:v.size])
}

// wipe overwrites the secret and gives its page back. More calls do nothing.
func (v *vault) wipe() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.page == nil {
		return
	}
	clear(v.page)
	_ = unix.Munmap(v.page)
	v.page = nil
}
