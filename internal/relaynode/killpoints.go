//go:build killpoints

package relaynode

import (
	"time"

	"relaymarket/escrow/relayside"
	"relaymarket/internal/killpoint"
)

// underTest has the process die at a durable step of contracts, and the next one go on soon: what a dead process held is
// free after a second, not after fifteen.
func underTest(c *relayside.Config) {
	c.Checkpoint = killpoint.At()
	c.Limits.Lease, c.Limits.Poll = 300*time.Millisecond, 50*time.Millisecond
}
