package definition

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// Programs knows what tasks can run.
type Programs interface {
	// Names returns the programs that there are.
	Names() []string

	// Problems says what is wrong with the parameters and conditions of a workflow whose
	// graph is right; of programs that it does not know only the expressions are judged.
	Problems(w flow.Workflow) []flow.TaskProblem
}

// Check finds what is wrong with the workflows of all files together. Also has names of
// programs that Programs lacks, and that watchers have.
func Check(sources []Source, programs Programs, also []string) Problems {
	var problems Problems
	known := map[string]bool{}
	for _, name := range slices.Concat(programs.Names(), also) {
		known[name] = true
	}
	first := map[flow.WorkflowID]Source{}
	for _, s := range sources {
		if other, twice := first[s.ID]; twice && s.ID != "" {
			problems.add(s.file, s.id, "workflow %s is there twice: the other one is in %s:%d", shown(string(s.ID)), other.file, other.id.line)
		} else {
			first[s.ID] = s
		}
		problems = append(problems, s.check(programs, known)...)
	}
	problems.Sort()
	return problems
}

func (s Source) check(programs Programs, known map[string]bool) Problems {
	problems := s.graph()
	whole := len(problems) == 0 && !s.loose
	for _, t := range s.Tasks {
		if t.Program != "" && !known[t.Program] {
			problems.add(s.file, fieldOr(s.tasks[t.Seq], "program"), "there is no program %s%s", shown(t.Program), orNearest(t.Program, known))
		}
	}
	if whole {
		for _, p := range programs.Problems(s.Workflow) {
			problems.add(s.file, s.place(p), "%s", p.Problem)
		}
	}
	return problems
}

func orNearest(name string, known map[string]bool) string {
	if other := Nearest(name, maps.Keys(known)); other != "" {
		return fmt.Sprintf(": did you mean %s?", other)
	}
	return fmt.Sprintf(", here or at a watcher; known are %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
}

// place returns what a problem of a task is about.
func (s Source) place(p flow.TaskProblem) *node {
	task := s.tasks[p.Seq]
	n := fieldOr(task, p.Field)
	if p.Field == "parameters" && n != task && p.Parameter != "" {
		return fieldOr(n, p.Parameter)
	}
	return n
}

// graph checks what the tasks depend on.
func (s Source) graph() Problems {
	var problems Problems
	if s.loose {
		return nil
	}
	for _, t := range s.Tasks {
		for i, seq := range t.DependsOn {
			n := s.tasks[t.Seq].values["dependsOn"].items[i]
			switch {
			case seq == t.Seq:
				problems.add(s.file, n, "task %d depends on itself", seq)
			case s.tasks[seq] == nil:
				problems.add(s.file, n, "task %d depends on %d, which does not exist", t.Seq, seq)
			}
		}
	}
	if len(problems) > 0 {
		return problems
	}
	for _, cycle := range s.Cycles() {
		problems.add(s.file, fieldOr(s.tasks[cycle[0]], "dependsOn"), "dependencies form a cycle: %s", flow.CycleText(cycle))
	}
	return problems
}
