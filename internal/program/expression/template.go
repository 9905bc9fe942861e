package expression

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// What an expression stands between.
const (
	Begin = "${{"
	end   = "}}"
)

// In reports whether a string in a JSON value, or a key, has an expression. The text alone
// would not tell, since any character can be written as an escape.
func In(raw json.RawMessage) bool {
	if !strings.Contains(string(raw), Begin) && !strings.Contains(string(raw), `\u`) {
		return false
	}
	v, err := decode(raw)
	return err == nil && in(v)
}

func in(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, Begin)
	case []any:
		return slices.ContainsFunc(v, in)
	case map[string]any:
		for key, e := range v {
			if strings.Contains(key, Begin) || in(e) {
				return true
			}
		}
	}
	return false
}

// Value is a JSON value with expressions in its strings.
type Value struct {
	tree  any // as JSON is decoded, with a template for each such string
	texts []string
	uses  Uses
}

// Parse reads a JSON value and checks its expressions. It returns nil where there are none.
func Parse(raw json.RawMessage) (*Value, error) {
	if !In(raw) {
		return nil, nil
	}
	tree, err := decode(raw)
	if err != nil {
		return nil, err
	}
	v := &Value{}
	v.tree, err = v.parse(tree)
	return v, err
}

func (v *Value) parse(tree any) (any, error) {
	var err error
	switch t := tree.(type) {
	case string:
		if strings.Contains(t, Begin) {
			return v.template(t)
		}
	case []any:
		for i, e := range t {
			if t[i], err = v.parse(e); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key, e := range t {
			if strings.Contains(key, Begin) {
				return nil, fmt.Errorf("a key cannot have an expression in it: %s", show(key))
			}
			if t[key], err = v.parse(e); err != nil {
				return nil, err
			}
		}
	}
	return tree, nil
}

// template is a text with expressions in it: of each pair the text comes first. The last
// one has no expression.
type template []part

type part struct {
	text string
	x    *expression
}

func (v *Value) template(s string) (template, error) {
	var parts template
	for {
		before, rest, more := strings.Cut(s, Begin)
		if !more {
			return append(parts, part{text: s}), nil
		}
		n := length(rest)
		if n < 0 {
			return nil, &Error{rest, "it has no end, " + end}
		}
		x, err := compiled(strings.TrimSpace(rest[:n]), valueEnv{})
		if err != nil {
			return nil, err
		}
		v.uses.Add(x.uses)
		v.texts = append(v.texts, x.text)
		parts = append(parts, part{before, x})
		s = rest[n+len(end):]
	}
}

// length returns how long the expression at the beginning of a text is; -1: it has no end.
// A }} within a string, or that closes braces of its own, is no end.
func length(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"', '\'', '`':
			if i = closing(s, i); i < 0 {
				return -1
			}
		case '{':
			depth++
		case '}':
			if depth == 0 && strings.HasPrefix(s[i:], end) {
				return i
			}
			depth--
		}
	}
	return -1
}

// closing returns where the string that begins at i ends; -1: nowhere.
func closing(s string, i int) int {
	quote := s[i]
	for i++; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return i
		case s[i] == '\\' && quote != '`':
			i++
		}
	}
	return -1
}

// String returns the expressions as an error shows them, and nothing of what is beside them.
func (v *Value) String() string {
	const most = 3
	var all []string
	for _, text := range v.texts[:min(most, len(v.texts))] {
		all = append(all, show(text))
	}
	if len(v.texts) > most {
		all = append(all, fmt.Sprintf("%d more", len(v.texts)-most))
	}
	return strings.Join(all, ", ")
}

// Uses returns what the expressions must know.
func (v *Value) Uses() Uses { return v.uses }

// Eval computes the value. A string that is one expression becomes what that comes to,
// whatever its type; in a longer one the expressions are replaced. Where ctx ends the error
// is its cause.
func (v *Value) Eval(ctx context.Context, env Env) (json.RawMessage, error) {
	b, stop := newBudget(ctx)
	defer stop()
	tree, err := eval(b, v.tree, valueEnv{env, b.weigh})
	if err != nil {
		return nil, err
	}
	raw, err := encode(tree)
	if err == nil && len(raw) > maxValue {
		err = fmt.Errorf("it comes to %d bytes, and %d are allowed", len(raw), maxValue)
	}
	return raw, err
}

func eval(b *budget, tree any, env valueEnv) (any, error) {
	var err error
	switch t := tree.(type) {
	case template:
		return t.eval(b, env)
	case []any:
		list := make([]any, len(t))
		for i, e := range t {
			if list[i], err = eval(b, e, env); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		object := make(map[string]any, len(t))
		for key, e := range t {
			if object[key], err = eval(b, e, env); err != nil {
				return nil, err
			}
		}
		return object, nil
	}
	return tree, nil
}

func (t template) eval(b *budget, env valueEnv) (any, error) {
	if len(t) == 2 && t[0].text == "" && t[1].text == "" {
		v, err := t[0].x.run(b, env)
		if err != nil {
			return nil, err
		}
		raw, err := jsonOf(v)
		if err != nil {
			return nil, &Error{t[0].x.text, err.Error()}
		}
		return json.RawMessage(raw), nil
	}
	var whole strings.Builder
	for _, p := range t {
		whole.WriteString(p.text)
		if p.x == nil {
			continue
		}
		v, err := p.x.run(b, env)
		if err != nil {
			return nil, err
		}
		s, err := text(v)
		if err != nil {
			return nil, &Error{p.x.text, err.Error()}
		}
		whole.WriteString(s)
	}
	return whole.String(), nil
}
