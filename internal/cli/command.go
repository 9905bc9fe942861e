package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ExitInterrupted is the code of a command that a signal has ended before it was done, as
// shells have it. (A program that serves until it is told to stop has then done its work.)
const ExitInterrupted = 130

// ExitError ends a program with a code of its own, which its help explains.
type ExitError struct {
	Code int
	Err  error // is reported; nil if everything is said
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Command is what a program does, instead of its main work, when its first argument is
// Name. It has flags of its own:
//
//	cli.Main("register", cli.WithCommands(run, cli.Command{"export", "write workflows as files", export}))
//
//	func export(ctx context.Context, env *cli.Env) error {
//		flags := cli.NewFlags(env.Name, "writes workflows as files")
//		flags.Args("[TASK…]", &ids)
//		…
//		if err := flags.Parse(env); err != nil {
//			return err
//		}
//		…
//	}
type Command struct {
	Name    string // one word
	Summary string // for the help of the program
	Run     Run
}

// WithCommands returns a program that runs the command which its first argument names;
// and main if that is a flag, or if there is none. Its -help lists the commands.
func WithCommands(main Run, commands ...Command) Run {
	return func(ctx context.Context, env *Env) error {
		env.commands = commands
		if len(env.Args) == 0 || strings.HasPrefix(env.Args[0], "-") {
			return main(ctx, env)
		}
		for _, c := range commands {
			if c.Name == env.Args[0] {
				return c.run(ctx, env)
			}
		}
		return usagef("unknown command %q: there are %s", env.Args[0], commandNames(commands))
	}
}

func (c Command) run(ctx context.Context, env *Env) error {
	env.Name += " " + c.Name
	env.Args = env.Args[1:]
	env.commands = nil
	err := c.Run(ctx, env)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return &ExitError{Code: ExitInterrupted}
	}
	return err
}

func isCommand(name string, commands []Command) bool {
	return slices.ContainsFunc(commands, func(c Command) bool { return c.Name == name })
}

func commandNames(commands []Command) string {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

// arguments are what a command takes beside its flags.
type arguments struct {
	form        string // for the help, as in "ID [SEQ]"
	names       []string
	least, most int // most < 0: any number
	values      *[]string
}

// Args lets the program have arguments beside its flags: before, between or after them.
// The form says which, for the help and for errors: "ID SEQ" are two, "ID [SEQ]" one or
// two, "[TASK…]" any number.
func (f *Flags) Args(form string, values *[]string) {
	a := arguments{form: form, values: values}
	for name := range strings.FieldsSeq(form) {
		a.names = append(a.names, strings.Trim(name, "[]…"))
		if !strings.HasPrefix(name, "[") {
			a.least++
		}
		a.most++
	}
	if strings.Contains(form, "…") {
		a.most = -1
	}
	f.args = a
}

// parseArgs reads flags and returns the arguments, in any order; after "--" there are
// arguments alone.
func (f *Flags) parseArgs(args []string) ([]string, error) {
	var values []string
	for {
		if err := f.set.Parse(args); err != nil {
			return nil, err
		}
		rest := f.set.Args()
		if read := len(args) - len(rest); len(rest) == 0 || read > 0 && args[read-1] == "--" {
			return append(values, rest...), nil
		}
		values, args = append(values, rest[0]), rest[1:]
	}
}

// take keeps the arguments that were given, if there are as many as there must be.
func (a arguments) take(values []string) error {
	switch {
	case a.most == 0 && len(values) > 0:
		return usagef("unexpected argument %q: settings begin with a dash, as in -name value or -name=value", values[0])
	case a.most >= 0 && len(values) > a.most:
		return usagef("unexpected argument %q: the arguments are %s", values[a.most], a.form)
	case slices.Contains(values, ""): // most often of a variable that is not set
		return usagef("%s is empty: the arguments are %s", a.names[min(slices.Index(values, ""), len(a.names)-1)], a.form)
	case len(values) < a.least:
		return usagef("%s is missing: the arguments are %s", a.names[len(values)], a.form)
	case a.values != nil:
		*a.values = values
	}
	return nil
}
