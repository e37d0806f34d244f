package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal is a pseudo terminal: what a person types into, and what the program has.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return person, program
}

// sits runs a command on a terminal, and answers each question with the next of answers.
func (s *terminal) sits(answers []string, args ...string) (shown string, code int) {
	s.t.Helper()
	person, own := openTerminal(s.t)
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	cmd := s.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = own, own, own
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	own.Close()
	var seen bytes.Buffer
	asked := 0
	for buffer := make([]byte, 4096); ; {
		n, err := person.Read(buffer)
		seen.Write(buffer[:n])
		if questions := strings.Count(seen.String(), "[y/N] "); questions > asked {
			if asked < len(answers) {
				if _, err := io.WriteString(person, answers[asked]+"\n"); err != nil {
					s.t.Fatal(err)
				}
			}
			asked++
		}
		if err != nil { // the program has closed it
			break
		}
	}
	_ = cmd.Wait()
	if asked != len(answers) {
		s.t.Errorf("%d questions were asked, %d were expected:\n%s", asked, len(answers), seen.String())
	}
	return seen.String(), cmd.ProcessState.ExitCode()
}
