package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// servers are the processes that work for a point, beside the generator. 0: there is none, or it is elsewhere.
type servers struct {
	process    int // relayd, or the bare server
	postmaster int // of its Postgres
}

// usage is processor time.
type usage struct{ server, postgres, generator, busy, idle time.Duration } // busy and idle are the whole machine's

func (u usage) minus(v usage) usage {
	return usage{u.server - v.server, u.postgres - v.postgres, u.generator - v.generator, u.busy - v.busy, u.idle - v.idle}
}

// idleShare is how much of the machine nobody used: a point that leaves much of it waits for something else.
func (u usage) idleShare() float64 { return share(u.idle, u) }

// othersShare is how much of the machine was used by what has nothing to do with the point, interrupts included.
func (u usage) othersShare() float64 {
	return share(max(u.busy-u.server-u.postgres-u.generator, 0), u)
}

func share(part time.Duration, u usage) float64 {
	if u.busy+u.idle <= 0 {
		return 0
	}
	return float64(part) / float64(u.busy+u.idle)
}

// ticks is the unit of /proc/…/stat on every Linux that Go runs on.
const ticks = time.Second / 100

// usage is what they and the generator have used so far. Where there is no /proc, what is unknown stays 0.
func (s servers) usage() usage {
	var u usage
	var own syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &own) == nil {
		u.generator = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	}
	u.busy, u.idle = machine()
	if s.process != 0 && s.process != os.Getpid() {
		u.server = readStat(s.process).own
	}
	if s.postmaster == 0 {
		return u
	}
	// Its children at work, those that have ended, and itself.
	main := readStat(s.postmaster)
	u.postgres = main.own + main.ended
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if child := readStat(pid); child.parent == s.postmaster {
			u.postgres += child.own
		}
	}
	return u
}

// machine is the time that all processors together worked and did not, zero if it is not known.
func machine() (busy, idle time.Duration) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	// cpu user nice system idle iowait irq softirq steal; what follows is counted in user already.
	for i, field := range strings.Fields(first) {
		n, _ := strconv.ParseInt(field, 10, 64)
		switch {
		case i == 4 || i == 5:
			idle += time.Duration(n) * ticks
		case 1 <= i && i <= 8:
			busy += time.Duration(n) * ticks
		}
	}
	return busy, idle
}

// stat is what /proc/PID/stat says; zero when the process is gone.
type stat struct {
	parent     int
	own, ended time.Duration // of itself, of its children that have ended
}

func readStat(pid int) stat {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}
	}
	// The name before may hold blanks, but no other closing bracket follows it.
	_, after, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(after)
	if len(fields) < 15 {
		return stat{}
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i], 10, 64); return n }
	return stat{
		parent: int(number(1)),
		own:    time.Duration(number(11)+number(12)) * ticks,
		ended:  time.Duration(number(13)+number(14)) * ticks,
	}
}

// residentBytes is the memory of a process, 0 if it is not known.
func residentBytes(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// watchMemory looks at the server's memory now and then until the returned function is called, which tells the most.
func watchMemory(s servers) func() int64 {
	if s.process == 0 {
		return func() int64 { return 0 }
	}
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		var seen int64
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			seen = max(seen, residentBytes(s.process))
			select {
			case <-ticker.C:
			case <-stop:
				most <- seen
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-most }
}
