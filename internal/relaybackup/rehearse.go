package relaybackup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"relaymarket/internal/localpg"
)

// rehearsalLog is how far the log of a cluster that restores grows.
const rehearsalLog = 512 << 20

// stopPatience bounds the end of a cluster that is started here.
const stopPatience = time.Minute

// Stage is where a rehearsal is played. Deep and Report may be nil.
type Stage struct {
	Folder string // in which a temporary one is made
	BinDir string
	// Deep checks what needs more than the database: url is the restored one's, in which it may write; scratch is a folder for
	// it with the backup's files as a relay has them.
	Deep   func(ctx context.Context, url, scratch string) error
	Report func(Progress)
	Logger *slog.Logger
}

// Rehearse verifies a backup and restores it into a private cluster, checks that, and throws it away. That it can be put back is known
// then, and not before.
func Rehearse(ctx context.Context, folder string, stage Stage, now time.Time) (proof Proof, err error) {
	m, err := Verify(ctx, folder, stage.Report)
	if err != nil {
		return proof, err
	}
	temporary, err := os.MkdirTemp(stage.Folder, ".relayd-rehearsal-*")
	if err != nil {
		return proof, fmt.Errorf("make a folder for the rehearsal: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
	if os.Geteuid() == 0 { // the cluster is another user's then, who has to get there
		if err := os.Chmod(temporary, 0o711); err != nil {
			return proof, err
		}
	}
	files, err := NewFolder(ctx, folder, m, filepath.Join(temporary, "relay"))
	if err != nil {
		return proof, err
	}
	cluster := Bulk(localpg.Config{Dir: filepath.Join(temporary, "db"), BinDir: stage.BinDir, Logger: stage.Logger, NoSync: true})
	cluster.Settings["fsync"] = "off" // nobody keeps it
	err = withCluster(ctx, cluster, func(c *localpg.Cluster) error {
		if err := needRoom(c.Folder(), rehearsalRoom(m.Database.Bytes), "the rehearsal"); err != nil {
			return err
		}
		life, err := Restore(ctx, folder, m, Into{Database: c.URL(), BinDir: stage.BinDir, Parallel: true, Report: stage.Report}, now)
		if err != nil {
			return err
		}
		proof = life.Proof
		if stage.Deep == nil {
			return nil
		}
		return stage.Deep(ctx, c.URL(), files.Path)
	})
	return proof, errors.Join(err, localpg.Remove(context.WithoutCancel(ctx), cluster))
}

// Bulk are the settings of a cluster while it takes in a whole database: it keeps no log of tables that it could just as well make again. The
// cluster is then started anew, with its usual ones.
func Bulk(cfg localpg.Config) localpg.Config {
	cfg.Settings = map[string]string{
		"wal_level": "minimal", "max_wal_senders": "0", "archive_mode": "off", "autovacuum": "off", "full_page_writes": "off",
		"max_wal_size": fmt.Sprintf("%dMB", rehearsalLog>>20), "min_wal_size": "32MB", "maintenance_work_mem": "256MB", "checkpoint_timeout": "1h",
	}
	return cfg
}

// withCluster runs a cluster for as long as do takes.
func withCluster(ctx context.Context, cfg localpg.Config, do func(*localpg.Cluster) error) error {
	c, err := localpg.Start(ctx, cfg)
	if err != nil {
		return err
	}
	err = do(c)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	return errors.Join(err, c.Stop(stopping))
}

// RestorePrivate restores into a new private cluster, and removes that again if it fails.
func RestorePrivate(ctx context.Context, folder string, m *Manifest, cluster localpg.Config, report func(Progress), now time.Time) (life Life, err error) {
	there, err := localpg.HasCluster(cluster)
	if err != nil {
		return life, err
	}
	if there {
		return life, fmt.Errorf("there is a database in %s already: choose a new folder", cluster.Dir)
	}
	err = withCluster(ctx, Bulk(cluster), func(c *localpg.Cluster) error {
		if err := needRoom(c.Folder(), rehearsalRoom(m.Database.Bytes), "the database"); err != nil {
			return err
		}
		life, err = Restore(ctx, folder, m, Into{Database: c.URL(), BinDir: cluster.BinDir, Parallel: true, Report: report}, now)
		return err
	})
	if err != nil {
		return life, errors.Join(err, localpg.Remove(context.WithoutCancel(ctx), cluster))
	}
	return life, nil
}
