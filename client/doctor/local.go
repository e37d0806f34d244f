package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"relaymarket/client/backup"
	"relaymarket/client/files"
	"relaymarket/client/keyfile"
	"relaymarket/client/state"
	"relaymarket/internal/bytesize"
	"relaymarket/internal/sqlite"
)

const (
	restoreHint = "restore the folder from a backup: relay --dir NEW-FOLDER restore BACKUP"
	wordsHint   = "restore the keys from your 24 words: relay --dir NEW-FOLDER init --restore, or with a backup: relay --dir NEW-FOLDER restore BACKUP"
)

// Keys looks at the key file.
func Keys(path string) Finding {
	info, err := keyfile.Inspect(path)
	switch {
	case errors.Is(err, keyfile.ErrNotFound):
		return found("keys", Fail, "make keys: relay init, or name your folder with --dir; with a backup: relay restore BACKUP", "there is no key file at %s", path)
	case errors.Is(err, keyfile.ErrPermissions):
		return found("keys", Fail, "chmod 600 "+path+"   and change the passphrase if somebody may have copied it", "%v", err)
	case err != nil:
		return found("keys", Fail, wordsHint, "%v", err)
	}
	return found("keys", OK, "", "%s is whole and yours alone (scrypt 2^%d)", path, info.WorkFactor)
}

// Folder looks at who may read the folder.
func Folder(dir string) Finding {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return found("folder", Fail, "make keys: relay init, or name your folder with --dir", "there is no folder %s", dir)
	case err != nil:
		return found("folder", Fail, "look at the folder with: ls -ld "+dir, "%v", err)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return found("folder", Warn, "chmod 700 "+dir, "others on this machine can look into %s", dir)
	}
	return found("folder", OK, "", "%s is yours alone", dir)
}

// Databases looks through each of the databases there are.
func Databases(ctx context.Context, dir string) (all []Finding) {
	if sqlite.Interrupted(dir) {
		all = append(all, found("restore", Fail, "run it again, with the same backup: relay restore BACKUP", "a restore was interrupted: no other command uses this folder until it is done"))
	}
	for _, name := range []string{backup.StateFile, backup.ContractsFile, backup.MarketFile} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		do := restoreHint
		if name == backup.MarketFile {
			do = "remove it, and name your hubs again: rm " + path + "; relay hubs add ADDRESS"
		}
		if err == nil {
			err = whole(ctx, path)
		}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			all = append(all, found("state", Skipped, "give it more time: relay doctor --timeout 10m", "%s (%s) takes longer to look through than there was time", name, bytesize.Text(info.Size())))
		case err != nil && sqlite.Cause(err) == nil && !errors.Is(err, sqlite.ErrDamaged):
			all = append(all, found("state", Fail, "look at who may read it: ls -l "+path, "%s cannot be read: %v", name, err))
		case err != nil:
			all = append(all, found("state", Fail, do, "%s: %v", name, err))
		case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
			all = append(all, found("state", Warn, "chmod 600 "+path, "others on this machine may read %s", name))
		default:
			all = append(all, found("state", OK, "", "%s is sound (%s)", name, bytesize.Text(info.Size())))
		}
	}
	return all
}

func whole(ctx context.Context, path string) error {
	db, err := sqlite.OpenAsIs(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	err = db.Check(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

const (
	// littleRoom and noRoom are where a disk is nearly, and where it is full.
	littleRoom = 1e9
	noRoom     = 64e6
	soon       = 30 // days
)

// Disk looks at the room for the folder, and how long it lasts at the pace of the last month.
func Disk(dir string, h state.Health, now time.Time) Finding {
	free, known := files.Room(dir)
	if !known {
		return found("disk", Skipped, "", "the room on this disk cannot be asked for on this system")
	}
	used := int64(0)
	for _, name := range []string{backup.StateFile, backup.StateFile + "-wal", backup.ContractsFile, backup.MarketFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			used += info.Size()
		}
	}
	const do = "make room on the disk, or move the folder to another (relay backup FILE there, relay --dir NEW-FOLDER restore FILE)"
	over := max(now.Sub(h.Since.Time()), day)
	lasts := int64(-1) // days; unknown
	if h.Grown > 0 {
		lasts = free / max(1, int64(float64(h.Grown)/over.Hours()*24))
	}
	switch {
	case free < noRoom:
		return found("disk", Fail, do, "only %s are free", bytesize.Text(free))
	case free < 3*used:
		return found("disk", Warn, do, "%s are free, the state has %s: a backup needs that room for a while", bytesize.Text(free), bytesize.Text(used))
	case free < littleRoom:
		return found("disk", Warn, do, "%s are free", bytesize.Text(free))
	case lasts >= 0 && lasts < soon:
		return found("disk", Warn, do, "%s are free; at the pace of late (%s in %s) that lasts %d days", bytesize.Text(free), bytesize.Text(h.Grown), ago(over), lasts)
	case lasts >= 0 && lasts < 3650:
		return found("disk", OK, "", "%s are free; at the pace of late that lasts %d days", bytesize.Text(free), lasts)
	}
	return found("disk", OK, "", "%s are free, the state has %s", bytesize.Text(free), bytesize.Text(used))
}

// staleBackup is how old a backup may be.
const staleBackup = 30 * day

// Backup looks at the last backup. precious: there are contracts that may hold money.
func Backup(ctx context.Context, s *state.Store, now time.Time, precious bool) Finding {
	last, any, err := s.LastBackup(ctx)
	if err != nil {
		return found("backup", Fail, restoreHint, "%v", err)
	}
	const do = "relay backup FILE   on another disk than this one, or: relay backup --to-relays"
	if !any {
		level := Warn
		if precious {
			level = Fail
		}
		untouched, err := s.Untouched(ctx)
		if err == nil && untouched {
			return found("backup", OK, "", "there is nothing to back up yet")
		}
		return found("backup", level, do, "nothing was ever backed up here")
	}
	age := now.Sub(last.At.Time())
	where := "on your relays"
	if last.Place != "" {
		where = last.Place
		if _, err := os.Stat(last.Place); errors.Is(err, fs.ErrNotExist) && age <= staleBackup {
			// It may well be on a disk that lies in a drawer.
			return found("backup", OK, "", "the last backup is %s old; %s is not here now", ago(age), where)
		}
	}
	if age > staleBackup {
		return found("backup", Warn, do, "the last backup (%s) is %s old", where, ago(age))
	}
	return found("backup", OK, "", "the last backup (%s) is %s old", where, ago(age))
}

// messagesAre is "1 message is" or "3 messages are".
func messagesAre(n int64) string {
	if n == 1 {
		return "1 message is"
	}
	return fmt.Sprintf("%d messages are", n)
}

// Queue looks at what is to be sent.
func Queue(h state.Health, expiring int, now time.Time) (all []Finding) {
	if h.Waiting > 0 {
		age := now.Sub(h.Oldest.Time())
		level := OK
		if age > time.Hour {
			level = Warn
		}
		all = append(all, found("outbox", level, "see why: relay outbox   and try again: relay inbox", "%s on no relay yet, the oldest for %s", messagesAre(h.Waiting), ago(age)))
	}
	if h.Failed > 0 {
		all = append(all, found("outbox", Warn, "see why: relay outbox   and add a relay: relay relays add ADDRESS; relay heal", "%s on no relay and waiting for none: all refused, or you use those no more", messagesAre(h.Failed)))
	}
	if expiring > 0 {
		all = append(all, found("outbox", Warn, "see which: relay outbox   and send them again", "%s to expire soon, and not fetched", messagesAre(int64(expiring))))
	}
	if len(all) == 0 {
		all = append(all, found("outbox", OK, "", "nothing waits, nothing expires unread"))
	}
	return all
}
