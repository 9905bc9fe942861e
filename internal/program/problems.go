package program

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/d-tsuji/flower/internal/flow"
)

// stopgap stands for a parameter whose problem is told: an expression, since nothing is
// known of what one comes to.
var stopgap = json.RawMessage(`"${{ params.x }}"`)

// Problems returns what is wrong with a definition, whatever a request says: not the first
// problem alone, as CheckWorkflow does, but as many as can be told at once. A parameter that
// is missing is none if a request may set it. The graph must be right.
func (s Set) Problems(w flow.Workflow) []flow.TaskProblem {
	planned, err := w.Plan()
	if err != nil {
		return nil
	}
	precedence := flow.NewPrecedence(planned)
	var problems []flow.TaskProblem
	for _, t := range w.Tasks {
		before := func() flow.Precedence { return precedence }
		problems = append(problems, s.problemsOf(s.requested(t, before), before)...)
	}
	return problems
}

// requested fills in what a request may say.
func (s Set) requested(t flow.TaskDefinition, precedence func() flow.Precedence) flow.TaskDefinition {
	p, known := s[t.Program]
	own, err := members(t.Parameters)
	if !known || err != nil {
		return t
	}
	declared := p.Parameters()
	if secrets, err := checkExpressions(t, declared, own, precedence); err != nil || secrets {
		return t
	}
	whole := make(map[string]json.RawMessage, len(own))
	maps.Copy(whole, own)
	for _, d := range declared {
		if d.Required && !d.Fixed && isNull(own[d.Name]) {
			whole[d.Name] = stopgap
		}
	}
	t.Parameters = encode(whole)
	return t
}

// problemsOf asks again and again, each time without what was found.
func (s Set) problemsOf(t flow.TaskDefinition, precedence func() flow.Precedence) []flow.TaskProblem {
	var problems []flow.TaskProblem
	told := map[string]bool{}
	for {
		err := s.checkTask(t, nil, precedence)
		if err == nil {
			return problems
		}
		p := flow.TaskProblem{Seq: t.Seq, Field: "parameters", Problem: err.Error()}
		if e, ok := errors.AsType[*flow.InvalidError](err); ok && t.RunIf != "" && e.Subject == "run_if" {
			p.Field, p.Problem = "runIf", "runIf: "+e.Problem
			problems = append(problems, p)
			t.RunIf = ""
			continue
		}
		name, t2 := s.withoutProblem(t, err)
		if told[name] {
			return problems
		}
		p.Parameter = name
		problems = append(problems, p)
		if name == "" { // of several together, or of none
			return problems
		}
		told[name] = true
		t = t2
	}
}

func isAbout(err error, subject string) bool {
	e, ok := errors.AsType[*flow.InvalidError](err)
	return ok && e.Subject == subject
}

// withoutProblem returns the parameter that an error is about, and the task with it mended.
func (s Set) withoutProblem(t flow.TaskDefinition, err error) (string, flow.TaskDefinition) {
	own, decodeErr := members(t.Parameters)
	if decodeErr != nil {
		return "", t
	}
	declared := s.declared(t.Program)
	mended := make(map[string]json.RawMessage, len(own)+1)
	about := ""
	for name, value := range own {
		if isAbout(err, "parameter "+quote(name)) {
			about = name // a name of the program is mended below
			continue
		}
		mended[name] = value
	}
	if i := slices.IndexFunc(declared, func(p Parameter) bool { return isAbout(err, "parameter "+quote(p.Name)) }); i >= 0 {
		about = declared[i].Name
		mended[about] = stopgap
	}
	if about == "" {
		return "", t
	}
	t.Parameters = encode(mended)
	return about, t
}
