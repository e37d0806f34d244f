package main

import (
	"bufio"
	"errors"
	"os"
	"strings"

	"golang.org/x/term"
)

// confirm asks the user to agree, on the terminal even if standard input is something else. yes answers for him.
func (p *program) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	terminal := p.in
	if !term.IsTerminal(int(terminal.Fd())) {
		var err error
		if terminal, err = os.OpenFile("/dev/tty", os.O_RDWR, 0); err != nil {
			return usagef("there is no terminal to ask on: give --yes if you agree. %s", question)
		}
		defer terminal.Close()
	}
	p.complain("%s [y/N] ", question)
	typed, err := bufio.NewReader(terminal).ReadString('\n')
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(typed)) {
	case "y", "yes":
		return nil
	}
	return exitError{exitFailed, errors.New("nothing was signed")}
}
