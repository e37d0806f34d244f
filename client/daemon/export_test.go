package daemon

import "time"

// LookOften makes the daemon look for changes more often than people need it.
func (d *Daemon) LookOften(every time.Duration) { d.look = every }

// SocketPath is where a daemon listens.
func SocketPath(folder string) (string, error) { return socketPath(folder, "") }

// MaxCommands is how many commands run at once.
const MaxCommands = maxCommands
