package client

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

const (
	readingLines = 256 // that one reader takes at a time: some pages, whose signatures are checked once each
	readingAhead = 2   // parts a reader that wait for the judge: what bounds memory, at 16 KiB a line
)

// part is some lines of a report, in their order.
type part struct {
	raw   [][]byte
	lines []ledger.Reading
	err   error // of the line after them
	ready chan struct{}
}

// readLines reads lines with all processors and hands them to judge in their order, part by part. What they say of each
// other is the judge's.
func readLines(ctx context.Context, relay protocol.PublicKey, lines int64, line func() ([]byte, error), judge func([]ledger.Reading) error) error {
	readers := min(runtime.GOMAXPROCS(0), 8)
	work, inOrder := make(chan *part), make(chan *part, readers*readingAhead)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(work)
		defer close(inOrder)
		for left := lines; left > 0; left -= readingLines {
			p, err := takePart(min(left, readingLines), line)
			if err != nil {
				return err
			}
			for _, to := range []chan *part{inOrder, work} {
				select {
				case to <- p:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	for range readers {
		group.Go(func() error {
			witness := ledger.NewWitness(relay)
			for p := range work {
				p.read(witness)
			}
			return nil
		})
	}
	group.Go(func() error {
		for p := range inOrder {
			select {
			case <-p.ready:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := judge(p.lines); err != nil {
				return err
			}
			if p.err != nil {
				return p.err
			}
		}
		return nil
	})
	return group.Wait()
}

// takePart copies lines, which are valid only until the next.
func takePart(lines int64, line func() ([]byte, error)) (*part, error) {
	p := &part{ready: make(chan struct{})}
	for range lines {
		data, err := line()
		if err != nil {
			return nil, err
		}
		p.raw = append(p.raw, append([]byte(nil), data...))
	}
	return p, nil
}

func (p *part) read(witness *ledger.Witness) {
	defer close(p.ready)
	p.lines = make([]ledger.Reading, 0, len(p.raw))
	for _, data := range p.raw {
		r, err := witness.Read(data)
		if err != nil {
			p.err = err
			return
		}
		p.lines = append(p.lines, r)
	}
}
