//go:build unix && !linux

package main

import "syscall"

// childAttributes: a process group of its own, since Ctrl-C is for us and we stop the
// programs in their order. (Only Linux can also kill them along with us.)
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
