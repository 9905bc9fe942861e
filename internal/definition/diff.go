package definition

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/d-tsuji/flower/internal/flow"
)

// Change is one difference between two definitions of a workflow, in the words of files.
type Change struct {
	What  string          `json:"what"` // added, removed, changed
	Seq   int             `json:"seq,omitempty"`
	Title string          `json:"title,omitempty"`
	Field string          `json:"field,omitempty"` // as in parameters.URL; none: the task as a whole
	Old   json.RawMessage `json:"old,omitempty"`
	New   json.RawMessage `json:"new,omitempty"`
}

// The words of changes.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Diff returns what becomes different, the workflow as a whole first and then task by task.
// There is nothing exactly where the two are Equal. Values whose key looks like a secret's
// are hidden.
func Diff(before, after flow.Definition) ([]Change, error) {
	changes := differences(headNode(before), headNode(after), "")
	old, now := tasksBySeq(before), tasksBySeq(after)
	seqs := slices.AppendSeq(slices.Collect(maps.Keys(old)), maps.Keys(now))
	slices.Sort(seqs)
	for _, seq := range slices.Compact(seqs) {
		was, stood := old[seq]
		is, stands := now[seq]
		switch {
		case !stood:
			changes = append(changes, Change{What: Added, Seq: seq, Title: is.Title()})
		case !stands:
			changes = append(changes, Change{What: Removed, Seq: seq, Title: was.Title()})
		case !was.Equal(is):
			more, err := taskChanges(was, is)
			if err != nil {
				return nil, fmt.Errorf("task_seq %d: %w", seq, err)
			}
			changes = append(changes, more...)
		}
	}
	return changes, nil
}

func taskChanges(before, after flow.TaskDefinition) ([]Change, error) {
	// What does not differ for Equal must not do so here.
	if flow.SameDependencies(before.DependsOn, after.DependsOn) {
		before.DependsOn = after.DependsOn
	}
	a, err := taskNode(before, true)
	if err != nil {
		return nil, err
	}
	b, err := taskNode(after, true)
	if err != nil {
		return nil, err
	}
	changes := differences(a, b, "")
	for i := range changes {
		changes[i].Seq, changes[i].Title = after.Seq, after.Title()
	}
	return changes, nil
}

func tasksBySeq(w flow.Definition) map[int]flow.TaskDefinition {
	tasks := make(map[int]flow.TaskDefinition, len(w.Tasks))
	for _, t := range w.Tasks {
		tasks[t.Seq] = t
	}
	return tasks
}

// differences compares two objects member by member, and what is within parameters deeper.
func differences(a, b *node, path string) []Change {
	old, now := membersOf(a), membersOf(b)
	var changes []Change
	for _, key := range inOrder(a, b) {
		field := strings.TrimPrefix(path+"."+key, ".")
		was, is := old[key], now[key]
		if deep(field, key, was, is) {
			changes = append(changes, differences(orEmpty(was), orEmpty(is), field)...)
			continue
		}
		c := Change{What: Changed, Field: field, Old: hidden(key, was), New: hidden(key, is)}
		switch {
		case was == nil:
			c.What = Added
		case is == nil:
			c.What = Removed
		case sameNode(was, is):
			continue
		}
		changes = append(changes, c)
	}
	return changes
}

// deep: the difference is told of what is within. Parameters are always taken apart, and
// what is in them where both have an object, unless the whole of that is hidden.
func deep(field, key string, was, is *node) bool {
	if field == "parameters" {
		return true
	}
	return was != nil && is != nil && was.kind == isObject && is.kind == isObject && !flow.SecretKey(key)
}

func orEmpty(n *node) *node {
	if n == nil {
		return &node{kind: isObject}
	}
	return n
}

func membersOf(n *node) map[string]*node {
	m := make(map[string]*node, len(n.members))
	for _, x := range n.members {
		m[x.key.text] = x.value
	}
	return m
}

// inOrder returns the keys of both, those of b first.
func inOrder(a, b *node) []string {
	var keys []string
	seen := map[string]bool{}
	for _, m := range slices.Concat(b.members, a.members) {
		if !seen[m.key.text] {
			seen[m.key.text] = true
			keys = append(keys, m.key.text)
		}
	}
	return keys
}

func sameNode(a, b *node) bool {
	wrap := func(n *node) json.RawMessage { return (&node{kind: isList, items: []*node{n}}).json() }
	return flow.SameJSON(wrap(a), wrap(b))
}

// hidden is a value for people to read, without what looks like a secret.
func hidden(key string, n *node) json.RawMessage {
	if n == nil {
		return nil
	}
	if flow.SecretKey(key) && n.kind != isNull {
		return text(hiddenValue).json()
	}
	return n.masked().json()
}

// hiddenValue is what people see of a secret.
const hiddenValue = "***"

// masked returns a copy of n in which what looks like a secret is hidden.
func (n *node) masked() *node {
	masked := &node{kind: n.kind, text: n.text, truth: n.truth}
	for _, item := range n.items {
		masked.items = append(masked.items, item.masked())
	}
	for _, m := range n.members {
		value := m.value.masked()
		if flow.SecretKey(m.key.text) && value.kind != isNull {
			value = text(hiddenValue)
		}
		masked.members = append(masked.members, member{m.key, value})
	}
	return masked
}

// concealed returns the first value within n that stands for a secret which masked has hidden:
// what was read like that, of an earlier version perhaps, must not take the secret's place.
func (n *node) concealed() *node {
	for _, item := range n.items {
		if bad := item.concealed(); bad != nil {
			return bad
		}
	}
	for _, m := range n.members {
		if flow.SecretKey(m.key.text) && m.value.kind == isString && m.value.text == hiddenValue {
			return m.value
		}
		if bad := m.value.concealed(); bad != nil {
			return bad
		}
	}
	return nil
}

// WriteDiff writes what becomes of a workflow, for people: a line that says it in a word,
// and one for each change.
func WriteDiff(w io.Writer, e flow.EditedDefinition) error {
	fmt.Fprintf(w, "%s: %s%s\n", printable(string(e.ID)), e.What(), size(e))
	if e.What() != "changed" {
		return nil
	}
	changes, err := Diff(*e.Old, *e.New)
	if err != nil {
		return fmt.Errorf("workflow %q: %w", e.ID, err)
	}
	for _, c := range changes {
		fmt.Fprintf(w, "  %s\n", c)
	}
	return nil
}

func size(e flow.EditedDefinition) string {
	w := e.New
	if e.What() == "deleted" {
		w = e.Old
	}
	switch {
	case e.What() != "created" && e.What() != "deleted":
		return ""
	case len(w.Tasks) == 1:
		return ", 1 task"
	}
	return fmt.Sprintf(", %d tasks", len(w.Tasks))
}

// String says it in a line: task 2 (load): parameters.URL: "http://a" → "http://b".
func (c Change) String() string {
	where := ""
	if c.Seq > 0 {
		where = fmt.Sprintf("task %d (%s): ", c.Seq, printable(c.Title))
	}
	if c.Field == "" {
		return where + c.What
	}
	return fmt.Sprintf("%s%s: %s → %s", where, c.Field, value(c.Old), value(c.New))
}

// printable takes away what could command a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// value is a JSON value for people, cut where it is too long.
func value(raw json.RawMessage) string {
	if raw == nil {
		return "(none)"
	}
	text := printable(string(raw))
	const most = 120
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}
