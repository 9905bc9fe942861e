package process

import (
	"io"
	"syscall"
	"time"
)

// Command is what to run.
type Command struct {
	Path  string   // of the program file, absolute
	Args  []string // with what the program sees as its own name
	Env   []string // all of its environment: NAME=value
	Dir   string   // where it runs; empty is Scratch
	Stdin string

	// Scratch is where a directory is made for this command alone, and removed when
	// everything has ended. TMPDIR and HOME name it unless Env does.
	Scratch string

	Limits Limits
	Grace  time.Duration // from SIGTERM to SIGKILL

	Stdout, Stderr io.Writer
}

// Limits of each process of a command; 0 is what whoever runs it has itself.
type Limits struct {
	Memory int64         // bytes of data
	CPU    time.Duration // of processor time, in whole seconds
	Files  int           // open at once
}

// Exit is how a command ended by itself.
type Exit struct {
	Code   int            // if Signal is 0
	Signal syscall.Signal // that ended it
}
