package request

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/problem"
)

// Limits of parameters. PostgreSQL's numbers are not endless, and JSON's are.
const (
	maxParameterKey = 200  // characters
	maxNumber       = 1000 // digits and signs as written
)

// Parameters checks a request's parameters and returns them in the one form that all equal
// objects share: keys sorted, no blanks, of a doubled key the last. It returns nil if there
// are none.
func Parameters(text json.RawMessage) (json.RawMessage, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	parameters, err := Decode[map[string]any](text)
	if err != nil {
		return nil, problem.InvalidValue.Because(`parameters must be a JSON object, as in {"NAME": "value"}`)
	}
	if len(parameters) == 0 {
		return nil, nil
	}
	for _, key := range slices.Sorted(maps.Keys(parameters)) {
		if utf8.RuneCountInString(key) > maxParameterKey {
			return nil, problem.InvalidValue.Because("parameters: the key %q… is longer than %d characters",
				problem.Cut(key, 40), maxParameterKey)
		}
		if !storable(parameters[key]) {
			return nil, problem.InvalidValue.Because("parameters: %q has a number that is too large or too exact; "+
				"send it as a string", key)
		}
	}
	return Compact(parameters), nil
}

// Numbers refuses JSON with a number that the database cannot hold.
func Numbers(text []byte) error {
	v, err := Decode[any](text)
	if err != nil {
		return problem.MalformedBody.Because("the body cannot be read as JSON")
	}
	if !storable(v) {
		return problem.InvalidValue.Because("a number is too large or too exact; send it as a string")
	}
	return nil
}

// storable reports whether the database can hold every number in v.
func storable(v any) bool {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		underflow := f == 0 && strings.ContainsAny(mantissa(v.String()), "123456789")
		return err == nil && !math.IsInf(f, 0) && !underflow && len(v) <= maxNumber
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool { return !storable(item) })
	case map[string]any:
		for _, item := range v {
			if !storable(item) {
				return false
			}
		}
	}
	return true
}

func mantissa(number string) string {
	m, _, _ := strings.Cut(strings.ToLower(number), "e")
	return m
}

// Decode reads JSON with its numbers as they are written: a float64 would round large ids.
func Decode[T any](text []byte) (T, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err := d.Decode(&v)
	return v, err
}

// Compact encodes a value that was decoded from JSON.
func Compact(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("encode decoded JSON: " + err.Error())
	}
	return bytes.TrimSpace(b.Bytes())
}
