package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// parsed is what a command line means. Power cuts are left out where nobody may mount, but not in CI, where that would
// hide them for ever.
func parsed(t *testing.T, args ...string) options {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Log("power cuts need root: without them")
		args = append([]string{"-faults", "relayd,postgres,wire,rush"}, args...)
	}
	o, err := parseOptions(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.temp = folder(t)
	return o
}

// folder is a new one that the user Postgres runs as can get to. The test fails if something is left in it.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relaymarket-crashtest-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("something is left: %v", err)
			_ = os.RemoveAll(dir)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The promises hold at the size that is meant for every run of the tests.
func TestPromises(t *testing.T) {
	t.Parallel()
	o := parsed(t, "-parallel", "4", "-patience", "4m")
	s, err := run(t.Context(), o, newProgress(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := s.writeText(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	for f := range faults {
		if s.Rounds[f.String()] != o.rounds[f] {
			t.Errorf("%d rounds of %s, want %d", s.Rounds[f.String()], f, o.rounds[f])
		}
	}
	// A run that meets nothing proves nothing.
	least := int64(20 * (o.rounds[faultRelayd] + o.rounds[faultPostgres] + o.rounds[faultPower] + o.rounds[faultWire]))
	if s.Acknowledged < least || s.Unknown < least/10 || s.Served < least/2 || s.Forgeries < least/10 || s.Deletes == 0 || s.Races == 0 || s.Heard == 0 || s.Reconnects < 50 {
		t.Errorf("so little was done in the run that it proves little")
	}
}

// Each known mistake is found, and as what it is.
func TestBrokenBuilds(t *testing.T) {
	for _, b := range breakages() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			o := parsed(t, "-broken", b.name, "-faults", "postgres", "-rounds", "4", "-parallel", "1", "-patience", "2m")
			s, err := run(t.Context(), o, newProgress(os.Stderr))
			if s == nil || s.OK || err == nil {
				t.Fatalf("the mistake was not found: %v", err)
			}
			if !slices.ContainsFunc(b.promises, func(p promise) bool { return slices.Contains(s.Broken, string(p)) }) {
				t.Errorf("found broken: %q, want among them one of %q\n%v", s.Broken, b.promises, err)
			}
			if !strings.Contains(err.Error(), "seed ") {
				t.Errorf("without the seed: %v", err)
			}
		})
	}
}

// A run that is interrupted leaves no process, no mount and no folder.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	args := []string{"-rounds", "50", "-parallel", "1"}
	if os.Geteuid() == 0 {
		args = append(args, "-faults", "power")
	}
	o := parsed(t, args...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := run(ctx, o, newProgress(os.Stderr))
		ended <- err
	}()
	await(t, "a database runs", func() bool {
		return slices.ContainsFunc(processesBelow(t, o.temp), func(dir string) bool { return filepath.Base(dir) == "data" })
	})
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Minute):
		t.Fatal("it goes on")
	}
	if left := processesBelow(t, o.temp); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), o.temp) {
		t.Errorf("still mounted:\n%s", mounts)
	}
}

// processesBelow are the folders of processes that work below a folder.
func processesBelow(t *testing.T, below string) (found []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, below) {
			found = append(found, target)
		}
	}
	return found
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}
