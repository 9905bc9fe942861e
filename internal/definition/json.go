package definition

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// readJSON reads the values of a JSON text, of which there may be several.
func readJSON(text []byte) ([]*node, error) {
	r := &jsonReader{text: text, d: json.NewDecoder(bytes.NewReader(text)), line: 1}
	r.d.UseNumber()
	var values []*node
	for {
		r.skip()
		if r.at == len(text) {
			return values, nil
		}
		n, err := r.value(0)
		if err != nil {
			return values, err
		}
		values = append(values, n)
	}
}

// jsonReader follows a decoder, and knows where it is.
type jsonReader struct {
	text   []byte
	d      *json.Decoder
	at     int // how far lines are counted
	line   int // of at
	begins int // where that line begins
	nodes  int
}

// skip goes to the next token.
func (r *jsonReader) skip() {
	r.reach(int(r.d.InputOffset()))
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\r', '\n', ',', ':':
			r.reach(r.at + 1)
		default:
			return
		}
	}
}

// reach counts lines up to an offset.
func (r *jsonReader) reach(offset int) {
	for ; r.at < min(offset, len(r.text)); r.at++ {
		if r.text[r.at] == '\n' {
			r.line, r.begins = r.line+1, r.at+1
		}
	}
}

func (r *jsonReader) column() int { return utf8.RuneCount(r.text[r.begins:r.at]) + 1 }

// next reads a token, of which it makes a node without anything in it.
func (r *jsonReader) next() (*node, json.Token, error) {
	r.skip()
	n := &node{line: r.line, column: r.column()}
	if r.nodes++; r.nodes > maxNodes {
		return nil, nil, at(n.line, n.column, "%w", errTooMany)
	}
	token, err := r.d.Token()
	if err != nil {
		return nil, nil, r.mistake(err)
	}
	switch token := token.(type) {
	case bool:
		n.kind, n.truth = isBool, token
	case json.Number:
		n.kind, n.text = isNumber, string(token)
	case string:
		n.kind, n.text = isString, token
	}
	return n, token, nil
}

// mistake says where the text is no JSON.
func (r *jsonReader) mistake(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok && syntax.Offset > 0 {
		r.reach(int(syntax.Offset) - 1)
		return at(r.line, r.column(), "this is not JSON: %v", err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		r.reach(len(r.text))
		return at(r.line, r.column(), "this is not JSON: the text ends within a value")
	}
	return at(r.line, r.column(), "this is not JSON: %v", err)
}

func (r *jsonReader) value(depth int) (*node, error) {
	n, token, err := r.next()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, at(n.line, n.column, "%w", errTooDeep)
	}
	switch token {
	case json.Delim('['):
		n.kind = isList
		for r.d.More() {
			item, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
	case json.Delim('{'):
		n.kind = isObject
		for r.d.More() {
			key, _, err := r.next()
			if err != nil {
				return nil, err
			}
			value, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			if err := n.put(key, value); err != nil {
				return nil, err
			}
		}
	default:
		return n, nil
	}
	if _, err := r.d.Token(); err != nil { // what closes it
		r.skip()
		return nil, r.mistake(err)
	}
	return n, nil
}
