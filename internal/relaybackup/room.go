package relaybackup

import (
	"fmt"
	"path/filepath"
	"syscall"

	"relaymarket/internal/bytesize"
)

// spare is left free whatever is written: other programs need some, and a database of the relay may be on the same disk.
const spare = 256 << 20

// Free is what may still be written where a path is, or will be.
func Free(path string) (int64, error) {
	for {
		var s syscall.Statfs_t
		err := syscall.Statfs(path, &s)
		if err == nil {
			return int64(s.Bavail) * int64(s.Bsize), nil
		}
		if up := filepath.Dir(path); err == syscall.ENOENT && up != path {
			path = up
			continue
		}
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
}

// needRoom refuses to begin what the disk cannot hold.
func needRoom(path string, bytes int64, what string) error {
	left, err := Free(path)
	if err != nil {
		return err
	}
	if left < bytes+spare {
		return fmt.Errorf("%s needs about %s where %s is, and %s is free: make room, or choose another disk", what, bytesize.Text(bytes+spare), path, bytesize.Text(left))
	}
	return nil
}

// sameDisk tells whether two paths are on one file system; when that cannot be told, they are.
func sameDisk(a, b string) bool {
	var one, other syscall.Stat_t
	for _, look := range []struct {
		path string
		into *syscall.Stat_t
	}{{a, &one}, {b, &other}} {
		if err := syscall.Stat(look.path, look.into); err != nil {
			return true
		}
	}
	return one.Dev == other.Dev
}

// rehearsalRoom is what the rehearsal of a database takes, its log and what an empty cluster has.
func rehearsalRoom(database int64) int64 { return database + database/8 + rehearsalLog + 64<<20 }
