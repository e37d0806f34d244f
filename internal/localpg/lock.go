package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrInUse says that another process runs the cluster.
var ErrInUse = errors.New("database folder in use")

// lockPatience is how long a start waits for an administrative command to finish.
const lockPatience = time.Minute

// holder is what a lock is held for; it stands in the lock file for whoever finds it locked.
type holder string

const (
	holderServer  holder = "server"  // runs until it is stopped
	holderCommand holder = "command" // is done in a moment: worth waiting for
	holderUnsaid  holder = ""        // took the lock just now, and has not written for what
	holderNone    holder = "nobody"  // gave it back: whoever has it now has not written for what either
)

// lock keeps other processes from running the cluster. The kernel takes it back when the process
// dies, so it never goes stale.
type lock struct {
	file *os.File
	once sync.Once
}

func acquire(ctx context.Context, p place, as holder) (*lock, error) {
	file, err := os.OpenFile(p.lockFile(), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the database folder (run this as the user it belongs to): %w", err)
	}
	deadline := time.Now().Add(lockPatience)
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return noted(file, as)
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		pid, held := readHolder(file)
		if held == holderServer || time.Now().After(deadline) {
			_ = file.Close()
			return nil, fmt.Errorf("%w: %s is run by process %s: stop that one first, or choose another folder", ErrInUse, p.dir, pid)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			_ = file.Close()
			return nil, err
		}
	}
}

func noted(file *os.File, as holder) (*lock, error) {
	if err := say(file, as); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return &lock{file: file}, nil
}

// say writes into a lock file, in place: on a full disk there is room for that.
func say(file *os.File, as holder) error {
	text := strconv.Itoa(os.Getpid()) + " " + string(as) + "\n"
	if _, err := file.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(text)))
}

func readHolder(file *os.File) (pid string, held holder) {
	content := make([]byte, 64)
	n, err := file.ReadAt(content, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "unknown", holderServer
	}
	text, _, whole := strings.Cut(string(content[:n]), "\n")
	if !whole {
		return "unknown", holderUnsaid
	}
	first, second, _ := strings.Cut(text, " ")
	return first, holder(second)
}

// release gives the lock back. Closing alone would not do: a process that is just being started elsewhere in
// this program has a copy of the file until it runs its own program, and with it the lock.
func (l *lock) release() {
	l.once.Do(func() {
		_ = say(l.file, holderNone) // or the next one would for a moment be taken for this one
		_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
		_ = l.file.Close()
	})
}
