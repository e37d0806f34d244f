package localpg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// errDamaged says that a pid file names no process.
var errDamaged = errors.New("damaged pid file")

// pidFile is what a postmaster says about itself in its data folder.
type pidFile struct {
	path      string
	pid       int
	socketDir string // empty until it has one
	ready     bool   // it takes connections
}

func readPIDFile(dataDir string) (pidFile, error) {
	f := pidFile{path: filepath.Join(dataDir, "postmaster.pid")}
	content, err := os.ReadFile(f.path)
	if err != nil {
		return f, err
	}
	// One item a line: process, data folder, start time, port, socket folder, TCP address, shared memory, status.
	lines := strings.Split(string(content), "\n")
	// The process of a single-user server is negative.
	pid, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(lines[0]), "-"))
	if err != nil || pid <= 1 {
		return f, fmt.Errorf("%w: %s begins with %q", errDamaged, f.path, lines[0])
	}
	f.pid = pid
	if len(lines) > 4 {
		f.socketDir = lines[4]
	}
	f.ready = len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
	return f, nil
}
