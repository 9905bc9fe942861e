package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// source says where the value of a setting came from.
type source string

const (
	fromDefault source = "default"
	fromEnv     source = "environment"
	fromFlag    source = "flag"
)

// setting is one value that can be set by a flag and, if env is not empty, by an
// environment variable.
type setting struct {
	name, env, group string
	arg, usage       string // what its value is called and what it is for
	value            *Value
	def              string // the default as text
	source           source
}

// Flags are the settings of a program.
type Flags struct {
	name     string
	summary  string
	examples []string
	group    string // of the settings to come
	set      *flag.FlagSet
	settings []*setting
	byName   map[string]*setting
	checks   []func() error // after everything was read, in order
	getenv   func(string) string
	unproven []string // hosts of the database that need not prove who they are
	needs    []need
	args     arguments
	codes    string // what its exit codes mean

	printVersion, printConfig bool
}

// NewFlags returns the settings of a program that has none yet but -version,
// -print-config and -help.
func NewFlags(name, summary string, examples ...string) *Flags {
	f := &Flags{
		name:     name,
		summary:  summary,
		examples: examples,
		set:      flag.NewFlagSet(name, flag.ContinueOnError),
		byName:   make(map[string]*setting),
		codes:    "0 stopped, 1 failed, 2 wrong usage",
	}
	f.set.SetOutput(io.Discard) // errors are printed by Exec, help by Parse
	f.Group("Other")
	f.Var(Bool(&f.printVersion), "version", "", "print the version and stop")
	f.Var(Bool(&f.printConfig), "print-config", "", "print every setting with its source and stop")
	return f
}

// Group gives the settings that follow a heading in the help.
func (f *Flags) Group(title string) { f.group = title }

// Var adds a setting: its flag as in "webport PORT", its environment variable ("" is
// none), and what it is for in a few words.
func (f *Flags) Var(v *Value, flagAndArg, env, usage string) {
	name, arg, _ := strings.Cut(flagAndArg, " ")
	s := &setting{
		name: name, env: env, group: f.group, arg: arg, usage: usage,
		value: v, def: v.String(), source: fromDefault,
	}
	f.settings = append(f.settings, s)
	f.byName[name] = s
	f.set.Var(v, name, usage)
}

// ExitCodes says in the help what the program's exit codes mean, if not the usual.
func (f *Flags) ExitCodes(text string) { f.codes = text }

// Check adds a rule for the settings as a whole. It runs when all of them were read;
// its error should name the settings that it is about.
func (f *Flags) Check(rule func() error) { f.checks = append(f.checks, rule) }

// NotEmpty refuses flags that are given with nothing, most often of a variable that is not set,
// where going on without them would do something else than was meant.
func (f *Flags) NotEmpty(names ...string) {
	f.Check(func() error {
		for _, name := range names {
			if f.Given(name) && f.byName[name].value.String() == "" {
				return fmt.Errorf("flag -%s is given, and is empty", name)
			}
		}
		return nil
	})
}

// need is settings that have no effect unless another one is set.
type need struct {
	other string
	names []string
}

// Needs says that settings have no effect without another one: Report warns of them. They are
// no error, since an environment may be shared.
func (f *Flags) Needs(other string, names ...string) {
	f.needs = append(f.needs, need{other, names})
}

// Parse reads the settings. It returns a *UsageError if one is wrong, and ErrPrinted if
// the caller wanted to be told something rather than to have the program run.
func (f *Flags) Parse(env *Env) error {
	f.getenv = env.Getenv
	args, err := f.parseArgs(env.Args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.writeHelp(env.Stdout, env.commands)
		return ErrPrinted
	case err != nil:
		if i := slices.IndexFunc(env.Args, func(arg string) bool { return isCommand(arg, env.commands) }); i >= 0 {
			return usagef("%v; the command comes before its settings, as in %s %s …", err, f.name, env.Args[i])
		}
		return usagef("%v", err)
	case f.printVersion:
		fmt.Fprintln(env.Stdout, f.name, Version())
		return ErrPrinted
	}
	if len(args) > 0 && isCommand(args[0], env.commands) {
		return usagef("the command comes before its settings, as in %s %s …", f.name, args[0])
	}
	if err := f.args.take(args); err != nil {
		return err
	}
	f.set.Visit(func(given *flag.Flag) { f.byName[given.Name].source = fromFlag })
	if err := f.readEnv(env); err != nil {
		return err
	}
	for _, check := range f.checks {
		if err := check(); err != nil {
			return usagef("%v", err)
		}
	}
	if f.printConfig {
		f.writeConfig(env.Stdout)
		return ErrPrinted
	}
	return nil
}

// Given reports whether a setting was given as a flag. Checks may ask.
func (f *Flags) Given(name string) bool { return f.byName[name].source == fromFlag }

func (f *Flags) readEnv(env *Env) error {
	for _, s := range f.settings {
		if s.env == "" || s.source == fromFlag {
			continue
		}
		text := env.Getenv(s.env)
		if text == "" { // a compose file's ${X:-} sets it, and means none
			continue
		}
		if err := s.value.Set(text); err != nil {
			return usagef("invalid value %q for environment variable %s: %v", text, s.env, err)
		}
		s.source = fromEnv
	}
	return nil
}

// Report logs, once at start, what deserves a warning and what differs from the
// defaults. No secrets.
func (f *Flags) Report(log *slog.Logger) {
	if password := f.byName["dbpass"]; password != nil && password.source == fromFlag {
		log.Warn("the database password was given as a flag, where others on this host can read it: " +
			"better use DB_PASS, DB_PASS_FILE or -dbpass-file")
	}
	f.reportEncryption(log)
	for _, n := range f.needs {
		if f.byName[n.other].value.String() != "" {
			continue
		}
		if idle := slices.DeleteFunc(slices.Clone(n.names), func(name string) bool { return f.byName[name].source == fromDefault }); len(idle) > 0 {
			log.Warn("settings have no effect without another one", "settings", idle, "need", n.other)
		}
	}
	var attrs []any
	for _, s := range f.settings {
		if s.source != fromDefault {
			attrs = append(attrs, slog.String(s.name, s.value.String()))
		}
	}
	if len(attrs) > 0 {
		log.Info("configuration", attrs...)
	}
}

// origin names the place that a setting's value came from, for errors.
func (s *setting) origin() string {
	if s.source == fromEnv {
		return "environment variable " + s.env
	}
	return "flag -" + s.name
}
