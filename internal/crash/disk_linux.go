package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// diskBytes is the size of the filesystem; the file that holds it takes only what is written.
const diskBytes = 4 << 30

// ext4Shutdown is EXT4_IOC_SHUTDOWN of the kernel's fs/ext4/ext4.h, _IOR('X', 125, __u32).
const ext4Shutdown = 0x8004587d

// disk is an ext4 in a file, whose power can be cut.
type disk struct {
	image string
	mount string
}

// newDisk makes and mounts a filesystem in dir.
func newDisk(ctx context.Context, dir string) (*disk, error) {
	d := &disk{image: filepath.Join(dir, "disk.img"), mount: filepath.Join(dir, "disk")}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close()); err != nil {
		return nil, err
	}
	if err := tool(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.image); err != nil {
		return nil, err
	}
	if err := os.Mkdir(d.mount, 0o711); err != nil {
		return nil, err
	}
	return d, d.attach(ctx)
}

// tool runs a program of the system; what it says is the error.
func tool(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// attach mounts the filesystem, which replays its journal. The loop device goes with the mount.
func (d *disk) attach(ctx context.Context) error {
	return tool(ctx, "mount", "-o", "loop", d.image, d.mount)
}

// flush makes all that was written so far durable.
func (d *disk) flush() error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// cut ends the filesystem in this instant. The journal is not flushed first: what nobody has flushed is lost.
func (d *disk) cut() error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, unix.FS_SHUTDOWN_FLAGS_NOLOGFLUSH); err != nil {
		return fmt.Errorf("cut the power of %s: %w", d.mount, err)
	}
	return nil
}

// replace takes the dead filesystem away and mounts what its medium holds.
func (d *disk) replace() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.detach(ctx); err != nil {
		return err
	}
	return d.attach(ctx)
}

// detach unmounts as soon as the last process that used it is gone.
func (d *disk) detach(ctx context.Context) error {
	for {
		err := tool(ctx, "umount", d.mount)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// remove unmounts the filesystem, if it is mounted, and deletes its file.
func (d *disk) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	mounted, err := isMounted(d.mount)
	if mounted {
		err = d.detach(ctx)
	}
	return errors.Join(err, os.Remove(d.image))
}

// isMounted tells whether something is mounted on a folder.
func isMounted(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &here), unix.Stat(filepath.Dir(dir), &above)); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}
