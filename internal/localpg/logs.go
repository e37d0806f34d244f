package localpg

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// keepLogs of 8 MB each: a week of a healthy database, and a bound for a sick one.
	keepLogs = 8
	// pruneEvery bounds what can pile up between two looks.
	pruneEvery = time.Minute
)

// pruneLogs keeps the newest log files, until the postmaster is gone. PostgreSQL begins new files, but
// never deletes one.
func pruneLogs(dir string, done <-chan struct{}, log *slog.Logger) {
	ticker := time.NewTicker(pruneEvery)
	defer ticker.Stop()
	for {
		if err := pruneOnce(dir); err != nil {
			log.Warn("cannot delete old logs of the database", "err", err)
		}
		select {
		case <-done:
			return
		case <-ticker.C:
		}
	}
}

func pruneOnce(dir string) error {
	logs, err := logFiles(dir)
	if err != nil {
		return err
	}
	for len(logs) > keepLogs {
		if err := os.Remove(logs[0]); err != nil {
			return err
		}
		logs = logs[1:]
	}
	return nil
}

// logFiles lists the log files, oldest first: their names are their times.
func logFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	var logs []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "postgres-") {
			logs = append(logs, filepath.Join(dir, entry.Name()))
		}
	}
	return logs, err
}

func newestLog(dir string) string {
	logs, err := logFiles(dir)
	if err != nil || len(logs) == 0 {
		return ""
	}
	return logs[len(logs)-1]
}
