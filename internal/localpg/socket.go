package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxSocketPath is what fits into sockaddr_un (108 bytes on Linux, the last one a zero; 104 elsewhere
// stay out of reach only of paths that are as long as this by chance).
const maxSocketPath = 107

// socketFile is what PostgreSQL names its socket, and with .lock at the end the lock beside it.
const socketFile = ".s.PGSQL." + port

// makeSocketDir makes the folder for the socket, which only the account can enter. It stands in the cluster's folder,
// or where paths are short if that one is too long, or has a comma, which in a database URL separates hosts.
func makeSocketDir(p place) (dir string, temp bool, err error) {
	dir = p.runDir()
	if len(filepath.Join(dir, socketFile)) > maxSocketPath || strings.Contains(dir, ",") {
		// Root takes a folder that only root can write to. For others there is none that outlives a login session
		// but /tmp, where a stranger may have taken the name: then this fails rather than trusts him.
		dir, temp = filepath.Join("/tmp", "relaymarket-"+p.nameHash()), true
		if os.Geteuid() == 0 {
			dir = filepath.Join("/run", "relaymarket-"+p.nameHash())
		}
		if err := p.makeGiven(dir); err != nil {
			return "", false, fmt.Errorf("folder for the database's socket: %w", err)
		}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", false, err
	}
	owner, err := ownerOf(dir)
	if err != nil {
		return "", false, err
	}
	if !info.IsDir() || owner != p.account.uid || info.Mode().Perm() != 0o700 {
		return "", false, fmt.Errorf("%s must be a folder of user %s with mode 0700, and is not: remove it", dir, p.account.name)
	}
	// After a power cut the lock names a process that may be anybody's by now, and PostgreSQL would
	// give way to it. The folder's lock is held and no postmaster is left, so both are stale.
	for _, name := range []string{socketFile, socketFile + ".lock"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", false, fmt.Errorf("remove a stale socket: %w", err)
		}
	}
	return dir, temp, nil
}
