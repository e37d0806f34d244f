package localpg

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// operatorFile, in the folder conf, is the operator's own: read last, never written.
const operatorFile = "operator.conf"

const (
	minSharedBuffers = 64 << 20
	maxSharedBuffers = 2 << 30
	minLog           = 128 << 20
	maxLog           = 2 << 30
	logSegment       = 16 << 20
)

// settingsText is PostgreSQL's configuration. The placeholders are shared_buffers, max_wal_size and min_wal_size in
// MiB, wal_compression, the log folder and the operator's file.
const settingsText = `# Written by relayd at every start. Put your own settings into operator.conf beside this file.

# An acknowledged message is on disk. Turning one of these off breaks that promise.
fsync = on
synchronous_commit = on
full_page_writes = on

# relayd uses a few connections, and a pool of many makes the tail slower. The rest is for
# administrative commands and backups.
max_connections = 60

# An eighth of the memory, at most 2 GiB: messages are written once and read a few times, soon after,
# so the system's cache serves them as well.
shared_buffers = %dMB

# Records come in all the time. Rare checkpoints write a page once instead of often, and log fewer whole pages.
# An eighth of the disk, at most 2 GiB: it is taken whatever is stored.
max_wal_size = %dMB
min_wal_size = %dMB
checkpoint_timeout = 15min
wal_compression = %s
wal_buffers = 16MB

# Tables grow at one end and shrink at the other. Vacuum soon and in small portions, so that freed space
# is used again and inserts find all-visible pages.
autovacuum_naptime = 15s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_vacuum_insert_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.05
autovacuum_vacuum_cost_limit = 1000

# Short queries over indexes: neither parallel workers nor compiled expressions ever pay.
max_parallel_workers_per_gather = 0
jit = off

# Files of 8 MB; relayd keeps the newest few. Neither statements nor values are logged: they
# would name senders and receivers.
logging_collector = on
log_directory = %s
log_filename = 'postgres-%%Y-%%m-%%dT%%H%%M%%S.log'
log_rotation_size = 8MB
log_rotation_age = 1d
log_file_mode = 0600
log_line_prefix = '%%m [%%p] '
log_error_verbosity = terse
log_min_error_statement = panic

timezone = 'UTC'
log_timezone = 'UTC'

include_if_exists %s
`

// accessText is pg_hba.conf: only through the socket, only the users of the map.
const accessText = `# Written by relayd at every start.
local all         all peer map=relaymarket
local replication all peer map=relaymarket
`

func writeSettings(p place, bin binaries) error {
	memory := totalMemory()
	shared := min(max(memory/8, minSharedBuffers), maxSharedBuffers) >> 20
	wal := min(max(totalDisk(p.base)/8, minLog), maxLog) >> 20
	settings := fmt.Sprintf(settingsText, shared, wal, max(wal/8, 2*logSegment>>20), walCompression(p, bin), quoted(p.logDir()), quoted(filepath.Join(p.confDir(), operatorFile)))
	for _, file := range []struct{ name, text string }{
		{"postgresql.conf", settings},
		{"pg_hba.conf", accessText},
		{"pg_ident.conf", usersText(p)},
	} {
		if err := writeFile(filepath.Join(p.confDir(), file.name), file.text); err != nil {
			return fmt.Errorf("write the database's settings: %w", err)
		}
	}
	return nil
}

// walCompression is lz4 where PostgreSQL was built with it: its own method takes an eighth of all the time that the
// database spends on a busy relay.
func walCompression(p place, bin binaries) string {
	cmd := exec.Command(bin.postgres(), "-C", "wal_compression", "-c", "wal_compression=lz4", "-D", p.dataDir(), "-c", "config_file="+os.DevNull)
	cmd.Dir = p.base
	cmd.Env = environment()
	cmd.SysProcAttr = p.account.attributes()
	if cmd.Run() != nil {
		return "on"
	}
	return "lz4"
}

// usersText is pg_ident.conf: which system user may be which role. Root may, for it runs relayd as often
// as not, and could take the cluster's user anyway.
func usersText(p place) string {
	text := "# Written by relayd at every start.\n"
	for _, user := range []string{p.account.name, "root"} {
		for _, role := range []string{superuser, Database} {
			text += fmt.Sprintf("relaymarket %q %s\n", user, role)
		}
	}
	return text
}

// arguments are the postmaster's. What the relay needs to find it again stands here, where no file can
// change it.
func arguments(p place, socketDir string, extra map[string]string) []string {
	args := []string{"-D", p.dataDir()}
	set := func(name, value string) { args = append(args, "-c", name+"="+value) }
	set("config_file", filepath.Join(p.confDir(), "postgresql.conf"))
	set("hba_file", filepath.Join(p.confDir(), "pg_hba.conf"))
	set("ident_file", filepath.Join(p.confDir(), "pg_ident.conf"))
	set("listen_addresses", "")
	set("port", port)
	set("unix_socket_directories", `"`+strings.ReplaceAll(socketDir, `"`, `""`)+`"`)
	for name, value := range extra {
		set(name, value)
	}
	return args
}

// quoted is a value as postgresql.conf wants it.
func quoted(value string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(value, `\`, `\\`), "'", "''") + "'"
}

// totalDisk is the size of the file system that a folder is on, in bytes; a guess of 16 GiB if it cannot be told.
func totalDisk(folder string) int64 {
	var s syscall.Statfs_t
	if syscall.Statfs(folder, &s) != nil {
		return 16 << 30
	}
	return int64(s.Blocks) * int64(s.Bsize)
}

// totalMemory is what the machine or the container has, in bytes; a guess of 1 GiB where neither says.
func totalMemory() int64 {
	total := int64(1 << 30)
	if content, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int64
		if n, err := fmt.Sscanf(string(content), "MemTotal: %d kB", &kib); err == nil && n == 1 {
			total = kib << 10
		}
	}
	if content, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64); err == nil {
			total = min(total, limit)
		}
	}
	return total
}
