package degraded_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/localpg"
	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

const (
	diskBytes = 640 << 20
	keepFree  = "64MiB"
	bulkBytes = 192 << 10 // content of the records that fill the disk
)

// disk is a small file system of its own.
type disk struct {
	t   *testing.T
	dir string
}

// newDisk mounts one, for the length of the test. It takes root; without, the test is skipped, which in CI would
// hide that it never runs.
func newDisk(t *testing.T) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("mounting a disk needs root: run the tests as root in CI")
		}
		t.Skip("mounting a disk needs root")
	}
	top, err := os.MkdirTemp("", "relaymarket-disk-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	d := &disk{t, filepath.Join(top, "mount")}
	image := filepath.Join(top, "image")
	for _, err := range []error{os.Chmod(top, 0o711), os.Mkdir(d.dir, 0o711), os.WriteFile(image, nil, 0o600), os.Truncate(image, diskBytes)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d.run("mkfs.ext4", "-q", "-m", "0", image)
	device := strings.TrimSpace(d.run("losetup", "-f", "--show", image))
	t.Cleanup(func() { d.run("losetup", "-d", device) })
	d.run("mount", device, d.dir)
	t.Cleanup(func() { d.run("umount", d.dir) })
	if err := os.Chmod(d.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) run(name string, args ...string) string {
	d.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (d *disk) free() int64 {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill is another program that takes all but so much.
func (d *disk) fill(name string, leave int64) {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if n := d.free() - leave; n > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, n); err != nil && err != syscall.ENOSPC {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) clear(name string) { _ = os.Remove(filepath.Join(d.dir, name)) }

// fullStory is a relay on that disk, whose one account holder fills it.
type fullStory struct {
	t          *testing.T
	d          *disk
	p          *testnode.Process
	alice, bob *scenario.Person
	stored     []string
	next       int
}

// writeOne writes one large record.
func (s *fullStory) writeOne() *scenario.Reply {
	s.t.Helper()
	id := fmt.Sprintf("r%d", s.next)
	s.next++
	r := send(s.t, s.alice, s.p.URL, large(s.alice, s.bob.Key.Public(), id, bulkBytes))
	if r.Status == http.StatusCreated {
		s.stored = append(s.stored, id)
	}
	return r
}

// writeUntilFull writes until it is told that there is no room.
func (s *fullStory) writeUntilFull() {
	s.t.Helper()
	for range 2 * diskBytes / bulkBytes {
		if r := s.writeOne(); r.Status != http.StatusCreated {
			s.refused(r)
			return
		}
	}
	s.t.Fatal("the disk never gets full")
}

func (s *fullStory) refused(r *scenario.Reply) {
	s.t.Helper()
	if r.Status != http.StatusInsufficientStorage || code(r) != protocol.CodeDiskFull || r.Header.Get("Retry-After") == "" {
		s.t.Fatalf("a write on a full disk: %d Retry-After %q %s\n%s", r.Status, r.Header.Get("Retry-After"), r.Body, s.p.Log())
	}
}

// reads sees that all that was acknowledged can be read.
func (s *fullStory) reads() {
	s.t.Helper()
	got := pullAll(s.t, s.bob, s.p.URL, s.alice.Key.Public())
	want := slices.Clone(s.stored)
	if slices.Sort(got); len(got) != len(want) {
		s.t.Fatalf("%d records can be read, %d were acknowledged", len(got), len(want))
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		s.t.Fatal("other records can be read than were acknowledged")
	}
}

// maintain runs, at once, what Postgres does by itself after a while. A checkpoint keeps its log within bounds that on
// so small a disk are a second's writing.
func (s *fullStory) maintain(statements ...string) {
	s.t.Helper()
	ctx := s.t.Context()
	cluster, err := localpg.Open(ctx, localpg.Config{Dir: filepath.Join(s.p.Dir, "db")})
	if err != nil {
		s.t.Fatal(err)
	}
	config, err := pgx.ParseConfig(cluster.AdminURL())
	if err != nil {
		s.t.Fatal(err)
	}
	config.Database = localpg.Database
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// On a full disk new records are refused, all else goes on, and room that comes back, within the database or outside,
// is used without anybody's help.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	dir := filepath.Join(d.dir, "relay")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := localpg.Remove(ctx, localpg.Config{Dir: filepath.Join(dir, "db")}); err != nil {
			t.Error(err)
		}
	})
	s := &fullStory{t: t, d: d}
	s.p = testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, Args: []string{"--disk-free", keepFree}})
	s.alice, s.bob = scenario.NewPerson(t, s.p.Key), scenario.NewPerson(t, s.p.Key)
	s.p.Grant(t, s.alice.Key.Public())
	until(t, "the ballast", func() bool {
		_, err := os.Stat(filepath.Join(dir, "db", "ballast"))
		return err == nil
	})

	defer func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "db", "log", "*"))
			for _, name := range logs {
				text, _ := os.ReadFile(name)
				t.Logf("%s:\n%s", name, text)
			}
			t.Logf("relayd, %d MB free:\n%s", d.free()/1e6, s.p.Log())
		}
	}()
	s.fullByWrites()
	s.roomWithin()
	s.fullByOthers()
	s.startOnFullDisk()
}

// fullByWrites: the relay's own records fill the disk.
func (s *fullStory) fullByWrites() {
	s.t.Helper()
	s.d.fill("other", 222<<20)
	s.writeUntilFull()
	s.t.Logf("refused after %d records of %d kB, with %d MB free, the log in its bounds", len(s.stored), bulkBytes*4/3/1000, s.d.free()/1e6)
	if n := metric(s.t, s.p.OperatorURL, "relaymarket_records_write_full_total", ""); n != 1 {
		s.t.Errorf("%v refusals are counted", n)
	}
	began := time.Now()
	s.reads()
	s.reads()
	s.t.Logf("all read twice in %s", time.Since(began).Round(time.Millisecond))
	s.refused(s.writeOne())

	s.d.clear("other")
	began = time.Now()
	until(s.t, "the relay to take records again", func() bool { return s.writeOne().Status == http.StatusCreated })
	s.t.Logf("taken again %s after another program's file was removed", time.Since(began).Round(time.Millisecond))
}

// roomWithin: what is freed within the database's files is room too.
func (s *fullStory) roomWithin() {
	s.t.Helper()
	const enough = 330 // records: with them gone there is more room than the relay keeps free
	for len(s.stored) < enough {
		if r := s.writeOne(); r.Status != http.StatusCreated {
			s.t.Fatalf("%d %s", r.Status, r.Body)
		}
	}
	s.maintain("CHECKPOINT")
	s.d.fill("other", 100<<20)
	s.writeUntilFull()
	s.maintain("CHECKPOINT")
	kept := s.stored[len(s.stored)-1:] // or vacuum would give the end of the file back
	for i, id := range s.stored[:len(s.stored)-1] {
		if i%100 == 99 {
			s.maintain("CHECKPOINT")
		}
		if r := send(s.t, s.alice, s.p.URL, s.alice.Delete(s.bob.Key.Public(), id)); r.Status != http.StatusNoContent {
			s.t.Fatalf("delete on a full disk: %d %s", r.Status, r.Body)
		}
	}
	deleted := len(s.stored) - len(kept)
	s.stored = slices.Clone(kept)
	s.maintain("CHECKPOINT", "VACUUM records", "CHECKPOINT")
	free, began := s.d.free(), time.Now()
	until(s.t, "the relay to use freed space", func() bool { return s.writeOne().Status == http.StatusCreated })
	s.t.Logf("taken again %s after %d records were deleted, with %d MB free", time.Since(began).Round(time.Millisecond), deleted, free/1e6)
	for range 100 {
		if r := s.writeOne(); r.Status != http.StatusCreated {
			s.refused(r)
		}
	}
	if reused := len(s.stored) - len(kept); reused < 50 {
		s.t.Errorf("only %d records went into the room of %d", reused, deleted)
	}
}

// fullByOthers: another program leaves nothing at all, and Postgres lives on.
func (s *fullStory) fullByOthers() {
	s.t.Helper()
	s.maintain("CHECKPOINT")
	s.d.fill("more", 0)
	until(s.t, "the ballast to go", func() bool {
		_, err := os.Stat(filepath.Join(s.p.Dir, "db", "ballast"))
		return os.IsNotExist(err)
	})
	s.refused(s.writeOne())
	s.reads()
	s.t.Logf("after another program took the rest, the ballast leaves %d MB free", s.d.free()/1e6)
	// And the ballast's room too: a page served would be Postgres' end.
	s.d.fill("evenMore", 0)
	carol, n := scenario.NewPerson(s.t, s.p.Key), 0 // for whom there is nothing: only a page's row would be written
	pull := func() *scenario.Reply {
		n++
		return send(s.t, carol, s.p.URL, carol.Pull(fmt.Sprint("p", n), nil, 1, s.alice.Key.Public()))
	}
	until(s.t, "pulls to be refused", func() bool {
		r := pull()
		if r.Status != http.StatusOK {
			s.refused(r)
		}
		return r.Status != http.StatusOK
	})
	list := scenario.Call{Method: http.MethodGet, Path: "/" + s.alice.Key.Public().String() + "/outbox", Type: protocol.TypeInventory}
	if r := send(s.t, s.alice, s.p.URL, list); r.Status != http.StatusOK {
		s.t.Errorf("an inventory on a full disk: %d %s", r.Status, r.Body)
	}
	s.d.clear("evenMore")
	until(s.t, "pulls to be served again", func() bool { return pull().Status == http.StatusOK })
	if dropped := metric(s.t, s.p.OperatorURL, "relaymarket_api_dropped_total", `"disk"`); dropped < 4 {
		s.t.Errorf("%v refusals are counted", dropped)
	}
}

// startOnFullDisk: a relay that was killed waits for room, and then has everything.
func (s *fullStory) startOnFullDisk() {
	s.t.Helper()
	s.p.Kill()
	s.d.fill("all", 0)
	const waits = "the relay waits for room to start its database"
	cleared := make(chan time.Time, 1)
	go func() {
		for deadline := time.Now().Add(patience / 2); !strings.Contains(s.p.Log(), waits) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		for _, name := range []string{"other", "more", "all"} {
			s.d.clear(name)
		}
		cleared <- time.Now()
	}()
	s.p.Start()
	s.t.Logf("ready %s after the disk was cleared", time.Since(<-cleared).Round(time.Millisecond))
	if !strings.Contains(s.p.Log(), waits) {
		s.t.Errorf("it did not wait: %s", s.p.Log())
	}
	s.reads()
	if r := s.writeOne(); r.Status != http.StatusCreated {
		s.t.Errorf("a write after all is well again: %d %s", r.Status, r.Body)
	}
}
