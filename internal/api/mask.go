package api

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/d-tsuji/flower/internal/request"
)

// masked returns a row's JSON with the values hidden whose key looks like a secret's;
// none if there is no JSON.
func masked(text json.RawMessage, none string) object {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if len(text) == 0 || d.Decode(&v) != nil {
		return object(none)
	}
	return object(request.Compact(mask(v)))
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

// maskedChange hides secrets in what was changed: {column: [old, new]}.
func maskedChange(text json.RawMessage) object { return masked(text, "null") }
