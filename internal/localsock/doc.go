// Package localsock is what the Unix sockets between programs of one user have in common: where they are, that nobody else gets
// at them, and who is at their other end. Packages client/keyagent and client/daemon have one each.
//
// The kernel is asked who the peer is, on both ends: that, and not the mode of a file, keeps other users out. Root is not an
// exception.
//
// Linux and macOS. Elsewhere every function fails with [ErrUnsupported].
package localsock

import "errors"

// Errors are compared with errors.Is.
var (
	// ErrFolder: a socket's folder is open to others, or is somebody else's.
	ErrFolder = errors.New("nobody else may get into the folder of a socket")
	// ErrPath: no name for a socket is short enough.
	ErrPath = errors.New("the path of the socket cannot be used")
	// ErrForeign: the other end belongs to another user.
	ErrForeign = errors.New("the other end of the socket belongs to another user")
	// ErrUnsupported: by its name.
	ErrUnsupported = errors.New("not supported on this system")
)
