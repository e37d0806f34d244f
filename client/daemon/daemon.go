package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"relaymarket/client"
	"relaymarket/client/daemon/localapi"
)

// Defaults of [Config].
const (
	DefaultPollEvery = 5 * time.Minute
	DefaultHealEvery = time.Hour
)

// Config says what a daemon is made of.
type Config struct {
	// Client has the keys. Run uses it and does not close it.
	Client *client.Client
	// Folder is the folder of keys and state, absolute.
	Folder string
	// RuntimeFolder is the value of XDG_RUNTIME_DIR, or empty.
	RuntimeFolder string
	// Settings are those with which commands must have been typed.
	Settings localapi.Settings
	// Run runs one command, and returns its exit code. Its context ends when the command is to be interrupted.
	Run func(context.Context, *Command) int
	// Tasks are done beside the daemon's own.
	Tasks []Task
	// PollEvery is how often relays are asked for what listening may have missed, and friends for new cards; HealEvery how often own
	// relays are asked what they lost. Both are about so, with chance in it. 0 is the default.
	PollEvery, HealEvery time.Duration
	// Logger gets what is done; it is required.
	Logger *slog.Logger
	// Ready, if set, is called once, when commands are served.
	Ready func()
}

// Task is something that a daemon does until its context ends. When it returns earlier, it is begun again after a pause.
type Task struct {
	Name string
	Run  func(context.Context) error
}

// Daemon is a running daemon, for its tasks and commands.
type Daemon struct {
	c       Config
	log     *slog.Logger
	started time.Time
	events  *events
	stop    context.CancelFunc
	near    map[int64]bool // messages whose expiry was logged
	look    time.Duration

	mu       sync.Mutex
	tasks    []*taskState
	commands map[uuid.UUID]context.CancelCauseFunc
}

// taskState is what is told about a task.
type taskState struct {
	name string
	runs int
	last time.Time
	err  error
}

// New makes a daemon. It starts nothing.
func New(c Config) *Daemon {
	if c.PollEvery == 0 {
		c.PollEvery = DefaultPollEvery
	}
	if c.HealEvery == 0 {
		c.HealEvery = DefaultHealEvery
	}
	return &Daemon{c: c, log: c.Logger, started: time.Now(), events: newEvents(), commands: map[uuid.UUID]context.CancelCauseFunc{}, near: map[int64]bool{}, look: lookEvery}
}

// Run serves and works until ctx ends or somebody asks it to stop; then it returns nil, with the socket gone. It fails with a
// [RunningError] if the folder has a daemon.
func (d *Daemon) Run(ctx context.Context) error {
	lock, err := takeLock(d.c.Folder)
	if err != nil {
		return err
	}
	defer lock.release()
	listener, err := listen(d.c.Folder, d.c.RuntimeFolder)
	if err != nil {
		return err
	}
	ctx, d.stop = context.WithCancel(ctx)
	defer d.stop()
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error { return d.serve(work, listener) })
	for _, task := range append(d.own(), d.c.Tasks...) {
		group.Go(func() error { d.keepRunning(work, task); return nil })
	}
	if d.c.Ready != nil {
		d.c.Ready()
	}
	d.log.Info("the daemon runs", "folder", d.c.Folder, "key", d.c.Client.Key().Short())
	err = group.Wait()
	d.log.Info("the daemon ends")
	return err
}

// own are the daemon's own tasks. Each is one line here.
func (d *Daemon) own() []Task {
	return []Task{
		{"listen", d.listen},
		{"deliver", d.deliver},
		{"poll", d.poll},
		{"heal", d.heal},
	}
}

// keepRunning begins a task again when it fails, until ctx ends.
func (d *Daemon) keepRunning(ctx context.Context, task Task) {
	s := &taskState{name: task.Name}
	d.mu.Lock()
	d.tasks = append(d.tasks, s)
	d.mu.Unlock()
	pause := time.Second
	for ctx.Err() == nil {
		d.mu.Lock()
		s.runs++
		d.mu.Unlock()
		begun := time.Now()
		err := task.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended")
		}
		if time.Since(begun) > time.Minute {
			pause = time.Second
		}
		d.failed(task.Name, err)
		d.log.Error("a task failed and is begun again", "task", task.Name, "pause", pause, "error", err)
		sleep(ctx, pause)
		pause = min(2*pause, time.Minute)
	}
}

// failed notes what went wrong with a task; nil that it went well.
func (d *Daemon) failed(task string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.tasks {
		if s.name == task {
			s.err, s.last = err, time.Now()
		}
	}
}

// around is about a time, with chance in it: the daemons of many people must not come all at once.
func around(t time.Duration) time.Duration { return t*3/4 + rand.N(t/2+1) }

// sleep is false if ctx ended.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// RunningError says that the folder has a daemon.
type RunningError struct {
	Folder string
	PID    int // 0 if it did not say
}

// Error names its process.
func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("a daemon runs for %s already", e.Folder)
	}
	return fmt.Sprintf("a daemon runs for %s already, as process %d", e.Folder, e.PID)
}
