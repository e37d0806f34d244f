//go:build linux || darwin

package keyagent_test

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

	"relaymarket/client/keyagent"
)

func serveError(t *testing.T, socket string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	return keyagent.Serve(ctx, keyagent.Config{Socket: socket, Secret: newSecret(t), For: time.Hour, Ready: func() {
		t.Errorf("it serves at %s", socket)
		cancel()
	}})
}

func TestUnsafeFolder(t *testing.T) {
	socket := newSocket(t)
	folder := filepath.Dir(socket)
	must(t, os.Mkdir(folder, 0o700))
	for _, mode := range []os.FileMode{0o701, 0o710, 0o750, 0o755, 0o777} {
		must(t, os.Chmod(folder, mode))
		if err := serveError(t, socket); !errors.Is(err, keyagent.ErrFolder) || !strings.Contains(err.Error(), "chmod 700") {
			t.Errorf("%v: %v", mode, err)
		}
	}
	must(t, os.Chmod(folder, 0o700))

	link := filepath.Join(filepath.Dir(folder), "link")
	must(t, os.Symlink(folder, link))
	if err := serveError(t, filepath.Join(link, "socket")); !errors.Is(err, keyagent.ErrFolder) {
		t.Errorf("link: %v", err)
	}
	file := filepath.Join(filepath.Dir(folder), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if err := serveError(t, filepath.Join(file, "socket")); !errors.Is(err, keyagent.ErrFolder) {
		t.Errorf("file: %v", err)
	}
	if err := serveError(t, filepath.Join(folder, "no", "no", "socket")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing parent: %v", err)
	}
}

func TestFolderOfAnotherUser(t *testing.T) {
	needRoot(t)
	socket := newSocket(t)
	must(t, os.Mkdir(filepath.Dir(socket), 0o700))
	must(t, os.Chown(filepath.Dir(socket), nobody, nobody))
	if err := serveError(t, socket); !errors.Is(err, keyagent.ErrFolder) {
		t.Errorf("got %v", err)
	}
}

func TestBadPaths(t *testing.T) {
	socket := newSocket(t)
	folder := filepath.Dir(socket)
	for _, path := range []string{
		"", "socket", "agent/socket", folder + "/../agent/socket", folder + "/", folder + "/.new", folder + "/.lock",
		filepath.Join(folder, strings.Repeat("x", 107)),
	} {
		if err := serveError(t, path); !errors.Is(err, keyagent.ErrPath) {
			t.Errorf("serve %q: %v", path, err)
		}
		if _, err := keyagent.Fetch(t.Context(), path); !errors.Is(err, keyagent.ErrPath) {
			t.Errorf("fetch %q: %v", path, err)
		}
		_, err := keyagent.Spawn(t.Context(), keyagent.SpawnConfig{Argv: []string{"x"}, Socket: path, Secret: newSecret(t)})
		if !errors.Is(err, keyagent.ErrPath) {
			t.Errorf("spawn %q: %v", path, err)
		}
	}
	expectNoFile(t, folder)
}

func TestOtherFileIsLeftAlone(t *testing.T) {
	socket := newSocket(t)
	must(t, os.Mkdir(filepath.Dir(socket), 0o700))
	must(t, os.WriteFile(socket, []byte("mine"), 0o600))
	if err := serveError(t, socket); !errors.Is(err, keyagent.ErrPath) {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(socket); err != nil || string(data) != "mine" {
		t.Errorf("%q, %v", data, err)
	}
	expectNotRunning(t, socket)
}

func TestStaleSocketIsReplaced(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	folder := filepath.Dir(socket)
	must(t, os.Mkdir(folder, 0o700))
	// What agents leave behind that were killed: while serving, and while binding.
	for _, path := range []string{socket, filepath.Join(folder, ".new")} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		must(t, err)
		l.SetUnlinkOnClose(false)
		must(t, l.Close())
	}
	expectNotRunning(t, socket)
	stop, done := serve(t, keyagent.Config{Socket: socket, Secret: secret})
	expectSecret(t, socket, secret)
	stop()
	ends(t, done)
	expectNoFile(t, socket)
	expectNoFile(t, filepath.Join(folder, ".new"))
}

func TestSocketPath(t *testing.T) {
	long := "/" + strings.Repeat("long/", 30)
	owner := strconv.Itoa(os.Geteuid())
	path := func(state, runtime string) string {
		t.Helper()
		p, err := keyagent.SocketPath(state, runtime)
		must(t, err)
		return p
	}
	if got := path("/home/u/.relay", "/run/user/1"); got != "/home/u/.relay/agent/socket" {
		t.Errorf("short: %q", got)
	}
	if got := path(long, "/run/user/1"); filepath.Dir(got) != "/run/user/1/relay" {
		t.Errorf("runtime folder: %q", got)
	}
	for _, runtime := range []string{"", "relative", long} {
		if got := path(long, runtime); filepath.Dir(got) != "/tmp/relay-"+owner {
			t.Errorf("no runtime folder: %q", got)
		}
	}
	if one, other := path(long, ""), path(long+"other", ""); one == other {
		t.Error("two folders have one path")
	}
}

// A folder under two names has one agent, also where its name is hashed.
func TestSocketPathOfLink(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	state := filepath.Join(root, strings.Repeat("x", 100))
	must(t, os.Mkdir(state, 0o700))
	link := filepath.Join(root, strings.Repeat("y", 100))
	must(t, os.Symlink(state, link))
	a, errA := keyagent.SocketPath(state, "")
	b, errB := keyagent.SocketPath(link, "")
	if errA != nil || errB != nil || a != b {
		t.Errorf("%q %v, %q %v", a, errA, b, errB)
	}
}

// The longest path that is let through works, and one more byte does not.
func TestLongestPath(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	folder := filepath.Dir(socket)
	longest := ""
	for n := 1; ; n++ {
		path := filepath.Join(folder, strings.Repeat("x", n))
		if _, err := keyagent.Fetch(t.Context(), path); errors.Is(err, keyagent.ErrPath) {
			break
		}
		longest = path
	}
	if len(longest) < 103 || len(longest) > 107 {
		t.Errorf("the longest has %d bytes", len(longest))
	}
	serve(t, keyagent.Config{Socket: longest, Secret: secret})
	expectSecret(t, longest, secret)
}
