package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"relaymarket/internal/regtest"
)

// stopPatience bounds how long a relay may take to finish what it accepted.
const stopPatience = 60 * time.Second

// stage is the folder of one performance and the processes on it.
type stage struct {
	bin, dir string
	relays   []*relay
	people   []*person
	liar     *liar
	node     *regtest.Node // nil until the chain is started
	password string        // file of the node's
	hub      string        // where relays announce themselves
}

func newStage(bin string) (*stage, error) {
	for _, name := range []string{"relayd", "relay"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return nil, fmt.Errorf("%s is not built: run make demo, which builds it", name)
		}
	}
	dir, err := os.MkdirTemp("", "relaymarket-demo-")
	if err != nil {
		return nil, err
	}
	// Postgres runs as another user when this is root, and must be able to pass through.
	return &stage{bin: bin, dir: dir}, os.Chmod(dir, 0o711)
}

// close ends what still runs and removes the folder.
func (s *stage) close() {
	if s.liar != nil {
		s.liar.close()
	}
	_ = s.stopRelays()
	_ = s.endNode()
	_ = os.RemoveAll(s.dir)
}

func (s *stage) stopRelays() error {
	var all error
	for _, r := range s.relays {
		all = errors.Join(all, r.stop())
	}
	return all
}

// showLogs prints the end of each relay's log, for a failed demo.
func (s *stage) showLogs() {
	for _, r := range s.relays {
		lines := strings.Split(strings.TrimSpace(r.log.String()), "\n")
		fmt.Fprintf(os.Stderr, "\n--- log of the relay %s\n%s\n", r.name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// relay is one relayd with its folder.
type relay struct {
	stage     *stage
	name, dir string
	url, key  string
	cmd       *exec.Cmd
	exited    chan error
	log       bytes.Buffer
}

// newRelay makes a relay and starts it.
func (s *stage) newRelay(ctx context.Context, name string) (*relay, error) {
	r, err := s.addRelay(ctx, name)
	if err != nil {
		return nil, err
	}
	return r, r.start(ctx)
}

// addRelay makes a relay that does not run yet.
func (s *stage) addRelay(ctx context.Context, name string) (*relay, error) {
	r := &relay{stage: s, name: name, dir: filepath.Join(s.dir, name)}
	s.relays = append(s.relays, r)
	if err := r.admin(ctx, "init"); err != nil {
		return nil, err
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	operator, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return r, r.configure(setting{"listen", listen}, setting{"operator-listen", operator}, setting{"address", []string{"http://" + listen}})
}

// setting is a line of relayd.toml.
type setting struct {
	name  string
	value any // string, int64 or []string
}

// configure writes settings into the relay's file, as its operator does.
func (r *relay) configure(settings ...setting) error {
	file, err := os.OpenFile(filepath.Join(r.dir, "relayd.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for _, s := range settings {
		value, err := json.Marshal(s.value) // which is TOML for these kinds
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(file, "%s = %s\n", s.name, value); err != nil {
			return err
		}
	}
	return file.Close()
}

// freeAddress is one of loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// command is one of the operator's commands.
func (r *relay) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(r.stage.bin, "relayd"), append(args, "--dir", r.dir)...)
}

// admin runs one of the operator's commands.
func (r *relay) admin(ctx context.Context, args ...string) error {
	out, err := r.command(ctx, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("relayd %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// start runs relayd serve and waits for its line.
func (r *relay) start(ctx context.Context) error {
	cmd := exec.Command(filepath.Join(r.stage.bin, "relayd"), "serve", "--dir", r.dir, "--json")
	cmd.Stderr = &r.log
	// A demo that is interrupted ends its relays itself, in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.cmd = cmd
	exited := make(chan error, 1)
	r.exited = exited
	ready := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(out).ReadBytes('\n')
		var said struct{ URL, Relay string }
		if err == nil {
			err = json.Unmarshal(line, &said)
		}
		if err != nil {
			err = fmt.Errorf("the relay %s did not start: %w", r.name, err)
		} else {
			r.url, r.key = said.URL, said.Relay
		}
		ready <- err
		_, _ = io.Copy(io.Discard, out)
		exited <- cmd.Wait()
	}()
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the process where it stands, as a power cut does.
func (r *relay) kill() error {
	if err := r.cmd.Process.Kill(); err != nil {
		return err
	}
	<-r.exited
	r.cmd = nil
	return nil
}

// stop asks for a graceful end and wants exit code 0.
func (r *relay) stop() error {
	if r.cmd == nil {
		return nil
	}
	cmd := r.cmd
	r.cmd = nil
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.exited:
		if err != nil {
			return fmt.Errorf("the relay %s did not stop cleanly: %w", r.name, err)
		}
		return nil
	case <-time.After(stopPatience):
		_ = cmd.Process.Kill()
		<-r.exited
		return fmt.Errorf("the relay %s did not stop within %s", r.name, stopPatience)
	}
}

// person is one user with his folder.
type person struct {
	stage     *stage
	name, dir string
	card      string
	key       string
}

func (s *stage) newPerson(ctx context.Context, name string) (*person, error) {
	p := &person{stage: s, name: name, dir: filepath.Join(s.dir, name), card: filepath.Join(s.dir, name+".relayid")}
	if _, err := p.relay(ctx, "init", "--label", name); err != nil {
		return nil, err
	}
	var id struct {
		Key string `json:"bech32"`
	}
	if err := p.json(ctx, &id, "id"); err != nil {
		return nil, err
	}
	p.key = id.Key
	s.people = append(s.people, p)
	return p, nil
}

// command is one call of the command line. The passphrase comes from the environment.
func (p *person) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.stage.bin, "relay"), args...)
	cmd.Env = append(os.Environ(), "RELAY_DIR="+p.dir, "RELAY_PASSPHRASE=a passphrase for "+p.name)
	return cmd
}

// relay runs the command line and returns what it printed; an error carries what it said.
func (p *person) relay(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := p.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String() + errs.String(), fmt.Errorf("%s: relay %s: %w\n%s%s", p.name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String() + errs.String(), nil
}

// json runs the command line with --json and decodes its standard output.
func (p *person) json(ctx context.Context, into any, args ...string) error {
	cmd := p.command(ctx, append(args, "--json")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: relay %s: %w\n%s%s", p.name, strings.Join(args, " "), err, out, errs.String())
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("%s: relay %s --json printed %q: %w", p.name, strings.Join(args, " "), out, err)
	}
	return nil
}
