package main

import "syscall"

// childAttributes: a process group of its own, since Ctrl-C is for us and we stop the
// programs in their order; and killed when we are, so that none is left behind. Flower
// itself is made for that: the tasks of a killed watcher are rescued.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
