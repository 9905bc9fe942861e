package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/expression"
)

// Parameter describes one parameter of a program.
type Parameter struct {
	Name        string          `json:"name"`
	Type        Type            `json:"type"`
	Required    bool            `json:"required,omitempty"`
	Default     json.RawMessage `json:"default,omitempty"` // taken when the task has none; nil is none
	Description string          `json:"description"`       // what it is for, in full sentences

	// Fixed: a request cannot replace what the definition says, since that would let
	// whoever may register decide what runs, or where secrets go. Parameters of a request
	// are data, from outside.
	Fixed bool `json:"fixed,omitempty"`

	// Public: the program keeps the value in a table, or shows it. It cannot have a secret
	// in it.
	Public bool `json:"public,omitempty"`

	// Of strings only: what it can be.
	OneOf []string `json:"oneOf,omitempty"`

	// Of numbers only: what is counted, and the bounds, inclusive.
	Unit string   `json:"unit,omitempty"`
	Min  *float64 `json:"min,omitempty"`
	Max  *float64 `json:"max,omitempty"`
}

// Type is the kind of value that a parameter takes.
type Type string

// The types. JSON's null is taken as if the parameter were not there, whatever the type.
const (
	String  Type = "string"  // a number is taken as well, as it is written
	Integer Type = "integer" // the number may stand in a string: "1"
	Number  Type = "number"  // likewise
	Boolean Type = "boolean" // likewise: "true"
	Object  Type = "object"
	Array   Type = "array"
	Strings Type = "array of strings"  // numbers are taken as well, as they are written
	Map     Type = "object of strings" // likewise
	URL     Type = "url"               // an absolute http or https URL
	Any     Type = "any"
)

// decode checks parameters against what a program declares and returns their values.
// Parameters of tasks are typed by people: where a value can be meant in only one way it
// is taken, and otherwise the error says what would be right. Early, before a task runs,
// what its expressions come to is not known: those values are open.
func decode(declared []Parameter, given map[string]json.RawMessage, early bool) (Values, error) {
	values := make(Values, len(declared))
	for _, p := range declared {
		raw := given[p.Name]
		if isNull(raw) {
			raw = p.Default
		}
		if isNull(raw) {
			if p.Required {
				return nil, p.missing(declared, given)
			}
			values[p.Name] = nil
			continue
		}
		if early && p.computed(raw) {
			values[p.Name] = open{}
			continue
		}
		v, err := p.value(raw)
		if err != nil {
			return nil, invalid(p.Name, err.Error())
		}
		values[p.Name] = v
	}
	return values, nil
}

// computed reports whether an expression decides what a value is. One inside of an array
// or an object does not decide that.
func (p Parameter) computed(raw json.RawMessage) bool {
	switch p.Type {
	case Strings, Map, Array, Object:
		return kindOf(raw) == "a string" && expression.In(raw)
	}
	return expression.In(raw)
}

// members takes a JSON object apart. A task without parameters may have nil.
func members(parameters json.RawMessage) (map[string]json.RawMessage, error) {
	if len(parameters) == 0 {
		return nil, nil
	}
	var m map[string]json.RawMessage
	// null would be decoded without an error.
	if err := json.Unmarshal(parameters, &m); err != nil || m == nil {
		return nil, &flow.InvalidError{
			Subject: "parameters",
			Problem: `they are not a JSON object like {"NAME": "value"}`,
		}
	}
	return m, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// invalid says what is wrong with a parameter.
func invalid(name, problem string) error {
	return &flow.InvalidError{Subject: "parameter " + quote(name), Problem: problem}
}

// missing says what is needed and, since a name is easily mistyped, which of the given
// names nobody reads.
func (p Parameter) missing(declared []Parameter, given map[string]json.RawMessage) error {
	problem := "it is missing, and must be " + p.wanted()
	unknown := slices.DeleteFunc(slices.Sorted(maps.Keys(given)), func(name string) bool {
		return slices.ContainsFunc(declared, func(d Parameter) bool { return d.Name == name })
	})
	if len(unknown) > 0 {
		const most = 3 // of names that may be as long as somebody liked
		more := len(unknown) - most
		for i, name := range unknown[:min(most, len(unknown))] {
			unknown[i] = quote(name)
		}
		if more > 0 {
			unknown = append(unknown[:most], fmt.Sprintf("%d more", more))
		}
		problem += "; this program does not know " + strings.Join(unknown, ", ")
	}
	return invalid(p.Name, problem)
}

// wanted says what the parameter takes, to end a sentence.
func (p Parameter) wanted() string {
	switch p.Type {
	case String:
		if len(p.OneOf) > 0 {
			return "one of " + strings.Join(p.OneOf, ", ")
		}
		return "a string"
	case Strings:
		return "a JSON array of strings"
	case Map:
		return "a JSON object of strings"
	case Boolean:
		return "true or false"
	case Object, Array:
		return "a JSON " + string(p.Type)
	case URL:
		return "a URL like https://example.com/path"
	case Any:
		return "any JSON value"
	}
	text := "a number"
	if p.Type == Integer {
		text = "a whole number"
	}
	if p.Unit != "" {
		text += " of " + p.Unit
	}
	switch {
	case p.Min != nil && p.Max != nil:
		text += fmt.Sprintf(" from %s to %s", decimal(*p.Min), decimal(*p.Max))
	case p.Min != nil:
		text += " of at least " + decimal(*p.Min)
	case p.Max != nil:
		text += " of at most " + decimal(*p.Max)
	}
	return text
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// value decodes raw, which is valid JSON and not null, into what Values holds for the
// parameter's type.
func (p Parameter) value(raw json.RawMessage) (any, error) {
	kind := kindOf(raw)
	mismatch := errors.New(kind + " is not " + p.wanted())
	switch p.Type {
	case Any:
		return raw, nil
	case Object, Array:
		if kind == "an "+string(p.Type) {
			return raw, nil
		}
		return nil, mismatch
	case Strings, Map:
		return p.texts(raw, kind)
	case Integer, Number, Boolean:
		return p.scalar(raw, kind)
	case URL:
		if kind != "a string" {
			return nil, mismatch
		}
		return parseURL(unquote(raw))
	}
	text, ok := asText(raw)
	if !ok {
		return nil, mismatch
	}
	if len(p.OneOf) > 0 && !slices.Contains(p.OneOf, text) {
		return nil, errors.New(quote(text) + " is not " + p.wanted())
	}
	return text, nil
}

// asText returns a string, or a number as it is written.
func asText(raw json.RawMessage) (string, bool) {
	switch kindOf(raw) {
	case "a string":
		return unquote(raw), true
	case "a number":
		return string(raw), true
	}
	return "", false
}

// texts decodes an array or an object of strings.
func (p Parameter) texts(raw json.RawMessage, kind string) (any, error) {
	switch {
	case p.Type == Strings && kind == "an array":
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items) // it is valid
		list := make([]string, len(items))
		for i, item := range items {
			text, ok := asText(item)
			if !ok {
				return nil, fmt.Errorf("item %d is %s, not a string", i+1, kindOf(item))
			}
			list[i] = text
		}
		return list, nil
	case p.Type == Map && kind == "an object":
		var items map[string]json.RawMessage
		_ = json.Unmarshal(raw, &items)
		texts := make(map[string]string, len(items))
		for _, name := range slices.Sorted(maps.Keys(items)) {
			text, ok := asText(items[name])
			if !ok {
				return nil, fmt.Errorf("%s is %s, not a string", quote(name), kindOf(items[name]))
			}
			texts[name] = text
		}
		return texts, nil
	}
	return nil, errors.New(kind + " is not " + p.wanted())
}

// scalar decodes a number or a boolean, either of which may stand in a string.
func (p Parameter) scalar(raw json.RawMessage, kind string) (any, error) {
	if kind == "an object" || kind == "an array" {
		return nil, errors.New(kind + " is not " + p.wanted())
	}
	text, shown := string(raw), cut(string(raw), maxQuoted)
	if kind == "a string" {
		text = unquote(raw)
		shown = quote(text)
	}
	text = strings.TrimSpace(text)
	mismatch := errors.New(shown + " is not " + p.wanted())
	if p.Type == Boolean {
		if text != "true" && text != "false" {
			return nil, mismatch
		}
		return text == "true", nil
	}
	f, ok := parseNumber(text)
	if !ok || p.Min != nil && f < *p.Min || p.Max != nil && f > *p.Max {
		return nil, mismatch
	}
	if p.Type == Number {
		return f, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	const exact = 1 << 53 // beyond it a float64 no longer tells whole numbers apart
	if f != math.Trunc(f) || math.Abs(f) > exact {
		return nil, mismatch
	}
	return int64(f), nil
}

// parseNumber takes decimal notation only. Alone, ParseFloat would take "Inf", "NaN"
// and hexadecimal as well.
func parseNumber(text string) (float64, bool) {
	if strings.Trim(text, "+-.0123456789eE") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil
}

// parseURL never quotes what it refuses, nor the error of url.Parse, which would: URLs
// hold passwords and tokens.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("it is not a URL like https://example.com/path")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("it must begin with http:// or https://")
	}
	return u, nil
}

// kindOf names the kind of a JSON value. Its first character tells it.
func kindOf(raw json.RawMessage) string {
	switch raw[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// unquote decodes a JSON string, which is known to be valid.
func unquote(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}
