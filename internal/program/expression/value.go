package expression

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Decode makes of JSON what an expression can work with.
func Decode(raw json.RawMessage) (any, error) {
	v, err := decode(raw)
	if err != nil {
		return nil, err
	}
	return withNumbers(v), nil
}

// decode keeps numbers as they are written.
func decode(raw json.RawMessage) (any, error) {
	if !json.Valid(raw) {
		return nil, errors.New("it is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

func withNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(v)
	case []any:
		for i, e := range v {
			v[i] = withNumbers(e)
		}
	case map[string]any:
		for k, e := range v {
			v[k] = withNumbers(e)
		}
	}
	return v
}

// number makes of a number one to count with, unless it would become another one: a key
// of 20 digits is handed on as it is written.
func number(n json.Number) any {
	if i, err := strconv.Atoi(string(n)); err == nil {
		return i
	}
	f, err := n.Float64()
	if err != nil || digits(string(n)) != digits(strconv.FormatFloat(f, 'e', -1, 64)) {
		return n
	}
	return f
}

// digits returns what counts of a number's digits.
func digits(n string) string {
	n, _, _ = strings.Cut(strings.ToLower(n), "e")
	return strings.Trim(strings.NewReplacer("-", "", "+", "", ".", "").Replace(n), "0")
}

// jsonOf encodes a value.
func jsonOf(v any) (string, error) {
	raw, err := encode(plain(v))
	return string(raw), err
}

func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it would only take room
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("it comes to %s, which is not JSON", kind(v))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// plain replaces what JSON does not know, and people do: a duration is written as in 1h30m0s.
func plain(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return v.String()
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = plain(e)
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for k, e := range v {
			object[k] = plain(e)
		}
		return object
	}
	return v
}

// text is what stands for a value within a text: a string as it is, other values as JSON.
// Nothing stands for null, which is most often a mistake.
func text(v any) (string, error) {
	switch v := plain(v).(type) {
	case nil:
		return "", errors.New("it is null, which is no text; ?? says what to take instead")
	case string:
		return v, nil
	case time.Time:
		return v.Format(time.RFC3339Nano), nil
	default:
		return jsonOf(v)
	}
}

// kind names a value's kind, for an error.
func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
		return "a number"
	case int, json.Number:
		return "a number"
	case []any, []int, []string:
		return "an array"
	case map[string]any:
		return "an object"
	case time.Time:
		return "a time"
	}
	return fmt.Sprintf("a %T", v)
}
