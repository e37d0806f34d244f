package client

import (
	"context"
	"sync/atomic"
	"time"
)

// FilePhase is what is done with a file.
type FilePhase string

// The phases of sending a file, and of fetching one.
const (
	PhaseReading  FilePhase = "reading" // before the first piece is sent: what it will be is fixed
	PhaseSending  FilePhase = "sending"
	PhaseFetching FilePhase = "fetching"
	PhaseChecking FilePhase = "checking" // the whole file, after the last piece came
)

// FileProgress is how far a phase is.
type FileProgress struct {
	Phase FilePhase
	Name  string
	Done  int64         // bytes; of a file that goes to several relays, in all of them
	Total int64         // likewise
	Rate  int64         // bytes a second, lately
	Left  time.Duration // at that rate; 0: not known
}

// tellEvery is how often progress is told.
const tellEvery = 250 * time.Millisecond

// progress counts bytes and tells of them.
type progress struct {
	now   FileProgress
	done  atomic.Int64
	moved atomic.Int64 // time.Now, ns, of the last byte
	tell  func(FileProgress)
}

func newProgress(name string, tell func(FileProgress)) *progress {
	p := &progress{now: FileProgress{Name: name}, tell: tell}
	p.moved.Store(time.Now().UnixNano())
	return p
}

func (p *progress) add(n int64) {
	p.done.Add(n)
	p.moved.Store(time.Now().UnixNano())
}

// idle is for how long nothing moved.
func (p *progress) idle() time.Duration { return time.Duration(time.Now().UnixNano() - p.moved.Load()) }

// during runs a phase and tells how far it is, first and last of all too.
func (p *progress) during(ctx context.Context, phase FilePhase, done, total int64, do func(context.Context) error) error {
	p.done.Store(done)
	p.moved.Store(time.Now().UnixNano())
	if p.tell == nil {
		return do(ctx)
	}
	p.now = FileProgress{Phase: phase, Name: p.now.Name, Done: done, Total: total}
	p.tell(p.now)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		p.follow(stop)
	}()
	err := do(ctx)
	close(stop)
	<-stopped
	p.now.Done, p.now.Left = p.done.Load(), 0
	p.tell(p.now)
	return err
}

// follow tells of progress until stop is closed. The rate is that of the last seconds, older ones counting less.
func (p *progress) follow(stop <-chan struct{}) {
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	last, at := p.now.Done, time.Now()
	begun := true
	for {
		select {
		case <-stop:
			return
		case now := <-ticker.C:
			done, span := p.done.Load(), now.Sub(at)
			if span <= 0 {
				continue
			}
			rate := int64(time.Duration(done-last) * time.Second / span)
			if !begun {
				rate = p.now.Rate + (rate-p.now.Rate)/8
			}
			begun = begun && done == last
			last, at = done, now
			p.now.Done, p.now.Rate, p.now.Left = done, rate, 0
			if rate > 0 && p.now.Total > done {
				p.now.Left = time.Duration((p.now.Total-done)/rate) * time.Second
			}
			p.tell(p.now)
		}
	}
}
