package request

import "strings"

// Mask hides the secrets in a value that was decoded from JSON.
func Mask(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if secretKey(key) {
				v[key] = "***"
			} else {
				v[key] = Mask(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = Mask(v[i])
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
