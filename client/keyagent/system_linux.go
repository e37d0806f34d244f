package keyagent

import "golang.org/x/sys/unix"

const (
	// maxSocketPath is what sockaddr_un has room for, less the final NUL.
	maxSocketPath = 107

	descriptorFolder = "/proc/self/fd"
)

// peerUID asks the kernel who is at the other end of a connected Unix socket.
func peerUID(fd int) (uint32, error) {
	credentials, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}

func excludeFromDumps(page []byte) { _ = unix.Madvise(page, unix.MADV_DONTDUMP) }

// refuseDebuggers keeps other processes of the same user from reading this one's
// memory, and the kernel from dumping it.
func refuseDebuggers() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
