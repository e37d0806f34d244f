package testnode

import (
	"testing"

	"relaymarket/internal/regtest"
)

// FreeAddress is [regtest.FreeAddress].
func FreeAddress(t testing.TB) string {
	t.Helper()
	address, err := regtest.FreeAddress()
	if err != nil {
		t.Fatalf("testnode: %v", err)
	}
	return address
}
