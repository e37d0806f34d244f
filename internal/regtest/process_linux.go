package regtest

import "syscall"

// dieWithOwner makes the kernel end the child when the thread that starts it ends, which spawn makes the same as: when
// this process ends, even by SIGKILL.
func dieWithOwner(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
