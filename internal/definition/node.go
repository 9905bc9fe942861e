package definition

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// node is a value of a file, with its place.
type node struct {
	kind         kind
	line, column int
	text         string  // of a string; of a number as JSON writes it
	truth        bool    // of a boolean
	items        []*node // of a list
	members      []member
	values       map[string]*node // of the members, by their keys
}

type member struct{ key, value *node } // the key is a string

type kind int

const (
	isNull kind = iota
	isBool
	isNumber
	isString
	isList
	isObject
)

// String names the kind with its article.
func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

// Bounds of what a file may have: far more than any definition needs.
const (
	maxDepth = 100     // of values within values
	maxNodes = 500_000 // values of a file, each use of an alias counted

	maxDigits = 1000 // of a number, written out
)

var (
	errTooDeep = fmt.Errorf("values are nested more than %d deep here", maxDepth)
	errTooMany = fmt.Errorf("there are more than %d values", maxNodes)
)

// put adds a member to an object.
func (n *node) put(key, value *node) error {
	if n.values == nil {
		n.values = make(map[string]*node)
	}
	if n.values[key.text] != nil {
		return at(key.line, key.column, "%s is there twice", shown(key.text))
	}
	n.members = append(n.members, member{key, value})
	n.values[key.text] = value
	return nil
}

// json writes a value. Members keep their order.
func (n *node) json() json.RawMessage {
	var b bytes.Buffer
	n.writeJSON(&b)
	return b.Bytes()
}

func (n *node) writeJSON(b *bytes.Buffer) {
	switch n.kind {
	case isNull:
		b.WriteString("null")
	case isBool:
		fmt.Fprint(b, n.truth)
	case isNumber:
		b.WriteString(n.text)
	case isString:
		b.Write(quoted(n.text))
	case isList:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.writeJSON(b)
		}
		b.WriteByte(']')
	case isObject:
		b.WriteByte('{')
		for i, m := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(quoted(m.key.text))
			b.WriteByte(':')
			m.value.writeJSON(b)
		}
		b.WriteByte('}')
	}
}

// quoted is a JSON string, without the escapes that are for HTML.
func quoted(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string never fails
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// withNUL returns the first string within n that has a character PostgreSQL cannot keep.
func (n *node) withNUL() *node {
	if n.kind == isString && strings.ContainsRune(n.text, 0) {
		return n
	}
	for _, item := range n.items {
		if bad := item.withNUL(); bad != nil {
			return bad
		}
	}
	for _, m := range n.members {
		if bad := m.key.withNUL(); bad != nil {
			return bad
		}
		if bad := m.value.withNUL(); bad != nil {
			return bad
		}
	}
	return nil
}

// tooLarge returns the first number within n that has more digits than anybody needs: the
// database would write each of them.
func (n *node) tooLarge() *node {
	if n.kind == isNumber {
		_, exponent, _ := strings.Cut(strings.ToLower(n.text), "e")
		power, err := strconv.Atoi(cmp.Or(exponent, "0"))
		if err != nil || len(n.text)+max(power, -power) > maxDigits {
			return n
		}
	}
	for _, item := range n.items {
		if bad := item.tooLarge(); bad != nil {
			return bad
		}
	}
	for _, m := range n.members {
		if bad := m.value.tooLarge(); bad != nil {
			return bad
		}
	}
	return nil
}

// placedError is a mistake at a place.
type placedError struct {
	line, column int
	err          error
}

func (e *placedError) Error() string { return e.err.Error() }

func at(line, column int, format string, args ...any) error {
	return &placedError{line, column, fmt.Errorf(format, args...)}
}

// problem makes an error one of a file.
func problem(file string, err error) Problem {
	p := Problem{File: file, Line: 1, Column: 1, Message: err.Error()}
	if placed, ok := errors.AsType[*placedError](err); ok {
		p.Line, p.Column = placed.line, placed.column
	}
	return p
}
