//go:build unix

package doctor

import "syscall"

// fewFiles is how many open files are too few for a hundred friends' relays at once.
const fewFiles = 512

// Limits looks at how many files a process may open.
func Limits() Finding {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return found("limits", Skipped, "", "the limit of open files cannot be asked for: %v", err)
	}
	if limit.Cur < fewFiles {
		return found("limits", Warn, "ulimit -n 1024   before relay, or raise it in /etc/security/limits.conf", "a process may open %d files", limit.Cur)
	}
	return found("limits", OK, "", "a process may open %d files", limit.Cur)
}
