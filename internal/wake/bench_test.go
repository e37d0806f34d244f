package wake_test

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"relaymarket/internal/natsnode"
	"relaymarket/internal/wake"
	"relaymarket/protocol"
)

// BenchmarkWakeUp is one wake-up after the other, from the process with the NATS server to another over loopback, here both in one. The
// processor time is that of both ends and the server.
func BenchmarkWakeUp(b *testing.B) {
	start := func(cfg natsnode.Config) *natsnode.Node {
		cfg.Token, cfg.Logger = "secret", slog.New(slog.DiscardHandler)
		n, err := natsnode.Start(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Close() })
		return n
	}
	host := start(natsnode.Config{Listen: "127.0.0.1:0"})
	guest := start(natsnode.Config{URLs: []string{host.URL()}})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	heard := make(chan int64, 1)
	from, to := wake.New(host, protocol.PublicKey{1}, nil), wake.New(guest, protocol.PublicKey{1}, nil)
	go func() { _ = from.Run(ctx, "one", func(int64) {}) }()
	go func() { _ = to.Run(ctx, "one", func(n int64) { heard <- n }) }()
	n := int64(1)
	for from.Committed(n); len(heard) == 0; time.Sleep(10 * time.Millisecond) { // until the other end listens
		n++
		from.Committed(n)
	}
	for len(heard) > 0 {
		<-heard
		time.Sleep(10 * time.Millisecond)
	}
	before := processorTime(b)
	for b.Loop() {
		n++
		from.Committed(n)
		<-heard
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(time.Microsecond)/float64(b.N), "cpu-µs/op")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
