package regtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// modulePath is btcd, whose version stands in tools/go.mod.
const modulePath = "github.com/btcsuite/btcd"

// Binary builds btcd at the version that tools/go.mod pins, unless an earlier call did, and returns its path. It is
// kept in the user's cache by version, so that all packages and all checkouts share one; two callers at the same time
// build it once. It has to be called inside the source tree.
func Binary(ctx context.Context) (string, error) {
	tools, err := toolsDir(ctx)
	if err != nil {
		return "", err
	}
	version, err := pinnedVersion(filepath.Join(tools, "go.mod"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place to keep btcd (set HOME or XDG_CACHE_HOME): %w", err)
	}
	dir := filepath.Join(cache, "relaymarket", fmt.Sprintf("btcd-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	path := filepath.Join(dir, "btcd")
	if isFile(path) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isFile(path) {
		return path, nil
	}
	// Renamed into place: whoever sees the file may run it.
	next := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.CommandContext(ctx, "go", "build", "-C", tools, "-o", next, modulePath)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build btcd %s: %w: %s", version, err, out)
	}
	return path, os.Rename(next, path)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// toolsDir is the folder of tools/go.mod.
func toolsDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("btcd is built with Go: %w", err)
	}
	gomod := strings.TrimSpace(string(out))
	tools := filepath.Join(filepath.Dir(gomod), "tools")
	if !isFile(filepath.Join(tools, "go.mod")) {
		return "", errors.New("btcd is built from the source tree of this project: run this inside of it, or name a btcd binary")
	}
	return tools, nil
}

// pinnedVersion reads btcd's version from a go.mod.
func pinnedVersion(gomod string) (string, error) {
	text, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) >= 2 && f[0] == modulePath {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", gomod, modulePath)
}

// lockFile waits for the lock on a file. The kernel gives it back when the process dies.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() {
				// Closing alone would not do: a process that is just being started has a copy of the file.
				_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
				_ = file.Close()
			}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			_ = file.Close()
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
