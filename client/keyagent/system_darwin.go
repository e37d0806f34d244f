package keyagent

import "golang.org/x/sys/unix"

const (
	// maxSocketPath is what sockaddr_un has room for, less the final NUL.
	maxSocketPath = 103

	descriptorFolder = "/dev/fd"
)

// peerUID asks the kernel who is at the other end of a connected Unix socket.
func peerUID(fd int) (uint32, error) {
	credentials, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}

// macOS has no way to leave a page out of a core dump; the process makes none.
func excludeFromDumps([]byte) {}

// macOS protects the memory of processes by itself.
func refuseDebuggers() error { return nil }
