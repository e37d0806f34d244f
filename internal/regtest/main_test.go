package regtest_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"relaymarket/internal/leakcheck"
	"relaymarket/internal/regtest"
)

// launcher is the argument that makes the test binary run a node until it is killed.
const launcher = "launch-a-node"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == launcher {
		n, err := regtest.Launch(context.Background(), regtest.Config{Dir: os.Args[2], Plain: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(n.PID())
		select {}
	}
	leakcheck.Main(m)
}
