package records_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

func sk(s string) protocol.PublicKey { return protocol.PublicKey(sha256.Sum256([]byte(s))) }

func TestZZBig(t *testing.T) {
	url := os.Getenv("BIG")
	if url == "" {
		t.Skip()
	}
	h := joinHouse(t, url, key(t), new(atomic.Int64))
	many := make([]protocol.PublicKey, 1000)
	hundred := make([]protocol.PublicKey, 100)
	for i := range many {
		many[i] = sk(fmt.Sprint("s", i))
	}
	copy(hundred, many)
	at := func(n int) *string { s := fmt.Sprintf("aaaaaaaaaaaa.%d", n); return &s }
	bob := &reader{h: h, key: key(t)}
	timeit := func(name string, fn func() error) {
		for i := range 7 {
			start := time.Now()
			err := fn()
			if i == 0 || i == 6 {
				t.Logf("%-40s #%d %8.2f ms %v", name, i, float64(time.Since(start).Microseconds())/1000, err)
			}
		}
	}
	pull := func(name string, who protocol.PublicKey, senders []protocol.PublicKey, after *string, limit int64) {
		timeit(name, func() error {
			bob.pages++
			_, err := h.store.Pull(context.Background(), records.PullRequest{Reader: who, Senders: senders, After: after, Limit: limit, PageID: protocol.PageID(fmt.Sprint("p", time.Now().UnixNano()))})
			h.db.Pool().Exec(context.Background(), `UPDATE pages SET got='\x00', got_at=1 WHERE got IS NULL`)
			return err
		})
	}
	pull("idle stranger 1000 senders", sk("nobody"), many, nil, 1000)
	pull("idle bob 1000 senders at head", sk("bob"), many, at(1000000), 1000)
	pull("idle eve 1 sender of tombstones", sk("eve"), []protocol.PublicKey{sk("tombs")}, nil, 1000)
	pull("pull bob 1 sender limit 10", sk("bob"), many[:1], nil, 10)
	pull("pull bob 1 sender limit 1000", sk("bob"), many[:1], nil, 1000)
	pull("pull bob 100 senders limit 10", sk("bob"), hundred, nil, 10)
	pull("pull bob 100 senders limit 1000", sk("bob"), hundred, nil, 1000)
	pull("pull bob 1000 senders limit 1000", sk("bob"), many, nil, 1000)
	pull("pull bob 1000 senders limit 1", sk("bob"), many, nil, 1)
	pull("pull bob 1000 senders near head", sk("bob"), many, at(999900), 1000)
	timeit("single read none", func() error {
		_, err := h.store.Read(context.Background(), protocol.Path{Sender: sk("s1"), Receiver: sk("bob"), ID: "x"}, "x1")
		_ = err
		return nil
	})
	timeit("single read", func() error {
		_, err := h.store.Read(context.Background(), protocol.Path{Sender: sk("s1"), Receiver: sk("bob"), ID: "r11"}, protocol.PageID(fmt.Sprint("p", time.Now().UnixNano())))
		h.db.Pool().Exec(context.Background(), `UPDATE pages SET got='\x00', got_at=1 WHERE got IS NULL`)
		return err
	})
	list := func(name string, r records.ListRequest) {
		timeit(name, func() error { _, err := h.store.List(context.Background(), r); return err })
	}
	b := sk("bob")
	big, zero := protocol.Timestamp(1<<50), protocol.Timestamp(0)
	list("list all of alice", records.ListRequest{Sender: sk("alice"), Limit: 1000})
	list("list all of alice at head", records.ListRequest{Sender: sk("alice"), Limit: 1000, After: at(1000000)})
	list("list one of s1", records.ListRequest{Sender: sk("s1"), Receiver: &b, Limit: 1000})
	list("list all of tombs", records.ListRequest{Sender: sk("tombs"), Limit: 1000})
	list("list all of nobody", records.ListRequest{Sender: sk("nobody"), Limit: 1000})
	list("list alice afterTs future", records.ListRequest{Sender: sk("alice"), Limit: 1000, AfterTs: &big})
	list("list alice beforeTs 0", records.ListRequest{Sender: sk("alice"), Limit: 1000, BeforeTs: &zero})
	listen := func(name string, who protocol.PublicKey, senders []protocol.PublicKey, after *string) {
		timeit(name, func() error {
			ctx, c := context.WithTimeout(context.Background(), 1*time.Second)
			defer c()
			sub, err := h.store.Listen(ctx, who, senders, after)
			if err != nil {
				return err
			}
			defer sub.Close()
			_, err = sub.Next(ctx)
			return err
		})
	}
	listen("listen bob 1000 senders start", sk("bob"), many, nil)
	listen("listen bob 1 sender start", sk("bob"), many[:1], nil)
	listen("listen bob 1000 near head", sk("bob"), many, at(999000))
	timeit("write 1", func() error {
		return h.write(h.compose(key(t), sk("bob"), "x"))[0].Err
	})
	start := time.Now()
	if os.Getenv("SWEEP") != "" {
		h.advance(11 * time.Minute)
		err := h.store.Sweep(context.Background())
		t.Logf("sweep %v %v", time.Since(start), err)
	}
}
