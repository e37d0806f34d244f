package daemon_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relaymarket/client/daemon"
	"relaymarket/internal/localsock"
)

const nobody = 65534

// asNobody runs this test binary as another user, at a socket.
func asNobody(t *testing.T, socket string) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "rd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	self, err := os.Executable()
	if err == nil {
		err = os.Chmod(folder, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, "program")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "ask", socket)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// Nobody else is answered: the folder keeps him out and, with folder and socket wide open, the kernel says who asks.
func TestOtherUserIsNotServed(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	h := newHome(t)
	at := h.starts(daemon.Config{})
	socket, err := daemon.SocketPath(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	for folder := h.dir; folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out := asNobody(t, socket); !strings.Contains(out, "permission denied") {
		t.Errorf("the folder let him in: %s", out)
	}
	if err := errors.Join(os.Chmod(filepath.Dir(socket), 0o755), os.Chmod(socket, 0o666)); err != nil {
		t.Fatal(err)
	}
	if out := asNobody(t, socket); out != "told 0 bytes\n" {
		t.Errorf("he is %s", out)
	}
	if _, err := at.call.Status(t.Context()); err != nil {
		t.Errorf("and its own user: %v", err)
	}
}

// A second daemon is refused, and told the first one's process; an open folder, or something that is no socket, is not taken.
func TestOneDaemon(t *testing.T) {
	h := newHome(t)
	first := h.starts(daemon.Config{})
	second := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return daemon.New(daemon.Config{Client: h.client, Folder: h.dir, Settings: settings, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
			Ready: func() { t.Error("it serves"); cancel() }}).Run(ctx)
	}
	var running *daemon.RunningError
	if err := second(); !errors.As(err, &running) || running.PID != os.Getpid() {
		t.Errorf("a second one: %v", err)
	}
	if pid, is, err := daemon.Running(h.dir); err != nil || !is || pid != os.Getpid() {
		t.Errorf("running: %d, %t, %v", pid, is, err)
	}
	if _, err := first.call.Status(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
	first.stops()
	socket, err := daemon.SocketPath(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, is, err := daemon.Running(h.dir); err != nil || is {
		t.Errorf("running: %t, %v", is, err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second(); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if err := errors.Join(os.Remove(socket), os.Chmod(filepath.Dir(socket), 0o770)); err != nil {
		t.Fatal(err)
	}
	if err := second(); !errors.Is(err, localsock.ErrFolder) {
		t.Errorf("an open folder: %v", err)
	}
}

func TestUnit(t *testing.T) {
	unit, err := daemon.Unit([]string{"/opt/my relay/relay", "--dir", `/home/u/100% "new" $HOME\x`, "daemon"})
	want := `ExecStart="/opt/my relay/relay" "--dir" "/home/u/100%% \"new\" $$HOME\\x" "daemon"` + "\n"
	if err != nil || !strings.Contains(unit, want) {
		t.Errorf("%v, %s", err, unit)
	}
	if _, err := daemon.Unit([]string{"/bin/relay\nExecStartPre=/bin/evil"}); err == nil {
		t.Error("a line break got in")
	}
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // the machine has no systemd to ask
	}
	path := filepath.Join(t.TempDir(), "relay.service")
	text, err := daemon.Unit([]string{"/bin/true"})
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(verify, "verify", "--user", path)
	command.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	if out, err := command.CombinedOutput(); err != nil || strings.Contains(string(out), path) {
		t.Errorf("systemd-analyze: %v, %s", err, out)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	daemon.Notify("", "READY=1")
	daemon.Notify(path+"x", "READY=1") // nobody there is no matter
	daemon.Notify(path, "READY=1", "STATUS=Running")
	buffer := make([]byte, 100)
	n, err := l.Read(buffer)
	if err != nil || string(buffer[:n]) != "READY=1\nSTATUS=Running" {
		t.Errorf("%q, %v", buffer[:n], err)
	}
}
