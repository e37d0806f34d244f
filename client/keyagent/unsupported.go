//go:build !linux && !darwin

package keyagent

import "context"

// SocketPath fails with ErrUnsupported on this system.
func SocketPath(stateFolder, runtimeFolder string) (string, error) { return "", ErrUnsupported }

// Serve fails with ErrUnsupported on this system. It overwrites c.Secret.
func Serve(_ context.Context, c Config) error {
	clear(c.Secret)
	return ErrUnsupported
}

// ServeSpawned fails with ErrUnsupported on this system.
func ServeSpawned(context.Context, Config) error { return ErrUnsupported }

// Spawn fails with ErrUnsupported on this system.
func Spawn(context.Context, SpawnConfig) (State, error) { return State{}, ErrUnsupported }

// Fetch fails with ErrUnsupported on this system.
func Fetch(context.Context, string) ([]byte, error) { return nil, ErrUnsupported }

// Status fails with ErrUnsupported on this system.
func Status(context.Context, string) (State, error) { return State{}, ErrUnsupported }

// Lock fails with ErrUnsupported on this system.
func Lock(context.Context, string) error { return ErrUnsupported }
