package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// pretty writes JSON for people, with the values hidden whose key looks like a secret's.
// Empty where there is none, or nothing in it.
func pretty(text json.RawMessage) string {
	v, err := request.Decode[any](text)
	if err != nil {
		return ""
	}
	if m, ok := v.(map[string]any); ok && len(m) == 0 {
		return ""
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template does it
	e.SetIndent("", "  ")
	if err := e.Encode(request.Mask(v)); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// object reads a field that may have a JSON object; nil if it is empty. It refuses what
// JSON can say and the database cannot keep, and what a page shows instead of a secret.
func object(name, text string) (json.RawMessage, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	const example = `{"day": "2026-11-23"}`
	err := request.Check([]byte(text), example)
	if err == nil && !strings.HasPrefix(text, "{") {
		err = problem.InvalidValue.Because("it must be a JSON object, as in %s", example)
	}
	if err == nil && strings.Contains(text, `"***"`) { // copied from a page
		err = problem.InvalidValue.Because(`"***" stands for a value that is not shown: put it in, or leave it out`)
	}
	var v json.RawMessage
	if err == nil {
		v, err = request.Parameters(json.RawMessage(text))
	}
	if f, ok := errors.AsType[*problem.Failure](err); ok {
		return nil, problem.InvalidValue.Because("%s: %s", name, strings.TrimPrefix(f.Detail, "parameters: "))
	}
	return v, err
}
