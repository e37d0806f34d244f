package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"relaymarket/internal/db"
	"relaymarket/internal/localpg"
	"relaymarket/protocol"
)

// relaysOfShared is how many relayd serve from one database in layoutShared.
const relaysOfShared = 2

// world is one relay with its database: what is broken, and started again.
type world struct {
	layout   layout
	patience time.Duration
	dir      string // of everything, on the disk if there is one
	disk     *disk  // nil without power cuts
	relays   []*relayd
	postgres localpg.Config
	cluster  *localpg.Cluster // nil when relayd runs it
	key      protocol.PublicKey
	wires    []*wire // to each relay, when connections are what is broken
}

// smallDatabase makes checkpoints as frequent as an operator's are under a day's load: a recovery then has something
// to begin from that was written in a rush. Nothing here makes a commit less durable.
const smallDatabase = `shared_buffers = 64MB
min_wal_size = 32MB
max_wal_size = 64MB
checkpoint_timeout = 30s
`

// newWorld makes a relay in a folder and starts it.
func newWorld(ctx context.Context, o options, s segment, program, dir string) (w *world, err error) {
	w = &world{layout: s.layout, patience: o.patience, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(context.WithoutCancel(ctx)))
		}
	}()
	if err := os.Mkdir(dir, 0o711); err != nil {
		return w, err
	}
	if s.fault == faultPower {
		if w.disk, err = newDisk(ctx, dir); err != nil {
			return w, err
		}
		w.dir = w.disk.mount
	}
	if err := w.makeRelays(ctx, program); err != nil {
		return w, err
	}
	if err := w.makePostgres(ctx); err != nil {
		return w, err
	}
	// What is there before the first fault is not what is tested.
	if w.disk != nil {
		if err := w.disk.flush(); err != nil {
			return w, err
		}
	}
	if err := w.start(ctx); err != nil {
		return w, err
	}
	w.key = w.relays[0].key
	if s.fault == faultWire || s.fault == faultRush {
		for _, r := range w.relays {
			wire, err := newWire(*r.url.Load(), newRandom(s.seed))
			if err != nil {
				return w, err
			}
			w.wires = append(w.wires, wire)
		}
	}
	return w, nil
}

func (w *world) makeRelays(ctx context.Context, program string) error {
	count := 1
	if w.layout == layoutShared {
		count = relaysOfShared
	}
	for i := range count {
		r := &relayd{program: program, dir: filepath.Join(w.dir, fmt.Sprint("relay", i)), log: &tail{}}
		w.relays = append(w.relays, r)
		if i > 0 {
			if err := copyIdentity(w.relays[0].dir, r.dir); err != nil {
				return err
			}
			continue
		}
		if err := r.initialize(ctx); err != nil {
			return err
		}
		// The user that Postgres runs as has to get to its folder.
		if err := os.Chmod(r.dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// makePostgres makes the database without flushing it, which saves seconds, and leaves it stopped.
func (w *world) makePostgres(ctx context.Context) error {
	w.postgres = localpg.Config{Dir: filepath.Join(w.relays[0].dir, "db"), NoSync: true}
	if w.layout == layoutShared {
		w.postgres.Dir = filepath.Join(w.dir, "db")
	}
	conf := filepath.Join(w.postgres.Dir, "conf")
	if err := os.MkdirAll(conf, 0o711); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(conf, "operator.conf"), []byte(smallDatabase), 0o644); err != nil {
		return err
	}
	cluster, err := localpg.Start(ctx, w.postgres)
	if err != nil {
		return err
	}
	if cluster.Folder() != w.postgres.Dir {
		return errors.Join(fmt.Errorf("the user that Postgres runs as cannot reach %s: choose another folder with -dir", w.postgres.Dir), cluster.Stop(ctx))
	}
	return cluster.Stop(ctx)
}

// dataDir is where every process of Postgres works.
func (w *world) dataDir() string { return filepath.Join(w.postgres.Dir, "data") }

// start brings up what does not run.
func (w *world) start(ctx context.Context) error {
	if w.layout == layoutShared && w.cluster == nil {
		starting, cancel := context.WithTimeout(ctx, w.patience)
		defer cancel()
		cluster, err := localpg.Start(starting, w.postgres)
		if err != nil && ctx.Err() == nil {
			return &brokenError{promiseBack, fmt.Sprintf("Postgres did not start again: %v", err)}
		}
		if err != nil {
			return err
		}
		w.cluster = cluster
		for _, r := range w.relays {
			r.args = []string{"--database-url", cluster.URL()}
		}
	}
	for _, r := range w.relays {
		if r.running() {
			continue
		}
		if err := r.start(ctx, w.patience); err != nil {
			return err
		}
	}
	return nil
}

// strike is the fault. When it returns, what was killed is gone.
func (w *world) strike(f fault, p plan) error {
	switch f {
	case faultRelayd:
		return w.killRelays(p.victim)
	case faultPostgres:
		return w.killPostgres()
	}
	return w.cutPower()
}

func (w *world) killRelays(victim int) error {
	var err error
	for i, r := range w.relays {
		if victim == i || victim >= len(w.relays) {
			err = errors.Join(err, r.kill())
		}
	}
	return err
}

// killPostgres ends all processes of the database together. A relayd that runs its own ends by itself then, to be started
// again by whatever looks after it; one whose database is elsewhere waits for that to come back.
func (w *world) killPostgres() error {
	if err := killAllIn(w.dataDir()); err != nil {
		return err
	}
	if w.layout == layoutPrivate {
		if err := w.relays[0].wait(w.patience); err != nil {
			return &brokenError{promiseBack, "relayd goes on without its database: " + err.Error()}
		}
		return nil
	}
	return w.forgetCluster()
}

// forgetCluster takes back the folder of a cluster whose processes are gone.
func (w *world) forgetCluster() error {
	if w.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.patience)
	defer cancel()
	err := w.cluster.Stop(ctx)
	w.cluster = nil
	return err
}

// cutPower stops the disk first: from that instant on nothing is durable, whatever the processes still do.
func (w *world) cutPower() error {
	if err := w.disk.cut(); err != nil {
		return err
	}
	err := errors.Join(w.killRelays(len(w.relays)), killAllIn(w.dataDir()), w.forgetCluster())
	if err != nil {
		return err
	}
	return w.disk.replace()
}

// strikeAgain breaks the relay while it comes back from the first strike.
func (w *world) strikeAgain(ctx context.Context, f fault, p plan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var starting chan *localpg.Cluster
	if w.layout == layoutShared && w.cluster == nil {
		starting = make(chan *localpg.Cluster, 1)
		go func() {
			cluster, _ := localpg.Start(ctx, w.postgres) // it is going to be killed on the way
			starting <- cluster
		}()
	} else {
		for _, r := range w.relays {
			if !r.running() {
				if _, err := r.launch(); err != nil {
					return err
				}
			}
		}
	}
	select {
	case <-time.After(p.delay):
	case <-ctx.Done():
	}
	if f == faultPower {
		if err := w.disk.cut(); err != nil {
			return err
		}
	}
	err := w.killAgain(f, p)
	cancel()
	if starting != nil {
		// It may have begun after the kill.
		w.cluster = <-starting
		err = errors.Join(err, killAllIn(w.dataDir()), w.forgetCluster())
	}
	if err == nil && f == faultPower {
		err = w.disk.replace()
	}
	return err
}

// killAgain ends what has come back by now.
func (w *world) killAgain(f fault, p plan) error {
	switch {
	case f == faultRelayd:
		return w.killRelays(p.victim)
	case f == faultPostgres && w.layout == layoutShared:
		return killAllIn(w.dataDir())
	}
	// A relayd that was only starting says so in its own time: it is not what is looked at here.
	return errors.Join(killAllIn(w.dataDir()), w.killRelays(len(w.relays)), killAllIn(w.dataDir()), w.forgetCluster())
}

// url is where one of the relays is reached.
func (w *world) url(i int) string {
	if w.wires != nil {
		return w.wires[i].url
	}
	return *w.relays[i].url.Load()
}

// setWires says whether connections made from now on are cut.
func (w *world) setWires(cutting bool) {
	for _, wire := range w.wires {
		wire.set(cutting)
	}
}

// died tells of a relayd that nobody killed.
func (w *world) died() error {
	for i, r := range w.relays {
		if !r.running() {
			return &brokenError{promiseBack, fmt.Sprintf("relayd %d ended by itself: %s\n%s", i, r.cmd.ProcessState, r.log)}
		}
	}
	return nil
}

// logs are the ends of what the relays said.
func (w *world) logs() string {
	text := ""
	for i, r := range w.relays {
		text += fmt.Sprintf("--- relayd %d said at last:\n%s", i, r.log)
	}
	return text
}

// withDB opens the relay's database from outside, as an operator's command does.
func (w *world) withDB(ctx context.Context, do func(context.Context, *db.DB) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*w.patience)
	defer cancel()
	cluster := w.cluster
	if cluster == nil {
		var err error
		if cluster, err = localpg.Open(ctx, w.postgres); err != nil {
			return err
		}
		defer func() { _ = cluster.Stop(ctx) }() // nothing, when relayd runs it
	}
	d, err := db.Open(ctx, cluster.URL(), 4)
	if err != nil {
		return err
	}
	defer d.Close()
	return do(ctx, d)
}

// stop ends everything as an operator would, and sees that it ends well.
func (w *world) stop(ctx context.Context) error {
	for i, r := range w.relays {
		if err := r.end(syscall.SIGTERM, w.patience); err != nil {
			return &brokenError{promiseBack, err.Error()}
		}
		if code := r.cmd.ProcessState.ExitCode(); code != 0 {
			return &brokenError{promiseBack, fmt.Sprintf("relayd %d ended with %d after SIGTERM\n%s", i, code, r.log)}
		}
	}
	if w.cluster == nil {
		return nil
	}
	err := w.cluster.Stop(ctx)
	w.cluster = nil
	return err
}

// close ends whatever is left, and takes the disk away. The folder stays.
func (w *world) close(ctx context.Context) error {
	err := w.killRelays(len(w.relays))
	for _, wire := range w.wires {
		wire.close()
	}
	if w.postgres.Dir != "" {
		err = errors.Join(err, killAllIn(w.dataDir()), w.forgetCluster())
	}
	if w.disk != nil {
		err = errors.Join(err, w.disk.remove(ctx))
	}
	return err
}
