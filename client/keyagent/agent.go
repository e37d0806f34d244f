package keyagent

import (
	"errors"
	"fmt"
	"time"
)

const (
	// MaxSecret is the longest secret, in bytes.
	MaxSecret = 1024
	// MaxDuration is the longest time that an agent may be asked to serve.
	MaxDuration = 7 * 24 * time.Hour
)

// Errors are compared with errors.Is.
var (
	// ErrNotRunning: no agent answers at the socket, or it is locked.
	ErrNotRunning = errors.New("no key agent is running: unlock first")
	// ErrNoAnswer: something accepts connections and does not answer in time.
	ErrNoAnswer = errors.New("the key agent does not answer: end it and unlock again")
	// ErrForeign: the agent at the socket belongs to another user.
	ErrForeign = errors.New("the key agent at this socket belongs to another user: do not use it")
	// ErrProtocol: what answers is not an agent of this version.
	ErrProtocol = errors.New("the key agent is of another version: end it and unlock again")
	// ErrFolder: the socket's folder is open to others, or is somebody else's.
	ErrFolder = errors.New("the folder of the key agent's socket is not safe")
	// ErrPath: the socket's path is not absolute, too long, or taken by
	// something that is not a socket.
	ErrPath = errors.New("the path of the key agent's socket cannot be used")
	// ErrSecret: the secret is empty or longer than MaxSecret.
	ErrSecret = fmt.Errorf("the secret of a key agent has 1 to %d bytes", MaxSecret)
	// ErrDuration: not more than zero, or more than MaxDuration.
	ErrDuration = fmt.Errorf("a key agent serves for more than zero and at most %v", MaxDuration)
	// ErrSpawn: the agent process ended or gave no sign of life.
	ErrSpawn = errors.New("the key agent did not start")
	// ErrUnsupported: there is no key agent for this operating system.
	ErrUnsupported = errors.New("unlocking is not supported on this system: give the passphrase each time")
)

// Config says what an agent serves.
type Config struct {
	// Socket is the absolute path of the socket. Its folder is made with mode
	// 0700 if it is missing, in a parent that exists. See [SocketPath].
	Socket string
	// Secret is what is kept. Serve takes it over: it overwrites this slice.
	Secret []byte
	// For is how long.
	For time.Duration
	// Ready, if set, is called once, when the socket answers.
	Ready func()
	// Now is the clock; nil is time.Now. Times with a monotonic reading count
	// by both readings.
	Now func() time.Time
	// CheckEvery is how often the deadline is looked at, beside at each request;
	// 0 is 5 s. It bounds how long a secret stays in memory after a suspended
	// machine woke up.
	CheckEvery time.Duration
}

// SpawnConfig says how an agent process is started.
type SpawnConfig struct {
	// Argv is the command line of the process, its name first, such as
	// ["relay", "agent", "--socket", path, "--for", "8h"]. The program must call
	// ServeSpawned for it, with the same socket. No secret belongs here.
	Argv []string
	// Executable is the program; empty is the one that is running.
	Executable string
	// Env is the whole environment of the process; nil is an empty one.
	Env []string
	// Socket is where the agent must answer.
	Socket string
	// Secret is what it keeps.
	Secret []byte
}

// State is what an agent tells about itself.
type State struct {
	// Remaining is how long it will serve, if nothing ends it earlier.
	Remaining time.Duration
	// PID is its process id.
	PID int
}
