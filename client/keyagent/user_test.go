//go:build linux || darwin

package keyagent_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relaymarket/client/keyagent"
)

const nobody = 65534

// asNobody is this test binary as another user's process. The user must be able
// to reach it, which the folder that go test builds in does not allow.
func asNobody(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	needRoot(t)
	folder, err := os.MkdirTemp("", "ka")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	must(t, os.Chmod(folder, 0o755))
	self, err := os.Executable()
	must(t, err)
	in, err := os.Open(self)
	must(t, err)
	defer in.Close()
	program := filepath.Join(folder, "program")
	out, err := os.OpenFile(program, os.O_WRONLY|os.O_CREATE, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, errors.Join(err, out.Close()))
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// Even with the folder and the socket wide open, the kernel says who asks.
func TestOtherUserIsNotServed(t *testing.T) {
	needRoot(t)
	socket, secret := newSocket(t), newSecret(t)
	serve(t, keyagent.Config{Socket: socket, Secret: secret})
	must(t, os.Chmod(filepath.Dir(filepath.Dir(socket)), 0o755))
	out, err := asNobody(t, "ask", socket).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("the folder let him in: %s, %v", out, err)
	}
	must(t, os.Chmod(filepath.Dir(socket), 0o755))
	must(t, os.Chmod(socket, 0o666))
	out, err = asNobody(t, "ask", socket).CombinedOutput()
	must(t, err)
	if !strings.HasPrefix(string(out), "0 bytes, ") {
		t.Errorf("another user got %s", out)
	}
	expectSecret(t, socket, secret)
}

// Nobody can plant an agent with a seed of his for somebody else, not for root
// either.
func TestAgentOfOtherUserIsNotBelieved(t *testing.T) {
	needRoot(t)
	socket := newSocket(t)
	must(t, os.Chmod(filepath.Dir(filepath.Dir(socket)), 0o755))
	must(t, os.Mkdir(filepath.Dir(socket), 0o700))
	must(t, os.Chown(filepath.Dir(socket), nobody, nobody))
	cmd := asNobody(t, "agent", "--socket", socket, "--for", "1m")
	cmd.Stdin = strings.NewReader("a planted secret")
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	if got, err := keyagent.Fetch(t.Context(), socket); !errors.Is(err, keyagent.ErrForeign) {
		t.Errorf("got %q, %v", got, err)
	}
	if err := keyagent.Lock(t.Context(), socket); !errors.Is(err, keyagent.ErrForeign) {
		t.Errorf("got %v", err)
	}
}
