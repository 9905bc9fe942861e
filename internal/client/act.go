package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/cli"
)

// order is the body of an action.
type order struct {
	Scope      string         `json:"scope,omitempty"`
	From       int            `json:"from,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Note       string         `json:"note,omitempty"`
	DryRun     bool           `json:"dryRun,omitempty"`
}

// effect is the answer to an action.
type effect struct {
	DryRun  bool
	Changed int
	Tasks   []struct {
		TaskFlowID      string
		TaskExecSeq     int
		Title, From, To string
	}
	CanGo []int
	Kept  int
}

// add adds the flags that all actions have.
func (o *order) add(f *cli.Flags) {
	f.Group("Action")
	f.Var(cli.Bool(&o.DryRun), "dry-run", "", "show what would change, and change nothing")
	f.Var(cli.Text(&o.Note, ""), "note TEXT", "", "why, for people to read")
}

// action is a command that does something to a flow, or to one of its tasks.
func action(verb, form string) func(f *cli.Flags) command {
	return func(f *cli.Flags) command {
		var args []string
		var o order
		f.Args(form, &args)
		o.add(f)
		example := "register " + verb + " 01a20f06"
		if strings.HasSuffix(form, " SEQ") {
			example += " 3"
		}
		return command{
			summary:  about[verb],
			examples: []string{example + " -dry-run"},
			do: func(ctx context.Context, s *session) error {
				return s.act(ctx, verb, args, o)
			},
		}
	}
}

var about = map[string]string{
	"cancel":  "stops what runs of a flow, and whatever waits or is held; or one task: a no to what it asks",
	"hold":    "suspends every waiting task of a flow, or one task, and lets running ones end",
	"resume":  "lets tasks go on that are held: of a flow, or one; what asks a person goes on when it is approved",
	"approve": "lets a task of a flow go on that asks a person: its output says who approved it, and with which note",
	"skip":    "ignores a task of a flow: what depends on it can go",
	"finish":  "says that a task of a flow was done by hand: what depends on it can go",
}

func rerun(f *cli.Flags) command {
	var args, parameters []string
	var o order
	var wait waiting
	f.Args("ID [SEQ]", &args)
	o.add(f)
	f.Var(cli.OneOf(&o.Scope, "", "failed", "from", "only", "all"), "scope WORD", "",
		"failed: what is suspended; from: task SEQ and all after it; only: SEQ alone; all (default failed, with SEQ from)")
	f.Var(cli.Repeated(&parameters), "p NAME=VALUE", "", "a parameter of the tasks that run again, JSON or text, and of those yet to run if the request gave it; may be given several times")
	wait.add(f)
	f.Check(func() error {
		if o.DryRun && wait.wanted {
			return errors.New("-dry-run changes nothing that -wait could wait for")
		}
		if len(args) == 1 && (o.Scope == "from" || o.Scope == "only") {
			return fmt.Errorf("-scope %s needs SEQ: the arguments are ID SEQ", o.Scope)
		}
		return nil
	})
	return command{
		summary:  "runs again what failed of a flow, or more of it; what has finished stays, unless it is named",
		examples: []string{"register rerun 01a20f06 -dry-run", "register rerun 01a20f06 3 -scope only -p batch=100 -wait"},
		codes:    waitCodes,
		do: func(ctx context.Context, s *session) (err error) {
			if o.Parameters, err = parseParameters(parameters); err != nil {
				return err
			}
			if len(args) == 2 {
				if o.From, err = parseSeq(args[1]); err != nil {
					return err
				}
				if o.Scope == "" {
					o.Scope = "from"
				}
			}
			id, err := s.find(ctx, args[0])
			if err != nil {
				return err
			}
			if err := s.act(ctx, "rerun", []string{id}, o); err != nil || !wait.wanted {
				return err
			}
			return s.wait(ctx, id, wait)
		},
	}
}

// act carries out an action on a flow, or on a task of it, and shows what it does.
func (s *session) act(ctx context.Context, verb string, args []string, o order) error {
	id, err := s.find(ctx, args[0])
	if err != nil {
		return err
	}
	path := []string{"flows", id}
	if len(args) == 2 {
		if _, err := parseSeq(args[1]); err != nil {
			return err
		}
		path = append(path, "tasks", args[1])
	}
	var raw json.RawMessage
	if err := s.call(ctx, request{method: http.MethodPost, path: append(path, verb), body: o}, &raw); err != nil {
		return err
	}
	if s.json {
		_, err := fmt.Fprintln(s.out, strings.TrimSpace(string(raw)))
		return err
	}
	var e effect
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	s.showEffect(verb, id, e)
	return nil
}

// becomes says what an action makes of a task whose status it does not change.
var becomes = map[string]string{
	"hold": "running, held if it would wait again", "resume": "running, held no more", "cancel": "cancelled",
}

// showEffect prints each task that changes, and how many stay.
func (s *session) showEffect(verb, id string, e effect) {
	canGo := map[int]bool{}
	for _, seq := range e.CanGo {
		canGo[seq] = true
	}
	width := 0
	for _, t := range e.Tasks {
		width = max(width, len([]rune(t.Title)))
	}
	for _, t := range e.Tasks {
		more := ""
		switch {
		case t.TaskFlowID != id: // which a task of this one has registered
			more = ", of flow " + t.TaskFlowID
		case canGo[t.TaskExecSeq]:
			more = ", can go"
		}
		if t.To == t.From {
			t.To = cmp.Or(becomes[verb], t.To)
		}
		say(s.out, "%4d %-*s  %s → %s%s\n", t.TaskExecSeq, width, t.Title, t.From, t.To, more)
	}
	end := ""
	if e.DryRun {
		end = "; this was a dry run: nothing was changed"
	}
	change := "tasks change"
	if e.Changed == 1 {
		change = "task changes"
	}
	say(s.out, "%s: %d %s, %d stay as they are%s\n", id, e.Changed, change, e.Kept, end)
}

// find returns the id of the flow that an id, or the beginning of one, names.
func (s *session) find(ctx context.Context, id string) (string, error) {
	var f struct{ TaskFlowID string }
	err := s.get(ctx, &f, nil, "flows", id)
	return f.TaskFlowID, err
}

func parseSeq(text string) (int, error) {
	seq, err := strconv.Atoi(text)
	if err != nil || seq < 1 {
		return 0, &cli.UsageError{Problem: fmt.Sprintf("invalid value %q for SEQ: must be the number of a task, as register flow shows it", text)}
	}
	return seq, nil
}

// parseParameters reads name=value pairs. A value is JSON if it can be, else a text.
func parseParameters(pairs []string) (map[string]any, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	parameters := make(map[string]any, len(pairs))
	for _, pair := range pairs {
		name, value, found := strings.Cut(pair, "=")
		if !found || name == "" {
			return nil, &cli.UsageError{Problem: fmt.Sprintf("invalid value %q for flag -p: must be NAME=VALUE", pair)}
		}
		if _, twice := parameters[name]; twice {
			return nil, &cli.UsageError{Problem: fmt.Sprintf("flag -p gives %s twice", name)}
		}
		if json.Valid([]byte(value)) {
			parameters[name] = json.RawMessage(value)
		} else {
			parameters[name] = value
		}
	}
	return parameters, nil
}
