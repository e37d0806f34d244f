package keyagent

import "golang.org/x/sys/unix"

const descriptorFolder = "/proc/self/fd"

func excludeFromDumps(page []byte) { _ = unix.Madvise(page, unix.MADV_DONTDUMP) }

// refuseDebuggers keeps other processes of the same user from reading this one's
// memory, and the kernel from dumping it.
func refuseDebuggers() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
