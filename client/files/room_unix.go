//go:build linux || darwin

package files

import (
	"errors"
	"math"
	"syscall"
)

// freeBytes is how much a folder's file system has for its user.
func freeBytes(dir string) (int64, bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil || s.Bsize <= 0 {
		return 0, false
	}
	return int64(min(uint64(s.Bavail), math.MaxInt64/uint64(s.Bsize)) * uint64(s.Bsize)), true
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
