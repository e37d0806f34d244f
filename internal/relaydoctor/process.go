package relaydoctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"relaymarket/internal/findings"
)

const (
	askPatience = 5 * time.Second
	maxReply    = 8 << 20 // bytes of metrics
)

// process asks the relay whether it runs, and how many files it may open.
func (d *doctor) process(ctx context.Context) (findings.Finding, findings.List) {
	code, said, err := ask(ctx, "http://"+d.cfg.Operator+"/readyz")
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return warn("relay", "it does not run: nothing listens on "+d.cfg.Operator, "relayd serve; or name the folder of the one that runs with --dir"), d.files(limits{})
	case err != nil:
		return fail("relay", "it does not answer on "+d.cfg.Operator+": "+err.Error(), "see that operator-listen is the relay's, and its log"), d.files(limits{})
	}
	d.running = true
	l := d.limits(ctx)
	if code != http.StatusOK {
		return fail("relay", "it runs and is not ready: "+said, "what else is found below says why, or its log"), d.files(l)
	}
	return findings.Okf("relay", "it runs and is ready"), d.files(l)
}

// limits are of a process's open files; 0: not known.
type limits struct{ open, most int64 }

// limits reads them from the relay's metrics.
func (d *doctor) limits(ctx context.Context) (l limits) {
	_, text, err := ask(ctx, "http://"+d.cfg.Operator+"/metrics")
	if err != nil {
		return l
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "process_open_fds":
			l.open = int64(n)
		case "process_max_fds":
			l.most = int64(n)
		}
	}
	return l
}

// files holds what the relay may open against what it may need.
func (d *doctor) files(l limits) findings.List {
	if l.most == 0 {
		var own syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own) != nil {
			return nil
		}
		l.most = int64(min(own.Max, 1<<40)) // Go raises its own to this
	}
	if l.most < d.cfg.OpenFiles {
		return findings.List{warn("files", fmt.Sprintf("%d may be open, and with these settings %d may be wanted: then strangers are not let in any more", l.most, d.cfg.OpenFiles),
			"LimitNOFILE=65536 in the unit, or ulimit -n 65536 before; or lower max-listeners")}
	}
	if l.open > l.most*8/10 {
		return findings.List{warn("files", fmt.Sprintf("%d of %d are open", l.open, l.most), "raise LimitNOFILE in the unit")}
	}
	if l.open > 0 {
		return findings.List{findings.Okf("files", "%d of %d are open", l.open, l.most)}
	}
	return findings.List{findings.Okf("files", "%d may be open, %d may be wanted", l.most, d.cfg.OpenFiles)}
}

// ask reads a page of the operator's listener.
func ask(ctx context.Context, url string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}
	reply, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
	return reply.StatusCode, strings.TrimSpace(string(text)), err
}

// leftovers looks for what was cut off: restores and rehearsals beside the folder, and a ballast that was given up.
func (d *doctor) leftovers(context.Context) findings.List {
	var left []string
	parent := filepath.Dir(d.cfg.Dir)
	for _, pattern := range []string{filepath.Join(parent, ".*.partial-*"), filepath.Join(parent, ".relayd-rehearsal-*"), filepath.Join(d.cfg.Dir, ".*.partial-*"), filepath.Join(d.cfg.Dir, ".relayd-rehearsal-*")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // the folder's name is a pattern itself
		}
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && d.now.Sub(info.ModTime()) > time.Hour {
				left = append(left, path)
			}
		}
	}
	all := findings.List{}
	if len(left) > 0 {
		all = append(all, warn("leftovers", "of a backup or restore that was cut off: "+strings.Join(left, ", "), "delete what no relayd works on"))
	}
	if d.cfg.Database.Private && d.running && d.cfg.Database.Folder != "" {
		if _, err := os.Stat(filepath.Join(d.cfg.Database.Folder, "ballast")); errors.Is(err, os.ErrNotExist) {
			all = append(all, warn("leftovers", "the ballast of the database was given up: its disk was full", "make room on the disk; the relay makes the ballast again"))
		}
	}
	return all
}
