package program

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// expression begins what is computed when a task runs. What such a value comes to is not
// known before that.
const expression = "${{"

// original is part of the programs that ignored what they did not know before there were
// checks at registration, and still do.
type original struct{}

func (original) ignoresOthers() {}

// CheckWorkflow reports, as a *flow.InvalidError, why a flow of w with the parameters of
// request could not run: a task's parameter is missing or of the wrong kind, or its
// program does not know it, or only the definition may set it. Programs that the set
// lacks are not judged: a watcher may have them.
//
// A parameter of request that a program does not know is no mistake: it goes to every
// task, and is for some of them.
func (s Set) CheckWorkflow(w flow.Workflow, request json.RawMessage) error {
	given, err := members(request)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if hasExpression(given[name]) {
			return &flow.InvalidError{
				Subject: "parameter " + quote(name),
				Problem: "an expression, " + expression + " … }}, can stand in a definition only, not in a request",
			}
		}
	}
	for _, t := range w.Tasks {
		p, known := s[t.Program]
		if !known {
			continue
		}
		if err := checkTask(p, t.Parameters, given); err != nil {
			return &flow.InvalidError{
				Subject: fmt.Sprintf("workflow %q", w.ID),
				Problem: fmt.Sprintf("task_seq %d (%s): %v", t.Seq, t.Program, err),
			}
		}
	}
	return nil
}

func checkTask(p Program, definition json.RawMessage, given map[string]json.RawMessage) error {
	own, err := members(definition)
	if err != nil {
		return err
	}
	declared := p.Parameters()
	if err := checkNames(p, declared, own, given); err != nil {
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
	params, err := decode(declared, merged, true)
	if err != nil {
		return err
	}
	return checkTogether(p, params)
}

// checkNames refuses names that the program does not know in the definition, and those in
// the request that the definition alone may set.
func checkNames(p Program, declared []Parameter, own, given map[string]json.RawMessage) error {
	known := make(map[string]bool, len(declared))
	for _, d := range declared {
		known[d.Name] = true
		if _, replaced := given[d.Name]; replaced && d.Fixed {
			return invalid(d.Name, "only the definition can set it, and the request does")
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

// hasExpression reports whether a string in a JSON value, or a key, has an expression. The
// text alone would not tell, since any character can be written as an escape.
func hasExpression(raw json.RawMessage) bool {
	if !strings.Contains(string(raw), expression) && !strings.Contains(string(raw), `\u`) {
		return false
	}
	var v any
	return json.Unmarshal(raw, &v) == nil && expressionIn(v)
}

func expressionIn(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, expression)
	case []any:
		return slices.ContainsFunc(v, expressionIn)
	case map[string]any:
		for key, e := range v {
			if strings.Contains(key, expression) || expressionIn(e) {
				return true
			}
		}
	}
	return false
}
