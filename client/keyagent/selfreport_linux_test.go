package keyagent_test

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// selfReport is what only a process itself can ask the kernel.
func selfReport() string {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var core unix.Rlimit
	errCore := unix.Getrlimit(unix.RLIMIT_CORE, &core)
	return fmt.Sprintf("dumpable %d %v, core %d %v, umask %03o", dumpable, err, core.Max, errCore, unix.Umask(0o077))
}
