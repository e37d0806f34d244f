package regtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/rpcclient"
)

// User and Password open every node's RPC, which listens on loopback only.
const (
	User     = "regtest"
	Password = "regtest"
)

// FirstBlocks is the height that a new chain is mined to: the first 20 subsidies, of 50 BTC each, are mature.
const FirstBlocks = 120

// The files, in the node's folder, of the certificate that RPC is served with.
const (
	certName = "rpc.cert"
	keyName  = "rpc.key"
)

// outputName is the file, in the node's folder, that btcd writes to.
const outputName = "btcd.out"

// tapeName is the file, in the node's folder, that keeps the chain while btcd is stopped.
const tapeName = "chain.blocks"

// Config says how to run a node.
type Config struct {
	// Dir keeps the chain. It is made if it is not there, and never removed.
	Dir string
	// Binary is btcd; empty: the one that [Binary] builds.
	Binary string
	// Plain turns TLS off.
	Plain bool
	// Address is host:port for RPC; empty: a free port of loopback.
	Address string
	// Args are more arguments of btcd.
	Args []string
}

// Node is btcd on regtest. It is safe for concurrent use.
type Node struct {
	cfg  Config
	host string

	mu      sync.Mutex
	process *process          // nil: stopped
	rpc     *rpcclient.Client // nil: stopped
	purse   purse
	tape    tape
}

// Launch starts a node, on a chain of at least [FirstBlocks] blocks, and returns when it answers. The caller stops it.
// If the calling process dies, so does the node (on Linux).
func Launch(ctx context.Context, cfg Config) (*Node, error) {
	if cfg.Dir == "" {
		return nil, errors.New("a regtest node needs a folder")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if cfg.Binary == "" {
		binary, err := Binary(ctx)
		if err != nil {
			return nil, err
		}
		cfg.Binary = binary
	}
	if err := makeCertificate(filepath.Join(cfg.Dir, certName), filepath.Join(cfg.Dir, keyName)); err != nil {
		return nil, fmt.Errorf("make the node's certificate: %w", err)
	}
	saved, err := loadTape(filepath.Join(cfg.Dir, tapeName))
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, tape: saved}
	if err := n.launch(ctx); err != nil {
		return nil, err
	}
	if err := n.firstBlocks(); err != nil {
		return nil, errors.Join(err, n.Stop(context.WithoutCancel(ctx)))
	}
	return n, nil
}

// launch starts btcd, on another port when the first was taken in the meantime.
func (n *Node) launch(ctx context.Context) error {
	n.host = n.cfg.Address
	if n.host != "" {
		return n.Restart(ctx)
	}
	const attempts = 5
	for attempt := 1; ; attempt++ {
		var err error
		if n.host, err = FreeAddress(); err != nil {
			return err
		}
		if err = n.Restart(ctx); err == nil || attempt == attempts || ctx.Err() != nil {
			return err
		}
	}
}

func (n *Node) firstBlocks() error {
	height, err := n.Height()
	if err != nil {
		return err
	}
	if missing := FirstBlocks - height; missing > 0 {
		_, err = n.Mine(missing)
	}
	return err
}

// Host is host:port of the node's RPC, the same after a restart.
func (n *Node) Host() string { return n.host }

// Plain tells whether RPC is without TLS.
func (n *Node) Plain() bool { return n.cfg.Plain }

// CertFile is the path of the certificate (PEM) that RPC is served with.
func (n *Node) CertFile() string { return filepath.Join(n.cfg.Dir, certName) }

// Cert is the certificate (PEM) that RPC is served with, empty without TLS.
func (n *Node) Cert() ([]byte, error) {
	if n.cfg.Plain {
		return nil, nil
	}
	return os.ReadFile(n.CertFile())
}

// PID is the process id of btcd, 0 when it is stopped.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return 0
	}
	return n.process.process.Pid
}

// RPC is a connection to the node for whatever has no method here. It ends with [Node.Stop]; after [Node.Restart] ask
// for it again.
func (n *Node) RPC() (*rpcclient.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.connection()
}

func (n *Node) connection() (*rpcclient.Client, error) {
	if n.rpc == nil {
		return nil, errors.New("the regtest node is stopped: call Restart")
	}
	return n.rpc, nil
}

// Restart starts a stopped node again, on the same chain and at the same address. It does nothing if the node runs.
func (n *Node) Restart(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(n.cfg.Dir, outputName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(n.cfg.Binary, n.arguments()...)
	cmd.Stdout, cmd.Stderr = out, out
	p, err := spawn(cmd)
	if err != nil {
		return fmt.Errorf("start btcd: %w", err)
	}
	if err := p.awaitReady(ctx, n.host, n.cfg.Dir); err != nil {
		return errors.Join(err, p.stop(context.WithoutCancel(ctx), os.Kill))
	}
	rpc, err := n.connect()
	if err != nil {
		return errors.Join(err, p.stop(context.WithoutCancel(ctx), os.Kill))
	}
	if err := n.tape.play(rpc); err != nil {
		rpc.Shutdown()
		rpc.WaitForShutdown()
		return errors.Join(err, p.stop(context.WithoutCancel(ctx), os.Kill))
	}
	n.process, n.rpc = p, rpc
	return nil
}

func (n *Node) connect() (*rpcclient.Client, error) {
	cert, err := n.Cert()
	if err != nil {
		return nil, err
	}
	return rpcclient.New(&rpcclient.ConnConfig{
		Host:         n.host,
		User:         User,
		Pass:         Password,
		Params:       chaincfg.RegressionNetParams.Name,
		Endpoint:     "ws",
		DisableTLS:   n.cfg.Plain,
		Certificates: cert,

		DisableAutoReconnect: true,
	}, nil)
}

func (n *Node) arguments() []string {
	args := []string{
		"--regtest", "--txindex", "--rejectnonstd", "--nolisten", "--nodnsseed",
		"--configfile=" + os.DevNull,
		"--datadir=" + filepath.Join(n.cfg.Dir, "data"),
		"--logdir=" + filepath.Join(n.cfg.Dir, "logs"),
		"--miningaddr=" + purseAddress().EncodeAddress(),
		"--rpclisten=" + n.host, "--rpcuser=" + User, "--rpcpass=" + Password,
		"--rpcmaxclients=200", "--rpcmaxwebsockets=200", "--rpcmaxconcurrentreqs=200",
		"--rpccert=" + n.CertFile(), "--rpckey=" + filepath.Join(n.cfg.Dir, keyName),
	}
	if n.cfg.Plain {
		args = append(args, "--notls")
	}
	return append(args, n.cfg.Args...)
}

// Stop ends the node and returns when its process is gone. The best chain stays in the folder, for [Node.Restart] and
// for a later [Launch]; what is in the mempool only is lost, as btcd keeps none. A stopped node may be stopped again.
func (n *Node) Stop(ctx context.Context) error { return n.end(ctx, syscall.SIGINT) }

// Kill is Stop by SIGKILL: connections break in the middle of an answer.
func (n *Node) Kill(ctx context.Context) error { return n.end(ctx, syscall.SIGKILL) }

func (n *Node) end(ctx context.Context, signal os.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil
	}
	err := n.tape.record(n.rpc)
	if err == nil {
		err = n.tape.save(filepath.Join(n.cfg.Dir, tapeName))
	}
	n.rpc.Shutdown()
	n.rpc.WaitForShutdown()
	err = errors.Join(err, n.process.stop(ctx, signal))
	n.process, n.rpc = nil, nil
	return err
}

// Pause halts the node: its port accepts connections and nobody answers, as with a machine that hangs. The function that
// it returns lets it go on.
func (n *Node) Pause(ctx context.Context) (resume func() error, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil, errors.New("the regtest node is stopped: there is nothing to pause")
	}
	p := n.process.process
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	for !isHalted(p.Pid) {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return nil, errors.Join(err, p.Signal(syscall.SIGCONT))
		}
	}
	return func() error { return p.Signal(syscall.SIGCONT) }, nil
}

// now is the time that blocks are dated by. Only btcd's own rules look at it.
func now() time.Time { return time.Now().Truncate(time.Second) }
