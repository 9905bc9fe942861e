// Command dev is `make run`: the whole of Flower in one terminal. It starts a private
// PostgreSQL, register and watcher, registers the workflow sample, shows it run to the
// end, says what to try next, and stops everything in the opposite order on Ctrl-C.
//
// The programs must be built and lie beside dev itself. Data is kept under .flower in
// the working directory. If DATABASE_URL is set, that database is used instead, and no
// PostgreSQL is started.
//
// With -demo it is `make demo`: the same with a database of its own, made anew, that has
// workflows and a history to look at, and in which something goes on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"
)

// Programs are started from the main goroutine and die with the thread that started
// them (see child_linux.go): that must be the one that lives as long as the process.
func init() { runtime.LockOSThread() }

func main() {
	// What is ignored from the start stays so, as nohup wants it. A terminal that closes sends
	// SIGHUP more than once, and what reads our output ends with it: that is no haste.
	stopping := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
	harmless := slices.DeleteFunc([]os.Signal{syscall.SIGHUP, syscall.SIGPIPE}, signal.Ignored)
	signal.Notify(make(chan os.Signal, 1), harmless...)
	ctx, stop := signal.NotifyContext(context.Background(), stopping...)
	context.AfterFunc(ctx, stop) // a second signal ends us at once, and what we started with us
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		os.Exit(1)
	}
}

type options struct {
	port   int
	once   bool
	demo   bool
	forget bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("dev", flag.ContinueOnError)
	flags.IntVar(&o.port, "port", 8000, "where register listens, on localhost")
	flags.BoolVar(&o.once, "once", false, "stop when the sample has run")
	flags.BoolVar(&o.demo, "demo", false, "fill a database of its own with workflows and flows to look at")
	flags.BoolVar(&o.forget, "forget", false, "remove the data and do nothing else")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if o.forget {
		return forget()
	}
	if err := portIsFree(ctx, o.port); err != nil {
		return err
	}

	// Whatever ends too early cancels the work with its reason.
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := play(work, cancel, o, out)
	if ctx.Err() != nil {
		return nil // we were told to stop, whatever that interrupted
	}
	if work.Err() != nil {
		return context.Cause(work)
	}
	return err
}

// play does what the command is for, from top to bottom; what it started stops in the
// opposite order. Unless o.once, it returns when ctx ends.
func play(ctx context.Context, cancel context.CancelCauseFunc, o options, out io.Writer) error {
	db, err := openDatabase(ctx, o.demo, out)
	if err != nil {
		return err
	}
	defer db.stop()

	programs := newCrew(out, db.environ(), cancel)
	defer programs.stop()
	// register brings the schema up to date before it is ready.
	err = programs.start("register", "-webhost", "localhost", "-webport", strconv.Itoa(o.port), "-log-format", "text")
	if err != nil {
		return err
	}
	site := fmt.Sprintf("http://localhost:%d", o.port)
	if err = awaitReady(ctx, site); err != nil {
		return err
	}
	if o.demo {
		if err = fillDemo(ctx, db.url, site); err != nil {
			return err
		}
	}
	if err = os.MkdirAll(secretsDir, 0o700); err != nil {
		return err
	}
	commands, err := writeCommands()
	if err != nil {
		return err
	}
	// Whoever can write definitions here is whoever runs this.
	if err = programs.start("watcher", "-log-format", "text", "-sql-connections", "flower", "-callback-url", site,
		"-allow-command", "-command-dirs", commands); err != nil {
		return err
	}

	if o.demo {
		return showDemo(ctx, site, o.once, out)
	}
	err = runSample(ctx, site, out)
	if o.once || ctx.Err() != nil {
		return err
	}
	if err != nil { // perhaps it was edited: everything else works
		fmt.Fprintf(out, "\nThe sample: %v\n", err)
	}
	fmt.Fprint(out, whatToTry(site, db))
	<-ctx.Done()
	fmt.Fprintln(out, "\nStopping watcher, register and the database …")
	return nil
}

func portIsFree(ctx context.Context, port int) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d is in use: stop what uses it, or choose another one: make run PORT=%d", port, port+1)
	}
	if err != nil {
		return err
	}
	return l.Close()
}
