package localsock

import "golang.org/x/sys/unix"

// MaxPath is what sockaddr_un has room for, less the final NUL.
const MaxPath = 103

// peerUID asks the kernel who is at the other end of a connected Unix socket.
func peerUID(fd int) (uint32, error) {
	credentials, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}
