package localpg

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunsUnprivileged(t *testing.T) {
	needRoot(t)
	c := startCluster(t, config(t, folder(t)))
	for _, path := range []string{"/proc/" + strconv.Itoa(c.PID()), c.place.dataDir(), c.place.logDir(), c.socketDir} {
		if uid := uidOf(t, path); uid == 0 || uid != c.place.account.uid {
			t.Errorf("%s belongs to user %d", path, uid)
		}
	}
	// Else the account could make root write where it points.
	for _, path := range []string{c.place.base, c.place.confDir(), c.place.startLog(), c.place.lockFile()} {
		if uid := uidOf(t, path); uid != 0 {
			t.Errorf("%s belongs to user %d", path, uid)
		}
	}
	info, err := os.Stat(c.socketDir)
	ok(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("socket folder: %v", info.Mode())
	}
}

func TestStrangersAreRefused(t *testing.T) {
	needRoot(t)
	psql, err := exec.LookPath("psql")
	ok(t, err)
	c := startCluster(t, config(t, folder(t)))
	nobody, err := accountByID(65534)
	ok(t, err)
	try := func() string {
		cmd := exec.Command(psql, c.URL(), "-c", "SELECT 1")
		cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", environment(), nobody.attributes()
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("a stranger got in: %s", out)
		}
		return string(out)
	}
	if out := try(); !strings.Contains(out, "Permission denied") {
		t.Errorf("stopped by something else than the folder: %s", out)
	}
	ok(t, os.Chmod(c.socketDir, 0o755))
	if out := try(); !strings.Contains(out, "Peer authentication failed") {
		t.Errorf("stopped by something else than the server: %s", out)
	}
	ok(t, os.Chmod(c.socketDir, 0o700))
}

func TestUnreachableFolder(t *testing.T) {
	needRoot(t)
	cfg := config(t, filepath.Join(t.TempDir(), "db")) // nobody but root gets there
	cfg.elsewhere = folder(t)
	c := startCluster(t, cfg)
	if !strings.HasPrefix(c.Folder(), cfg.elsewhere+"/db-") {
		t.Fatalf("stands in %s", c.Folder())
	}
	run(t, c.URL(), `CREATE TABLE kept AS SELECT 7 AS n`)
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), cfg.Dir) {
		t.Fatalf("second start: %v", err)
	}
	stop(t, c)

	// It is remembered, not worked out again: the folder may have moved, or be reachable by now.
	moved := filepath.Join(folder(t), "moved")
	ok(t, os.MkdirAll(filepath.Dir(moved), 0o711))
	ok(t, os.Rename(cfg.Dir, moved))
	before := c.Folder()
	cfg.Dir = moved
	c = startCluster(t, cfg)
	if got := query(t, c.URL(), `SELECT n::text FROM kept`); got != "7" || c.Folder() != before {
		t.Fatalf("n = %s in %s", got, c.Folder())
	}
	stop(t, c)

	saved := before + "-saved"
	ok(t, os.Rename(before, saved))
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), filepath.Join(moved, locationFile)) {
		t.Fatalf("began an empty database in place of a lost one: %v", err)
	}

	ok(t, os.Rename(saved, before))
	ok(t, Remove(t.Context(), cfg))
	if exists(before) || exists(cfg.Dir) {
		t.Fatal("the removed cluster is still there")
	}
}

func TestForeignOwner(t *testing.T) {
	needRoot(t)
	cfg := config(t, folder(t))
	c := startCluster(t, cfg)
	stop(t, c)
	// An ordinary user's folder: root must not write there in his place.
	ok(t, os.Chown(cfg.Dir, int(c.place.account.uid), int(c.place.account.gid)))
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "belongs to user "+c.place.account.name) {
		t.Fatalf("err = %v", err)
	}
}

// TestStalePIDFile leaves behind what a power cut does: a pid file, and a socket's lock, that name nobody,
// name a stranger, or say nothing.
func TestStalePIDFile(t *testing.T) {
	cfg := config(t, folder(t))
	c := startCluster(t, cfg)
	stop(t, c)

	stranger := exec.Command("/bin/sleep", "600")
	stranger.Dir, stranger.SysProcAttr = "/", c.place.account.attributes()
	ok(t, stranger.Start())
	t.Cleanup(func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	})
	dead := exec.Command("/bin/true")
	ok(t, dead.Run())

	text := func(pid int) string {
		return strconv.Itoa(pid) + "\n" + c.place.dataDir() + "\n1\n5432\n" + c.socketDir + "\n\n 1 1\nready\n"
	}
	for name, content := range map[string]string{
		"nobody": text(dead.Process.Pid), "stranger": text(stranger.Process.Pid), "empty": "", "zeros": "\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{filepath.Join(c.place.dataDir(), "postmaster.pid"), filepath.Join(c.socketDir, socketFile+".lock")} {
				ok(t, os.WriteFile(path, []byte(content), 0o600))
				ok(t, c.place.account.give(path))
			}
			stop(t, startCluster(t, cfg))
		})
	}
	if !alive(stranger.Process.Pid) {
		t.Fatal("the stranger was hurt")
	}
}

func TestLeftoverIsEnded(t *testing.T) {
	cfg := config(t, folder(t))
	c := startCluster(t, cfg)
	run(t, c.URL(), `CREATE TABLE kept AS SELECT 7 AS n`)
	stop(t, c)

	bin, err := findBinaries("", c.place)
	ok(t, err)
	orphan := exec.Command(bin.postgres(), arguments(c.place, c.socketDir, nil)...)
	orphan.Dir, orphan.Env, orphan.SysProcAttr = c.place.base, environment(), c.place.account.attributes()
	ok(t, orphan.Start())
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }()
	eventually(t, "the orphan is ready", func() bool { return ping(t.Context(), c.URL()) == nil })
	ok(t, endLeftover(t.Context(), c.place, slog.New(slog.DiscardHandler), 100*time.Millisecond))
	ok(t, <-ended)

	c = startCluster(t, cfg)
	if got := query(t, c.URL(), `SELECT n::text FROM kept`); got != "7" {
		t.Fatal(got)
	}
}

func TestUnfinishedDatabaseStartsOver(t *testing.T) {
	cfg := config(t, folder(t))
	left := filepath.Join(cfg.Dir, unfinished+"123")
	ok(t, os.MkdirAll(filepath.Join(left, "base"), 0o755))
	ok(t, os.WriteFile(filepath.Join(left, "PG_VERSION"), []byte("15\n"), 0o600))
	c := startCluster(t, cfg)
	ok(t, ping(t.Context(), c.URL()))
	if exists(left) {
		t.Error("the unfinished one is left")
	}
}

func TestForeignDataIsRefused(t *testing.T) {
	cfg := config(t, folder(t))
	ok(t, os.MkdirAll(filepath.Join(cfg.Dir, "data", "photos"), 0o755))
	if _, err := Start(t.Context(), cfg); err == nil {
		t.Fatal("made a database of a folder that is something else")
	}
	if !exists(filepath.Join(cfg.Dir, "data", "photos")) {
		t.Fatal("lost somebody's files")
	}
}

func TestOtherMajorVersion(t *testing.T) {
	cfg := config(t, folder(t))
	c := startCluster(t, cfg)
	stop(t, c)
	version := filepath.Join(c.place.dataDir(), "PG_VERSION")
	ok(t, os.WriteFile(version, []byte("9\n"), 0o600))
	_, err := Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "was made by PostgreSQL 9, but installed is ") || !strings.Contains(err.Error(), "postgresql-9") {
		t.Fatalf("err = %v", err)
	}
	for _, test := range []struct {
		made   string
		majors []int
		want   int // 0: none
	}{
		{"16", []int{17, 16, 15}, 16},
		{"", []int{17, 16}, 17},
		{"", []int{14, 16}, 16},
		{"", []int{14, 13}, 0},
		{"14", []int{17}, 0},
	} {
		p := place{base: t.TempDir()}
		if test.made != "" {
			ok(t, os.Mkdir(p.dataDir(), 0o700))
			ok(t, os.WriteFile(filepath.Join(p.dataDir(), "PG_VERSION"), []byte(test.made+"\n"), 0o600))
		}
		var found []binaries
		for _, major := range test.majors {
			found = append(found, binaries{major: major, version: strconv.Itoa(major) + ".1"})
		}
		got, err := choose(found, p)
		if got.major != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("data of %q, installed %v: chose %d, %v", test.made, test.majors, got.major, err)
		}
	}
}

func TestBinariesAreFound(t *testing.T) {
	root := t.TempDir()
	install := func(dir string) string {
		dir = filepath.Join(root, dir)
		ok(t, os.MkdirAll(dir, 0o755))
		ok(t, os.WriteFile(filepath.Join(dir, "postgres"), nil, 0o755))
		return dir
	}
	nine, fifteen, seventeen := install("pg/9/bin"), install("pg/15/bin"), install("pg/17/bin")
	onPath := filepath.Join(root, "path")
	ok(t, os.Mkdir(onPath, 0o755))
	ok(t, os.Symlink(filepath.Join(fifteen, "postgres"), filepath.Join(onPath, "postgres")))

	got := searchDirs("/nowhere:"+onPath, filepath.Join(root, "pg/*/bin"))
	if want := []string{fifteen, seventeen, nine}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("found %v, want %v", got, want)
	}

	cfg := config(t, folder(t))
	cfg.BinDir = t.TempDir()
	_, err := Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Fatalf("err = %v", err)
	}
}

func TestSharedBuffersFollowMemory(t *testing.T) {
	if total := totalMemory(); total < 128<<20 || total%1024 != 0 {
		t.Errorf("the machine has %d bytes of memory", total)
	}
}

func TestDamagedPIDFiles(t *testing.T) {
	for _, content := range []string{"", "\n", "x", "0", "1", "-1", "99999999999999999999"} {
		dir := t.TempDir()
		ok(t, os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(content), 0o600))
		if f, err := readPIDFile(dir); err == nil {
			t.Errorf("%q names process %d", content, f.pid)
		}
	}
	p, err := ownAccount()
	ok(t, err)
	ours, err := isPostmaster(syscall.Getpid(), place{base: t.TempDir(), account: p})
	if ours || err != nil {
		t.Errorf("this test is a postmaster: %v, %v", ours, err)
	}
}
