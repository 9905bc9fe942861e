package program

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/expression"
)

// original is part of the programs that ignored what they did not know before there were
// checks at registration, and still do.
type original struct{}

func (original) ignoresOthers() {}

// CheckWorkflow reports, as a *flow.InvalidError, why a flow of w with the parameters of
// request could not run: a task's parameter is missing or of the wrong kind, or its
// program does not know it, or only the definition may set it; an expression is broken, or
// looks at the output of a task that does not come before. Of programs that the set lacks
// only the expressions are judged: a watcher may have them.
//
// A parameter of request that a program does not know is no mistake, nor is one of an
// earlier request (w.Merged): it goes to every task, and is for some of them. But it is
// data: an expression in it is refused, since it would be evaluated like the definition's,
// and might ask for secrets.
func (s Set) CheckWorkflow(w flow.Workflow, request json.RawMessage) error {
	given, err := members(request)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if expression.In(given[name]) || expression.In(encode(name)) {
			return &flow.InvalidError{
				Subject: "parameter " + quote(name),
				Problem: "an expression, ${{ … }}, can stand in a definition only, not in a request",
			}
		}
	}
	precedence := sync.OnceValue(func() flow.Precedence {
		planned, _ := w.Plan() // whoever asks us has made it
		return flow.NewPrecedence(planned)
	})
	for _, t := range w.Tasks {
		if w.Merged {
			t = s.understood(t)
		}
		if err := s.checkTask(t, given, precedence); err != nil {
			return &flow.InvalidError{
				Subject: fmt.Sprintf("workflow %q", w.ID),
				Problem: fmt.Sprintf("task_seq %d (%s): %v", t.Seq, t.Program, err),
			}
		}
	}
	return nil
}

// understood returns a task with those parameters alone that its program knows, if the set
// has that.
func (s Set) understood(t flow.TaskDefinition) flow.TaskDefinition {
	p, known := s[t.Program]
	own, err := members(t.Parameters)
	if !known || err != nil || len(own) == 0 {
		return t
	}
	declared := p.Parameters()
	maps.DeleteFunc(own, func(name string, _ json.RawMessage) bool {
		return !slices.ContainsFunc(declared, func(p Parameter) bool { return p.Name == name })
	})
	t.Parameters = encode(own)
	return t
}

func (s Set) checkTask(t flow.TaskDefinition, given map[string]json.RawMessage, precedence func() flow.Precedence) error {
	own, err := members(t.Parameters)
	if err != nil {
		return err
	}
	p, known := s[t.Program]
	declared := s.declared(t.Program)
	secrets, err := checkExpressions(t, declared, own, precedence)
	if err != nil {
		return err
	}
	switch {
	case !known && secrets && len(given) > 0:
		return invalid(slices.Min(slices.Collect(maps.Keys(given))), ofDefinition+onlySince)
	case !known:
		return nil
	}
	if err := checkNames(p, declared, own, given, secrets); err != nil {
		return err
	}
	merged := own
	if len(given) > 0 {
		merged = maps.Clone(given)
		for name, value := range own {
			if _, replaced := given[name]; !replaced {
				merged[name] = value
			}
		}
	}
	_, err = values(p, merged, true)
	return err
}

// checkExpressions checks the expressions of a definition, and reports whether one of them
// uses secrets.
func checkExpressions(t flow.TaskDefinition, declared []Parameter, own map[string]json.RawMessage, precedence func() flow.Precedence) (secrets bool, err error) {
	if t.RunIf != "" {
		c, err := expression.ParseCondition(t.RunIf)
		if err == nil {
			err = checkOutputs(t, c.Uses(), precedence)
		}
		if err != nil {
			return false, invalidCondition(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		p := Parameter{Name: name}
		if i := slices.IndexFunc(declared, func(d Parameter) bool { return d.Name == name }); i >= 0 {
			p = declared[i]
		}
		v, err := p.parse(own[name])
		if err != nil {
			return false, err
		}
		if v == nil {
			continue
		}
		if err := checkOutputs(t, v.Uses(), precedence); err != nil {
			return false, invalid(name, err.Error())
		}
		secrets = secrets || len(v.Uses().Secrets) > 0
	}
	return secrets, nil
}

// checkOutputs refuses outputs that may not be there yet.
func checkOutputs(t flow.TaskDefinition, uses expression.Uses, precedence func() flow.Precedence) error {
	for _, seq := range uses.Outputs {
		if !precedence().Before(seq, t.Seq) {
			return fmt.Errorf("outputs[%d]: no task with that task_seq comes before this one", seq)
		}
	}
	return nil
}

// What is said of a parameter that a request may not set.
const (
	ofDefinition = "only the definition can set it, and the request does"
	onlySince    = " (the task uses secrets, and a request must not say what becomes of them)"
)

// checkNames refuses names that the program does not know in the definition, and those in
// the request that the definition alone may set. Whoever may register could have a secret
// sent to himself, if he could say where the task sends it.
func checkNames(p Program, declared []Parameter, own, given map[string]json.RawMessage, secrets bool) error {
	known := make(map[string]bool, len(declared))
	for _, d := range declared {
		known[d.Name] = true
		_, replaced := given[d.Name]
		switch {
		case replaced && d.Fixed:
			return invalid(d.Name, ofDefinition)
		case replaced && secrets:
			return invalid(d.Name, ofDefinition+onlySince)
		}
	}
	if _, ignores := p.(interface{ ignoresOthers() }); ignores {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if known[name] {
			continue
		}
		problem := "this program takes no parameters"
		if len(declared) > 0 {
			problem = "this program does not know it; it knows " + strings.Join(slices.Sorted(maps.Keys(known)), ", ")
		}
		return invalid(name, problem)
	}
	return nil
}
