package program

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/secret"
)

// Program is something that a task can run. The package's documentation says what is
// expected of one.
type Program interface {
	// Parameters describes what the program understands, always in the same way. Only
	// these reach Run.
	Parameters() []Parameter

	// Run does the work. The output is a JSON value of at most flow.MaxOutput bytes,
	// or nil.
	Run(ctx context.Context, in Input) (output json.RawMessage, err error)
}

// Input is what a program gets for one attempt at a task.
type Input struct {
	Attempt
	Params Values // the task's parameters, checked against Parameters
}

// Attempt is what the one who runs a program has for it. Set.Run fills in what is nil, so
// that a program never finds anything missing.
type Attempt struct {
	Task flow.Task

	// Log is for what the program itself has to say. It says already which attempt at
	// which task that is.
	Log *slog.Logger

	// Stdout and Stderr take what the work prints: the lines of a command, of a
	// container. Both may be used at once; neither ever fails or blocks for long, and
	// what is too much is dropped with a mark.
	Stdout, Stderr io.Writer

	// Outputs returns what tasks that this one comes after have returned, by the
	// task_seq of their definition; those without an output are missing.
	Outputs func(ctx context.Context, seqs ...int) (map[int]json.RawMessage, error)

	// Flow tells how the task's flow was registered: when, and with which parameters.
	Flow func(ctx context.Context) (flow.Flow, error)

	// Secrets are those of the watcher, for expressions; nil is none.
	Secrets *secret.Store
}

// Set is programs by the name that a task definition uses for them.
type Set map[string]Program

// Names returns the names of the programs, sorted.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s)) }

// Enabled returns the programs without those that their settings keep off.
func (s Set) Enabled() Set {
	on := maps.Clone(s)
	maps.DeleteFunc(on, func(name string, _ Program) bool { return s.OffWithout(name) != "" })
	return on
}

// OffWithout returns the setting that would let a program run, if one keeps it off.
func (s Set) OffWithout(name string) string {
	if guarded, ok := s[name].(interface{ OffWithout() string }); ok {
		return guarded.OffWithout()
	}
	return ""
}

// Run runs the program that a.Task names, for one attempt, with what the expressions in the
// task's parameters come to. A name that the set lacks, and parameters that the program
// cannot use, give a *flow.InvalidError; a condition that does not hold a
// *flow.SkippedError. A context that has ended gives its cause, and nothing is run. A panic
// of the program passes through. No secret leaves it in whatever it returns, logs and prints.
func (s Set) Run(ctx context.Context, a Attempt) (json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return masked(ctx, a.whole(), s.run)
}

func (s Set) run(ctx context.Context, a Attempt) (json.RawMessage, error) {
	declared := s.declared(a.Task.Program)
	if err := a.skipped(ctx, declared); err != nil {
		return nil, err
	}
	p, given, err := s.find(a.Task.Program, a.Task.Parameters)
	if err != nil {
		return nil, err
	}
	// Rows by hand were never checked, and what an expression must not decide it must not
	// decide there, either.
	if _, err = values(p, given, true); err != nil {
		return nil, err
	}
	computed, err := a.evaluated(ctx, declared, given)
	if err != nil {
		return nil, err
	}
	params, err := values(p, computed, false)
	if err != nil {
		return nil, computedFrom(err, given)
	}
	return p.Run(ctx, Input{Attempt: a, Params: params})
}

// declared returns the parameters that a program knows; nil: the set lacks it.
func (s Set) declared(program string) []Parameter {
	if p, known := s[program]; known {
		return p.Parameters()
	}
	return nil
}

// Housekeep lets programs look after what their work has left outside the database, until
// ctx ends.
func (s Set) Housekeep(ctx context.Context, log *slog.Logger) {
	var all sync.WaitGroup
	for name, p := range s {
		if k, ok := p.(interface {
			Housekeep(ctx context.Context, log *slog.Logger)
		}); ok {
			all.Go(func() { k.Housekeep(ctx, log.With("component", "program", "program", name)) })
		}
	}
	all.Wait()
}

// whole returns a with nothing missing.
func (a Attempt) whole() Attempt {
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	t := a.Task
	a.Log = a.Log.With("component", "program", "flow", t.Flow, "seq", t.Seq, "task", t.WorkflowID,
		"program", t.Program, "attempt", t.Attempt)
	if a.Stdout == nil {
		a.Stdout = io.Discard
	}
	if a.Stderr == nil {
		a.Stderr = io.Discard
	}
	if a.Outputs == nil {
		a.Outputs = func(context.Context, ...int) (map[int]json.RawMessage, error) { return nil, nil }
	}
	if a.Flow == nil {
		a.Flow = func(context.Context) (flow.Flow, error) { return flow.Flow{ID: t.Flow, WorkflowID: t.WorkflowID}, nil }
	}
	return a
}

// Check reports, as a *flow.InvalidError, why the program called name could not be run
// with parameters, which have no expressions: the set lacks it, or a parameter is missing or
// of the wrong kind. Parameters that the program does not know are ignored, since a request's go to every
// task of its flow.
func (s Set) Check(name string, parameters json.RawMessage) error {
	_, _, err := s.prepare(name, parameters)
	return err
}

func (s Set) prepare(name string, parameters json.RawMessage) (Program, Values, error) {
	p, given, err := s.find(name, parameters)
	if err != nil {
		return nil, nil, err
	}
	params, err := values(p, given, false)
	return p, params, err
}

// find returns a program, and the parameters of a task apart.
func (s Set) find(name string, parameters json.RawMessage) (Program, map[string]json.RawMessage, error) {
	p, known := s[name]
	if !known {
		return nil, nil, &flow.InvalidError{
			Subject: "program " + quote(name),
			Problem: "there is none of that name; known are " + strings.Join(s.Names(), ", "),
		}
	}
	given, err := members(parameters)
	return p, given, err
}

// values decodes and checks parameters; early, what expressions come to is not known.
func values(p Program, given map[string]json.RawMessage, early bool) (Values, error) {
	params, err := decode(p.Parameters(), given, early)
	if err != nil {
		return nil, err
	}
	return params, checkTogether(p, params)
}

// checkTogether asks a program that has rules beyond those of each parameter.
func checkTogether(p Program, params Values) error {
	if c, ok := p.(interface{ Check(v Values) error }); ok {
		return c.Check(params)
	}
	return nil
}
