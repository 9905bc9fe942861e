package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/expression"
)

// skipped returns a *flow.SkippedError if the task's condition does not hold. A program that
// paused goes on, whatever has become of the condition meanwhile.
func (a Attempt) skipped(ctx context.Context, declared []Parameter) error {
	if a.Task.RunIf == "" || a.Task.Pause != nil {
		return nil
	}
	c, err := expression.ParseCondition(a.Task.RunIf)
	if err != nil {
		return invalidCondition(err)
	}
	env, err := a.env(ctx, c.Uses(), declared)
	if err != nil {
		return err
	}
	holds, err := c.Holds(ctx, env)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return invalidCondition(err)
	case !holds:
		return &flow.SkippedError{Reason: "run_if is false: " + c.String()}
	}
	return nil
}

func invalidCondition(err error) error {
	return &flow.InvalidError{Subject: "run_if", Problem: err.Error()}
}

// evaluated returns a task's parameters, with what the expressions in those that its
// program knows come to. That is data: nobody looks for expressions in it again.
func (a Attempt) evaluated(ctx context.Context, declared []Parameter, given map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	var open []Parameter
	var parsed []*expression.Value // of those
	var uses expression.Uses
	for _, p := range declared {
		v, err := p.parse(given[p.Name])
		if err != nil {
			return nil, err
		}
		if v != nil {
			open, parsed = append(open, p), append(parsed, v)
			uses.Add(v.Uses())
		}
	}
	if len(open) == 0 {
		return given, nil
	}
	env, err := a.env(ctx, uses, declared)
	if err != nil {
		return nil, err
	}
	given = maps.Clone(given)
	for i, p := range open {
		raw, err := a.evaluate(ctx, parsed[i], env)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, invalid(p.Name, err.Error())
		}
		given[p.Name] = raw
	}
	return given, nil
}

// computedFrom adds to what is wrong with a parameter the expressions that it came of: those
// who read it know what they wrote, and not what came of that.
func computedFrom(err error, given map[string]json.RawMessage) error {
	for name, raw := range given {
		if !isAbout(err, "parameter "+quote(name)) {
			continue
		}
		if v, parseErr := expression.Parse(raw); v != nil && parseErr == nil {
			invalid, _ := errors.AsType[*flow.InvalidError](err)
			return &flow.InvalidError{Subject: invalid.Subject, Problem: invalid.Problem + "; it was computed from " + v.String()}
		}
	}
	return err
}

// evaluate computes a parameter, with the secrets that it uses.
func (a Attempt) evaluate(ctx context.Context, v *expression.Value, env expression.Env) (json.RawMessage, error) {
	env.Secrets = make(map[string]string)
	for _, name := range v.Uses().Secrets {
		value, err := a.Secrets.Get(name)
		if err != nil {
			return nil, err
		}
		env.Secrets[name] = value
	}
	return v.Eval(ctx, env)
}

// parse reads the expressions of a parameter; nil: there are none.
func (p Parameter) parse(raw json.RawMessage) (*expression.Value, error) {
	v, err := expression.Parse(raw)
	switch {
	case err != nil:
		return nil, invalid(p.Name, err.Error())
	case v != nil && p.Public && len(v.Uses().Secrets) > 0:
		return nil, invalid(p.Name, "it is for all to see, and cannot have a secret in it")
	}
	return v, nil
}

// env fetches what expressions use, but for secrets.
func (a Attempt) env(ctx context.Context, uses expression.Uses, declared []Parameter) (expression.Env, error) {
	t := a.Task
	env := expression.Env{
		Flow: expression.Flow{ID: string(t.Flow), Workflow: string(t.WorkflowID), Seq: t.Seq, Attempt: t.Attempt},
	}
	if uses.Flow {
		f, err := a.Flow(ctx)
		if err != nil {
			return env, err
		}
		env.Flow.Registered = f.RegisteredAt.UTC()
		if env.Params, err = a.params(f.Parameters, declared); err != nil {
			return env, err
		}
	}
	if len(uses.Outputs) > 0 {
		outputs, err := a.Outputs(ctx, uses.Outputs...)
		if err != nil {
			return env, err
		}
		env.Outputs = make(map[int]any, len(outputs))
		for seq, raw := range outputs {
			if env.Outputs[seq], err = decodeAny(raw); err != nil {
				return env, fmt.Errorf("the output of task_seq %d: %w", seq, err)
			}
		}
	}
	return env, nil
}

// params returns the parameters of the request that the task runs for: the flow's, and
// those that it was given since, by a rerun or by hand. Those stand in its own row, as the
// flow's did: what its program does not know has come from a request.
func (a Attempt) params(ofFlow json.RawMessage, declared []Parameter) (map[string]any, error) {
	params, err := decodeAny(ofFlow)
	if err != nil {
		return nil, fmt.Errorf("the parameters of the flow: %w", err)
	}
	own, err := members(a.Task.Parameters)
	if err != nil {
		return nil, err
	}
	all, _ := params.(map[string]any)
	for name, raw := range own {
		_, given := all[name]
		known := slices.ContainsFunc(declared, func(p Parameter) bool { return p.Name == name })
		if expression.In(raw) || known && !given {
			continue
		}
		if all == nil {
			all = make(map[string]any)
		}
		if all[name], err = decodeAny(raw); err != nil {
			return nil, fmt.Errorf("parameter %q: %w", name, err)
		}
	}
	return all, nil
}

// decodeAny decodes JSON that may be missing.
func decodeAny(raw json.RawMessage) (any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	return expression.Decode(raw)
}
