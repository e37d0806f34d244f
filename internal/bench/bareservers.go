package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// The bare servers run as processes of their own, as relayd does: this program again, with this flag. They end when
// their standard input does, which also happens when the generator dies.
const (
	serveFlag  = "-serve"
	serveEcho  = "echo"
	serveNATS  = "nats"
	serveRelay = "relay" // and the URL of its database
)

// isBare tells whether a command line is that of a bare server.
func isBare(args []string) bool { return len(args) >= 3 && args[1] == serveFlag }

// serveBare is such a process, of the command line's arguments after the flag. It says its address in one line.
func serveBare(args []string) error {
	address, stop, err := "", func() {}, error(nil)
	which := args[0]
	switch which {
	case serveRelay:
		address, stop, err = serveRelayAt(args[len(args)-1])
	case serveEcho:
		address, stop, err = echoServer()
	case serveNATS:
		address, stop, err = natsServer()
	default:
		err = fmt.Errorf("there is no bare server %q", which)
	}
	if err != nil {
		return err
	}
	fmt.Println(address)
	_, err = io.Copy(io.Discard, os.Stdin)
	stop()
	return err
}

// echoServer answers every request with its body.
func echoServer() (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err == nil {
			_, _ = w.Write(body)
		}
	})}
	go func() { _ = s.Serve(l) }()
	return l.Addr().String(), func() { _ = s.Close() }, nil
}

func natsServer() (address string, stop func(), err error) {
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		return "", nil, err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return "", nil, errors.New("the NATS server does not accept connections")
	}
	return s.Addr().String(), func() { s.Shutdown(); s.WaitForShutdown() }, nil
}

// bareServer is a running one.
type bareServer struct {
	address string
	proc    servers
	stop    func() error
}

func startBare(ctx context.Context, which string, more ...string) (*bareServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{serveFlag, which}, more...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	line, stop, err := launch(ctx, cmd, nothing{})
	if err != nil {
		return nil, fmt.Errorf("bare %s server: %w", which, err)
	}
	return &bareServer{
		address: strings.TrimSpace(string(line)),
		proc:    servers{process: cmd.Process.Pid},
		stop:    func() error { _ = in.Close(); return stop() },
	}, nil
}

// nothing is the signal that ends a bare server: none, its input ends.
type nothing struct{}

func (nothing) Signal()        {}
func (nothing) String() string { return "no signal" }

// echo is limit_echo: requests of a record's size to a server that only sends them back.
type echo struct {
	server *bareServer
	conns  []*conn
	ask    []byte
}

func openEcho(ctx context.Context, _ *bench, p point, size int) (workload, error) {
	server, err := startBare(ctx, serveEcho)
	if err != nil {
		return nil, err
	}
	w := &echo{server: server, ask: request(http.MethodPost, "/", server.address, "application/octet-stream", make([]byte, size))}
	w.conns, err = dialAll(ctx, server.address, p.conns)
	return w, err
}

func (w *echo) workers() int                       { return len(w.conns) }
func (w *echo) servers() servers                   { return w.server.proc }
func (w *echo) close() error                       { return errors.Join(closeAll(w.conns), w.server.stop()) }
func (w *echo) prepare(context.Context, int) error { return nil }
func (w *echo) step(_ context.Context, c, _ int) (sample, error) {
	_, err := w.conns[c].expect(http.StatusOK, w.ask)
	return sample{records: 1}, err
}

// natsFanout is limit_nats_fanout: subscribers with a connection each, one publisher.
type natsFanout struct {
	*fanout
	server      *bareServer
	publisher   *nats.Conn
	subscribers []*nats.Conn
	sent        int // messages prepared
}

// Messages are as long as the line by which a relay tells a listener of a record.
const (
	natsSubject = "bench"
	natsBytes   = 450
)

func openNATS(ctx context.Context, _ *bench, p point, _ int) (workload, error) {
	server, err := startBare(ctx, serveNATS)
	if err != nil {
		return nil, err
	}
	w := &natsFanout{fanout: newFanout(p.conns), server: server}
	address := "nats://" + server.address
	if w.publisher, err = nats.Connect(address); err != nil {
		return w, err
	}
	for range p.conns {
		c, err := nats.Connect(address)
		if err != nil {
			return w, err
		}
		w.subscribers = append(w.subscribers, c)
		if _, err := c.Subscribe(natsSubject, func(m *nats.Msg) { w.told(int(binary.BigEndian.Uint64(m.Data))) }); err != nil {
			return w, err
		}
		if err := c.Flush(); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *natsFanout) workers() int     { return 1 }
func (w *natsFanout) servers() servers { return w.server.proc }

func (w *natsFanout) close() error {
	for _, c := range w.subscribers {
		c.Close()
	}
	if w.publisher != nil {
		w.publisher.Close()
	}
	return w.server.stop()
}

func (w *natsFanout) prepare(_ context.Context, requests int) error {
	w.reset(requests)
	w.sent = requests
	return nil
}

func (w *natsFanout) step(ctx context.Context, _, i int) (sample, error) {
	if i >= w.sent {
		return sample{}, errSpent
	}
	data := make([]byte, natsBytes)
	binary.BigEndian.PutUint64(data, uint64(i))
	return w.follow(ctx, i, func() error {
		if err := w.publisher.Publish(natsSubject, data); err != nil {
			return err
		}
		return w.publisher.Flush()
	})
}
