package program

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"time"
)

// Values are the decoded parameters of a task: one entry for each that the program
// declares, nil where the task has none and there is no default. A test makes them by
// hand: Values{"WHO": "world"}.
//
// Each method returns the value of a parameter of the type that it names, and the zero
// value where there is none. Asking for a name that is not declared, or declared with
// another type, is a mistake in the program and panics.
type Values map[string]any

// open stands for a value that is not known before the task runs.
type open struct{}

// Open reports whether a value is not known yet, since an expression decides it. Only
// Check meets such values; they are zero.
func (v Values) Open(name string) bool { return v[name] == open{} }

// String returns the value of a String parameter.
func (v Values) String(name string) string { return value[string](v, name) }

// Int returns the value of an Integer parameter.
func (v Values) Int(name string) int64 { return value[int64](v, name) }

// Float returns the value of a Number parameter.
func (v Values) Float(name string) float64 { return value[float64](v, name) }

// Seconds returns the value of a Number parameter that counts seconds.
func (v Values) Seconds(name string) time.Duration {
	return time.Duration(math.Round(value[float64](v, name) * float64(time.Second)))
}

// Bool returns the value of a Boolean parameter.
func (v Values) Bool(name string) bool { return value[bool](v, name) }

// URL returns the value of a URL parameter. It is shared: change a copy.
func (v Values) URL(name string) *url.URL { return value[*url.URL](v, name) }

// Strings returns the value of a Strings parameter. It is shared: change a copy.
func (v Values) Strings(name string) []string { return value[[]string](v, name) }

// Map returns the value of a Map parameter. It is shared: change a copy.
func (v Values) Map(name string) map[string]string { return value[map[string]string](v, name) }

// JSON returns the value of an Object, Array or Any parameter, as it was written.
func (v Values) JSON(name string) json.RawMessage { return value[json.RawMessage](v, name) }

func value[T any](v Values, name string) T {
	got, declared := v[name]
	if !declared {
		panic(fmt.Sprintf("program: it does not declare the parameter %q that it reads", name))
	}
	if got == nil || got == (open{}) {
		var zero T
		return zero
	}
	typed, ok := got.(T)
	if !ok {
		panic(fmt.Sprintf("program: it reads parameter %q as %T, and declares what makes a %T", name, typed, got))
	}
	return typed
}
