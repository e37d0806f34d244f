package sdnotify

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is what systemd has: a socket for datagrams.
func manager(t *testing.T, name string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() string {
		t.Helper()
		buffer := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
}

func TestTold(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@relaymarket-sdnotify-" + strconv.Itoa(os.Getpid())} {
		told := manager(t, name)
		n := New([]string{"NOTIFY_SOCKET=" + name})
		for _, step := range []struct {
			do   func() error
			want string
		}{
			{func() error { return n.Ready("on https://a\nb") }, "READY=1\nSTATUS=on https://a b"},
			{n.Stopping, "STOPPING=1\nSTATUS=ending"},
			{func() error { return n.Status("waits") }, "STATUS=waits"},
		} {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			if got := told(); got != step.want {
				t.Errorf("it says %q, want %q", got, step.want)
			}
		}
		if err := n.Reloading(); err != nil {
			t.Fatal(err)
		}
		usec, found := strings.CutPrefix(told(), "RELOADING=1\nMONOTONIC_USEC=")
		if v, err := strconv.ParseInt(usec, 10, 64); !found || err != nil || v <= 0 {
			t.Errorf("reloading at %q", usec)
		}
	}
}

func TestNobodyAsked(t *testing.T) {
	for _, n := range []*Notifier{nil, {}, New(nil), New([]string{"WATCHDOG_USEC=1"})} {
		if err := n.Ready(""); err != nil {
			t.Error(err)
		}
		n.Watch(t.Context(), func(context.Context) error { t.Error("nobody wants a sign of life"); return nil })
	}
	gone := New([]string{"NOTIFY_SOCKET=" + filepath.Join(t.TempDir(), "gone")})
	if err := gone.Ready(""); err == nil {
		t.Error("nobody is there, and that is no error")
	}
}

// Signs of life stop when the service does not answer, which is what has systemd start it again.
func TestWatchdog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	told := manager(t, name)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := 0
	done := make(chan struct{})
	n := New([]string{"NOTIFY_SOCKET=" + name, "WATCHDOG_USEC=20000", "WATCHDOG_PID=" + strconv.Itoa(os.Getpid())})
	go func() {
		defer close(done)
		n.Watch(ctx, func(context.Context) error {
			if asked++; asked > 2 {
				cancel()
				return errors.New("hangs")
			}
			return nil
		})
	}()
	for range 2 {
		if got := told(); got != "WATCHDOG=1" {
			t.Errorf("it says %q", got)
		}
	}
	<-done
	if err := n.Status("last"); err != nil {
		t.Fatal(err)
	}
	if got := told(); got != "STATUS=last" {
		t.Errorf("a service that hangs says %q", got)
	}
	if other := New([]string{"NOTIFY_SOCKET=" + name, "WATCHDOG_USEC=20000", "WATCHDOG_PID=1"}); other.watchdog != 0 {
		t.Error("it answers for another process")
	}
}
