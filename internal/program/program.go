package program

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
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
	Task   flow.Task
	Params Values       // the task's parameters, checked against Parameters
	Log    *slog.Logger // says already which task this is
}

// Set is programs by the name that a task definition uses for them.
type Set map[string]Program

// Names returns the names of the programs, sorted.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s)) }

// Run runs the program that t names, for one attempt. A name that the set lacks, and
// parameters that the program cannot use, give a *flow.InvalidError. A context that has
// ended gives its cause, and nothing is run. A panic of the program passes through.
//
// The program's log lines go to log, with attributes added that say which attempt at
// which task wrote them; nil drops them.
func (s Set) Run(ctx context.Context, t flow.Task, log *slog.Logger) (json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	p, params, err := s.prepare(t.Program, t.Parameters)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("component", "program", "flow", t.Flow, "seq", t.Seq, "task", t.WorkflowID,
		"program", t.Program, "attempt", t.Attempt)
	return p.Run(ctx, Input{Task: t, Params: params, Log: log})
}

// Check reports, as a *flow.InvalidError, why the program called name could not be run
// with parameters: the set lacks it, or a parameter is missing or of the wrong kind.
// Parameters that the program does not know are ignored.
func (s Set) Check(name string, parameters json.RawMessage) error {
	_, _, err := s.prepare(name, parameters)
	return err
}

func (s Set) prepare(name string, parameters json.RawMessage) (Program, Values, error) {
	p, known := s[name]
	if !known {
		return nil, nil, &flow.InvalidError{
			Subject: "program " + quote(name),
			Problem: "there is none of that name; known are " + strings.Join(s.Names(), ", "),
		}
	}
	params, err := decode(p.Parameters(), parameters)
	return p, params, err
}

// Config says what the built-in programs may do. Its zero value is the default.
type Config struct {
	// HTTPAllow has the networks that requests may go to. Empty is all but the
	// addresses that are always refused: link-local, metadata services, multicast.
	HTTPAllow []netip.Prefix

	// HTTPTimeout bounds one request, its answer included. 0 is 30 seconds.
	HTTPTimeout time.Duration
}

// Validate checks the settings.
func (c Config) Validate() error {
	if c.HTTPTimeout < 0 {
		return fmt.Errorf("HTTP timeout %s: must not be negative", c.HTTPTimeout)
	}
	for _, p := range c.HTTPAllow {
		if !p.IsValid() {
			return fmt.Errorf("HTTP allow list: %s is not a network", p)
		}
	}
	return nil
}

// Default returns the programs that come with Flower.
func Default(cfg Config) Set {
	return Set{
		"NoOp":                noOp{},
		"Test1":               echoRandom{},
		"Test2":               echoRandom{},
		"Test3":               echoRandom{},
		"EchoRandomTimeSleep": echoRandom{},
		"EchoParamTimeSleep":  echoParam{},
		"HTTPPostRequest":     newHTTPPost(newDialer(cfg.HTTPAllow), cfg.HTTPTimeout),
	}
}
