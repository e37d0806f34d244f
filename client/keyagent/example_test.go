//go:build linux || darwin

package keyagent_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"relaymarket/client/keyagent"
)

// How a command gets the seed: from the agent or, without one, from its user.
func ExampleFetch() {
	state, err := os.MkdirTemp("", "relay")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(state)
	socket, err := keyagent.SocketPath(state, os.Getenv("XDG_RUNTIME_DIR"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	entropy, err := keyagent.Fetch(ctx, socket)
	switch {
	case errors.Is(err, keyagent.ErrNotRunning), errors.Is(err, keyagent.ErrUnsupported):
		fmt.Println("passphrase:")
	case err != nil:
		log.Fatal(err)
	default:
		defer clear(entropy)
	}
	// Output: passphrase:
}
