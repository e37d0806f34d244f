//go:build !linux

package main

import (
	"context"
	"errors"
	"os/exec"
)

// errLinux: processes are found, and the power of a disk is cut, as Linux does it.
var errLinux = errors.New("this works on Linux only")

func dieWithParent(*exec.Cmd)        {}
func killAllIn(string) error         { return errLinux }
func isMounted(string) (bool, error) { return false, nil }

type disk struct{ mount string }

func newDisk(context.Context, string) (*disk, error) { return nil, errLinux }
func (d *disk) flush() error                         { return errLinux }
func (d *disk) cut() error                           { return errLinux }
func (d *disk) replace() error                       { return errLinux }
func (d *disk) detach(context.Context) error         { return errLinux }
func (d *disk) remove(context.Context) error         { return errLinux }
