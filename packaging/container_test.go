package packaging

import (
	"bufio"
	"debug/elf"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relaymarket/internal/testpg"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// image is what the last stage of the Containerfile makes.
type image struct {
	copies      []copied
	environ     []string
	uid, gid    uint32
	entry, args []string
}

// copied is a COPY from the stage before.
type copied struct {
	from, to string
	owner    string // uid:gid, empty: root's
}

// readImage reads the instructions that the file uses, and knows no others: one that is new here has to be looked at.
func readImage(t *testing.T) image {
	t.Helper()
	text, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, last, found := strings.Cut(string(text), "\nFROM scratch\n")
	if !found {
		t.Fatal("the image is not made from scratch")
	}
	var i image
	list := func(text string) (all []string) {
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return all
	}
	for line := range strings.Lines(last) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch instruction {
		case "", "#", "VOLUME", "EXPOSE", "STOPSIGNAL":
		case "COPY":
			var c copied
			var paths []string
			for _, field := range strings.Fields(rest) {
				if owner, is := strings.CutPrefix(field, "--chown="); is {
					c.owner = owner
				} else if !strings.HasPrefix(field, "--") {
					paths = append(paths, field)
				}
			}
			c.from, c.to = paths[0], paths[1]
			i.copies = append(i.copies, c)
		case "ENV":
			i.environ = append(i.environ, strings.Fields(rest)...)
		case "USER":
			i.uid, i.gid = owners(t, rest)
		case "ENTRYPOINT":
			i.entry = list(rest)
		case "CMD":
			i.args = list(rest)
		default:
			t.Fatalf("this test does not know %s", instruction)
		}
	}
	return i
}

func owners(t *testing.T, text string) (uid, gid uint32) {
	t.Helper()
	a, b, _ := strings.Cut(text, ":")
	u, err := strconv.ParseUint(a, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	g, err := strconv.ParseUint(b, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(u), uint32(g)
}

// unpack makes the image's root folder, out of what scripts/static.sh built and this system's own certificates.
func (i image) unpack(t *testing.T) string {
	t.Helper()
	out, root := t.TempDir(), t.TempDir()
	build := exec.Command("../scripts/static.sh", out) // CGO_ENABLED is the environment's, and 0 if it says nothing: so is the Containerfile's
	build.Env = os.Environ()
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, c := range i.copies {
		from, to := c.from, filepath.Join(root, c.to)
		if rest, built := strings.CutPrefix(from, "/out"); built {
			from = filepath.Join(out, rest)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if text, err := exec.Command("cp", "-a", "-L", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		uid, gid := uint32(0), uint32(0)
		if c.owner != "" {
			uid, gid = owners(t, c.owner)
		}
		if err := os.Chown(to, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	// Whoever runs in there has to get there.
	for folder := root; folder != "/" && folder != os.TempDir(); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// run is the image's program in its root folder, as its user, with nothing of this test's environment.
func (i image) run(root string, args ...string) *exec.Cmd {
	cmd := &exec.Cmd{Path: i.entry[0], Args: append(append([]string{}, i.entry...), args...), Dir: "/", Env: i.environ,
		SysProcAttr: &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: i.uid, Gid: i.gid}}}
	return cmd
}

// overTCP is the URL of a database that listens on a Unix socket, by way of a port of loopback.
func overTCP(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(u.Query().Get("host"), ".s.PGSQL."+u.Query().Get("port"))
	if u.Query().Get("port") == "" {
		socket = filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var carrying sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); carrying.Wait() }) // whoever is connected has ended before
	carrying.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			carrying.Go(func() {
				defer func() { _ = conn.Close() }()
				to, err := net.Dial("unix", socket)
				if err != nil {
					t.Errorf("the database: %v", err)
					return
				}
				defer func() { _ = to.Close() }()
				go func() { _, _ = io.Copy(to, conn); _ = to.Close() }()
				_, _ = io.Copy(conn, to)
			})
		}
	})
	return "postgres://" + u.User.Username() + "@" + l.Addr().String() + u.Path + "?sslmode=disable"
}

// The program of the image needs nothing but itself and what the image has, and serves with a database elsewhere. No container
// engine is needed to show it: a container of one process is a root folder and a user.
func TestImage(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root") // skipped there, it would be skipped for ever
		}
		t.Skip("a root folder of one's own needs root")
	}
	i := readImage(t)
	root := i.unpack(t)
	program, err := elf.Open(filepath.Join(root, i.entry[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			t.Error("the program wants a loader")
		}
	}
	if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the program wants %q (%v)", libraries, err)
	}

	if out, err := i.run(root, "init").CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	// Without a database of one's own it says what it lacks.
	if out, err := i.run(root, i.args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "database-url") {
		t.Errorf("without a database: %v\n%s", err, out)
	}
	serve := i.run(root, append(i.args, "--json", "--listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0")...)
	serve.Env = append(serve.Env, "RELAYD_DATABASE_URL="+overTCP(t, testpg.New(t)))
	var log strings.Builder
	serve.Stderr = &log
	out, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = serve.Process.Kill() }) // it has ended, unless the test was cut short
	var ready struct{ URL, Operator string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &ready) != nil {
		_ = serve.Wait()
		t.Fatalf("it is not ready: %s%v\n%s", line, err, &log)
	}
	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, address := range []string{ready.URL + "/.well-known/relaymarket", ready.Operator + "/readyz"} {
		if reply, err := client.Get(address); err != nil {
			t.Error(err)
		} else if _ = reply.Body.Close(); reply.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", address, reply.Status)
		}
	}
	operator, _ := strings.CutPrefix(ready.Operator, "http://")
	if out, err := i.run(root, "top", "--once", "--every", "100ms", "--operator-listen", operator).CombinedOutput(); err != nil || !strings.Contains(string(out), "written/s") {
		t.Errorf("top beside it: %v\n%s", err, out)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := serve.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, &log)
	}
}

// systemd finds nothing wrong with the service, and little that it should not be allowed. (Its own scale goes from 0 to 10; a service that
// says nothing has 9.6.)
func TestService(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd-analyze is needed: scripts/setup.sh test installs it")
		}
		t.Skip("there is no systemd-analyze")
	}
	text, err := os.ReadFile("systemd/relayd.service")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable() // stands for the program, which has to be there
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "relayd.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/relayd", self)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", unit).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
