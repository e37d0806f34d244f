package top

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"relaymarket/internal/status"
)

// Config says what is shown, and where.
type Config struct {
	Ask   func(context.Context) (*status.Status, error)
	Every time.Duration // between looks
	Once  bool          // two looks, one view, and an error if the relay does not answer
	JSON  bool          // an object a line instead of a screen
	In    io.Reader     // keys, if it is a terminal
	Out   io.Writer
}

// askPatience bounds one look: a relay that hangs is one that does not answer.
const askPatience = 5 * time.Second

// Run shows until ctx is done or, on a terminal, q is pressed; neither is an error.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Once {
		return once(ctx, cfg)
	}
	in, inFile := cfg.In.(*os.File)
	out, outFile := cfg.Out.(*os.File)
	if !cfg.JSON && inFile && outFile && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd())) {
		return onTerminal(ctx, cfg, in, out)
	}
	return loop(ctx, cfg, func(v *View, failed error) error {
		if failed != nil {
			if cfg.JSON {
				return json.NewEncoder(cfg.Out).Encode(struct {
					At    time.Time `json:"at"`
					Error string    `json:"error"`
				}{time.Now().UTC(), failed.Error()})
			}
			_, err := fmt.Fprintf(cfg.Out, "%s\n\n", failed)
			return err
		}
		return write(cfg, v)
	})
}

func write(cfg Config, v *View) error {
	if cfg.JSON {
		return json.NewEncoder(cfg.Out).Encode(v)
	}
	_, err := fmt.Fprintf(cfg.Out, "%s\n\n", strings.TrimRight(strings.Join(screen(v, 0, false), "\n"), "\n"))
	return err
}

func once(ctx context.Context, cfg Config) error {
	before, err := ask(ctx, cfg)
	if err != nil {
		return err
	}
	if !pause(ctx, cfg.Every) {
		return ctx.Err()
	}
	now, err := ask(ctx, cfg)
	if err != nil {
		return err
	}
	v := Between(before, now)
	return write(cfg, &v)
}

func ask(ctx context.Context, cfg Config) (*status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	return cfg.Ask(ctx)
}

// loop shows a view for each look. A relay that does not answer is shown as that, and asked again.
func loop(ctx context.Context, cfg Config, show func(*View, error) error) error {
	var before *status.Status
	for first := true; ; first = false {
		now, err := ask(ctx, cfg)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if err := show(nil, err); err != nil {
				return err
			}
			before = nil
		} else {
			// One look alone knows no rates of this moment: the second comes soon.
			if before != nil || !first {
				v := Between(before, now)
				if err := show(&v, nil); err != nil {
					return err
				}
			}
			before = now
		}
		if !pause(ctx, cfg.Every) {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

const (
	enter = "\x1b[?1049h\x1b[?25l" // another screen, without a cursor
	leave = "\x1b[?25h\x1b[?1049l"
	home  = "\x1b[H"
	tail  = "\x1b[K" // to the end of the line, nothing
	below = "\x1b[J"
)

// onTerminal redraws the screen in place, and puts the terminal back as it was whatever happens.
func onTerminal(ctx context.Context, cfg Config, in, out *os.File) (err error) {
	was, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	defer func() {
		_, writeErr := io.WriteString(out, leave)
		err = errors.Join(err, writeErr, term.Restore(int(in.Fd()), was))
	}()
	if _, err := io.WriteString(out, enter+home+"asking the relay…  q: quit"+tail+below); err != nil {
		return err
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	go keys(in, quit)
	return loop(ctx, cfg, func(v *View, failed error) error {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			width, height = 80, 24
		}
		lines := []string{fit(time.Now().Format("15:04:05 ")+"the relay does not answer", width)}
		if failed != nil {
			lines = append(lines, fit(printable(failed.Error()), width))
		} else {
			lines = screen(v, width, true)
		}
		lines = append(lines[:min(len(lines), height-1)], fit("q: quit", width))
		_, err = io.WriteString(out, home+strings.Join(lines, tail+"\r\n")+tail+below)
		return err
	})
}

// keys waits for q, Ctrl-C, Ctrl-D or the end of the input. It ends with the process: nothing can interrupt a read of a terminal.
func keys(in io.Reader, quit func()) {
	defer quit()
	var one [1]byte
	for {
		if n, err := in.Read(one[:]); err != nil || n == 0 || strings.IndexByte("qQ\x03\x04", one[0]) >= 0 {
			return
		}
	}
}
