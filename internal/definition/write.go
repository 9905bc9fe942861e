package definition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/d-tsuji/flower/internal/flow"
)

// The formats of files.
const (
	YAML = "yaml"
	JSON = "json"
)

// Write writes workflows so that Parse reads the same: as YAML documents, or as JSON, a
// list if there are several. What a definition need not say is left out.
func Write(w io.Writer, format string, workflows ...flow.Definition) error {
	text, err := Format(format, workflows...)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// Format returns what Write writes.
func Format(format string, workflows ...flow.Definition) ([]byte, error) {
	nodes := make([]*node, len(workflows))
	for i, w := range workflows {
		n, err := workflowNode(w)
		if err != nil {
			return nil, fmt.Errorf("workflow %q: %w", w.ID, err)
		}
		nodes[i] = n
	}
	if format == JSON {
		return formatJSON(nodes)
	}
	return formatYAML(nodes)
}

// Masked returns a workflow without what looks like a secret, for people who may not see
// those.
func Masked(w flow.Definition) (flow.Definition, error) {
	w.Tasks = slices.Clone(w.Tasks)
	for i, t := range w.Tasks {
		parameters, err := parametersOf(t)
		if err != nil {
			return w, fmt.Errorf("workflow %q: task_seq %d: %w", w.ID, t.Seq, err)
		}
		w.Tasks[i].Parameters = parameters.masked().json()
	}
	return w, nil
}

// parametersOf reads the parameters of a task, which are an object.
func parametersOf(t flow.TaskDefinition) (*node, error) {
	parameters, err := readJSON(t.Parameters)
	switch {
	case err != nil || len(parameters) > 1 || len(parameters) == 1 && parameters[0].kind != isObject:
		return nil, errors.Join(errors.New("its parameters are no JSON object"), err)
	case len(parameters) == 0:
		return &node{kind: isObject}, nil
	}
	return parameters[0].sorted(), nil
}

func formatJSON(nodes []*node) ([]byte, error) {
	text := (&node{kind: isList, items: nodes}).json()
	if len(nodes) == 1 {
		text = nodes[0].json()
	}
	var b bytes.Buffer
	err := json.Indent(&b, text, "", "  ")
	b.WriteByte('\n')
	return b.Bytes(), err
}

func formatYAML(nodes []*node) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, n := range nodes {
		if err := e.Encode(n.yaml()); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), e.Close()
}

// workflowNode makes a node of a workflow.
func workflowNode(w flow.Definition) (*node, error) {
	n := headNode(w)
	tasks := &node{kind: isList}
	for _, t := range slices.SortedFunc(slices.Values(w.Tasks), func(a, b flow.TaskDefinition) int { return a.Seq - b.Seq }) {
		item, err := taskNode(t, false)
		if err != nil {
			return nil, fmt.Errorf("task_seq %d: %w", t.Seq, err)
		}
		tasks.items = append(tasks.items, item)
	}
	n.set("tasks", tasks)
	return n, nil
}

// headNode makes a node of a workflow without its tasks.
func headNode(w flow.Definition) *node {
	n := &node{kind: isObject}
	n.set("taskId", text(string(w.ID)))
	n.set("description", text(w.Description), w.Description != "")
	n.set("maxRunningFlows", number(w.MaxRunningFlows), w.MaxRunningFlows != 0)
	n.set("maxRunningTasks", number(w.MaxRunningTasks), w.MaxRunningTasks != 0)
	return n
}

// taskNode makes a node of a task; whole: with what it need not say.
func taskNode(t flow.TaskDefinition, whole bool) (*node, error) {
	n := &node{kind: isObject}
	title, description := splitTitle(t.Description)
	n.set("seq", number(t.Seq))
	n.set("title", text(title), title != "")
	n.set("description", text(description), description != "")
	n.set("program", text(t.Program))
	parameters, err := parametersOf(t)
	if err != nil {
		return nil, err
	}
	n.set("parameters", parameters, len(parameters.members) > 0)
	if t.DependsOn != nil {
		seqs := &node{kind: isList}
		for _, seq := range t.DependsOn {
			seqs.items = append(seqs.items, number(seq))
		}
		n.set("dependsOn", seqs)
	}
	n.set("priority", number(t.Priority), whole || t.Priority != 0)
	n.set("maxAttempts", number(t.MaxAttempts), whole || t.MaxAttempts != flow.DefaultMaxAttempts)
	n.set("retryDelay", text(formatDuration(t.RetryDelay)), whole || t.RetryDelay.Milliseconds() != flow.DefaultRetryDelay.Milliseconds())
	n.set("timeout", text(formatDuration(t.Timeout)), t.Timeout.Milliseconds() > 0)
	n.set("onLost", text(string(t.OnLost)), whole || t.OnLost != flow.OnLostRerun)
	n.set("runIf", text(t.RunIf), t.RunIf != "")
	return n, nil
}

func text(s string) *node { return &node{kind: isString, text: s} }

func number(i int) *node { return &node{kind: isNumber, text: strconv.Itoa(i)} }

// set adds a member, if it is to be there.
func (n *node) set(key string, value *node, there ...bool) {
	if len(there) == 0 || there[0] {
		n.members = append(n.members, member{text(key), value})
	}
}

// sorted orders the members of all objects by their keys: PostgreSQL has an order of its
// own, by length, in which nobody finds anything.
func (n *node) sorted() *node {
	slices.SortFunc(n.members, func(a, b member) int { return strings.Compare(a.key.text, b.key.text) })
	for _, m := range n.members {
		m.value.sorted()
	}
	for _, item := range n.items {
		item.sorted()
	}
	return n
}

// yaml makes a node one of YAML's.
func (n *node) yaml() *yaml.Node {
	y := &yaml.Node{Kind: yaml.ScalarNode, Value: n.text}
	switch n.kind {
	case isNull:
		y.Tag, y.Value = "!!null", "null"
	case isBool:
		y.Tag, y.Value = "!!bool", strconv.FormatBool(n.truth)
	case isString:
		y.Tag, y.Style = "!!str", stringStyle(n.text)
	case isList:
		y = &yaml.Node{Kind: yaml.SequenceNode}
		flat := true
		for _, item := range n.items {
			flat = flat && item.kind != isList && item.kind != isObject && len(item.text) < 40
			y.Content = append(y.Content, item.yaml())
		}
		if flat && len(n.items) <= 10 {
			y.Style = yaml.FlowStyle
		}
	case isObject:
		y = &yaml.Node{Kind: yaml.MappingNode}
		for _, m := range n.members {
			y.Content = append(y.Content, m.key.yaml(), m.value.yaml())
		}
		if len(n.members) == 0 {
			y.Style = yaml.FlowStyle
		}
	}
	return y
}

// stringStyle is quotes for whatever could be read as something else, and lines of their own
// for what has several and nothing odd in them.
func stringStyle(s string) yaml.Style {
	odd := strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
	switch {
	case odd || s == "" || s[0] == ' ' || s[0] == '\n' || strings.Contains(s, " \n") || strings.HasSuffix(s, " "):
		return yaml.DoubleQuotedStyle
	case strings.Contains(s, "\n"):
		return yaml.LiteralStyle
	case s == "<<" || jsonNumber.MatchString(s):
		return yaml.DoubleQuotedStyle
	}
	return 0 // as YAML needs it
}
