// Package cli is what the two programs share before their work begins: flags and
// environment, the logger, signals and exit codes.
//
// A setting is looked for in its flag, then in its environment variable, then there is
// its default; an empty variable counts as none. Both programs are a Main around a run
// function that gets everything from its arguments, so that a test can run it:
//
//	func main() { cli.Main("register", run) }
//
//	func run(ctx context.Context, env *cli.Env) error {
//		flags := cli.NewFlags(env.Name, "what it does")
//		flags.Database(&cfg.database)
//		flags.Group("Web")
//		flags.Var(cli.Int(&cfg.port, 8000, 1, 65535), "webport PORT", "FLOWER_WEBPORT", "where to listen")
//		flags.Logging(&cfg.log)
//		if err := flags.Parse(env); err != nil {
//			return err
//		}
//		log := env.Logger(cfg.log)
//		flags.Report(log)
//		…
//	}
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"unicode"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// The exit codes.
const (
	ExitStopped = 0 // it did what it was asked to, or was told to stop
	ExitFailed  = 1
	ExitUsage   = 2 // a flag or a variable is wrong: starting it again cannot help
)

// ErrPrinted is what Flags.Parse returns after -help, -version and -print-config: what
// was asked for is printed, and nothing is left to do.
var ErrPrinted = errors.New("nothing left to do")

// UsageError says that the program was called wrongly. Its text names the flag or the
// variable, the value, and what is allowed.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

func usagef(format string, args ...any) error {
	return &UsageError{Problem: fmt.Sprintf(format, args...)}
}

// Env is what a process gets from outside.
type Env struct {
	Name   string   // of the program
	Args   []string // without the program's name
	Getenv func(string) string
	Stdin  io.Reader
	Stdout io.Writer // what was asked for: -help, -version
	Stderr io.Writer // everything else

	log      *slog.Logger // nil until Logger was called
	logs     *logBuffer   // nil if that writes to no file
	commands []Command    // that can still be chosen from
	hangups  atomic.Pointer[chan os.Signal]
}

// Run is a program: it works until it is done, fails, or ctx ends.
type Run func(ctx context.Context, env *Env) error

// Main runs a program with the environment of the process and ends the process. The first
// SIGINT, SIGTERM or SIGHUP ends the context of run: see untilSignal.
func Main(name string, run Run) {
	LessGC()
	keepWithin(memlimit.FromCgroup)
	env := &Env{
		Name:   name,
		Args:   os.Args[1:],
		Getenv: os.Getenv,
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	}
	os.Exit(Exec(env.untilSignal(), env, run))
}

// LessGC has garbage collected only when the heap has grown to five times what is live,
// unless GOGC says otherwise. What lives is a few megabytes: at Go's default a busy
// watcher spends a quarter of its processor time on it.
func LessGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// keepWithin has garbage collected more often where the heap comes near to the memory that
// the container or the service may have, unless GOMEMLIMIT says otherwise: beyond that the
// kernel kills the process, and what is live seldom needs so much.
func keepWithin(limit memlimit.Provider) {
	_, _ = memlimit.Set(memlimit.WithProvider(limit)) // what cannot be found out is as without it
}

// Exec runs a program and returns its exit code. It is the one place that reports the
// error of run: by the logger if run has made one, else as a line of text.
func Exec(ctx context.Context, env *Env, run Run) int {
	defer env.closeLog()
	err := run(ctx, env)
	var usage *UsageError
	var exit *ExitError
	switch {
	case err == nil, errors.Is(err, ErrPrinted):
		return ExitStopped
	case errors.As(err, &exit):
		if exit.Err != nil {
			env.complain("%v", exit.Err)
		}
		return exit.Code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return ExitStopped // whatever was interrupted: that is what the signal asked for
	case errors.As(err, &usage):
		env.complain("%s (%s -help lists all settings)", usage.Problem, env.Name)
		return ExitUsage
	case env.log != nil:
		env.log.Error("cannot go on", "err", err)
	default:
		env.complain("%v", err)
	}
	return ExitFailed
}

// closeLog has all that was logged written, if somebody reads it.
func (e *Env) closeLog() {
	if e.logs != nil {
		e.logs.close()
	}
}

func (e *Env) complain(format string, args ...any) {
	fmt.Fprint(e.Stderr, Printable(e.Name+": "+fmt.Sprintf(format, args...)+"\n"))
}

// Printable takes away what could command a terminal: much of what is shown was written by
// somebody else.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || r == '\n' || r == '\t' {
			return r
		}
		return '?'
	}, s)
}
