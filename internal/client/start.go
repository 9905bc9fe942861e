package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/cli"
)

// The exit codes of whoever waits for a flow.
const (
	exitFailed    = 1
	exitHeld      = 3
	exitCancelled = 4
	exitUnknown   = 5
)

const waitCodes = "0 done, or with -wait finished, 1 refused, or with -wait failed, 2 wrong usage, 3 held, 4 cancelled, " +
	"5 the end is not known: register did not answer, or -timeout is over"

// registration is the body of POST /flows.
type registration struct {
	TaskID     string         `json:"taskId"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Priority   *int           `json:"priority,omitempty"`
	Note       string         `json:"note,omitempty"`
}

func start(f *cli.Flags) command {
	var args, parameters []string
	var r registration
	var priority, key string
	var wait waiting
	f.Args("TASK", &args)
	f.Group("Flow")
	f.Var(cli.Repeated(&parameters), "p NAME=VALUE", "", "a parameter, JSON or text; may be given several times")
	f.Var(cli.Text(&priority, ""), "priority N", "", "of all its tasks, -20 to 19; smaller is more urgent")
	f.Var(cli.Text(&r.Note, ""), "note TEXT", "", "why, for people to read")
	f.Var(cli.Text(&key, ""), "key KEY", "", "one key makes one flow, however often it is given")
	f.NotEmpty("key")
	wait.add(f)
	return command{
		summary:  "registers a flow of a workflow, and prints its id; with -wait its end is the exit code",
		examples: []string{"register start sample -wait", "register start nightly -p day=2026-11-24 -p limit=10"},
		codes:    waitCodes,
		do: func(ctx context.Context, s *session) (err error) {
			r.TaskID = args[0]
			if r.Parameters, err = parseParameters(parameters); err != nil {
				return err
			}
			if r.Priority, err = parsePriority(priority); err != nil {
				return err
			}
			id, err := s.register(ctx, r, key)
			if err != nil {
				return err
			}
			if !wait.wanted {
				if s.out.err != nil {
					return fmt.Errorf("flow %s was registered: %w", id, s.out.err)
				}
				return nil
			}
			return s.wait(ctx, id, wait)
		},
	}
}

func parsePriority(text string) (*int, error) {
	if text == "" {
		return nil, nil
	}
	var n int
	if err := cli.Int(&n, 0, -20, 19).Set(text); err != nil {
		return nil, &cli.UsageError{Problem: fmt.Sprintf("invalid value %q for flag -priority: %v", text, err)}
	}
	return &n, nil
}

// register makes a flow, and prints its id. It has a key in any case, so that it may be
// asked for again where an answer was lost.
func (s *session) register(ctx context.Context, r registration, key string) (string, error) {
	if key == "" {
		key = uuid.NewString()
	}
	var made struct{ TaskFlowID string }
	err := s.again(ctx, retryFor, func() error {
		return s.call(ctx, request{method: http.MethodPost, path: []string{"flows"}, body: r, key: key}, &made)
	})
	if err != nil {
		return "", err
	}
	if s.json {
		_, _ = fmt.Fprintf(s.out, "{\"taskFlowId\":%q}\n", made.TaskFlowID)
	} else {
		say(s.out, "%s\n", made.TaskFlowID)
	}
	return made.TaskFlowID, nil
}

// Whoever asks once hears soon that nobody answers; whoever waits for a flow outlasts a
// restart.
const (
	retryFor     = 5 * time.Second
	waitRetryFor = 2 * time.Minute
)

// again tries what may succeed later, for some time.
func (s *session) again(ctx context.Context, most time.Duration, try func() error) error {
	until := time.Now().Add(most)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := try()
		refused, ok := errors.AsType[*refusal](err)
		if !ok || !refused.temporary || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// waiting says whether and for how long the end of a flow is waited for.
type waiting struct {
	wanted bool
	most   time.Duration // 0 is for ever
}

func (w *waiting) add(f *cli.Flags) {
	f.Var(cli.Bool(&w.wanted), "wait", "", "wait for the end, and show how it goes")
	f.Var(cli.Duration(&w.most, 0, 0, 1000*time.Hour), "timeout TIME", "", "with -wait: for so long; 0s is for ever")
	f.Check(func() error {
		if f.Given("timeout") && !w.wanted {
			return errors.New("-timeout is how long -wait waits, which is not given")
		}
		return nil
	})
}

// progress is a flow on its way.
type progress struct {
	TaskFlowID, TaskID, Status string
	Counts                     struct{ Waiting, Running, Suspended, Finished, Ignored int }
	Asks                       int
	Tasks                      []struct {
		TaskExecSeq   int
		Title, Status string
	}
}

// ended reports whether nothing of the flow runs or can go, until a person acts.
func (p progress) ended() bool { return p.Status != "running" && p.Status != "queued" }

// errTimeout is why the end of a flow is waited for no longer.
var errTimeout = errors.New("the time is over")

// wait waits for the end of a flow, shows it, and returns what it came to as exit code.
func (s *session) wait(ctx context.Context, id string, w waiting) error {
	limited := ctx
	if w.most > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeoutCause(ctx, w.most, errTimeout)
		defer cancel()
	}
	p, err := s.follow(limited, id)
	switch {
	case ctx.Err() != nil:
		say(s.env.Stderr, "%s: the flow goes on: register flow %s\n", s.env.Name, id)
		return context.Cause(ctx)
	case errors.Is(err, errTimeout):
		return &cli.ExitError{Code: exitUnknown, Err: fmt.Errorf("flow %s has not ended within %s; it goes on", id, w.most)}
	case err != nil:
		return &cli.ExitError{Code: exitUnknown, Err: err}
	}
	err = s.again(ctx, waitRetryFor, func() error {
		return s.show(ctx, s.out, s.json, url.Values{"include": {"tasks"}}, "flows", id)
	})
	if err != nil {
		return &cli.ExitError{Code: exitUnknown, Err: err}
	}
	return result(p.Status)
}

// result makes a flow's end an exit code.
func result(status string) error {
	switch status {
	case "finished":
		return nil
	case "failed":
		return &cli.ExitError{Code: exitFailed}
	case "held":
		return &cli.ExitError{Code: exitHeld}
	case "cancelled":
		return &cli.ExitError{Code: exitCancelled}
	}
	return &cli.ExitError{Code: exitUnknown, Err: fmt.Errorf("the flow is %q, which this program does not know", status)}
}
