package main

import (
	"testing"

	"relaymarket/internal/testpg"
)

func TestMain(m *testing.M) { testpg.Main(m) }
