package web

import (
	"bytes"
	"encoding/json"
	"strings"
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
