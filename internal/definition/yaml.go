package definition

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readYAML reads the documents of a YAML text; empty ones are none.
func readYAML(text []byte) ([]*node, error) {
	var documents []*node
	d := yaml.NewDecoder(bytes.NewReader(text))
	r := &yamlReader{}
	for {
		var document yaml.Node
		err := d.Decode(&document)
		switch {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return documents, yamlMistake(err)
		case len(document.Content) == 0:
			continue
		}
		n, err := r.value(document.Content[0], 0)
		if err != nil {
			return documents, err
		}
		if n.kind != isNull {
			documents = append(documents, n)
		}
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// yamlMistake takes the line out of the parser's error. It knows no column.
func yamlMistake(err error) error {
	found := yamlLine.FindStringSubmatch(err.Error())
	if found == nil {
		return at(1, 1, "this is not YAML: %w", err)
	}
	line, _ := strconv.Atoi(found[1])
	return at(max(line, 1), 1, "this is not YAML: %s", strings.TrimPrefix(err.Error(), found[0]))
}

// yamlReader makes nodes of YAML's.
type yamlReader struct{ nodes int }

func (r *yamlReader) value(y *yaml.Node, depth int) (*node, error) {
	if r.nodes++; r.nodes > maxNodes {
		return nil, at(y.Line, y.Column, "%w", errTooMany)
	}
	if depth > maxDepth { // an alias within itself, too
		return nil, at(y.Line, y.Column, "%w", errTooDeep)
	}
	n := &node{line: y.Line, column: y.Column}
	switch y.Kind {
	case yaml.AliasNode:
		// It stands where it is used: that is where a person looks.
		value, err := r.value(y.Alias, depth+1)
		if err != nil {
			return nil, err
		}
		value.line, value.column = y.Line, y.Column
		return value, nil
	case yaml.SequenceNode:
		if err := tagged(y, "!!seq"); err != nil {
			return nil, err
		}
		n.kind = isList
		for _, y := range y.Content {
			item, err := r.value(y, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case yaml.MappingNode:
		if err := tagged(y, "!!map"); err != nil {
			return nil, err
		}
		n.kind = isObject
		return n, r.members(n, y, depth)
	}
	return n, scalar(n, y)
}

// members reads a mapping. What it merges (<<) counts less than what it says itself.
func (r *yamlReader) members(n *node, y *yaml.Node, depth int) error {
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return at(key.Line, key.Column, "a key must be a text")
		}
		v, err := r.value(value, depth+1)
		if err != nil {
			return err
		}
		if err := n.put(&node{kind: isString, line: key.Line, column: key.Column, text: key.Value}, v); err != nil {
			return err
		}
	}
	for _, y := range merged {
		if err := r.merge(n, y, depth); err != nil {
			return err
		}
	}
	return nil
}

func (r *yamlReader) merge(n *node, y *yaml.Node, depth int) error {
	from, err := r.value(y, depth+1)
	if err != nil {
		return err
	}
	sources := []*node{from}
	if from.kind == isList {
		sources = from.items
	}
	for _, source := range sources {
		if source.kind != isObject {
			return at(y.Line, y.Column, "<< takes an object, or a list of objects")
		}
		for _, m := range source.members {
			if n.values[m.key.text] == nil {
				_ = n.put(m.key, m.value) // it is not there yet
			}
		}
	}
	return nil
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// scalar reads a value without anything in it. Numbers must be written as in JSON: what
// YAML makes of 010, 1_000 and .inf surprises people.
func scalar(n *node, y *yaml.Node) error {
	plain := y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
	if plain && jsonNumber.MatchString(y.Value) { // one that is too large for YAML is one, too
		n.kind, n.text = isNumber, y.Value
		return nil
	}
	lower := strings.ToLower(y.Value)
	switch tag := y.ShortTag(); {
	case tag == "!!null":
		n.kind = isNull
	case tag == "!!bool" && (lower == "true" || lower == "false"):
		n.kind, n.truth = isBool, lower == "true"
	case (tag == "!!int" || tag == "!!float") && jsonNumber.MatchString(y.Value):
		n.kind, n.text = isNumber, y.Value
	case tag == "!!int" || tag == "!!float":
		return at(y.Line, y.Column, "%s: write a number in decimal, as in 16 or 0.5, and a text in quotes", shown(y.Value))
	case tag == "!!str" || tag == "!!timestamp":
		n.kind, n.text = isString, y.Value
	default:
		return tagged(y, "")
	}
	return nil
}

// tagged refuses tags that nobody here knows.
func tagged(y *yaml.Node, known string) error {
	if tag := y.ShortTag(); tag != known {
		return at(y.Line, y.Column, "the tag %s has no meaning here", shown(tag))
	}
	return nil
}
