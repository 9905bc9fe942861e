package cli

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// untilSignal returns a context that the first SIGINT, SIGTERM or SIGHUP ends. A signal that
// is ignored from the start stays so: nohup wants that of SIGHUP, and a shell of SIGINT for
// what a script starts in the background.
//
// Before the context ends, SIGINT and SIGTERM are given back: who sees that the program is
// stopping, and sends a second one, which ends it at once, must not be a moment too early. A
// second SIGHUP changes nothing: one terminal that closes sends several.
func (e *Env) untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	stopping := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
	if slices.Contains(stopping, os.Signal(syscall.SIGHUP)) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // for ever
	}
	received := make(chan os.Signal, len(stopping))
	signal.Notify(received, stopping...)
	terminal := hasTerminal()
	go func() {
		s := <-received
		for ; s == syscall.SIGHUP && hasTerminal() == terminal && e.handOn(s); s = <-received {
		}
		signal.Stop(received)
		cancel(signalError{s})
	}()
	return ctx
}

// Hangups returns a channel that gets SIGHUP from now on, instead of its ending the program,
// as daemons have it that read their files again. Of a terminal that has closed it still does:
// nobody would know that the program is there.
func (e *Env) Hangups() <-chan os.Signal {
	hangups := make(chan os.Signal, 1)
	e.hangups.Store(&hangups)
	return hangups
}

// handOn reports whether there is somebody who wants it.
func (e *Env) handOn(hangup os.Signal) bool {
	hangups := e.hangups.Load()
	if hangups == nil {
		return false
	}
	select {
	case *hangups <- hangup:
	default: // there is one that was not yet heeded
	}
	return true
}

// hasTerminal reports whether the process has a terminal that can send it signals.
func hasTerminal() bool {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	_ = terminal.Close()
	return true
}

// signalError is why a context ended that was until a signal.
type signalError struct{ os.Signal }

func (e signalError) Error() string { return e.String() + " signal received" }

func (signalError) Unwrap() error { return context.Canceled }
