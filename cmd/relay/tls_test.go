package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/relaytls"
)

// bareNode is a relay on an IP address, with a certificate that nobody but its own key vouches for.
func bareNode(t *testing.T) *testnode.Node {
	t.Helper()
	key, folder := testnode.NewKey(t), t.TempDir()
	return testnode.Start(t, testnode.Options{Key: key, Setup: func(c *relaynode.Config) {
		secure, err := relaytls.Own(key, []string{"127.0.0.1"}, folder, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		c.TLS = secure
	}})
}

// Such a relay is used by whoever types its key, and by those who have its user's card; nobody else is let near it unknowing.
func TestRelayWithItsOwnCertificate(t *testing.T) {
	t.Parallel()
	node := bareNode(t)
	host := strings.TrimPrefix(node.URL, "https://")
	alice, bob := user(t), user(t)
	node.Grant(t, alice.key(), bob.key())
	if _, errs, code := alice.types("relays", "add", node.URL); code != exitFailed || !strings.Contains(errs, "https://"+node.Key.Bech32()+"@"+host) {
		t.Errorf("without its key: exit %d\n%s", code, errs)
	}
	other := testnode.NewKey(t).Public()
	if _, errs, code := alice.types("relays", "add", "https://"+other.Bech32()+"@"+host); code != exitFailed || !strings.Contains(errs, "another relay") {
		t.Errorf("with another key: exit %d\n%s", code, errs)
	}
	if _, _, code := alice.types("relays", "add", "relay1nonsense@"+host); code != exitUsage {
		t.Errorf("with no key at all: exit %d", code)
	}
	for _, s := range []*terminal{alice, bob} {
		s.runs("relays", "add", "https://"+node.Key.Bech32()+"@"+host)
	}
	alice.runs("friend", "add", strings.TrimSpace(bob.runs("id", "--link")), "--name", "bob")
	bob.stdin = alice.runs("id", "--card", "-")
	bob.runs("friend", "add", "-", "--name", "alice")
	bob.stdin = ""
	alice.runs("send", "bob", "nobody reads along")
	if out := bob.runs("inbox"); !strings.Contains(out, "nobody reads along") {
		t.Errorf("bob's inbox:\n%s", out)
	}
}

// What relays are asked goes through a proxy that is named, names and all, and nowhere if that is down.
func TestProxy(t *testing.T) {
	t.Parallel()
	node := testnode.Start(t, testnode.Options{})
	proxy, passed := socks(t)
	alice := user(t)
	node.Grant(t, alice.key())
	alice.runs("relays", "add", node.URL, "--proxy", "socks5://"+proxy)
	if passed.Load() == 0 {
		t.Error("nothing went through the proxy")
	}
	before := passed.Load()
	alice.env = append(alice.env, "RELAY_PROXY=socks5://"+proxy)
	alice.runs("account")
	if passed.Load() == before {
		t.Error("nothing went through the proxy of the environment")
	}
	if out, errs, code := alice.types("account", "--proxy", "socks5://127.0.0.1:1"); code == 0 || !strings.Contains(errs, "refused") {
		t.Errorf("with a proxy that is down: exit %d\n%s%s", code, out, errs)
	}
	for _, wrong := range []string{"127.0.0.1:9050", "ftp://127.0.0.1:9050", "socks5://127.0.0.1"} {
		if _, errs, code := alice.types("account", "--proxy", wrong); code != exitUsage || !strings.Contains(errs, "socks5://host:port") {
			t.Errorf("--proxy %s: exit %d\n%s", wrong, code, errs)
		}
	}
}

// socks is a proxy (RFC 1928) without authentication, and how many connections it made.
func socks(t *testing.T) (address string, passed *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	passed = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = relay(c, passed) // the client says what went wrong
			}()
		}
	}()
	return l.Addr().String(), passed
}

// relay serves one connection of a proxy to an IPv4 address until one side ends it.
func relay(c net.Conn, passed *atomic.Int64) error {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, head[1])); err != nil {
		return err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return err
	}
	request := make([]byte, 10) // version, CONNECT, 0, IPv4, 4 bytes of address, 2 of port
	if _, err := io.ReadFull(c, request); err != nil {
		return err
	}
	if request[1] != 1 || request[3] != 1 {
		return errors.New("only CONNECT to IPv4 is known here")
	}
	to, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: request[4:8], Port: int(request[8])<<8 | int(request[9])})
	if err != nil {
		return err
	}
	defer to.Close()
	passed.Add(1)
	if _, err := c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(to, c); _ = to.CloseWrite() }()
	_, _ = io.Copy(c, to)
	return nil
}
