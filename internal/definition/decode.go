package definition

import (
	"bytes"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/flow"
)

// Source is a workflow as a file has it, with its places.
type Source struct {
	flow.Definition

	file  string
	at    *node         // the workflow
	id    *node         // its taskId
	tasks map[int]*node // by seq
	loose bool          // what its tasks depend on is not known: a mistake is in the way
}

// Parse reads the workflows of a file. Its name is for messages; one that ends in .json is
// read as JSON, and so is what can be nothing else. Where there are problems, the sources
// are what could be understood.
func Parse(file string, text []byte) ([]Source, Problems) { return parse(file, text, "") }

// ParseOne reads one workflow, whose name is known: it need not say it, and must not say
// another one.
func ParseOne(file string, text []byte, id flow.WorkflowID) (Source, Problems) {
	sources, problems := parse(file, text, id)
	switch {
	case len(sources) == 0 && len(problems) == 0:
		problems = append(problems, Problem{File: file, Line: 1, Column: 1, Message: "there is no workflow"})
	case len(sources) == 0:
	case len(sources) > 1:
		problems.add(file, sources[1].at, "there is a second workflow, and only %s was asked for", shown(string(id)))
	case sources[0].ID != id:
		problems.add(file, sources[0].id, "this is another workflow than %s, which was asked for", shown(string(id)))
	}
	if len(problems) > 0 {
		return Source{}, problems
	}
	return sources[0], nil
}

func parse(file string, text []byte, id flow.WorkflowID) ([]Source, Problems) {
	var problems Problems
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, Problems{problem(file, notUTF8(text))}
	}
	read := readYAML
	if strings.EqualFold(filepath.Ext(file), ".json") || looksLikeJSON(text) {
		read = readJSON
	}
	values, err := read(text)
	if err != nil {
		problems = append(problems, problem(file, err))
	}
	var sources []Source
	for _, v := range values {
		workflows := []*node{v}
		if v.kind == isList {
			workflows = v.items
		}
		for _, w := range workflows {
			d := decoder{file: file, known: id, problems: &problems}
			if s, ok := d.workflow(w); ok {
				sources = append(sources, s)
			}
		}
	}
	problems.Sort()
	return sources, problems
}

// looksLikeJSON: YAML can begin with these as well, but who writes it so means JSON, but for
// what makes it none: a text without quotes.
func looksLikeJSON(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	if len(text) == 0 || text[0] != '{' && text[0] != '[' {
		return false
	}
	inside := bytes.TrimLeft(text[1:], " \t\r\n[{")
	return len(inside) > 0 && (inside[0] == '"' || inside[0] == '}' || inside[0] == ']')
}

func notUTF8(text []byte) error {
	line, column := 1, 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if column++; r == '\n' {
			line, column = line+1, 1
		}
		text = text[size:]
	}
	return at(line, column, "this is not UTF-8")
}

// decoder makes definitions of nodes.
type decoder struct {
	file     string
	known    flow.WorkflowID // of a workflow that does not say it; empty is none
	problems *Problems
}

func (d decoder) wrong(n *node, format string, args ...any) {
	d.problems.add(d.file, n, format, args...)
}

// fields reads an object whose keys are known, in the order in which they stand there.
func (d decoder) fields(n *node, what string, read map[string]func(*node)) bool {
	if n.kind != isObject {
		d.wrong(n, "%s must be an object, and this is %s", what, n.kind)
		return false
	}
	for _, m := range n.members {
		field, known := read[m.key.text]
		if !known {
			d.wrong(m.key, "%s has no %s%s", what, shown(m.key.text), suggestion(m.key.text, read))
			continue
		}
		if m.value.kind != isNull {
			field(m.value)
		}
	}
	return true
}

func (d decoder) workflow(n *node) (Source, bool) {
	s := Source{file: d.file, at: n, id: n, tasks: make(map[int]*node)}
	var tasks *node
	ok := d.fields(n, "a workflow", map[string]func(*node){
		"taskId": func(n *node) {
			s.id, s.ID = n, flow.WorkflowID(d.name(n, "taskId", flow.MaxWorkflowID))
		},
		"description":     func(n *node) { s.Description = d.text(n, "description") },
		"maxRunningFlows": func(n *node) { s.MaxRunningFlows = d.integer(n, "maxRunningFlows", 1, maxInteger) },
		"maxRunningTasks": func(n *node) { s.MaxRunningTasks = d.integer(n, "maxRunningTasks", 1, maxInteger) },
		"tasks":           func(n *node) { tasks = n },
	})
	if !ok {
		return s, false
	}
	switch {
	case s.id == n && d.known != "":
		s.ID = d.known
	case s.id == n:
		d.wrong(n, "the workflow has no taskId: it names it")
	}
	switch {
	case tasks == nil:
		d.wrong(n, "the workflow has no tasks")
		s.loose = true
	case tasks.kind != isList:
		d.wrong(tasks, "tasks must be a list, as in - program: NoOp, and this is %s", tasks.kind)
		s.loose = true
	case len(tasks.items) == 0 || len(tasks.items) > flow.MaxTasks:
		d.wrong(tasks, "a workflow has from 1 to %d tasks, and this one has %d", flow.MaxTasks, len(tasks.items))
		s.loose = true
	default:
		d.tasksOf(&s, tasks)
	}
	return s, true
}

func (d decoder) tasksOf(s *Source, tasks *node) {
	last := 0
	for _, n := range tasks.items {
		if last == maxInteger && n.values["seq"] == nil {
			d.wrong(n, "the task needs a seq: there is none after %d", last)
		}
		t, tied := d.task(n, last+1)
		if !tied {
			s.loose = true
		}
		if n.kind != isObject {
			continue
		}
		last = t.Seq
		if other := s.tasks[t.Seq]; other != nil {
			d.wrong(fieldOr(n, "seq"), "seq %d is there twice: the task in line %d has it, too", t.Seq, other.line)
			s.loose = true
			continue
		}
		s.tasks[t.Seq] = n
		s.Tasks = append(s.Tasks, t)
	}
}

// clean reports whether read finds no mistake.
func (d decoder) clean(read func()) bool {
	before := len(*d.problems)
	read()
	return len(*d.problems) == before
}

// fieldOr returns a field of an object, or where that is missing the object.
func fieldOr(n *node, field string) *node {
	if v := n.values[field]; v != nil {
		return v
	}
	return n
}
