package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// pretty writes JSON for people, with the values hidden whose key looks like a secret's.
// Empty where there is none, or nothing in it.
func pretty(text json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if len(text) == 0 || d.Decode(&v) != nil {
		return ""
	}
	if m, ok := v.(map[string]any); ok && len(m) == 0 {
		return ""
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template does it
	e.SetIndent("", "  ")
	if err := e.Encode(mask(v)); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// maxDepth is how deep an object of parameters may be.
const maxDepth = 100

// object reads a field that may have a JSON object; nil if it is empty. It refuses what
// JSON can say and the database cannot keep.
func object(name, text string) (json.RawMessage, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	wrong := func(problem string) error { return &flow.InvalidError{Subject: name, Problem: problem} }
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil || v == nil {
		return nil, wrong(`must be a JSON object, as in {"day": "2026-11-23"}`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, wrong("must be one JSON object, and something follows it")
	}
	if problem := unkeepable(v, 0); problem != "" {
		return nil, wrong(problem)
	}
	return json.Marshal(v)
}

// unkeepable says why jsonb cannot hold a value; empty: it can.
func unkeepable(v any, depth int) string {
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return "has the character U+0000, which cannot be kept"
		}
	case json.Number:
		if _, err := v.Float64(); err != nil || len(v) > 1000 {
			return "has a number that is too large"
		}
	case map[string]any:
		for key, value := range v {
			if problem := unkeepable(key, depth); problem != "" {
				return problem
			}
			if problem := unkeepable(value, depth+1); problem != "" {
				return problem
			}
		}
	case []any:
		for _, value := range v {
			if problem := unkeepable(value, depth+1); problem != "" {
				return problem
			}
		}
	}
	if depth > maxDepth {
		return fmt.Sprintf("is nested deeper than %d", maxDepth)
	}
	return ""
}

// mask hides the secrets in a value that was decoded from JSON.
func mask(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if secretKey(key) {
				v[key] = "***"
			} else {
				v[key] = mask(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = mask(v[i])
		}
	}
	return v
}

// secretKey reports whether a key looks like a secret's. It hides rather too much.
func secretKey(key string) bool {
	key = strings.ToLower(key)
	for _, word := range []string{"pass", "secret", "token", "key", "auth", "credential"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return false
}
